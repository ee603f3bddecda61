// segment: the trained cascade applied to each scan, and one table of what was found in the cohort.

include { codeOf } from '../script'

process SEGMENT {
    tag "${id} ${arm}"
    label 'gpu'
    label 'one_scan'

    input:
    tuple val(arm), val(id), path(prepared, stageAs: 'prepare/*'), path(model, stageAs: 'model/*')
    val code

    output:
    tuple val(arm), val(id), path("${arm}/${id}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} segment --prepared ${prepared} --model ${model} --out ${arm}
    """

    stub:
    """
    lesionforge segment --help
    mkdir -p ${arm}/${id}
    touch ${arm}/${id}/${id}_desc-segment.json
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
    lesionforge segment tabulate --help
    touch scans.tsv scans.json
    """
}

workflow SEGMENT_SCANS {
    take:
    prepared // [id, prepared folder]
    models // [arm, model folder]

    main:
    code = codeOf('segment')
    to_segment = prepared.combine(models).map { id, folder, arm, model -> [arm, id, folder, model] }
    SEGMENT(to_segment, code)
    folder = SEGMENT.out.folder
    summaries = folder.map { _arm, id, scan -> scan.resolve("${id}_desc-segment.json") }
    TABULATE(summaries.toSortedList { path -> path.toString() }.filter { paths -> paths }, code)
    table = TABULATE.out.table

    emit:
    folder // [arm, id, segment folder]
    table // scans.tsv and its data dictionary
}
