// report: one page over everything that was done.

include { codeOf } from '../script'

process REPORT {
    label 'cpu_small'

    input:
    path cohort
    path prepared, stageAs: 'prepare/*'
    path transforms, stageAs: 'register/*'
    path levels, stageAs: 'synthesize/levels/*'
    path synthetic, stageAs: 'synthesize/*'
    path generator, stageAs: 'synthesize/*'
    path indices, stageAs: 'assemble/*'
    path models, stageAs: 'train/*'
    val arms
    path segmented, stageAs: 'segmented/?/*'
    path lesions, stageAs: 'segment/*'
    path evaluation
    path limits, stageAs: 'limits/*'
    val code

    output:
    path 'report', emit: folder

    script:
    // The folders of all arms bear the scans' names: each goes where it lies in the output folder.
    def links = [arms, [segmented].flatten()].transpose().collect { arm, folder ->
        "mkdir -p segment/${arm} && ln -sfn ../../${folder} segment/${arm}/"
    }
    def limits_option = limits ? "--limits ${limits}" : ''
    """
    ${links.join('\n    ')}
    lesionforge --threads ${task.cpus} ${task.ext.common} report --root . ${task.ext.args} ${limits_option} --out report
    """

    stub:
    """
    lesionforge report --help > /dev/null
    mkdir report
    touch report/index.html report/quality.tsv
    """
}

workflow REPORT_ALL {
    take:
    cohort // cohort folder
    prepared // [id, folder], those beyond a quality limit too
    transforms // [id, folder], those beyond a quality limit too
    levels // [id, folder]
    synthetic // [id, folder]
    generator // [fold, folder]
    indices // [name, table] of the arms
    models // [run, folder]
    segmented // [run, id, folder]
    lesions // table of the segmented scans and its data dictionary
    evaluation // folder
    limits // file of own quality limits, or an empty list

    main:
    by_arm_and_id = segmented.toSortedList { left, right -> left[0] <=> right[0] ?: left[1] <=> right[1] }
    REPORT(
        cohort,
        sortedFolders(prepared),
        sortedFolders(transforms),
        sortedFolders(levels),
        sortedFolders(synthetic),
        sortedFolders(generator),
        sortedFolders(indices),
        sortedFolders(models),
        by_arm_and_id.map { rows -> rows.collect { row -> row[0] } },
        by_arm_and_id.map { rows -> rows.collect { row -> row[2] } },
        lesions.ifEmpty([]),
        evaluation.ifEmpty([]),
        limits,
        codeOf('report'),
    )
    folder = REPORT.out.folder

    emit:
    folder
}

// The second members of [id, folder], in the order of the ids, so that the order of arrival never shows.
def sortedFolders(items) {
    return items.toSortedList { left, right -> left[0] <=> right[0] }.map { rows -> rows.collect { row -> row[1] } }
}
