// synthesize: a generator learns scans from their intensity levels, then paints transplanted lesions onto canvases.

include { codeOf; codeOfNetworks; repeated; runName } from '../script'

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
    lesionforge synthesize levels --help > /dev/null
    mkdir ${id}
    touch ${id}/${id}_desc-levels.json
    """
}

process TRAIN_GENERATOR {
    tag "${fold}"
    label 'gpu'
    label 'one_network'

    input:
    tuple val(fold), path(prepared, stageAs: 'prepare/*'), path(levels, stageAs: 'levels/*'), path(roster, stageAs: 'cohort/cohort.tsv')
    val code

    output:
    tuple val(fold), path("${runName('generator', fold)}"), emit: folder

    script:
    def name = runName('generator', fold)
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize train-generator \\
        --root . --cohort cohort ${task.ext.args} ${task.ext.device} --out ${name}
    """

    stub:
    def name = runName('generator', fold)
    """
    lesionforge synthesize train-generator --help > /dev/null
    mkdir ${name}
    touch ${name}/model.json
    """
}

// How bright lesions are, learned from the training patients for the masks of a library.
process STATISTICS {
    tag "${fold}"
    label 'cpu_small'
    label 'one_network'

    input:
    tuple val(fold), path(prepared, stageAs: 'prepare/*'), path(levels, stageAs: 'levels/*')
    val code

    output:
    tuple val(fold), path('statistics'), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} synthesize statistics \\
        ${repeated('--prepared', prepared)} ${repeated('--levels', levels)} --out statistics
    """

    stub:
    """
    lesionforge synthesize statistics --help > /dev/null
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
    lesionforge synthesize transplant --help > /dev/null
    mkdir ${id}
    touch ${id}/${id}_desc-draw.json
    """
}

process PAINT {
    tag "${id}"
    label 'gpu'
    label 'one_scan'

    input:
    tuple val(id), path(transplant, stageAs: 'transplant/*'), path(canvas, stageAs: 'canvas/*'), path(canvas_levels, stageAs: 'canvas_levels/*'), path(generator)
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
    lesionforge synthesize paint --help > /dev/null
    mkdir ${id}
    cp ${transplant}/${id}_desc-draw.json ${id}
    touch ${id}/${id}_desc-provenance.json
    """
}

workflow SYNTHESIZE {
    take:
    patients // [id, fold, split, annotated, prepared folder] of who trains or validates in each fold, never of its test patients
    rosters // [fold, table of the ids, roles and splits of its patients] of the folds that need a generator
    healthy // [id, prepared folder] of healthy canvases
    pairs // [synthetic_id, donor, canvas, split, load_ml, library_mask, fold, kind] of the scans to paint
    warped // [donor, canvas, pair folder]

    main:
    code = codeOf('synthesize')
    networks = codeOfNetworks('synthesize')
    LEVELS(patients.map { id, _fold, _split, _annotated, prepared -> [id, prepared] }.unique { row -> row[0] }, code)
    learned_from = patients
        .combine(LEVELS.out.folder, by: 0)
        .map { id, fold, split, _annotated, prepared, levels -> [fold, [id, split, prepared, levels]] }
        .groupTuple()
        .map { fold, rows -> [fold, rows.sort { row -> row[0] }] }
    TRAIN_GENERATOR(learned_from.map { fold, rows -> [fold, rows.collect { row -> row[2] }, rows.collect { row -> row[3] }] }.join(rosters), networks)

    // A mask of a library has no FLAIR: its lesions are as bright as those of the training patients; what validates is not
    // learned from.
    donors = pairs.map { pair -> [pair.donor, pair.fold, pair.library_mask ? true : false] }.unique()
    masks = donors.filter { _donor, _fold, is_mask -> is_mask }.map { donor, fold, _is_mask -> [fold, donor] }
    training = learned_from
        .map { fold, rows -> [fold, rows.findAll { row -> row[1] == 'train' }] }
        .filter { _fold, rows -> rows }
        .map { fold, rows -> [fold, rows.collect { row -> row[2] }, rows.collect { row -> row[3] }] }
    STATISTICS(training.join(masks.map { fold, _donor -> [fold] }.unique()), code)
    brightness = donors
        .combine(LEVELS.out.folder, by: 0)
        .map { donor, fold, _is_mask, folder -> [fold, donor, '--donor-levels', folder] }
        .mix(masks.combine(STATISTICS.out.folder, by: 0).map { fold, donor, folder -> [fold, donor, '--statistics', folder] })

    // A patient is a canvas with its lesions filled, which its levels folder holds; a healthy canvas is taken as it is.
    canvases = patients
        .map { id, _fold, _split, _annotated, prepared -> [id, prepared] }
        .unique { row -> row[0] }
        .join(LEVELS.out.folder)
        .mix(healthy.map { id, prepared -> [id, prepared, []] })
    on_canvas = pairs
        .map { pair -> [pair.donor, pair.canvas, pair.fold, pair.synthetic_id, pair.load_ml] }
        .combine(warped, by: [0, 1])
        .map { donor, canvas, fold, id, load_ml, pair -> [fold, donor, canvas, id, load_ml, pair] }
        .combine(brightness, by: [0, 1])
        .map { fold, _donor, canvas, id, load_ml, pair, option, folder -> [canvas, id, option, load_ml, pair, folder, fold] }
        .combine(canvases, by: 0)
        .map { row -> row.drop(1) } // [id, option, load_ml, pair, folder, fold, prepared canvas, levels of the canvas or []]
    TRANSPLANT(on_canvas.map { row -> row.take(5) + [row[6]] }, code)

    to_paint = TRANSPLANT.out.folder
        .join(on_canvas.map { row -> [row[0], row[6], row[7], row[5]] })
        .map { id, transplant, canvas, levels, fold -> [fold, id, transplant, canvas, levels] }
        .combine(TRAIN_GENERATOR.out.folder, by: 0)
        .map { row -> row.drop(1) }
    PAINT(to_paint, networks)
    levels = LEVELS.out.folder
    generator = TRAIN_GENERATOR.out.folder
    synthetic = PAINT.out.folder

    emit:
    levels // [id, levels folder]
    canvases // [id, prepared folder, levels folder or an empty list]
    generator // [fold, model folder]
    synthetic // [synthetic_id, prepared folder]
}
