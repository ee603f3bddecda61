#!/usr/bin/env nextflow

// lesionforge: a multiple-sclerosis lesion segmenter from very few annotated scans.
// The stages and their files are described in docs/design.md, the parameters in nextflow_schema.json.

include { combinationProblems; helpText; parameterProblems; workFolderProblems } from './modules/parameters'
include { cohortProblems; folderProblems; forgetDamaged; lateProblems; machineProblems; unusedGpu } from './modules/preflight'
include { engineProblems; startProblems } from './modules/engine'
include { failuresIn; failuresInWords; writeFailures } from './modules/failures'
include { lockOf; partialFolder; publish } from './modules/publish'
include { runName } from './modules/script'
include { COHORT; filesOf } from './modules/cohort/main'
include { PREPARE         } from './modules/prepare/main'
include { REGISTER        } from './modules/register/main'
include { SYNTHESIZE      } from './modules/synthesize/main'
include { ASSEMBLE_ARMS   } from './modules/assemble/main'
include { TRAIN_ARMS      } from './modules/train/main'
include { SEGMENT_SCANS   } from './modules/segment/main'
include { EVALUATE_SCANS  } from './modules/evaluate/main'
include { REPORT_ALL      } from './modules/report/main'

workflow LESIONFORGE {
    take:
    source // path of the samplesheet or BIDS folder
    files // list of the scans and masks that it names
    mode // experiment, augment or segment
    arms // names of the arms
    model // model folder for the mode segment, else an empty list
    init // model folder that training starts from, or an empty list
    baseline // model folder that the arms are compared with, or an empty list
    seed // of the draws
    train_seeds // list of the seeds that each arm is trained with
    chosen // map of the options configuration, network and retrain of trainings, each a text or null
    limits // file of own quality limits, or an empty list
    registration // composed or pairwise
    library // folder of lesion masks in template space, or an empty list
    outdir // folder for all results

    main:
    // Act 1: read the cohort. All else follows from the checked table, so nothing is queued before it is there.
    COHORT(source, files, arms, model, init, baseline, library)

    // Act 2: run the stages.
    segmenting = mode == 'segment'
    scans = COHORT.out.scans.filter { meta, _t1w, _flair, _further, _lesion_mask, _brain_mask -> !segmenting || meta.role == 'patient' }
    PREPARE(scans, limits)
    prepared = PREPARE.out.folder
    // Who takes part in which fold. Without folds there is one, whose name is empty.
    in_fold = COHORT.out.folds.map { row -> [row.id, row.fold, row.subject, row.role, row.split, row.lesion_mask ? true : false] }
    members = in_fold.combine(prepared, by: 0) // [id, fold, subject, role, split, has a mask to learn from, prepared folder]

    transforms = channel.empty()
    levels = channel.empty()
    synthetic = channel.empty()
    changed = channel.empty()
    generator = channel.empty()
    indices = channel.empty()
    trained = channel.empty()
    planned = channel.empty()
    wanted = channel.empty()
    runs = channel.empty()
    generating = channel.empty()
    to_train = channel.empty()

    if (segmenting) {
        trained = channel.of(['model', '', 'model', '', model])
        runs = trained
    }
    else {
        planned = COHORT.out.pairs
        // What belongs to a fold's test patient goes neither into its generator nor into one of its training sets.
        learned_from = members
            .filter { _id, _fold, _subject, role, split, _has_mask, _folder -> role == 'patient' && split in ['train', 'validation'] }
            .map { id, fold, _subject, _role, split, has_mask, folder -> [id, fold, split, has_mask, folder] }
        healthy = members
            .filter { _id, _fold, _subject, role, _split, _has_mask, _folder -> role == 'healthy' }
            .map { id, _fold, _subject, _role, _split, _has_mask, folder -> [id, folder] }
            .unique { row -> row[0] }

        // Who teaches in each fold, patients alone for the generator; a table changes only when they change, so that another
        // test subject trains nothing anew.
        taught = members.filter { _id, _fold, _subject, _role, split, _has_mask, _folder -> split in ['train', 'validation'] }
        painted_folds = planned.filter { pair -> pair.kind == 'syn' }.map { pair -> [pair.fold] }.unique()
        generating = mode == 'augment' ? in_fold.map { row -> [row[1]] }.unique() : painted_folds
        patients = rosters(
            taught.filter { _id, _fold, _subject, role, _split, _has_mask, _folder -> role == 'patient' },
            ['id', 'role', 'split'],
        )
        everybody = rosters(taught, ['id', 'subject', 'role', 'split', 'lesion_mask'])

        to_warp = planned.filter { pair -> pair.kind != 'cla' }
        REGISTER(prepared, to_warp, registration, limits)
        transforms = REGISTER.out.transforms
        SYNTHESIZE(
            learned_from,
            patients.join(generating),
            healthy,
            planned.filter { pair -> pair.kind == 'syn' },
            REGISTER.out.warped,
        )
        levels = SYNTHESIZE.out.levels
        synthetic = SYNTHESIZE.out.synthetic
        generator = SYNTHESIZE.out.generator

        // CHECK refuses an arm of annotated scans without one where a network is trained on it; else it is left out. The baseline
        // is adapted to the scans of the arm real.
        of_masks = ['real', 'classical', 'mix']
        annotated = in_fold
            .filter { _id, _fold, _subject, role, split, has_mask -> has_mask && role == 'patient' && split == 'train' }
            .map { row -> row[1] }
            .unique()
            .toList()
        wanted = in_fold
            .map { row -> row[1] }
            .unique()
            .combine(annotated.map { folds -> [folds] })
            .flatMap { fold, folds -> (arms + (baseline ? ['real'] : [])).unique(false).findAll { arm -> fold in folds || !(arm in of_masks) }.collect { arm -> [fold, arm] } }
        ASSEMBLE_ARMS(learned_from, SYNTHESIZE.out.canvases, synthetic, REGISTER.out.warped, planned, everybody, wanted, seed)
        indices = ASSEMBLE_ARMS.out.index.map { fold, arm, index -> [runName(arm, fold), index] }
        changed = ASSEMBLE_ARMS.out.made
        if (mode == 'experiment') {
            TRAIN_ARMS(ASSEMBLE_ARMS.out.data_sets, arms, train_seeds, init, baseline, chosen)
            unadapted = in_fold
                .map { row -> row[1] }
                .unique()
                .filter { baseline }
                .map { fold -> [runName('baseline', fold), fold, 'baseline', '', baseline] }
            trained = TRAIN_ARMS.out.model
            to_train = TRAIN_ARMS.out.expected
            runs = trained.mix(unadapted)
        }
    }

    to_segment = members
        .filter { _id, _fold, _subject, role, split, _has_mask, _folder -> role == 'patient' && (segmenting || split == 'test') }
        .map { id, fold, _subject, _role, _split, _has_mask, folder -> [fold, id, folder] }
    SEGMENT_SCANS(to_segment, runs)
    // With a model from elsewhere, CHECK leaves out the masks of subjects that it has seen.
    measured = in_fold.filter { _id, _fold, _subject, _role, split, has_mask -> has_mask && (segmenting || split == 'test') }.map { row -> [row[0]] }
    references = measured.unique().join(prepared)
    EVALUATE_SCANS(SEGMENT_SCANS.out.folder, runs, references)

    // Act 3: close with the report, and say what did not get through.
    REPORT_ALL(
        COHORT.out.folder,
        PREPARE.out.measured,
        transforms,
        levels,
        synthetic,
        generator,
        indices,
        trained.map { run, _fold, _arm, _seed, folder -> [run, folder] },
        SEGMENT_SCANS.out.folder,
        SEGMENT_SCANS.out.table,
        EVALUATE_SCANS.out.folder,
        limits,
    )
    stopped = lost(scans.map { row -> [row[0].id] }, prepared, 'prepare')
        .mix(lost(generating.map { row -> [runName('generator', row[0])] }, generator.map { fold, _folder -> [runName('generator', fold)] }, 'synthesize'))
        .mix(lost(planned.map { pair -> [pair.synthetic_id] }, synthetic.mix(changed), 'register, synthesize or assemble'))
        .mix(lost(wanted.map { fold, arm -> [runName(arm, fold)] }, indices, 'assemble'))
        .mix(lost(to_train, trained.map { row -> row.take(1) }, 'train'))
        .mix(lost(SEGMENT_SCANS.out.expected.map { row -> of(row) }, SEGMENT_SCANS.out.folder.map { row -> of(row) }, 'segment'))
        .mix(lost(EVALUATE_SCANS.out.expected.map { row -> of(row) }, EVALUATE_SCANS.out.done.map { row -> of(row) }, 'evaluate'))
        .mix(COHORT.out.refused.map { row -> "${row.id} did not get through cohort: ${row.problem}".toString() })
    report = REPORT_ALL.out.folder

    results = COHORT.out.folder.mix(COHORT.out.description, EVALUATE_SCANS.out.folder, report)
        .map { path -> ['', path] }
        .mix(
            PREPARE.out.measured.map { _id, folder -> ['prepare', folder] },
            transforms.map { _id, folder -> ['register', folder] },
            levels.map { _id, folder -> ['synthesize/levels', folder] },
            synthetic.mix(generator).map { _id, folder -> ['synthesize', folder] },
            changed.mix(indices).map { _id, path -> ['assemble', path] },
            (segmenting ? channel.empty() : trained).map { _run, _fold, _arm, _seed, folder -> ['train', folder] },
            SEGMENT_SCANS.out.folder.map { run, _id, folder -> ["segment/${run}".toString(), folder] },
            SEGMENT_SCANS.out.table.flatten().map { path -> ['segment', path] },
        )
    unpublished = results.map { place, path -> publish(path, outdir, place) ?: '' }.filter { sentence -> sentence }

    emit:
    stopped // sentences
    unpublished // sentences
}

