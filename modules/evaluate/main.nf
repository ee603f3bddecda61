// evaluate: each segmented scan against its reference mask, and the arms side by side.

include { codeOf } from '../script'

process EVALUATE {
    tag "${id} ${run}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(run), val(options), val(id), path(segmented, stageAs: 'segment/*'), path(prepared, stageAs: 'prepare/*')
    val code

    output:
    tuple val(run), val(id), path("${run}_${id}.json"), emit: row

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} evaluate scan \\
        ${options} --prediction ${segmented} --prepared ${prepared} --out .
    """

    stub:
    """
    lesionforge evaluate scan --help > /dev/null
    touch ${run}_${id}.json
    """
}

process COMPARE {
    label 'cpu_small'

    input:
    path rows
    val code

    output:
    path 'evaluate', emit: folder

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} evaluate compare ${rows} --out evaluate
    """

    stub:
    """
    lesionforge evaluate compare --help > /dev/null
    mkdir evaluate
    touch evaluate/arms.tsv evaluate/summary.tsv evaluate/comparisons.tsv evaluate/sizes.tsv
    """
}

workflow EVALUATE_SCANS {
    take:
    segmented // [run, id, segment folder]
    runs // [run, fold, arm, seed or '', model folder]
    references // [id, prepared folder] of scans with a reference mask

    main:
    code = codeOf('evaluate')
    to_evaluate = segmented
        .combine(runs.map { run, fold, arm, seed, _model -> [run, optionsOf(arm, fold, seed)] }, by: 0)
        .map { run, id, folder, options -> [id, run, options, folder] }
        .combine(references, by: 0)
        .map { id, run, options, folder, prepared -> [run, options, id, folder, prepared] }
    EVALUATE(to_evaluate, code)
    expected = to_evaluate.map { run, _options, id, _folder, _prepared -> [run, id] }
    done = EVALUATE.out.row.map { row -> row.take(2) }
    rows = EVALUATE.out.row.map { row -> row[2] }
    COMPARE(rows.toSortedList { row -> row.name }.filter { files -> files }, code)
    folder = COMPARE.out.folder

    emit:
    folder // arms.tsv, summary.tsv, comparisons.tsv, sizes.tsv and charts
    expected // [run, id]
    done // [run, id]
}

// What the row of a scan says of the networks that segmented it.
def optionsOf(arm, fold, seed) {
    return "--arm ${arm}" + (fold ? " --fold ${fold}" : '') + (seed == '' ? '' : " --seed ${seed}")
}
