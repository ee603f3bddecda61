// register: one nonlinear registration per scan to the template; donors onto canvases by composition.

include { codeOf } from '../script'

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
    lesionforge register --help
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
    lesionforge register pair --help
    mkdir ${donor}_to_${canvas}
    """
}

workflow REGISTER {
    take:
    prepared // [id, prepared folder]
    pairs // [synthetic_id, donor, canvas, split]

    main:
    code = codeOf('register')
    wanted = pairs.flatMap { pair -> [pair.donor, pair.canvas] }.unique().map { id -> [id] }
    TO_TEMPLATE(prepared.join(wanted), code)

    // Two synthetic scans of the same donor and canvas share one warp.
    both = prepared.join(TO_TEMPLATE.out.folder)
    to_pair = pairs
        .map { pair -> [pair.donor, pair.canvas] }
        .unique()
        .combine(both, by: 0)
        .map { donor, canvas, donor_prepared, donor_transforms -> [canvas, donor, donor_prepared, donor_transforms] }
        .combine(both, by: 0)
        .map { canvas, donor, donor_prepared, donor_transforms, canvas_prepared, canvas_transforms ->
            [donor, canvas, donor_prepared, donor_transforms, canvas_prepared, canvas_transforms]
        }
    PAIR(to_pair, code)
    transforms = TO_TEMPLATE.out.folder
    warped = PAIR.out.folder

    emit:
    transforms // [id, transforms folder]
    warped // [donor, canvas, pair folder]
}
