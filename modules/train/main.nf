// train: the cascade of two networks, once per arm, fold and seed.

include { describe } from '../publish'
include { codeOfNetworks; runName } from '../script'

process TRAIN {
    tag "${run}"
    label 'gpu'
    label 'one_network'

    input:
    // The index names its folders as ../prepare/<id>, ../synthesize/<id> and ../assemble/<id>, here as in the output folder.
    tuple val(run), val(seed), val(options), path(index, stageAs: 'assemble/*'), path(prepared, stageAs: 'prepare/*'), path(synthetic, stageAs: 'synthesize/*'), path(made, stageAs: 'assemble/*'), path(init, stageAs: 'init/*'), val(init_content)
    val code

    output:
    tuple val(run), path("${run}"), emit: model

    script:
    def init_option = init ? "--init ${init}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} train --index ${index} --seed ${seed} \
        ${options} ${init_option} ${task.ext.args} ${task.ext.device} --out ${run}
    """

    stub:
    """
    lesionforge train --help > /dev/null
    mkdir ${run}
    touch ${run}/model.json
    """
}

workflow TRAIN_ARMS {
    take:
    data_sets // [fold, arm, index, prepared folders, folders of painted scans, folders of other made scans]
    arms // names of the arms to train; an index may be there for the baseline alone
    seeds // list of seeds; their numbers are part of the names where there are several
    init // model folder to start from, or an empty list
    baseline // model folder that is adapted to the scans of the arm real, or an empty list
    chosen // map of the options configuration, network and retrain, each a text or null, of the trainings that they concern

    main:
    // Arms with settings of their own take as many steps as the others, which are as the user chose; those of `init` are in its model.
    main_configuration = chosen.configuration ?: [valverde2017: 'published', nicmslesions: 'nicmslesions'].get(chosen.network, 'lesionforge')
    pace = init ? [:] : ['steps-of': arms.any { arm -> arm != 'published' } ? main_configuration : 'published']
    runs = data_sets.flatMap { fold, arm, index, prepared, painted, made ->
        def names = (arm in arms ? [arm] : []) + (baseline && arm == 'real' ? ['baseline_adapted'] : [])
        return names.collectMany { name ->
            def start = [baseline_adapted: baseline, published: []].get(name, init)
            // Nextflow hashes all of task.ext that a script names: what not every training gets is an input.
            def own = [baseline_adapted: pace, published: [configuration: 'published'] + pace].get(name, chosen.subMap(['configuration', 'network']))
            def options = (own + (start ? chosen.subMap(['retrain']) : [:])).findAll { _name, value -> value }.collect { option, value -> "--${option} ${value}" }.join(' ')
            return seeds.collect { seed ->
                def said = seeds.size() > 1 ? seed : ''
                return [runName(name, fold, said), fold, name, said, seed, options, index, prepared, painted, made, start, start ? describe(start) : '']
            }
        }
    }
    TRAIN(runs.map { row -> [row[0]] + row.drop(4) }, codeOfNetworks('train'))
    model = runs.map { row -> row.take(4) }.join(TRAIN.out.model)
    expected = runs.map { row -> row.take(1) }

    emit:
    model // [run, fold, arm, seed or '', model folder]
    expected // [run]
}