// How a scan of a run is named in such a sentence, from [run, id, ...].
def of(row) {
    return ["${row[1]} (${row[0]})".toString()]
}

// A sentence for each expected id that did not come out of a stage.
def lost(expected, done, stage) {
    return expected
        .map { row -> [row[0], true] }
        .join(done.map { row -> [row[0], true] }, remainder: true)
        .filter { row -> !row[2] }
        .map { row -> "${row[0]} did not get through ${stage}" }
}

// [fold, table of its scans], from [id, fold, subject, role, split, has a mask to learn from, prepared folder]. No two calls
// may make the same table: Nextflow would keep one of the two for the next run, and find the other changed.
def rosters(rows, columns) {
    return rows
        .collectFile(seed: columns.join('\t'), newLine: true, sort: true) { id, fold, subject, role, split, has_mask, _folder ->
            def cells = [id: id, subject: subject, role: role, split: split, lesion_mask: has_mask ? 'given' : '']
            ["${runName('cohort', fold)}.tsv", columns.collect { column -> cells[column] }.join('\t')]
        }
        .map { table -> [table.baseName.contains('_fold-') ? table.baseName.tokenize('-').last() : '', table] }
}

// Where the report is. After a failure, what failed and why, and a full disk is named: a task there cannot say what was wrong, its
// log lies on it.
def sayHowItEnded(outdir, given, trace) {
    // A run that skipped somebody is no success, but has no error either.
    if (workflow.success || (!workflow.errorMessage && outdir.resolve('report/index.html').exists())) {
        log.info("Report: ${given}/report/index.html")
    }
    if (!workflow.success) {
        folderProblems(outdir, workflow.workDir).each { sentence -> log.warn(sentence) }
    }
    // Whatever is wrong with these files, the run has ended as it has.
    try {
        def table = outdir.resolve('pipeline_info/failed.tsv')
        def failures = failuresIn(trace)
        if (failures) {
            log.warn("What failed (also in ${given}/pipeline_info/failed.tsv):\n  ${failuresInWords(failures, table).join('\n  ')}")
        }
        writeFailures(failures, table)
    }
    catch (Exception error) {
        log.warn("What failed cannot be listed in ${given}/pipeline_info/failed.tsv (${error.class.simpleName}: ${error.message}).")
    }
}

