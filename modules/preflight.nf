// What can be found wrong before any work is queued: the machine, the cluster and the folders, a sentence each.

// Below this a single scan cannot be worked on.
def leastFree() {
    return 200.MB
}

// Problems of the scheduler and of GPUs, by the profiles in use. A file for -c may name other queues than --slurm_queue, for all
// tasks or for those with the label gpu.
def machineProblems(profiles, given, settings) {
    def onSlurm = 'slurm' in profiles
    def queue = queueOf(settings.queue, given.slurm_queue)
    def gpuQueue = queueOf(settings['withLabel:gpu']?.queue, queue)
    if (onSlurm) {
        def problem = slurmProblem([queue, gpuQueue])
        if (problem) {
            return [problem]
        }
    }
    if ('gpu' in profiles && !(onSlurm ? slurmHasGpu(gpuQueue) : hereIsGpu())) {
        def where = onSlurm ? 'no node' + (gpuQueue ? " of the partition ${gpuQueue}" : ' of the cluster') + ' has one (sinfo shows no GRES gpu)' : 'this machine has none'
        return ["-profile gpu asks for a GPU, but ${where}; leave the profile gpu out, or run where there is one.".toString()]
    }
    return []
}

// The profile slurm sets its queue by a closure, a site as text.
def queueOf(set, otherwise) {
    return set && !(set instanceof Closure) ? set.toString() : otherwise
}

// Null, or why nothing can be submitted to SLURM.
def slurmProblem(queues) {
    def lacking = ['sbatch', 'squeue', 'sinfo', 'scancel'].findAll { name -> !isProgram(name) }
    if (lacking) {
        return "-profile slurm needs SLURM's ${lacking.first()}, which is not on PATH here; start the run on a login node, or leave the profile slurm out.".toString()
    }
    // Hidden partitions, and those that others own, can be submitted to by those who may.
    def answer = ask(['sinfo', '--all', '--noheader', '--format', '%R'])
    if (answer.code) {
        return "SLURM does not answer (sinfo says: ${answer.text.trim().readLines().join(' ')}); start again when sinfo works.".toString()
    }
    def there = answer.text.readLines().collect { line -> line.trim() }.unique()
    def unknown = queues.findAll { queue -> queue }.collectMany { queue -> queue.toString().tokenize(',') }.find { name -> !(name in there) }
    return unknown ? "The queue ${unknown} (--slurm_queue, or in a file for -c) is no partition of this cluster; give one of ${there.join(', ')}.".toString() : null
}

// sinfo shows either all partitions or those of a name.
def slurmHasGpu(queue) {
    def wanted = queue ? queue.toString().tokenize(',') : []
    def lines = ask(['sinfo', '--all', '--noheader', '--format', '%R %G']).text.readLines()
    // Such as `long lscratch:800,gpu:a100:2(S:0,1)`.
    return lines.any { line -> line =~ /[ ,]gpu(?![^:(, ])/ && (!wanted || line.tokenize(' ').first() in wanted) }
}

// NVIDIA's devices, also those that WSL lends.
def hereIsGpu() {
    return ['/dev/nvidia0', '/dev/nvidiactl', '/dev/dxg'].any { name -> file(name, glob: false).exists() }
}

def isProgram(name) {
    return (System.getenv('PATH') ?: '').tokenize(':').any { folder -> java.nio.file.Files.isExecutable(file(folder, glob: false).resolve(name)) }
}

// What a program says, and its exit code.
def ask(words) {
    def process = new ProcessBuilder(words).redirectErrorStream(true).start()
    def text = process.inputStream.text
    return [code: process.waitFor(), text: text]
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
