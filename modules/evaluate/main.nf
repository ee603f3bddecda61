// evaluate: each segmented scan against its reference mask, and the arms side by side.

include { codeOf } from '../script'

process EVALUATE {
    tag "${id} ${arm}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(arm), val(id), path(segmented, stageAs: 'segment/*'), path(prepared, stageAs: 'prepare/*')
    val code

    output:
    path "${arm}_${id}.json", emit: row

    script:
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} evaluate scan \\
        --arm ${arm} --prediction ${segmented} --prepared ${prepared} --out .
    """

    stub:
    """
    lesionforge evaluate scan --help
    touch ${arm}_${id}.json
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
    lesionforge evaluate compare --help
    mkdir evaluate
    touch evaluate/arms.tsv evaluate/summary.tsv evaluate/comparisons.tsv
    """
}

workflow EVALUATE_SCANS {
    take:
    segmented // [arm, id, segment folder]
    references // [id, prepared folder] of scans with a reference mask

    main:
    code = codeOf('evaluate')
    to_evaluate = segmented
        .map { arm, id, folder -> [id, arm, folder] }
        .combine(references, by: 0)
        .map { id, arm, folder, prepared -> [arm, id, folder, prepared] }
    EVALUATE(to_evaluate, code)
    COMPARE(EVALUATE.out.row.toSortedList { row -> row.name }.filter { rows -> rows }, code)
    folder = COMPARE.out.folder

    emit:
    folder // arms.tsv, summary.tsv, comparisons.tsv and charts
}
