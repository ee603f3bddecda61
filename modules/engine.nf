// The container engine that the profiles ask for, looked at before anything is queued: its program, its images, their code.

include { anyTask; ask; forTask; isProgram; noAnswer } from './preflight'
include { lockOfPackages; sourcesOf } from './script'

// A sentence for each thing that would stop the first task; empty without an engine. Only a run on this machine needs the
// engine here: a cluster's head node may lack it, and its Docker or podman holds other images than the nodes'.
def engineProblems(workflow) {
    def settings = workflow.session.config.process
    def engine = workflow.containerEngine
    if (!engine) {
        return []
    }
    def local = settings.executor in [null, 'local']
    def here = isProgram(engine)
    if (local && !here) {
        return ["-profile ${engine} needs the program ${engine}, which is not on PATH: install it or load its module, or choose another engine's profile."]
    }
    def images = imagesOf(workflow, settings)
    def files = images.keySet().findAll { image -> image.startsWith('/') }
    def missing = files.findAll { image -> !file(image, glob: false).exists() }
    if (missing) {
        return missing.collect { image -> "The image ${image} does not exist: make it with ${remedyFor(engine, image)}, or name yours as process.container in a file for -c." }
    }
    def looked_at = engine == 'apptainer' ? (here ? files : []) : local ? images.keySet() : []
    // One that hangs is not asked again.
    return looked_at.inject([]) { found, image ->
        def hangs = found.any { sentence -> sentence.contains(noAnswer()) }
        def problem = hangs ? null : imageProblem(engine, image, images[image])
        return problem ? found + [problem] : found
    }
}

// Why the first task would find no container that starts: user namespaces that are switched off, a podman without its helpers, a GPU
// that is not shown. Images that are not there are the engine's to fetch. By SLURM tasks start on other machines, of which this one is
// a hint only.
def startProblems(workflow) {
    def settings = workflow.session.config.process
    def engine = workflow.containerEngine
    def local = settings.executor in [null, 'local']
    // What a site's own script, text in place of our closure, prepares for each task is not here.
    def prepared = settings.beforeScript && !(settings.beforeScript instanceof Closure)
    // Options that name more of a task than is known before there is one.
    def unknown = settings.containerOptions && forTask(settings.containerOptions, anyTask(false)) == null
    if (!engine || prepared || unknown || !isProgram(engine) || !local && engine != 'apptainer') {
        return []
    }
    // That this checkout's own are there, engineProblems has seen.
    def images = imagesOf(workflow, settings)
        .findAll { name, ours -> ours || (engine == 'apptainer' ? name.startsWith('/') : ask([engine, 'image', 'inspect', name]).code == 0) }
        .keySet()
        .toList()
    if (!images) {
        return []
    }
    def plain = startOf(workflow, images[0], false)
    if (plain.text.contains('temporary sandbox')) {
        log.warn("Apptainer cannot mount images on this machine and unpacks all of ${images[0]} into /tmp for every task: have squashfuse installed, or Apptainer's setuid part.")
    }
    if (!local) {
        return []
    }
    return plain.code
        ? ["${engine} starts no container of ${images[0]} (${inOneLine(plain.text)}): mend that, or choose another engine's profile.".toString()]
        : gpuProblems(workflow, settings, images[-1])
}

// A GPU of this machine reaches containers only where the engine was set up for it (Apptainer only warns). A file for -c that names other
// options for it knows what it does.
def gpuProblems(workflow, settings, image) {
    def engine = workflow.containerEngine
    def own = [settings, settings['withLabel:gpu']].every { set -> !set?.containerOptions || set.containerOptions instanceof Closure }
    if (!own || engine == 'apptainer' || !('gpu' in workflow.profile.tokenize(','))) {
        return []
    }
    def shown = startOf(workflow, image, true)
    return shown.code
        ? ["${engine} cannot show this machine's GPU to a container (${inOneLine(shown.text)}): set up NVIDIA's Container Toolkit for it, or leave the profile gpu out.".toString()]
        : []
}

