// cohort: reads and checks the samplesheet or BIDS folder before any other work is queued, splits it, plans the synthetic scans.

include { describe } from '../publish'
include { codeOf; fileOf; isSafePath; mountable; quoted; repeated } from '../script'

// Its stub checks truly, so that the rest of the stub run follows the user's own table.
process CHECK {
    label 'cpu_medium'

    input:
    val source
    val content
    val arms
    path files, stageAs: 'inputs/?/*'
    path model, stageAs: 'model/*'
    path init, stageAs: 'init/*'
    path baseline, stageAs: 'baseline/*'
    val library
    path masks, stageAs: 'library/*'
    val code

    output:
    path 'cohort', emit: folder
    path 'dataset_description.json', emit: description

    script:
    def model_option = model ? "--model ${model}" : ''
    def init_option = (init ? "--init ${init} " : '') + (baseline ? "--baseline ${baseline}" : '')
    def library_option = library ? "--lesion-library ${quoted(library)}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} cohort \\
        --input ${quoted(source)} ${repeated('--arm', arms)} \\
        ${model_option} ${init_option} ${library_option} ${task.ext.args} --out cohort
    cp cohort/dataset_description.json .
    """

    stub:
    def model_option = model ? "--model ${model}" : ''
    def init_option = (init ? "--init ${init} " : '') + (baseline ? "--baseline ${baseline}" : '')
    def library_option = library ? "--lesion-library ${quoted(library)}" : ''
    """
    lesionforge cohort --help > /dev/null
    lesionforge --threads ${task.cpus} ${task.ext.common} cohort \\
        --input ${quoted(source)} ${repeated('--arm', arms)} \\
        ${model_option} ${init_option} ${library_option} ${task.ext.args} --out cohort
    cp cohort/dataset_description.json .
    """
}

// Fails for a scan or mask that CHECK left out, with what is wrong, so that it counts as any scan that a stage gave up.
process REFUSE {
    tag "${id}"
    label 'cpu_small'
    label 'one_scan'

    input:
    val id
    path problems

    script:
    """
    awk -F '\\t' '\$1 == "${id}" { print "Error: " \$2 ": " \$3 }' ${problems} >&2
    exit 2
    """
}

workflow COHORT {
    take:
    source // path of the samplesheet or BIDS folder
    files // list of the scans and masks that it names
    arms // names of the arms
    model // path of a model folder, or an empty list
    init // path of a model folder that training starts from, or an empty list
    baseline // path of a model folder to compare the arms with, or an empty list
    library // path of a folder of lesion masks, or an empty list

    main:
    masks = library ? masksIn(library) : []
    CHECK(
        source.toString(),
        digestOf(source, files) + [model, init, baseline].collect { folder -> folder ? describe(folder) : '' }.join(' '),
        arms,
        // The sheet itself too, so that an engine mounts its folder when no cell of it names a file.
        mounted(source.isDirectory() ? files : [source] + files),
        model,
        init,
        baseline,
        library ? library.toString() : '',
        mounted(masks),
        codeOf('cohort'),
    )
    folder = CHECK.out.folder
    description = CHECK.out.description
    scans = folder
        .flatMap { checked -> checked.resolve('cohort.tsv').splitCsv(header: true, sep: '\t') }
        .map { row -> scanOf(row) }
    pairs = folder.flatMap { checked -> checked.resolve('pairs.tsv').splitCsv(header: true, sep: '\t') }
    folds = folder.flatMap { checked -> checked.resolve('folds.tsv').splitCsv(header: true, sep: '\t') }
    problems = folder.map { checked -> checked.resolve('problems.tsv') }
    refused = problems.flatMap { table -> table.splitCsv(header: true, sep: '\t') }
    REFUSE(refused.map { row -> row.id }.unique(), problems)
    folder.subscribe { checked -> warn(checked.resolve('warnings.txt').readLines()) }

    emit:
    folder // cohort.tsv, folds.tsv and pairs.tsv
    description // dataset_description.json of the output folder
    scans // [meta, t1w, flair, [t2w or [], pdw or []], lesion_mask or [], brain_mask or [] or 'stripped']
    folds // [fold, id, subject, role, split, lesion_mask]; the fold is '' where there is one alone
    pairs // [synthetic_id, donor, canvas, split, load_ml, library_mask, fold, kind]
    refused // [id, column, problem] of scans and masks left out
}

// The files that CHECK reads by their own paths, and for an engine what links among them lead to.
def mounted(files) {
    def safe = files.findAll { path -> isSafePath(path.toString()) }
    return (safe + safe.findAll { path -> path.exists() }.collect { path -> mountable(path) }).unique(false)
}

def warn(lines) {
    if (lines) {
        log.warn("CHECK says:\n  ${lines.join('\n  ')}")
    }
}

// One row of the checked table. Its ids are safe names and its files exist: CHECK saw to it.
def scanOf(row) {
    def meta = row.subMap(['id', 'subject', 'session', 'role', 'split'])
    def brain_mask = row.brain_mask == 'stripped' ? 'stripped' : fileOf(row.brain_mask)
    return [meta, fileOf(row.t1w), fileOf(row.flair), [fileOf(row.t2w), fileOf(row.pdw)], fileOf(row.lesion_mask), brain_mask]
}

// Digest of the sheet's content, or of what a BIDS folder holds: the task gets its path as a value, which alone would not
// tell that it was edited.
def digestOf(source, files) {
    def table = source.isDirectory() ? source.resolve('participants.tsv') : source
    def content = table.isFile() ? table.bytes.md5() : ''
    return source.isDirectory() ? "${content} ${files.join('\n').md5()}".toString() : content
}

// Where a BIDS folder has no scan or mask for CHECK, but maybe many files: as `IGNORED` in cohort/bids.py.
def isIgnored(name) {
    return name.startsWith('.') || name.startsWith('freesurfer') || name in [
        'work', 'sourcedata', 'code', 'stimuli', 'func', 'dwi', 'fmap', 'perf', 'meg', 'eeg', 'ieeg', 'nirs', 'pet', 'beh',
    ]
}

// The scans and masks that the source names.
def filesOf(source) {
    return source.isDirectory() ? imagesIn(source, source) : filesNamedIn(source)
}

// The images of a BIDS folder that CHECK may read, and the tables of its root.
def imagesIn(folder, root) {
    def inside = folder.listFiles()
        .findAll { path -> folder != root || isTable(path.name) || path.name ==~ /sub-.*|derivatives/ }
        .sort { path -> path.toString() }
    def own = inside.findAll { path -> path.isFile() && (isImage(path.name) || (folder == root && isTable(path.name))) }
    return own + inside.findAll { path -> path.isDirectory() && !isIgnored(path.name) }.collectMany { path -> imagesIn(path, root) }
}

// The masks of a library, which CHECK reads by itself: staged so that a changed one is checked again.
def masksIn(folder) {
    def inside = folder.isDirectory() ? folder.listFiles().toList() : []
    return inside.findAll { path -> path.name ==~ /[^.].*\.nii(\.gz)?/ }.sort { path -> path.toString() }
}

// A resampled image (entity res), such as lesionforge writes, is none of its inputs.
def isImage(name) {
    return name ==~ /sub-.*_(T1w|FLAIR|T2w|PDw|mask)\.nii(\.gz)?/ && !name.contains('_res-')
}

def isTable(name) {
    return name in ['participants.tsv', 'dataset_description.json']
}

// Every existing file that a cell of the sheet names: staged for CHECK, so that a changed scan is checked again and an
// engine mounts its folder. This reads leniently and judges nothing; CHECK reports what is wrong with sheet and files.
def filesNamedIn(sheet) {
    return cellsOf(sheet)
        .findAll { cell -> isSafePath(cell) }
        .collect { cell -> sheet.parent.resolve(cell) }
        .findAll { path -> path.isFile() }
        .unique()
        .sort { path -> path.toString() }
}

// The cells of a CSV or TSV with any line ends and quotes; none where the text cannot be read as a table.
def cellsOf(sheet) {
    try {
        def separator = sheet.withReader('UTF-8') { reader -> reader.readLine() }.contains('\t') ? '\t' : ','
        return sheet
            .splitCsv(sep: separator, quote: '"', charset: 'UTF-8')
            .collectMany { cells -> cells.toList() }
            .collect { cell -> cell?.trim() }
            .findAll { cell -> cell }
    }
    catch (Exception _error) {
        return []
    }
}
