// synthesize: a generator learns scans from their intensity levels, then paints transplanted lesions onto canvases.

include { codeOf } from '../script'

process LEVELS {
    tag "${id}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(id), path(prepared, stageAs: 'prepare/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize levels --prepared ${prepared} ${task.ext.args} --out .
    """

    stub:
    """
    lesionforge synthesize levels --help
    mkdir ${id}
    touch ${id}/${id}_desc-levels.json
    """
}

process TRAIN_GENERATOR {
    label 'gpu'

    input:
    path prepared, stageAs: 'prepare/*'
    path levels, stageAs: 'levels/*'
    path roster, stageAs: 'cohort/*'
    val code

    output:
    path 'generator', emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize train-generator \\
        --root . --cohort cohort ${task.ext.args} --out generator
    """

    stub:
    """
    lesionforge synthesize train-generator --help
    mkdir generator
    touch generator/model.json
    """
}

process TRANSPLANT {
    tag "${id}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(id), path(pair, stageAs: 'pair/*'), path(donor_levels, stageAs: 'donor_levels/*'), path(canvas, stageAs: 'canvas/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize transplant \\
        --id ${id} --pair ${pair} --donor-levels ${donor_levels} --canvas ${canvas} --out .
    """

    stub:
    """
    lesionforge synthesize transplant --help
    mkdir ${id}
    """
}

process PAINT {
    tag "${id}"
    label 'gpu'
    label 'one_scan'

    input:
    tuple val(id), path(transplant, stageAs: 'transplant/*'), path(canvas, stageAs: 'canvas/*'), path(canvas_levels, stageAs: 'canvas_levels/*')
    path generator
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    def canvas_option = canvas_levels ? "--canvas-levels ${canvas_levels}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize paint \\
        --transplant ${transplant} --canvas ${canvas} ${canvas_option} --generator ${generator} --out .
    """

    stub:
    """
    lesionforge synthesize paint --help
    mkdir ${id}
    touch ${id}/${id}_desc-provenance.json
    """
}

workflow SYNTHESIZE {
    take:
    patients // [id, prepared folder] of training and validation patients, never of test patients
    roster // table of their id, role and split
    healthy // [id, prepared folder] of healthy canvases
    pairs // [synthetic_id, donor, canvas, split]
    warped // [donor, canvas, pair folder]

    main:
    code = codeOf('synthesize')
    LEVELS(patients, code)
    with_levels = patients.join(LEVELS.out.folder)

    collected = with_levels.toSortedList { left, right -> left[0] <=> right[0] }.filter { rows -> rows }
    TRAIN_GENERATOR(
        collected.map { rows -> rows.collect { row -> row[1] } },
        collected.map { rows -> rows.collect { row -> row[2] } },
        roster,
        code,
    )

    // A patient is a canvas with its lesions filled, which its levels folder holds; a healthy canvas is taken as it is.
    canvases = with_levels.mix(healthy.map { id, prepared -> [id, prepared, []] })
    on_canvas = pairs
        .map { pair -> [pair.donor, pair.canvas, pair.synthetic_id] }
        .combine(warped, by: [0, 1])
        .combine(LEVELS.out.folder, by: 0)
        .map { _donor, canvas, id, pair, donor_levels -> [canvas, id, pair, donor_levels] }
        .combine(canvases, by: 0)
        .map { _canvas, id, pair, donor_levels, prepared, canvas_levels -> [id, pair, donor_levels, prepared, canvas_levels] }
    TRANSPLANT(on_canvas.map { id, pair, donor_levels, prepared, _canvas_levels -> [id, pair, donor_levels, prepared] }, code)

    to_paint = TRANSPLANT.out.folder
        .join(on_canvas.map { id, _pair, _donor_levels, prepared, canvas_levels -> [id, prepared, canvas_levels] })
    PAINT(to_paint, TRAIN_GENERATOR.out.folder, code)
    levels = LEVELS.out.folder
    generator = TRAIN_GENERATOR.out.folder
    synthetic = PAINT.out.folder

    emit:
    levels // [id, levels folder]
    generator // model folder
    synthetic // [synthetic_id, prepared folder]
}
