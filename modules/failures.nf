// What went wrong in tasks whose last try failed, each with its own words: Nextflow tells that of the first one alone.

// From the table of tasks of this start, maps of process, tag, exit, cause and folder; none if there is no such table.
def failuresIn(trace) {
    def rows = trace.exists() ? trace.splitCsv(header: true, sep: '\t') : []
    return rows
        .groupBy { row -> row.name }
        .collect { _name, tries -> tries.max { row -> row.attempt as int } }
        .findAll { row -> row.status == 'FAILED' }
        .collect { row -> [process: row.process.tokenize(':').last(), tag: row.tag, exit: row.exit, cause: causeIn(file(row.workdir, glob: false)), folder: row.workdir] }
}

// The last line of a task's log that says Error, else its last line; empty without one. Names in it are the user's: no control
// character of theirs reaches a terminal or the table.
def causeIn(folder) {
    def log_file = folder.resolve('.command.err')
    def lines = log_file.exists() ? log_file.readLines().collect { line -> line.replaceAll(/\p{Cntrl}+/, ' ').trim() }.findAll { line -> line } : []
    def said = lines.reverse().find { line -> line.startsWith('Error: ') } ?: (lines ? lines.last() : '')
    return said.length() > 500 ? "${said.take(500)} ...".toString() : said
}

// Writes them into a table of the output folder, which without any goes, and returns a sentence each for the first of them.
def listFailures(failures, outdir) {
    def table = outdir.resolve('pipeline_info/failed.tsv')
    def columns = ['process', 'tag', 'exit', 'cause', 'folder']
    java.nio.file.Files.deleteIfExists(table)
    if (failures) {
        table.text = ([columns.join('\t')] + failures.collect { row -> columns.collect { column -> row[column] }.join('\t') }).join('\n') + '\n'
    }
    def shown = failures.take(30).collect { row -> "${row.process} (${row.tag}), exit code ${row.exit}: ${row.cause ?: 'said nothing'} [${row.folder}]".toString() }
    return failures.size() > shown.size() ? shown + ["and ${failures.size() - shown.size()} more, in ${table}".toString()] : shown
}
