// assemble: the data set of each arm of the experiment, as a table that names folders beside its own.

include { codeOf; repeated } from '../script'

process ASSEMBLE {
    label 'cpu_small'

    input:
    path prepared, stageAs: 'prepare/*'
    path synthetic, stageAs: 'synthesize/*'
    path cohort
    val arms
    val code

    output:
    path 'assemble/*.tsv', emit: index

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} assemble \\
        --cohort ${cohort} --root . ${repeated('--arm', arms)} ${task.ext.args} --out assemble
    """

    stub:
    """
    lesionforge assemble --help
    mkdir assemble
    for arm in ${arms.join(' ')}; do
        printf 'arm\\tfolder\\n' > assemble/\$arm.tsv
        for folder in ${prepared} \$([ \$arm = real ] || echo ${synthetic}); do
            printf '%s\\t../%s\\n' \$arm \$folder >> assemble/\$arm.tsv
        done
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
    lesionforge assemble classical --help
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
    lesionforge assemble mix --help
    mkdir ${id}
    touch ${id}/${id}_desc-provenance.json ${id}/${id}_desc-draw.json
    """
}

workflow ASSEMBLE_ARMS {
    take:
    prepared // [id, prepared folder] of training and validation patients
    synthetic // [id, prepared folder] of synthetic scans
    cohort // cohort folder
    arms // names of the arms, as a channel of one list

    main:
    real_folders = prepared.toSortedList { left, right -> left[0] <=> right[0] }.map { rows -> rows.collect { row -> row[1] } }
    synthetic_folders = synthetic.toSortedList { left, right -> left[0] <=> right[0] }.map { rows -> rows.collect { row -> row[1] } }
    ASSEMBLE(real_folders, synthetic_folders, cohort, arms, codeOf('assemble'))

    // Each arm goes on with only those folders that its index names, so that a new synthetic scan leaves the real arm alone.
    data_sets = ASSEMBLE.out.index
        .flatten()
        .combine(real_folders.map { folders -> [folders] })
        .combine(synthetic_folders.map { folders -> [folders] })
        .map { index, real, painted ->
            def named = index.splitCsv(header: true, sep: '\t').collect { row -> row.folder.tokenize('/').last() }
            [index.baseName, index, real.findAll { folder -> folder.name in named }, painted.findAll { folder -> folder.name in named }]
        }
    index = ASSEMBLE.out.index

    emit:
    index
    data_sets // [arm, index, prepared folders, synthetic folders]
}
