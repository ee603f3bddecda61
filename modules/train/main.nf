// train: the cascade of two networks, once per arm.

include { codeOf } from '../script'

process TRAIN {
    tag "${arm}"
    label 'gpu'

    input:
    // The index names its folders as ../prepare/<id> and ../synthesize/<id>, here as in the output folder.
    tuple val(arm), path(index, stageAs: 'assemble/*'), path(prepared, stageAs: 'prepare/*'), path(synthetic, stageAs: 'synthesize/*')
    path init, stageAs: 'init/*'
    val code

    output:
    tuple val(arm), path("${arm}"), emit: model

    script:
    def init_option = init ? "--init ${init}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} train --index ${index} ${init_option} ${task.ext.args} --out ${arm}
    """

    stub:
    """
    lesionforge train --help
    mkdir ${arm}
    touch ${arm}/model.json
    """
}

workflow TRAIN_ARMS {
    take:
    data_sets // [arm, index, prepared folders, synthetic folders]
    init // model folder to start from, or an empty list

    main:
    TRAIN(data_sets, init, codeOf('train'))
    model = TRAIN.out.model

    emit:
    model // [arm, model folder]
}
