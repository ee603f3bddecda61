// segment: the trained cascade applied to each scan, and one table of what was found in the cohort.

include { describe } from '../publish'
include { codeOf; codeOfNetworks } from '../script'

process SEGMENT {
    tag "${id} ${run}"
    label 'gpu'
    label 'one_scan'

    input:
    // Of a folder Nextflow sees only its own time, not those of its files: a model replaced in place shows in its content.
    tuple val(run), val(id), path(prepared, stageAs: 'prepare/*'), path(model, stageAs: 'model/*'), val(content)
    val code

    output:
    tuple val(run), val(id), path("${run}/${id}"), emit: folder

    script:
    // A model from elsewhere has a name of its own.
    def named = run == 'model' ? '' : "--name ${run}"
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} segment --prepared ${prepared} --model ${model} \
        ${named} ${task.ext.args} --out ${run}
    """

    stub:
    """
    lesionforge segment --help > /dev/null
    mkdir -p ${run}/${id}
    touch ${run}/${id}/${id}_desc-segment.json
    """
}

process TABULATE {
    label 'cpu_small'

    input:
    path summaries, stageAs: 'summaries/?/*'
    val code

    output:
    path 'scans.{tsv,json}', emit: table

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} segment tabulate ${summaries} --out .
    """

    stub:
    """
    lesionforge segment tabulate --help > /dev/null
    touch scans.tsv scans.json
    """
}

// One that this run trained nobody replaces: its path says which it is, and the times of files that another node wrote may change.
def contentOf(model) {
    return model.startsWith(workflow.workDir) ? '' : describe(model)
}

workflow SEGMENT_SCANS {
    take:
    prepared // [fold, id, prepared folder] of the scans that each fold segments
    models // [run, fold, arm, seed or '', model folder]

    main:
    to_segment = prepared
        .combine(models.map { run, fold, _arm, _seed, model -> [fold, run, model, contentOf(model)] }, by: 0)
        .map { _fold, id, folder, run, model, content -> [run, id, folder, model, content] }
    SEGMENT(to_segment, codeOfNetworks('segment'))
    expected = to_segment.map { row -> row.take(2) }
    folder = SEGMENT.out.folder
    summaries = folder
        .toSortedList { left, right -> left[0] <=> right[0] ?: left[1] <=> right[1] }
        .map { rows -> rows.collect { _run, id, scan -> scan.resolve("${id}_desc-segment.json") } }
    TABULATE(summaries.filter { paths -> paths }, codeOf('segment'))
    table = TABULATE.out.table

    emit:
    folder // [run, id, segment folder]
    table // scans.tsv and its data dictionary
    expected // [run, id]
}