// Ends the run before anything is queued, if anything is wrong.
def refuse(problems) {
    if (problems) {
        error(problems.join('\n'))
    }
}

// The place that a parameter names; an empty list, which a process takes as no file, for one that is not given.
def pathOf(given) {
    return given ? file(given.toString(), glob: false).toAbsolutePath() : []
}

workflow {
    main:
    if (params.help) {
        log.info(helpText())
    }
    else {
        // Act 1: refuse what cannot end well.
        profiles = workflow.profile.tokenize(',')
        refuse(parameterProblems(params) + combinationProblems(params, profiles) + lateProblems(params, workflow.session.config) + workFolderProblems(workflow.workDir, profiles) + engineProblems(workflow))
        source = pathOf(params.input)
        outdir = pathOf(params.outdir).normalize()
        refuse(machineProblems(profiles, params, workflow.session.config.process) + folderProblems(outdir, workflow.workDir))
        files = filesOf(source)
        refuse(cohortProblems(outdir, files))
        refuse(startProblems(workflow))
        lock = lockOf(outdir)
        refuse(lock ? [] : ["--outdir ${outdir} is being written by another run; wait until that ends, or give another folder."])

        // Act 2: run it, on what earlier runs left whole.
        unused = unusedGpu(profiles, workflow.session.config.process)
        if (unused) {
            log.info(unused)
        }
        partialFolder(outdir).deleteDir()
        if (workflow.resume) {
            forgetDamaged(workflow.workDir).each { folder -> log.warn("The files of the finished task in ${folder} changed since; it is done again.") }
        }
        LESIONFORGE(
            source,
            files,
            params.mode,
            params.arms.tokenize(',').unique(),
            pathOf(params.model),
            pathOf(params.init),
            pathOf(params.baseline),
            params.seed,
            (0..<params.train_seeds).collect { number -> params.seed + number },
            [configuration: params.train_configuration, network: params.train_network, retrain: params.retrain],
            pathOf(params.quality_limits),
            params.registration,
            pathOf(params.lesion_library),
            outdir,
        )

        // Act 3: say what is missing, and let go of the output folder.
        LESIONFORGE.out.unpublished.subscribe { sentence -> log.warn(sentence) }
        LESIONFORGE.out.stopped
            .toSortedList()
            .map { sentences -> [sentences] }
            .combine(LESIONFORGE.out.unpublished.toSortedList().map { sentences -> [sentences] })
            .subscribe { stopped, unpublished ->
                // In a run that ends early that would be all that it has not come to.
                if (stopped && !workflow.session.isCancelled() && !workflow.session.isAborted()) {
                    log.warn("Skipped after an error:\n  ${stopped.join('\n  ')}")
                }
                // Not in a function: Nextflow would show that something was wrong in it, not what. All that was computed is safe.
                if (unpublished) {
                    error("${unpublished.size()} results are not in the output folder, see above: make it writable or free space there, and start again with -resume; nothing is computed anew.")
                }
            }
        given = params.outdir
        trace = file(workflow.session.config.trace.file.toString(), glob: false)
        workflow.onComplete {
            partialFolder(outdir).deleteDir()
            sayHowItEnded(outdir, given, trace)
            lock.close()
        }
    }
}
