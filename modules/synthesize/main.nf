// synthesize: a generator learns scans from their intensity levels, then paints transplanted lesions onto canvases.

include { codeOf; repeated } from '../script'

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

// How bright lesions are, learned from the training patients for the masks of a library.
process STATISTICS {
    label 'cpu_small'

    input:
    tuple path(prepared, stageAs: 'prepare/*'), path(levels, stageAs: 'levels/*')
    val code

    output:
    path 'statistics', emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize statistics \\
        ${repeated('--prepared', prepared)} ${repeated('--levels', levels)} --out statistics
    """

    stub:
    """
    lesionforge synthesize statistics --help
    mkdir statistics
    """
}

process TRANSPLANT {
    tag "${id}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(id), val(brightness_option), val(load_ml), path(pair, stageAs: 'pair/*'), path(brightness, stageAs: 'brightness/*'), path(canvas, stageAs: 'canvas/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize transplant \\
        --id ${id} --pair ${pair} ${brightness_option} ${brightness} --canvas ${canvas} \\
        --load-ml ${load_ml} ${task.ext.args} --out .
    """

    stub:
    """
    lesionforge synthesize transplant --help
    mkdir ${id}
    touch ${id}/${id}_desc-draw.json
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
    cp ${transplant}/${id}_desc-draw.json ${id}
    touch ${id}/${id}_desc-provenance.json
    """
}

workflow SYNTHESIZE {
    take:
    patients // [id, prepared folder] of training and validation patients, never of test patients
    roster // table of their id, role and split
    training // [id] of training patients alone
    healthy // [id, prepared folder] of healthy canvases
    pairs // [synthetic_id, donor, canvas, split, load_ml, library_mask]
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

    // A mask of a library has no FLAIR: its lesions are as bright as those of the training patients.
    masks = pairs.filter { pair -> pair.library_mask }.map { pair -> [pair.donor] }.unique()
    learned_from = with_levels
        .join(training)
        .toSortedList { left, right -> left[0] <=> right[0] }
        .filter { rows -> rows }
        .map { rows -> [rows.collect { row -> row[1] }, rows.collect { row -> row[2] }] }
    STATISTICS(learned_from.combine(masks.count().filter { count -> count }).map { prepared, folders, _count -> [prepared, folders] }, code)
    brightness = LEVELS.out.folder
        .map { id, folder -> [id, '--donor-levels', folder] }
        .mix(masks.combine(STATISTICS.out.folder).map { id, folder -> [id, '--statistics', folder] })

    // A patient is a canvas with its lesions filled, which its levels folder holds; a healthy canvas is taken as it is.
    canvases = with_levels.mix(healthy.map { id, prepared -> [id, prepared, []] })
    on_canvas = pairs
        .map { pair -> [pair.donor, pair.canvas, pair.synthetic_id, pair.load_ml] }
        .combine(warped, by: [0, 1])
        .combine(brightness, by: 0)
        .map { _donor, canvas, id, load_ml, pair, option, folder -> [canvas, id, option, load_ml, pair, folder] }
        .combine(canvases, by: 0)
        .map { row -> row.drop(1) } // [id, option, load_ml, pair, folder, prepared canvas, levels of the canvas or []]
    TRANSPLANT(on_canvas.map { row -> row.take(6) }, code)

    to_paint = TRANSPLANT.out.folder.join(on_canvas.map { row -> [row[0], row[5], row[6]] })
    PAINT(to_paint, TRAIN_GENERATOR.out.folder, code)
    levels = LEVELS.out.folder
    generator = TRAIN_GENERATOR.out.folder
    synthetic = PAINT.out.folder

    emit:
    levels // [id, levels folder]
    generator // model folder
    synthetic // [synthetic_id, prepared folder]
}
