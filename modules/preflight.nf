// What can be found wrong before any work is queued: the machine, the cluster and the folders, a sentence each.

// Below this a single scan cannot be worked on.
def leastFree() {
    return 200.MB
}

// Problems of the scheduler and of GPUs, by the profiles in use. A file for -c may name other queues than --slurm_queue, for all
// tasks or for those with the label gpu.
def machineProblems(profiles, given, settings) {
    def gpu = 'gpu' in profiles
    if ('slurm' in profiles) {
        return slurmProblems(given, settings, gpu)
    }
    // Of another scheduler, that a file for -c names, nothing is known.
    return gpu && settings.executor in [null, 'local'] && !hereIsGpu() ? [noGpu('this machine has none')] : []
}

// Null, or that there is a GPU here that no task will see.
def unusedGpu(profiles, settings) {
    return !('gpu' in profiles) && settings.executor in [null, 'local'] && hereIsGpu() ? 'This machine has a GPU, which tasks see with -profile gpu alone.' : null
}

// The first kind of problem that SLURM has, the later ones being asked of what the earlier ones are about.
def slurmProblems(given, settings, gpu) {
    def lacking = ['sbatch', 'squeue', 'sinfo', 'scancel'].find { name -> !isProgram(name) }
    if (lacking) {
        return ["-profile slurm needs SLURM's ${lacking}, which is not on PATH here; start the run on a login node, or leave the profile slurm out."]
    }
    // Hidden partitions, and those that others own, can be submitted to by those who may.
    def answer = ask(['sinfo', '--all', '--noheader', '--format', '%P|%l|%G'])
    if (answer.code) {
        return ["SLURM does not answer (sinfo says: ${answer.text.trim().readLines().join(' ')}); start again when sinfo works."]
    }
    def partitions = partitionsIn(answer.text)
    def queue = queueOf(settings.queue, given.slurm_queue ?: System.getenv('SBATCH_PARTITION'))
    def queues = ['cpu_small', 'cpu_medium', 'cpu_large', 'gpu'].collectEntries { label -> [label, queueOf(settings["withLabel:${label}".toString()]?.queue, queue)] }
    def names = partitions.collect { partition -> partition.name }.unique()
    def unknown = queues.values().findAll { text -> text }.collectMany { text -> text.tokenize(',') }.find { name -> !(name in names) }
    if (unknown) {
        return ["The queue ${unknown} (--slurm_queue, or in a file for -c) is no partition of this cluster; give one of ${names.join(', ')}."]
    }
    // Without a default partition the site chooses one.
    def of_gpu = partitionsOf(partitions, queues.gpu) ?: partitions
    // Such as `lscratch:800,gpu:a100:2(S:0,1)`.
    def hasGpu = of_gpu.any { partition -> partition.gres =~ /(^|,)gpu(?![^:(,])/ }
    def where = "no node of the partition ${of_gpu.collect { partition -> partition.name }.unique().join(', ')} has one (sinfo shows no GRES gpu)"
    // A file for -c may send single processes elsewhere.
    def known = !scopesOf(settings).any { name, scope -> name.startsWith('withName:') && scope.queue }
    return (gpu && !hasGpu ? [noGpu(where)] : []) + (known ? timeProblems(partitions, queues, settings) : []) + optionProblems(given, settings, gpu) + environmentProblems(settings, gpu)
}

def noGpu(where) {
    return "-profile gpu asks for a GPU, but ${where}; leave the profile gpu out, or run where there is one.".toString()
}

// The profile slurm sets its queue by a closure, a site as text.
def queueOf(set, otherwise) {
    return set && !(set instanceof Closure) ? set.toString() : otherwise?.toString()
}

// From lines such as `main*|2-00:00:00|gpu:2`, the default marked by a star: maps of name, byDefault, limit and gres. Nodes that
// differ have a line each.
def partitionsIn(text) {
    return text.readLines()
        .collect { line -> line.trim().tokenize('|') }
        .findAll { words -> words.size() == 3 }
        .collect { words -> [name: words[0].replaceAll(/\*$/, ''), byDefault: words[0].endsWith('*'), limit: words[1], gres: words[2]] }
}

// Those that jobs of a queue may go to, which without a name is the cluster's default.
def partitionsOf(partitions, queue) {
    def wanted = queue ? queue.tokenize(',') : []
    return partitions.findAll { partition -> wanted ? partition.name in wanted : partition.byDefault }
}

// A job that asks for more time than its partition allows waits for ever, or is refused when the run has gone on for hours: the
// longest that a label asks for, at its last try, is compared with the most generous of its partitions.
def timeProblems(partitions, queues, settings) {
    return queues
        .collect { label, queue ->
            def longest = timesOf(label, settings).collect { time -> longestTime(time) }.findAll { time -> time }.max()
            def asked = [longest, durationOf(settings.resourceLimits?.time)].findAll { time -> time }.min()
            def limits = partitionsOf(partitions, queue).collect { partition -> [partition.name, secondsOf(partition.limit)] }
            def most = limits.any { _name, seconds -> seconds == null } ? null : limits.max { limit -> limit[1] }
            return asked && most && asked.seconds > most[1] ? [most[0], most[1].intdiv(60), asked] : null
        }
        .findAll { found -> found }
        .groupBy { name, minutes, _asked -> [name, minutes] }
        .collect { key, found ->
            "The partition ${key[0]} allows jobs of ${key[1]} minutes at most, and tasks may ask for up to ${found.collect { row -> row[2] }.max()}, so that they would wait for ever; give --slurm_time ${key[1]}m, or a time in resourceLimits where a file for -c sets those.".toString()
        }
}

// The times that tasks with a label are given: by the label, and by their names in a file for -c.
def timesOf(label, settings) {
    def own = scopesOf(settings).findAll { name, _scope -> name.startsWith('withName:') && tasksOf(label).any { task -> isChosen(task, name) } }
    return [settings["withLabel:${label}".toString()]?.time] + own.collect { _name, value -> value.time }
}

// What a setting of the directive time comes to at the last try; null without one.
def longestTime(set) {
    return durationOf(forTask(set, [attempt: 3]))
}

// What a setting comes to for a task with these properties; anything but a closure is the same for all. Null where a closure, which may
// be a user's own, asks for more of a task than is known before there is one.
def forTask(set, task) {
    if (!(set instanceof Closure)) {
        return set
    }
    // What else a closure may name stands empty in it until a task is there.
    def asked = set.rehydrate([task: task, workflow: workflow, projectDir: projectDir, params: params], set.owner, set.thisObject)
    asked.resolveStrategy = Closure.DELEGATE_FIRST
    try {
        return asked.call()
    }
    catch (Exception _unknown) {
        return null
    }
}

def durationOf(set) {
    return set == null || set instanceof nextflow.util.Duration ? set : nextflow.util.Duration.of(set.toString())
}

// Seconds of `30:00`, `1:00:00` or `2-00:00:00`; null for infinite.
def secondsOf(limit) {
    if (!(limit ==~ /(\d+-)?\d+(:\d+)+/)) {
        return null
    }
    def words = limit.tokenize('-:').collect { word -> word as long }.reverse()
    return [words, [1, 60, 3600, 86400]].transpose().collect { number, unit -> number * unit }.sum()
}

// Others in place of the profile's own would drop the account, the GPU and --slurm_options without a word.
def optionProblems(given, settings, gpu) {
    def scopes = scopesOf(settings).values().collect { scope -> [scope, false] } + (gpu ? tasksOf('gpu').collect { task -> [scopeOf(task, settings), true] } : [])
    def dropped = scopes.findAll { scope, _of_gpu -> scope.clusterOptions }.any { scope, of_gpu ->
        def text = optionsOf(scope, gpu)
        return text != null && lacksOptions(text, given, of_gpu)
    }
    return dropped
        ? ['clusterOptions in a file for -c takes the place of what asks for the account, the GPU and --slurm_options; leave it out there and give --slurm_options, which is added to the others, or ask for all of them in it.']
        : []
}

// Whether options in place of the profile's own leave out the account, a GPU or --slurm_options, where these are asked for.
def lacksOptions(text, given, gpu) {
    def there = variablesOf(text)
    def account = given.slurm_account && !(['ACCOUNT', given.slurm_account.toString()] in there)
    def device = gpu && !there.any { name, value -> name == 'GRES' ? value =~ /(^|,)gpu\b/ : name.startsWith('GPUS') }
    def options = (given.slurm_options ?: '').tokenize(' ').findAll { option -> !option.startsWith('gres=') }.any { option ->
        def asked = variablesOf("--${option}".toString())
        return asked ? !there.containsAll(asked) : !("--${option}".toString() in text.tokenize(' '))
    }
    return account || device || options
}

// The settings of all tasks, by the name '', and those of each label and name.
def scopesOf(settings) {
    return ['': settings] + settings.findAll { name, value -> name.toString() =~ /^with(Label|Name):/ && value instanceof Map }.collectEntries { name, scope -> [name.toString(), scope] }
}

// What settings ask of sbatch; null where that cannot be known.
def optionsOf(scope, gpu) {
    def told = forTask(scope.clusterOptions, anyTask(gpu))
    return told == null ? null : [told].flatten().join(' ')
}

// All tasks, by all that selectors may call them.
def allTasks() {
    return [
        'COHORT:CHECK cpu_medium',
        'COHORT:REFUSE cpu_small one_scan',
        'PREPARE:STRIP cpu_medium one_scan',
        'PREPARE:ALIGN cpu_medium one_scan',
        'PREPARE:TISSUES cpu_medium one_scan',
        'PREPARE:QUALITY cpu_small one_scan',
        'REGISTER:TO_TEMPLATE cpu_large one_scan',
        'REGISTER:QUALITY_OF_TRANSFORM cpu_small one_scan',
        'REGISTER:PAIR cpu_small one_scan',
        'REGISTER:PAIR_LIBRARY cpu_small one_scan',
        'REGISTER:PAIR_DIRECTLY cpu_large one_scan',
        'SYNTHESIZE:LEVELS cpu_small one_scan',
        'SYNTHESIZE:TRAIN_GENERATOR gpu one_network',
        'SYNTHESIZE:STATISTICS cpu_small one_network',
        'SYNTHESIZE:TRANSPLANT cpu_small one_scan',
        'SYNTHESIZE:PAINT gpu one_scan',
        'ASSEMBLE_ARMS:CLASSICAL cpu_small one_scan',
        'ASSEMBLE_ARMS:MIX cpu_small one_scan',
        'ASSEMBLE_ARMS:ASSEMBLE cpu_small one_scan',
        'TRAIN_ARMS:TRAIN gpu one_network',
        'SEGMENT_SCANS:SEGMENT gpu one_scan',
        'SEGMENT_SCANS:TABULATE cpu_small',
        'EVALUATE_SCANS:EVALUATE cpu_small one_scan',
        'EVALUATE_SCANS:COMPARE cpu_small',
        'REPORT_ALL:REPORT cpu_small',
    ].collect { line ->
        def words = line.tokenize(' ')
        [withLabel: words.drop(1), withName: [words[0].tokenize(':').last(), "LESIONFORGE:${words[0]}".toString()]]
    }
}

// Those with a label.
def tasksOf(label) {
    return allTasks().findAll { task -> label in task.withLabel }
}

// As Nextflow reads selectors: patterns of whole names, a `!` before those that shall not match.
def isChosen(task, selector) {
    def kind = selector.tokenize(':').first()
    def pattern = selector.substring(kind.length() + 1)
    def plain = pattern - ~/^!/
    return task[kind].any { name -> name ==~ plain } != pattern.startsWith('!')
}

// The settings that decide which options a task gets: of all tasks, of its labels, or by its name, whichever comes last.
def scopeOf(task, settings) {
    def own = ['withLabel:', 'withName:'].collectMany { kind ->
        scopesOf(settings).findAll { name, scope -> name.startsWith(kind) && scope.clusterOptions && isChosen(task, name) }.values()
    }
    return ([settings] + own).last()
}

// What a setting may name of a task before there is one.
def anyTask(gpu) {
    return [accelerator: gpu ? [request: 1, limit: 1] : null, attempt: 1, cpus: 1, memory: 1.GB]
}

// sbatch lets variables count more than the script of a job, into which Nextflow writes what the run asks for. Where it asks for
// nothing they may choose, but for what differs from task to task.
def environmentProblems(settings, gpu) {
    def asked = scopesOf(settings).collectMany { _name, scope ->
        return [['PARTITION', forTask(scope.queue, anyTask(gpu))]] + variablesOf(optionsOf(scope, gpu) ?: '')
    }
    def other = asked.findAll { name, value -> value && System.getenv("SBATCH_${name}") && System.getenv("SBATCH_${name}") != value.toString() }.collect { name, _value -> name }
    def always = (['TIMELIMIT', 'MEM_PER_NODE', 'MEM_PER_CPU', 'MEM_PER_GPU', 'ARRAY_INX'] + (gpu ? ['GRES', 'GPUS', 'GPUS_PER_NODE', 'GPUS_PER_TASK'] : [])).findAll { name -> System.getenv("SBATCH_${name}") }
    def names = (other + always).unique().collect { name -> "SBATCH_${name}" }.join(' ')
    return names ? ["The environment sets ${names}, which sbatch lets count more than what the run asks for; start again after 'unset ${names}'.".toString()] : []
}

// What options such as `--account=lab`, `--account lab` or `-A lab` set, by the variables of sbatch that count more.
def variablesOf(options) {
    def letters = [A: 'ACCOUNT', C: 'CONSTRAINT', G: 'GPUS', p: 'PARTITION', q: 'QOS']
    return (options =~ /(?:^|\s)(?:--([a-z-]+)(?:=|\s+)|-([ACGpq])\s*)([^\s-]\S*)/).collect { match ->
        [letters.get(match[2]) ?: match[1].toUpperCase().replace('-', '_'), match[3].replaceAll(/['"]/, '')]
    }
}

// NVIDIA's devices, also those that WSL lends.
def hereIsGpu() {
    return ['/dev/nvidia0', '/dev/nvidiactl', '/dev/dxg'].any { name -> file(name, glob: false).exists() }
}

def isProgram(name) {
    return (System.getenv('PATH') ?: '').tokenize(':').any { folder -> java.nio.file.Files.isExecutable(file(folder, glob: false).resolve(name)) }
}

// What a program says, and its exit code. One that hangs is ended, as the run would hang with it without a word; an engine that
// unpacks an image first may take minutes.
def ask(words) {
    def process = new ProcessBuilder(['timeout', '--kill-after=5', '300'] + words).redirectErrorStream(true).start()
    def text = process.inputStream.text
    def code = process.waitFor()
    return [code: code, text: code in [124, 137] ? noAnswer() : text]
}

def noAnswer() {
    return 'no answer within five minutes'
}

// Problems of the output and the work folder.
def folderProblems(outdir, workDir) {
    return [['--outdir', outdir], ['-work-dir', workDir]]
        .collect { option, folder -> spaceProblem(option, folder) ?: writeProblem(option, folder) }
        .findAll { sentence -> sentence }
}

// Folders of an output folder may be another user's, and so may its lock.
def writeProblem(option, folder) {
    try {
        java.nio.file.Files.createDirectories(folder)
        def inside = option == '--outdir' ? folder.listFiles().toList().findAll { path -> path.isDirectory() } : []
        ([folder] + inside).each { place -> tryToWrite(place) }
    }
    catch (IOException error) {
        return "${option} ${folder} cannot be written to (${error.class.simpleName}: ${error.message}); give a folder of your own.".toString()
    }
    def lock = folder.resolve('pipeline_info/.lock')
    return lock.exists() && !java.nio.file.Files.isWritable(lock)
        ? "${option} ${folder} holds the run of another user, as ${lock} is not yours; give a folder of your own.".toString()
        : null
}

// Tried, not asked: permissions alone do not tell of a file system that is mounted read-only, nor an empty file of a quota.
def tryToWrite(folder) {
    def tried = java.nio.file.Files.createTempFile(folder, '.try', '')
    try {
        tried.text = '.' * 4096
        java.nio.file.Files.delete(tried)
    }
    catch (IOException error) {
        java.nio.file.Files.delete(tried)
        throw error
    }
}

// A folder, or the one that it is to be made in.
def existing(folder) {
    return folder.exists() ? folder : existing(folder.parent)
}

def spaceProblem(option, folder) {
    def free = java.nio.file.Files.getFileStore(existing(folder)).usableSpace
    return free < leastFree().toBytes() ? "${option} ${folder} lies on a disk with only ${free.intdiv(1_000_000)} MB free; free some, or give a folder on another disk.".toString() : null
}

// Refuses results of other scans; a cohort that shares a scan with them is the same one, grown or shrunk.
def cohortProblems(outdir, files) {
    def table = outdir.resolve('cohort/cohort.tsv')
    def there = table.exists() ? table.splitCsv(header: true, sep: '\t').collect { row -> normalized(row.t1w) } : []
    def given = files.collect { path -> normalized(path) } as Set
    return there && !there.any { path -> path in given } ? ["--outdir ${outdir} holds the results of another cohort (${there.size()} scans, such as ${there.first()}); give a folder of its own, or remove that one.".toString()] : []
}

// Parameters that nextflow.config itself reads, before it reads a file for -c.
def lateProblems(given, config) {
    // Nextflow warns of one that is asked for and was not given.
    def outdir = given.containsKey('outdir') ? given.outdir : null
    def time = given.containsKey('slurm_time') ? given.slurm_time : null
    return [
        outdir && [config.trace, config.timeline, config.report, config.dag].any { record -> record?.file?.toString()?.startsWith('null/') } ? 'outdir' : null,
        time && time != '1000d' && config.process.resourceLimits?.time?.toString() == '1000d' ? 'slurm_time' : null,
    ]
        .findAll { name -> name }
        .collect { name -> "${name} in a configuration file comes too late for the run's own settings; give --${name} on the command line, or in a file for -params-file.".toString() }
}

def normalized(path) {
    return file(path.toString(), glob: false).toAbsolutePath().normalize().toString()
}

// Nextflow takes a finished task's word for it that its files are still as they were: here is a look at each (size and time), as
// the task listed them at its end. A task whose files changed since is made again, and what follows from it. Returns their folders.
def forgetDamaged(workDir) {
    def lists = workDir.exists() ? workDir.listFiles().toList().findAll { path -> path.name ==~ /[0-9a-f]{2}/ }
        .collectMany { path -> path.listFiles().toList() }
        .collect { path -> path.resolve('.outputs') }
        .findAll { path -> path.exists() && path.resolveSibling('.exitcode').exists() } : []
    def damaged = lists.findAll { list -> list.readLines().any { line -> !isAsListed(list.parent, line) } }.collect { list -> list.parent }
    damaged.each { folder -> folder.resolve('.exitcode').delete() }
    return damaged
}

// A line is size, time and path of one file; on a full disk the last one may be cut off.
def isAsListed(folder, line) {
    def words = line.split(' ', 3)
    if (words.length < 3) {
        return false
    }
    def path = folder.resolve(words[2])
    return path.exists() && path.size() == (words[0] as long) && path.lastModified().intdiv(1000) == words[1].tokenize('.').first().toLong()
}
