// What went wrong in tasks whose last try failed, each with its own words: Nextflow tells that of the first one alone.

// From the table of tasks of this start, maps of process, tag, exit, cause and folder; none if there is no such table.
def failuresIn(trace) {
    def rows = trace.exists() ? trace.splitCsv(header: true, sep: '\t') : []
    // A disk that is full cuts off the last row.
    return rows
        .findAll { row -> row.attempt && row.workdir }
        .groupBy { row -> row.name }
        .collect { _name, tries -> tries.max { row -> row.attempt as int } }
        .findAll { row -> row.status == 'FAILED' }
        .collect { row -> [process: row.process.tokenize(':').last(), tag: row.tag, exit: row.exit, cause: causeOf(row.exit, file(row.workdir, glob: false)), folder: row.workdir] }
}

// The last error that a task told of. One that was ended from outside could not: what the scheduler wrote into its log then counts.
def causeOf(exit, folder) {
    def errors = linesOf(folder.resolve('.command.err'))
    def error = errors.reverse().find { line -> line.startsWith('Error: ') }
    if (error) {
        return error
    }
    def noted = linesOf(folder.resolve('.command.log'))
    if (!exit.isInteger() || exit == '104' || (exit.toInteger() in 130..145)) {
        return (['ended from outside: memory, time, or its node'] + noted.findAll { line -> line =~ /slurmstepd|CANCELLED|oom|Killed/ }.takeRight(1)).join('; ')
    }
    return (noted + errors).takeRight(1).join('') ?: 'said nothing'
}

// Lines with something in them, each of 500 characters at most. Names in it are the user's: nothing of theirs that moves a cursor or
// turns a line around reaches a terminal or the table.
def linesOf(path) {
    def text = path.exists() ? new String(path.bytes, 'UTF-8') : ''
    return text.readLines().collect { line -> line.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/, ' ').trim().take(500) }.findAll { line -> line }
}

// A sentence for each of the first of them.
def failuresInWords(failures, table) {
    def shown = failures.take(30).collect { row -> "${row.process} (${row.tag}), exit code ${row.exit}: ${row.cause} [${row.folder}]".toString() }
    return failures.size() > shown.size() ? shown + ["and ${failures.size() - shown.size()} more, in ${table}".toString()] : shown
}

// The table of the output folder, which goes when there is none.
def writeFailures(failures, table) {
    def columns = ['process', 'tag', 'exit', 'cause', 'folder']
    java.nio.file.Files.deleteIfExists(table)
    if (failures) {
        table.text = ([columns.join('\t')] + failures.collect { row -> columns.collect { column -> row[column] }.join('\t') }).join('\n') + '\n'
    }
}
