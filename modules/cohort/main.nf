// cohort: reads and checks the samplesheet before any other work is queued, splits it, plans the synthetic scans.

include { codeOf; quoted } from '../script'

// Its stub checks truly, so that the rest of the stub run follows the user's own table.
process CHECK {
    label 'cpu_small'

    input:
    val sheet
    val content
    path files, stageAs: 'inputs/?/*'
    path model, stageAs: 'model/*'
    val code

    output:
    path 'cohort', emit: folder
    path 'dataset_description.json', emit: description

    script:
    def model_option = model ? "--model ${model}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} cohort \\
        --input ${quoted(sheet)} ${model_option} ${task.ext.args} --out cohort
    cp cohort/dataset_description.json .
    """

    stub:
    def model_option = model ? "--model ${model}" : ''
    """
    lesionforge cohort --help
    lesionforge --threads ${task.cpus} ${task.ext.common} cohort \\
        --input ${quoted(sheet)} ${model_option} ${task.ext.args} --out cohort
    cp cohort/dataset_description.json .
    """
}

workflow COHORT {
    take:
    sheet // path of the samplesheet
    model // path of a model folder, or an empty list

    main:
    CHECK(sheet.toString(), digestOf(sheet), filesNamedIn(sheet), model, codeOf('cohort'))
    folder = CHECK.out.folder
    scans = folder
        .flatMap { checked -> checked.resolve('cohort.tsv').splitCsv(header: true, sep: '\t') }
        .map { row -> scanOf(row) }
    pairs = folder.flatMap { checked -> checked.resolve('pairs.tsv').splitCsv(header: true, sep: '\t') }

    emit:
    folder // cohort.tsv and pairs.tsv
    scans // [meta, t1w, flair, lesion_mask or [], brain_mask or [] or 'stripped']
    pairs // [synthetic_id, donor, canvas, split]
}

// One row of the checked table. Its ids are safe names and its files exist: CHECK saw to it.
def scanOf(row) {
    def meta = row.subMap(['id', 'subject', 'session', 'role', 'split'])
    def brain_mask = row.brain_mask == 'stripped' ? 'stripped' : fileOf(row.brain_mask)
    return [meta, fileOf(row.t1w), fileOf(row.flair), fileOf(row.lesion_mask), brain_mask]
}

// The file that a cell names; an empty list for an empty cell, which a process takes as no file.
def fileOf(cell) {
    return cell ? file(cell, glob: false) : []
}

// Digest of the sheet's content: the task gets its path as a value, which alone would not tell that it was edited.
def digestOf(sheet) {
    return sheet.isFile() ? sheet.bytes.md5() : ''
}

// Every existing file that a cell of the sheet names: staged for CHECK, so that a changed scan is checked again and an
// engine mounts its folder. This reads leniently and judges nothing; CHECK reports what is wrong with sheet and files.
def filesNamedIn(sheet) {
    return cellsOf(sheet)
        .findAll { cell -> isSafePath(cell) && isSafePath(sheet.parent.toString()) }
        .collect { cell -> sheet.parent.resolve(cell) }
        .findAll { path -> path.isFile() }
        .unique()
        .sort { path -> path.toString() }
}

// The cells of a CSV or TSV with any line ends and quotes; none where the text cannot be read as a table.
def cellsOf(sheet) {
    try {
        def lines = sheet.text.replace('\uFEFF', '').split(/\r\n|\r|\n/)
        def separator = lines[0].contains('\t') ? '\t' : ','
        return lines.toList()
            .findAll { line -> line.trim() }
            .collectMany { line -> line.splitCsv(sep: separator, quote: '"').first().toList() }
            .collect { cell -> cell?.trim() }
            .findAll { cell -> cell }
    }
    catch (Exception _error) {
        return []
    }
}

// Whether Nextflow can carry a file of this name into a task: it leaves these characters to the shell. CHECK refuses them.
def isSafePath(text) {
    return !(text =~ /[\p{Cntrl}$`\\"*?\[\]{};|<>!]/)
}
