// What the processes' scripts share.

// Digest of the Python source that a stage runs: its own package, every package it imports, directly or not, the files
// beside them, and the lock of the packages of others. Each process takes it as an input, because installed Python code is not part
// of the resume hash: with it, an edit re-runs the stages that use the edited code and what follows from them, and nothing else.
def codeOf(stage) {
    def root = file("${projectDir}/python/src/lesionforge", glob: false)
    def shared = root.listFiles().toList().findAll { path -> path.name ==~ /[^.].*\.py/ }
    def own = importedPackages(root, [stage] as Set).collectMany { name -> sourcesOf(root.resolve(name)) }
    return ((shared + own).sort { path -> path.toString() } + [lockOfPackages()]).collect { path -> path.text }.join('\n').md5()
}

// The same of what trains or applies networks, which those of another backend than TensorFlow, the images', do otherwise.
def codeOfNetworks(stage) {
    def backend = workflow.containerEngine ? null : workflow.session.config.env?.KERAS_BACKEND ?: System.getenv('KERAS_BACKEND')
    return codeOf(stage) + (backend && backend != 'tensorflow' ? " ${backend}" : '')
}

// What an image holds of others, but for NVIDIA's libraries; an environment beside the checkout has the same versions, and tools for tests.
def lockOfPackages() {
    return file("${projectDir}/containers/requirements-cpu.txt", glob: false)
}

// The given packages and all that they import, found by reading their import lines.
def importedPackages(root, names) {
    def found = names.collectMany { name ->
        sourcesOf(root.resolve(name)).collectMany { path ->
            (path.text =~ /(?m)^\s*(?:(?:from|import)\s+lesionforge\.|from\s+lesionforge\s+import\s+)(\w+)/).collect { match -> match[1] }
        }
    }
    def all = names + found.findAll { name -> root.resolve(name).isDirectory() }
    return all == names ? names : importedPackages(root, all)
}

// All files of a package but the compiled ones and what editors leave, as `find` in containers/build has them.
def sourcesOf(folder) {
    def paths = []
    if (folder.isDirectory()) {
        folder.eachFileRecurse { path -> paths << path }
    }
    return paths.findAll { path -> path.isFile() && !(path.toString() =~ '/__pycache__/|/[.][^/]*$|~$') }
}

// A word for the shell, whatever characters it holds.
def quoted(text) {
    return "'" + text.toString().replace("'", "'\\''") + "'"
}

// Whether Nextflow can carry a file of this name into a task: it leaves these characters to the shell. CHECK refuses them.
def isSafePath(text) {
    return !(text =~ /[\p{Cntrl}$`\\"*?\[\]{};|<>!]/)
}

// The file that a cell names, as a task gets it; an empty list for an empty cell, which a process takes as no file.
def fileOf(cell) {
    return cell ? mountable(file(cell, glob: false)) : []
}

// The path by which a file gets into a task. An engine mounts the folder of a path, not that of what a link there leads to, as in
// data sets that git-annex keeps: it is given an image's own place, but no unsafe one. CHECK refuses links to such a place, but in a
// container it cannot see that a folder above the mounted one is a link; there the path itself is mounted.
def mountable(path) {
    if (!workflow.containerEngine) {
        return path
    }
    def target = path.toRealPath()
    def found = target.name ==~ /.*\.nii(\.gz)?/ && isSafePath(target.toString()) ? target : path
    def problem = mountProblem(found)
    if (problem) {
        error("${found} ${problem}")
    }
    return found
}

// Null, or why the engine cannot mount a path, to follow its name.
def mountProblem(path) {
    return workflow.containerEngine && path.toString() =~ /[:,]/
        ? "holds ':' or ',', which ${workflow.containerEngine} takes for the end of a path; rename it, or run without a container engine."
        : null
}

// An option once per value: `--arm real --arm augmented`.
def repeated(option, values) {
    return [values].flatten().collect { value -> "${option} ${value}" }.join(' ')
}

// The name of what belongs to a fold and a seed: `real_fold-07_seed-2`; without folds, or with one seed, that part is left out.
def runName(name, fold, seed = '') {
    return name + (fold ? "_fold-${fold}" : '') + (seed == '' ? '' : "_seed-${seed}")
}
