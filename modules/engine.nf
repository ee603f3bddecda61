// The container engine that the profiles ask for, looked at before anything is queued: its program, its images, their code.

include { ask; forTask; isProgram } from './preflight'
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
    return looked_at.collect { image -> imageProblem(engine, image, images[image]) }.findAll { sentence -> sentence }
}

// A GPU of this machine reaches containers only where the engine was set up for it; else the first task with one would find out
// (Apptainer only warns). With the options that the profile gives such tasks; a file for -c that names others knows what it does.
def gpuProblems(workflow) {
    def settings = workflow.session.config.process
    def engine = workflow.containerEngine
    def own = [settings, settings['withLabel:gpu']].every { set -> !set?.containerOptions || set.containerOptions instanceof Closure }
    if (!(engine in ['docker', 'podman']) || !own || !('gpu' in workflow.profile.tokenize(',')) || !(settings.executor in [null, 'local'])) {
        return []
    }
    def options = forTask(settings.containerOptions ?: '', [accelerator: 1])
    // Named last, by imagesOf; one that is not there is the engine's to fetch.
    def image = imagesOf(workflow, settings).keySet().toList().reverse().find { name -> ask([engine, 'image', 'inspect', name]).code == 0 }
    def answer = image ? ask([engine, 'run', '--rm', '--network=none'] + options.toString().tokenize(' ') + [image, 'true']) : [code: 0]
    return answer.code
        ? ["${engine} cannot show this machine's GPU to a container (${answer.text.readLines().findAll { line -> line.trim() }.join(' ')}): set up NVIDIA's Container Toolkit for it, or leave the profile gpu out.".toString()]
        : []
}

// The images of a run, and whether each is this checkout's own, as the profiles name them by a closure. One that the user names as
// text, for all tasks or for those with the label gpu, may be the engine's to fetch, unless it is a file.
def imagesOf(workflow, settings) {
    def gpu = 'gpu' in workflow.profile.tokenize(',')
    def given = [settings.container, settings['withLabel:gpu']?.container].collect { set -> set && !(set instanceof Closure) ? set.toString() : null }
    // An engine without a profile of ours has no image, or those of single processes.
    def own = settings.container instanceof Closure
    def images = own ? [(ownImage(workflow, '')): true] : given[0] ? [(given[0]): false] : [:]
    return given[1] ? images + [(given[1]): false] : own && gpu ? images + [(ownImage(workflow, '-gpu')): true] : images
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
            : "${engine} cannot show the image ${image} (${answer.text.readLines().findAll { line -> line.trim() }.join(' ')}): start ${engine}, or choose another engine's profile."
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
