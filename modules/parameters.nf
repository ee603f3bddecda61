// The parameters against nextflow_schema.json: what --help prints and what is refused before anything starts.

include { isSafePath; mountProblem } from './script'

def schemaGroups() {
    def schema = new groovy.json.JsonSlurper().parse(file("${projectDir}/nextflow_schema.json", glob: false))
    return schema['$defs'].values()
}

// The text of --help.
def helpText() {
    def groups = schemaGroups().collect { group ->
        def lines = group.properties.collect { name, rule ->
            def choices = rule['enum'] ? " [${rule['enum'].join(' | ')}]" : ''
            def initial = rule.containsKey('default') ? " [default: ${rule.default}]" : ''
            return "  --${name.padRight(20)}${rule.description}${choices}${initial}"
        }
        return ([group.title] + lines).join('\n')
    }
    return (['nextflow run main.nf --input cohort.csv --outdir results', ''] + groups.join('\n\n')).join('\n')
}

// One sentence for each parameter that is unknown, missing or has a value out of its rule; empty when all is well.
def parameterProblems(given) {
    def rules = schemaGroups().collectEntries { group -> group.properties }
    def required = schemaGroups().collectMany { group -> group.required ?: [] }
    // Nextflow adds a camelCase twin for each name with a dash; the name as it was typed is enough.
    def twins = given.keySet().findAll { name -> name.contains('-') }.collect { name -> camelCase(name) }
    def unknown = (given.keySet() - rules.keySet() - twins).collect { name -> unknownSentence(name, rules.keySet()) }
    def missing = required.findAll { name -> !(name in given.keySet()) || given[name] == null }.collect { name ->
        "--${name} is missing: ${rules[name].description}"
    }
    def wrong = rules.findAll { name, _rule -> name in given.keySet() && given[name] != null }.collect { name, rule -> valueProblem(name, given[name], rule) }
    return unknown + missing + wrong.findAll { sentence -> sentence }
}

// One sentence for each parameter that does not go with another or with a profile; values may still be out of their rules.
def combinationProblems(given, profiles) {
    def several = given.train_seeds instanceof Integer && given.train_seeds > 1
    def of_training = ['init', 'retrain', 'train_configuration', 'train_network', 'synthetic_weight', 'folds', 'train_on', 'baseline'].findAll { name -> given[name] }.collect { name -> "--${name}" } + (several ? ['--train_seeds'] : [])
    def of_segmenting = ['lesion_threshold', 'min_volume_mm3'].findAll { name -> given[name] != null }.collect { name -> "--${name}" }
    def made = given.arms.toString().tokenize(',').findAll { arm -> arm in ['classical', 'mix', 'augmented', 'synthetic'] }
    return [
        given.mode == 'segment' && !given.model
            ? '--mode segment needs --model, the folder of a trained cascade.'
            : null,
        given.retrain && !given.init && !given.baseline
            ? '--retrain belongs to --init or --baseline, the model folder to start from; give it, or leave --retrain out.'
            : null,
        given.init && given.train_configuration
            ? '--train_configuration is for training from scratch, and --init goes on with the settings of its model; leave one of the two out.'
            : null,
        given.train_configuration && given.train_network && (given.train_configuration == 'lesionforge') != (given.train_network == 'dense')
            ? "--train_network ${given.train_network} does not go with --train_configuration ${given.train_configuration}: blocks and patches have different settings; leave one of the two out."
            : null,
        of_training && given.mode in ['augment', 'segment']
            ? "${of_training.join(' and ')} ${of_training.size() > 1 ? 'belong' : 'belongs'} to --mode experiment, which trains the cascade, not ${given.mode}; change the mode or leave out what does not go with it."
            : null,
        of_segmenting && given.mode == 'augment'
            ? "${of_segmenting.join(' and ')} ${of_segmenting.size() > 1 ? 'belong' : 'belongs'} to --mode experiment and segment; change the mode or leave out what does not go with it."
            : null,
        several && given.seed instanceof Integer && given.seed > Integer.MAX_VALUE - given.train_seeds + 1
            ? "--seed ${given.seed} leaves no ${given.train_seeds} seeds up to ${Integer.MAX_VALUE} for --train_seeds; give a smaller one."
            : null,
        given.synthetic == 0 && given.mode != 'segment' && made
            ? "--synthetic 0 leaves nothing for the ${made.size() > 1 ? 'arms' : 'arm'} ${made.join(' and ')}: give a number above 0, or --arms real."
            : null,
        ['slurm', 'gpu'].every { name -> name in profiles } && given.slurm_options =~ /(^|\s)(gres=\S*gpu|gpus)/
            ? "--slurm_options ${given.slurm_options} asks for a GPU for every job; say how by --slurm_gpu, which those that need one get."
            : null,
        given.reproducible && 'gpu' in profiles
            ? '-profile reproducible and gpu exclude each other: a GPU does not give the same bytes twice.'
            : null,
    ].findAll { sentence -> sentence }
}

