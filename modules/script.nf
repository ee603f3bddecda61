// What the processes' scripts share.

// Digest of the Python source that a stage runs: its own package, every package it imports, directly or not, and the
// files beside them. Each process takes it as an input, because installed Python code is not part of the resume hash:
// with it, an edit re-runs the stages that use the edited code and what follows from them, and nothing else.
def codeOf(stage) {
    def root = file("${projectDir}/python/src/lesionforge", glob: false)
    def shared = root.listFiles().toList().findAll { path -> path.name.endsWith('.py') }
    def own = importedPackages(root, [stage] as Set).collectMany { name -> sourcesOf(root.resolve(name)) }
    return (shared + own).sort { path -> path.toString() }.collect { path -> path.text }.join('\n').md5()
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

// All files of a package but the compiled ones.
def sourcesOf(folder) {
    def paths = []
    if (folder.isDirectory()) {
        folder.eachFileRecurse { path -> paths << path }
    }
    return paths.findAll { path -> path.isFile() && !path.toString().contains('__pycache__') }
}

// A word for the shell, whatever characters it holds.
def quoted(text) {
    return "'" + text.toString().replace("'", "'\\''") + "'"
}

// An option once per value: `--arm real --arm augmented`.
def repeated(option, values) {
    return [values].flatten().collect { value -> "${option} ${value}" }.join(' ')
}

// The name of what belongs to a fold and a seed: `real_fold-07_seed-2`; without folds, or with one seed, that part is left out.
def runName(name, fold, seed = '') {
    return name + (fold ? "_fold-${fold}" : '') + (seed ? "_seed-${seed}" : '')
}
