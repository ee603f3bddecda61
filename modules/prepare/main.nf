// prepare: skull-strip, bias correction, all images on the working grid, tissues, normalised intensities.

include { codeOf } from '../script'

process STRIP {
    tag "${id}"
    label 'cpu_medium'
    label 'one_scan'

    input:
    tuple val(id), path(t1w, stageAs: 't1w/*'), path(brain_mask, stageAs: 'brain_mask/*'), val(stripped)
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    def mask_option = stripped ? '--brain-mask stripped' : brain_mask ? "--brain-mask ${brain_mask}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} prepare strip \\
        --id ${id} --t1w ${t1w} ${mask_option} ${task.ext.args} --out .
    """

    stub:
    """
    lesionforge prepare strip --help
    mkdir ${id}
    """
}

process ALIGN {
    tag "${id}"
    label 'cpu_medium'
    label 'one_scan'

    input:
    tuple val(id), path(t1w, stageAs: 't1w/*'), path(flair, stageAs: 'flair/*'), path(lesion_mask, stageAs: 'lesion_mask/*'), path(stripped, stageAs: 'strip/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    def mask_option = lesion_mask ? "--lesion-mask ${lesion_mask}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} prepare align \\
        --id ${id} --t1w ${t1w} --flair ${flair} ${mask_option} --stripped ${stripped} --out .
    """

    stub:
    """
    lesionforge prepare align --help
    mkdir ${id}
    """
}

process TISSUES {
    tag "${id}"
    label 'cpu_medium'
    label 'one_scan'

    input:
    tuple val(id), path(stripped, stageAs: 'strip/*'), path(aligned, stageAs: 'align/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} prepare tissues \\
        --id ${id} --stripped ${stripped} --aligned ${aligned} --out .
    """

    stub:
    """
    lesionforge prepare tissues --help
    mkdir ${id}
    touch ${id}/${id}_desc-prepare.json
    """
}

workflow PREPARE {
    take:
    scans // [meta, t1w, flair, lesion_mask or [], brain_mask or [] or 'stripped']

    main:
    // The processes get the id alone, not the meta: a scan that changes its split needs no new preparation.
    code = codeOf('prepare')
    raw = scans.map { meta, t1w, flair, lesion_mask, brain_mask -> [meta.id, t1w, flair, lesion_mask, brain_mask] }
    to_strip = raw.map { id, t1w, _flair, _lesion_mask, brain_mask ->
        brain_mask == 'stripped' ? [id, t1w, [], true] : [id, t1w, brain_mask, false]
    }
    STRIP(to_strip, code)
    to_align = raw
        .map { id, t1w, flair, lesion_mask, _brain_mask -> [id, t1w, flair, lesion_mask] }
        .join(STRIP.out.folder)
    ALIGN(to_align, code)
    TISSUES(STRIP.out.folder.join(ALIGN.out.folder), code)
    folder = TISSUES.out.folder

    emit:
    folder // [id, prepared folder]
}
