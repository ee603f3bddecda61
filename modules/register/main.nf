// register: donors onto canvases, composed from one registration per scan to the template, or directly pair by pair.

include { codeOf; fileOf } from '../script'
include { QUALITY as QUALITY_OF_TRANSFORM } from '../prepare/quality'

process TO_TEMPLATE {
    tag "${id}"
    label 'cpu_large'
    label 'one_scan'

    input:
    tuple val(id), path(prepared, stageAs: 'prepare/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} register --prepared ${prepared} --out .
    """

    stub:
    """
    lesionforge register --help > /dev/null
    mkdir ${id}
    touch ${id}/${id}_desc-register.json
    """
}

process PAIR {
    tag "${donor} to ${canvas}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(donor), val(canvas), path(donor_prepared, stageAs: 'donor/*'), path(donor_transforms, stageAs: 'donor_transforms/*'), path(canvas_prepared, stageAs: 'canvas/*'), path(canvas_transforms, stageAs: 'canvas_transforms/*')
    val code

    output:
    tuple val(donor), val(canvas), path("${donor}_to_${canvas}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} register pair \\
        --donor ${donor_prepared} --donor-transforms ${donor_transforms} \\
        --canvas ${canvas_prepared} --canvas-transforms ${canvas_transforms} --out .
    """

    stub:
    """
    lesionforge register pair --help > /dev/null
    mkdir ${donor}_to_${canvas}
    """
}

process PAIR_LIBRARY {
    tag "${donor} to ${canvas}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(canvas), val(donor), path(mask, stageAs: 'lesions/*'), path(canvas_prepared, stageAs: 'canvas/*'), path(canvas_transforms, stageAs: 'canvas_transforms/*')
    val code

    output:
    tuple val(donor), val(canvas), path("${donor}_to_${canvas}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} register pair \\
        --lesions ${mask} --lesions-id ${donor} --canvas ${canvas_prepared} --canvas-transforms ${canvas_transforms} --out .
    """

    stub:
    """
    lesionforge register pair --help > /dev/null
    mkdir ${donor}_to_${canvas}
    """
}

process PAIR_DIRECTLY {
    tag "${donor} to ${canvas}"
    label 'cpu_large'
    label 'one_scan'

    input:
    tuple val(donor), val(canvas), path(donor_prepared, stageAs: 'donor/*'), path(canvas_prepared, stageAs: 'canvas/*')
    val code

    output:
    tuple val(donor), val(canvas), path("${donor}_to_${canvas}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} register pair \\
        --donor ${donor_prepared} --canvas ${canvas_prepared} --out .
    """

    stub:
    """
    lesionforge register pair --help > /dev/null
    mkdir ${donor}_to_${canvas}
    """
}

workflow REGISTER {
    take:
    prepared // [id, prepared folder]
    pairs // [synthetic_id, donor, canvas, library_mask, ...] of the scans that need their donor on their canvas
    method // composed or pairwise
    limits // file of own quality limits, or an empty list

    main:
    code = codeOf('register')
    // Two synthetic scans of the same donor and canvas share one warp.
    wanted = pairs.filter { pair -> !pair.library_mask }.map { pair -> [pair.donor, pair.canvas] }.unique()
    // A mask of a library lies in template space, so that its canvas is all that is registered.
    masks = pairs
        .filter { pair -> pair.library_mask }
        .map { pair -> [pair.canvas, pair.donor, fileOf(pair.library_mask)] }
        .unique()
    under_masks = masks.map { canvas, _donor, _mask -> canvas }.unique()
    scans = wanted.flatten().mix(under_masks).unique()
    wanted.mix(under_masks).count().combine(scans.count()).subscribe { count, subjects ->
        log.info("Registrations: ${method == 'pairwise' ? count : subjects} (composed takes ${subjects}, one per scan; pairwise ${count}, one per pair)")
    }

    TO_TEMPLATE(prepared.join((method == 'pairwise' ? under_masks : scans).map { id -> [id] }), code)
    transforms = TO_TEMPLATE.out.folder
    figures = transforms.map { id, folder -> [id, folder.resolve("${id}_desc-register.json")] }
    QUALITY_OF_TRANSFORM(figures, limits, codeOf('prepare'))
    registered = prepared.join(transforms.join(QUALITY_OF_TRANSFORM.out.id.map { id -> [id] }))
    PAIR_LIBRARY(masks.combine(registered, by: 0), code)

    warped = channel.empty()
    if (method == 'pairwise') {
        PAIR_DIRECTLY(withBoth(wanted, prepared), code)
        warped = PAIR_DIRECTLY.out.folder.mix(PAIR_LIBRARY.out.folder)
    }
    else {
        PAIR(withBoth(wanted, registered), code)
        warped = PAIR.out.folder.mix(PAIR_LIBRARY.out.folder)
    }

    emit:
    transforms // [id, transforms folder] of all scans, those beyond a quality limit too; when pairwise, of those under masks of a library
    warped // [donor, canvas, pair folder]
}

// [donor, canvas, the donor's folders, the canvas' folders], from [donor, canvas] and [id, folders].
def withBoth(wanted, folders) {
    return wanted
        .combine(folders, by: 0)
        .map { row -> [row[1], row[0]] + row.drop(2) }
        .combine(folders, by: 0)
        .map { row -> [row[1], row[0]] + row.drop(2) }
}
