// assemble: the data set of each arm of the experiment, as a table that names folders beside its own.

include { codeOf; runName } from '../script'

process ASSEMBLE {
    tag "${runName(arm, fold)}"
    label 'cpu_small'
    label 'one_scan'

    input:
    // The table of the fold's scans holds neither its test subject nor anybody else who must not be learned from.
    tuple val(fold), val(arm), path(roster, stageAs: 'cohort/cohort.tsv'), path(plan, stageAs: 'cohort/pairs.tsv'), path(prepared, stageAs: 'prepare/*'), path(synthetic, stageAs: 'synthesize/*'), path(made, stageAs: 'assemble/*')
    val code

    output:
    tuple val(fold), val(arm), path("assemble/${runName(arm, fold)}.tsv"), emit: index

    script:
    def name = runName(arm, fold)
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} assemble --cohort cohort --root . --arm ${arm} --out assemble
    ${fold ? "mv assemble/${arm}.tsv assemble/${name}.tsv" : ''}
    """

    stub:
    def name = runName(arm, fold)
    """
    lesionforge assemble --help > /dev/null
    mkdir -p assemble
    printf 'arm\\tfolder\\n' > assemble/${name}.tsv
    for folder in ${prepared} ${synthetic} ${made}; do
        printf '%s\\t../%s\\n' ${arm} \$folder >> assemble/${name}.tsv
    done
    """
}

// An augmented copy of an annotated scan, for the arm classical.
process CLASSICAL {
    tag "${id}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(id), val(seed), path(prepared, stageAs: 'prepare/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} assemble classical \\
        --id ${id} --prepared ${prepared} --seed ${seed} --out .
    """

    stub:
    """
    lesionforge assemble classical --help > /dev/null
    mkdir ${id}
    touch ${id}/${id}_desc-provenance.json ${id}/${id}_desc-draw.json
    """
}

// A patient's lesions and what is around them pasted into another scan, for the arm mix.
process MIX {
    tag "${id}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(id), val(seed), path(pair, stageAs: 'pair/*'), path(donor, stageAs: 'donor/*'), path(canvas, stageAs: 'canvas/*'), path(canvas_levels, stageAs: 'canvas_levels/*')
    val code

    output:
    tuple val(id), path("${id}"), emit: folder

    script:
    def canvas_option = canvas_levels ? "--canvas-levels ${canvas_levels}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} assemble mix \\
        --id ${id} --pair ${pair} --donor ${donor} --canvas ${canvas} ${canvas_option} --seed ${seed} --out .
    """

    stub:
    """
    lesionforge assemble mix --help > /dev/null
    mkdir ${id}
    touch ${id}/${id}_desc-provenance.json ${id}/${id}_desc-draw.json
    """
}

workflow ASSEMBLE_ARMS {
    take:
    patients // [id, fold, split, annotated, prepared folder] of who trains or validates in each fold
    canvases // [id, prepared folder, levels folder or an empty list]
    synthetic // [id, prepared folder] of painted scans
    warped // [donor, canvas, pair folder]
    pairs // [synthetic_id, donor, canvas, ..., fold, kind] of all scans to make
    rosters // [fold, table of its scans that train or validate]
    wanted // [fold, arm]
    seed // of the draws of the arms classical and mix

    main:
    code = codeOf('assemble')
    prepared = patients.map { id, _fold, _split, _annotated, folder -> [id, folder] }.unique { row -> row[0] }
    copies = pairs
        .filter { pair -> pair.kind == 'cla' }
        .map { pair -> [pair.donor, pair.synthetic_id] }
        .combine(prepared, by: 0)
        .map { _donor, id, folder -> [id, seed, folder] }
    CLASSICAL(copies, code)
    mixed = pairs
        .filter { pair -> pair.kind == 'mix' }
        .map { pair -> [pair.donor, pair.canvas, pair.synthetic_id] }
        .combine(warped, by: [0, 1])
        .combine(prepared, by: 0)
        .map { _donor, canvas, id, pair, donor_folder -> [canvas, id, seed, pair, donor_folder] }
        .combine(canvases, by: 0)
        .map { row -> row.drop(1) }
    MIX(mixed, code)
    made = CLASSICAL.out.folder.mix(MIX.out.folder)

    // The plan of each fold's painted scans says which masks of a library are its donors.
    plans = pairs
        .filter { pair -> pair.kind == 'syn' }
        .collectFile(seed: 'synthetic_id\tdonor\tlibrary_mask', newLine: true, sort: true) { pair ->
            ["${runName('pairs', pair.fold)}.tsv", "${pair.synthetic_id}\t${pair.donor}\t${pair.library_mask}"]
        }
    sets = wanted
        .combine(rosters, by: 0)
        .combine(patients.filter { _id, _fold, _split, annotated, _folder -> annotated }.toSortedList { left, right -> left[0] <=> right[0] }.map { rows -> [rows] })
        .combine(synthetic.mix(made).toSortedList { left, right -> left[0] <=> right[0] }.map { rows -> [rows] })
        .combine(pairs.toList().map { rows -> [rows] })
        .combine(plans.toList().map { paths -> [paths] })
        .flatMap { fold, arm, roster, annotated, scans, planned, paths ->
            def kind = kindOf(arm)
            def ids = planned.findAll { pair -> pair.fold == fold && pair.kind == kind }.collect { pair -> pair.synthetic_id }
            def real = annotated.findAll { row -> row[1] == fold && (row[2] == 'validation' || arm != 'synthetic') }.collect { row -> row[4] }
            def own = scans.findAll { row -> row[0] in ids }.collect { row -> row[1] }
            def plan = paths.findAll { path -> kind == 'syn' && path.baseName == runName('pairs', fold) }
            // An arm all of whose made scans were lost is none; the arm published is that of real scans where none were planned.
            ids && !own ? [] : [[fold, arm, roster, plan, real, kind == 'syn' ? own : [], kind == 'syn' ? [] : own]]
        }
    ASSEMBLE(sets, code)

    // Each arm goes on with only those folders that its index names.
    data_sets = ASSEMBLE.out.index
        .join(sets.map { fold, arm, _roster, _plan, real, painted, others -> [fold, arm, real, painted, others] }, by: [0, 1])
        .map { fold, arm, index, real, painted, others ->
            def named = index.splitCsv(header: true, sep: '\t').collect { row -> row.folder.tokenize('/').last() }
            [fold, arm, index] + [real, painted, others].collect { folders -> folders.findAll { folder -> folder.name in named } }
        }
    index = ASSEMBLE.out.index

    emit:
    index // [fold, arm, table]
    made // [id, prepared folder] of the scans of the arms classical and mix
    data_sets // [fold, arm, index, prepared folders, folders of painted scans, folders of other made scans]
}

// The kind of made scans that go into an arm, or an empty text.
def kindOf(arm) {
    return [classical: 'cla', mix: 'mix', augmented: 'syn', synthetic: 'syn', published: 'syn'].get(arm, '')
}
