// prepare: skull-strip, bias correction, all images on the working grid, tissues, normalised intensities, quality limits.

include { codeOf } from '../script'
include { QUALITY } from './quality'

process STRIP {
    tag "${id}"
    label 'cpu_medium'
    label 'one_scan'

    input:
    tuple val(id), path(t1w, stageAs: 't1w/*'), path(flair, stageAs: 'flair/*'), path(t2w, stageAs: 't2w/*'), path(pdw, stageAs: 'pdw/*'), path(brain_mask, stageAs: 'brain_mask/*'), val(stripped)
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    def further = furtherOptions(t2w, pdw)
    def mask_option = stripped ? '--brain-mask stripped' : brain_mask ? "--brain-mask ${brain_mask}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} prepare strip \\
        --id ${id} --t1w ${t1w} --flair ${flair} ${further} ${mask_option} ${task.ext.args} --out .
    """

    stub:
    """
    lesionforge prepare strip --help > /dev/null
    mkdir ${id}
    """
}

process ALIGN {
    tag "${id}"
    label 'cpu_medium'
    label 'one_scan'

    input:
    tuple val(id), path(t1w, stageAs: 't1w/*'), path(flair, stageAs: 'flair/*'), path(t2w, stageAs: 't2w/*'), path(pdw, stageAs: 'pdw/*'), path(lesion_mask, stageAs: 'lesion_mask/*'), path(stripped, stageAs: 'strip/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    def further = furtherOptions(t2w, pdw)
    def mask_option = lesion_mask ? "--lesion-mask ${lesion_mask}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} prepare align \\
        --id ${id} --t1w ${t1w} --flair ${flair} ${further} ${mask_option} ${task.ext.args} --stripped ${stripped} --out .
    """

    stub:
    """
    lesionforge prepare align --help > /dev/null
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
    lesionforge prepare tissues --help > /dev/null
    mkdir ${id}
    touch ${id}/${id}_desc-prepare.json
    """
}

workflow PREPARE {
    take:
    scans // [meta, t1w, flair, [t2w or [], pdw or []], lesion_mask or [], brain_mask or [] or 'stripped']
    limits // file of own quality limits, or an empty list

    main:
    // The processes get the id alone, not the meta: a scan that changes its split needs no new preparation.
    code = codeOf('prepare')
    raw = scans.map { meta, t1w, flair, further, lesion_mask, brain_mask -> [meta.id, t1w, flair] + further + [lesion_mask, brain_mask] }
    to_strip = raw.map { id, t1w, flair, t2w, pdw, _lesion_mask, brain_mask ->
        [id, t1w, flair, t2w, pdw] + (brain_mask == 'stripped' ? [[], true] : [brain_mask, false])
    }
    STRIP(to_strip, code)
    to_align = raw
        .map { row -> row.take(6) } // [id, t1w, flair, t2w, pdw, lesion_mask]
        .join(STRIP.out.folder)
    ALIGN(to_align, code)
    TISSUES(STRIP.out.folder.join(ALIGN.out.folder), code)
    measured = TISSUES.out.folder
    QUALITY(measured.map { id, folder -> [id, folder.resolve("${id}_desc-prepare.json")] }, limits, code)
    folder = measured.join(QUALITY.out.id.map { id -> [id] })

    emit:
    folder // [id, prepared folder] of scans within their quality limits
    measured // the same of all scans
}

// The options of the contrasts besides T1w and FLAIR that a scan has.
def furtherOptions(t2w, pdw) {
    return [t2w ? "--t2w ${t2w}" : '', pdw ? "--pdw ${pdw}" : ''].findAll { option -> option }.join(' ')
}
