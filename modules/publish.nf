// The output folder: who writes into it, and how results get there whole or not at all. Nextflow's publishDir copies in place,
// so that a head process that dies, or a disk that is full, would leave half a file there, which -resume takes for a whole one.

// The open file that keeps other runs out of an output folder for as long as it is referred to, at most as long as this process
// lives; null if another run has it.
def lockOf(outdir) {
    def path = outdir.resolve('pipeline_info/.lock')
    java.nio.file.Files.createDirectories(path.parent)
    def lock = java.nio.channels.FileChannel.open(path, java.nio.file.StandardOpenOption.CREATE, java.nio.file.StandardOpenOption.WRITE)
    try {
        return lock.tryLock() ? lock : null
    }
    catch (IOException error) {
        // Some network file systems know no locks.
        log.warn("${outdir} cannot be locked (${error.message}): see to it that no other run writes there.")
        return lock
    }
}

// Copies a task's output into a folder of the output folder, unless it is there unchanged. Null, or what went wrong.
def publish(source, outdir, place) {
    def target = outdir.resolve(place).resolve(source.name)
    def partial = partialFolder(outdir).resolve("${place.replace('/', '-')}-${source.name}")
    def problem = null
    try {
        if (!target.exists() || describe(target) != describe(source)) {
            replace(target, source, partial)
        }
    }
    catch (IOException error) {
        problem = "${target} could not be written (${error.class.simpleName}: ${error.message})".toString()
    }
    partial.deleteDir()
    return problem
}

// The copy grows in the folder `partial` and takes its place at once.
def replace(target, source, partial) {
    java.nio.file.Files.createDirectories(target.parent)
    partial.deleteDir()
    java.nio.file.Files.createDirectories(partial)
    copy(source, partial.resolve('new'))
    if (target.isDirectory()) {
        move(target, partial.resolve('old'))
    }
    move(partial.resolve('new'), target)
}

// Where copies grow; what an earlier run left there is worth nothing.
def partialFolder(outdir) {
    return outdir.resolve('.partial')
}

def move(from, to) {
    java.nio.file.Files.move(from, to, java.nio.file.StandardCopyOption.ATOMIC_MOVE)
}

// A file, or a folder with all that is in it. The times go along, so that a later run can tell an unchanged copy.
def copy(from, to) {
    java.nio.file.Files.copy(from, to, java.nio.file.StandardCopyOption.COPY_ATTRIBUTES)
    if (from.isDirectory()) {
        from.listFiles().toList().each { path -> copy(path, to.resolve(path.name)) }
    }
}

// Path, size and time of each file of a folder, or of one file.
def describe(path) {
    if (path.isDirectory()) {
        return path.listFiles().toList().collectMany { inside -> describe(inside).collect { row -> "${path.name}/${row}".toString() } }.sort()
    }
    return ["${path.name} ${path.size()} ${path.lastModified().intdiv(1000)}".toString()]
}