def camelCase(name) {
    return name.replaceAll(/-+(.)/) { found -> found[1].toUpperCase() }
}

def plainName(name) {
    return name.replaceAll(/[-_]/, '').toLowerCase()
}

def unknownSentence(name, known) {
    def meant = known.find { candidate -> plainName(candidate) == plainName(name) }
    return "--${name} is no parameter of this pipeline; " + (meant ? "did you mean --${meant}?" : 'see --help for those there are.')
}

// Null, or the sentence that says what is wrong with one value.
def valueProblem(name, value, rule) {
    def fits = [
        integer: value instanceof Integer || value instanceof Long,
        number: value instanceof Number,
        'boolean': value instanceof Boolean,
        string: !(value instanceof Boolean),
    ][rule.type]
    if (!fits) {
        return "--${name} is '${value}', but must be of type ${rule.type}: ${rule.description}"
    }
    if (rule['enum'] && !(value.toString() in rule['enum'])) {
        return "--${name} is '${value}', but must be one of ${rule['enum'].join(', ')}."
    }
    if (rule.pattern && !(value.toString() ==~ rule.pattern)) {
        return "--${name} is '${value}', which does not fit: ${rule.description}"
    }
    if (rule.containsKey('minimum') && (value < rule.minimum || value > rule.maximum)) {
        return "--${name} is ${value}, but must lie between ${rule.minimum} and ${rule.maximum}."
    }
    if (rule.containsKey('exclusiveMinimum') && (value <= rule.exclusiveMinimum || value > rule.maximum)) {
        return "--${name} is ${value}, but must be more than ${rule.exclusiveMinimum} and at most ${rule.maximum}."
    }
    if (rule.exists && !file(value.toString(), glob: false).exists()) {
        return "--${name} names '${value}', which does not exist; check the path."
    }
    def path = rule.staged ? file(value.toString(), glob: false).toAbsolutePath().toString() : ''
    if (!isSafePath(path)) {
        return "--${name} names '${value}', which holds a character that a shell could misread; rename it or its folder."
    }
    def problem = mountProblem(path)
    return problem ? "--${name} names '${path}', which ${problem}" : null
}

// What an engine, the job arrays of Nextflow or ANTs (images/scratch.py) make of the path of the work folder.
def workFolderProblems(workDir, profiles) {
    def spaced = 'slurm' in profiles && workDir.toString() =~ /\s/ ? 'holds white space, at which the job arrays of Nextflow break; give another.' : null
    def apart = workDir.toString() =~ /[,%\[\]]/ ? 'holds one of the characters , [ ] %, at which ANTs breaks; give another.' : null
    return [mountProblem(workDir), spaced, apart].findAll { problem -> problem }.collect { problem -> "-work-dir ${workDir} ${problem}".toString() }
}
