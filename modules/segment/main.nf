// segment: the trained cascade applied to one scan.

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

workflow SEGMENT_SCANS {
    take:
    prepared // [id, prepared folder]
    models // [arm, model folder]

    main:
    to_segment = prepared.combine(models).map { id, folder, arm, model -> [arm, id, folder, model] }
    SEGMENT(to_segment, codeOf('segment'))
    folder = SEGMENT.out.folder

    emit:
    folder // [arm, id, segment folder]
}