// What the engine says, and its exit code, when a container of an image writes a file into a folder of the work folder, started as Nextflow
// starts those of tasks, whose options a shell reads.
def startOf(workflow, image, gpu) {
    def engine = workflow.containerEngine
    def set = workflow.session.config[engine]
    def options = [set?.runOptions, forTask(workflow.session.config.process.containerOptions, anyTask(gpu))]
    def words = engine == 'apptainer'
        ? ['env - PATH="$PATH" apptainer', set?.engineOptions, 'exec --no-home --pid -B "$PWD"']
        : [engine, set?.engineOptions, 'run --rm --cpu-shares 1024 --memory 1024m -v "$PWD":"$PWD" -w "$PWD"']
    def line = (words + options).findAll { word -> word }.join(' ')
    def folder = java.nio.file.Files.createTempDirectory(workflow.workDir, '.try')
    def answer = ask(['bash', '-c', "cd \"\$1\"; export NXF_TASK_WORKDIR=\"\$PWD\"; ${line} \"\$0\" /bin/bash -c ': > \"\$0\"/started' \"\$PWD\"".toString(), image, folder.toString()])
    folder.deleteDir()
    return answer
}

def inOneLine(text) {
    return text.readLines().findAll { line -> line.trim() }.join(' ')
}

// The images of a run, and whether each is this checkout's own. One that the user names, for all tasks or for those with the label gpu,
// may be the engine's to fetch, unless it is a file. An engine without a profile of ours has no image, or those of single processes.
def imagesOf(workflow, settings) {
    def gpu = 'gpu' in workflow.profile.tokenize(',')
    def of_gpu = settings['withLabel:gpu']?.container
    def asked = [[settings.container, false]] + (of_gpu || gpu ? [[of_gpu ?: settings.container, gpu]] : [])
    return asked
        .collect { set, on_gpu -> forTask(set, anyTask(on_gpu))?.toString() }
        .findAll { image -> image }
        .collectEntries { image -> [image, image in [ownImage(workflow, ''), ownImage(workflow, '-gpu')]] }
}

def ownImage(workflow, kind) {
    def version = workflow.manifest.version
    return (workflow.containerEngine == 'apptainer' ? "${projectDir}/containers/lesionforge-${version}${kind}.sif" : "lesionforge:${version}${kind}").toString()
}

// Null, or what is wrong with an image: one that this checkout makes is there, another may be the engine's to fetch. A label says
// which code it holds: with other code in it, the tasks would run again after an edit and give the results of before.
def imageProblem(engine, image, own) {
    def remedy = remedyFor(engine, image)
    def asked = engine == 'apptainer'
        ? [engine, 'inspect', '--labels', image]
        : [engine, 'image', 'inspect', '--format', '{{range $name, $text := .Config.Labels}}{{$name}}: {{$text}}{{"\\n"}}{{end}}', image]
    def answer = ask(asked)
    if (answer.code != 0) {
        def absent = answer.text.toLowerCase() =~ /no such image|image not known|no such object/
        if (!own && absent) {
            return null
        }
        return absent
            ? "${engine} has no image ${image}: make it with ${remedy}, or name yours as process.container in a file for -c."
            : "${engine} cannot show the image ${image} (${inOneLine(answer.text)}): start ${engine}, or choose another engine's profile."
    }
    def label = answer.text =~ /(?m)^lesionforge\.code: (\w+)$/
    return label && label[0][1] != codeDigest()
        ? "The image ${image} holds other Python code than this checkout: make it anew with ${remedy}."
        : null
}

def remedyFor(engine, image) {
    def gpu = image.toString().contains('-gpu')
    return engine == 'apptainer' ? "'make sif${gpu ? '-gpu' : ''}'" : "'containers/build ${gpu ? 'gpu' : 'cpu'}'"
}

// As code_digest in containers/build.
def codeDigest() {
    def root = file("${projectDir}/python/src/lesionforge", glob: false)
    def lines = sourcesOf(root).collectEntries { path -> ["./${root.relativize(path)}".toString(), path.bytes.md5()] }.sort()
    return (lines + [(lockOfPackages().name): lockOfPackages().bytes.md5()]).collect { name, digest -> "${digest}  ${name}\n" }.join('').md5()
}
