#!/usr/bin/env nextflow

// lesionforge: a multiple-sclerosis lesion segmenter from very few annotated scans.
// The stages and their files are described in docs/design.md, the parameters in nextflow_schema.json.

include { helpText; parameterProblems } from './modules/parameters'
include { COHORT          } from './modules/cohort/main'
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
    mode // experiment, augment or segment
    arms // names of the arms
    model // model folder for the mode segment, else an empty list
    init // model folder that training starts from, or an empty list
    limits // file of own quality limits, or an empty list
    registration // composed or pairwise
    library // folder of lesion masks in template space, or an empty list

    main:
    // Act 1: read the cohort. All else follows from the checked table, so nothing is queued before it is there.
    COHORT(source, arms, model, init, library)

    // Act 2: run the stages.
    segmenting = mode == 'segment'
    scans = COHORT.out.scans.filter { meta, _t1w, _flair, _further, _lesion_mask, _brain_mask -> !segmenting || meta.role == 'patient' }
    PREPARE(scans, limits)
    prepared = PREPARE.out.folder
    metas = scans.map { meta, _t1w, _flair, _further, lesion_mask, _brain_mask -> [meta.id, meta, lesion_mask ? true : false] }
    by_meta = metas.join(prepared) // [id, meta, has a reference mask, prepared folder]

    transforms = channel.empty()
    levels = channel.empty()
    synthetic = channel.empty()
    generator = channel.empty()
    indices = channel.empty()
    models = segmenting ? channel.of(['model', model]) : channel.empty()
    planned = channel.empty()
    // CHECK refuses the arm real without an annotated training scan where a network is trained on it; else it is left out.
    assembled_arms = metas
        .filter { _id, meta, has_mask -> has_mask && meta.role == 'patient' && meta.split == 'train' }
        .count()
        .map { annotated -> arms.findAll { arm -> arm != 'real' || annotated } }

    if (!segmenting) {
        planned = COHORT.out.pairs
        // What belongs to a test patient goes neither into the generator nor into a training set.
        learned_from = by_meta
            .filter { _id, meta, _has_mask, _folder -> meta.role == 'patient' && meta.split in ['train', 'validation'] }
            .map { id, _meta, _has_mask, folder -> [id, folder] }
        healthy = by_meta
            .filter { _id, meta, _has_mask, _folder -> meta.role == 'healthy' }
            .map { id, _meta, _has_mask, folder -> [id, folder] }

        // Who among them validates; it changes only when they change, so that another test subject trains nothing anew.
        roster = by_meta
            .filter { _id, meta, _has_mask, _folder -> meta.role == 'patient' && meta.split in ['train', 'validation'] }
            .map { id, meta, _has_mask, _folder -> "${id}\t${meta.role}\t${meta.split}" }
            .collectFile(name: 'cohort.tsv', seed: "id\trole\tsplit", newLine: true, sort: true)
            .first()

        // Whose lesions tell how bright those of a library are: what validates is not learned from.
        training = by_meta
            .filter { _id, meta, _has_mask, _folder -> meta.role == 'patient' && meta.split == 'train' }
            .map { id, _meta, _has_mask, _folder -> [id] }

        REGISTER(prepared, COHORT.out.pairs, registration, limits)
        transforms = REGISTER.out.transforms
        SYNTHESIZE(learned_from, roster, training, healthy, COHORT.out.pairs, REGISTER.out.warped)
        levels = SYNTHESIZE.out.levels
        synthetic = SYNTHESIZE.out.synthetic
        generator = SYNTHESIZE.out.generator
        ASSEMBLE_ARMS(learned_from, synthetic, COHORT.out.folder, assembled_arms)
        indices = ASSEMBLE_ARMS.out.index
        if (mode == 'experiment') {
            TRAIN_ARMS(ASSEMBLE_ARMS.out.data_sets, init)
            models = TRAIN_ARMS.out.model
        }
    }

    to_segment = by_meta.filter { _id, meta, _has_mask, _folder -> segmenting || (meta.role == 'patient' && meta.split == 'test') }
    SEGMENT_SCANS(to_segment.map { id, _meta, _has_mask, folder -> [id, folder] }, models)
    references = to_segment.filter { _id, _meta, has_mask, _folder -> has_mask }.map { id, _meta, _has_mask, folder -> [id, folder] }
    EVALUATE_SCANS(SEGMENT_SCANS.out.folder, references)

    // Act 3: close with the report, and say what did not get through.
    REPORT_ALL(
        COHORT.out.folder,
        PREPARE.out.measured,
        transforms,
        levels,
        synthetic,
        generator,
        indices,
        models,
        SEGMENT_SCANS.out.folder,
        SEGMENT_SCANS.out.table,
        EVALUATE_SCANS.out.folder,
        limits,
    )
    to_apply = to_segment.combine(models).map { row -> ["${row[0]} (${row[4]})".toString()] }
    applied = SEGMENT_SCANS.out.folder.map { arm, id, _folder -> ["${id} (${arm})".toString()] }
    stopped = lost(metas, prepared, 'prepare')
        .mix(lost(planned.map { pair -> [pair.synthetic_id] }, synthetic, 'register or synthesize'))
        .mix(segmenting ? channel.empty() : lost(assembled_arms.flatten().map { arm -> [arm] }, indices.flatten().map { index -> [index.baseName] }, 'assemble'))
        .mix(lost(to_apply, applied, 'segment'))
        .mix(COHORT.out.refused.map { row -> "${row.id} did not get through cohort: ${row.problem}".toString() })
    report = REPORT_ALL.out.folder

    emit:
    report
    stopped // sentences
}

// A sentence for each expected id that did not come out of a stage.
def lost(expected, done, stage) {
    return expected
        .map { row -> [row[0], true] }
        .join(done.map { row -> [row[0], true] }, remainder: true)
        .filter { row -> !row[2] }
        .map { row -> "${row[0]} did not get through ${stage}" }
}

def sayWhereTheReportIs(outdir) {
    if (workflow.success) {
        log.info("Report: ${outdir}/report/index.html")
    }
}

workflow {
    main:
    if (params.help) {
        log.info(helpText())
    }
    else {
        problems = parameterProblems(params)
        if (params.mode == 'segment' && !params.model) {
            problems = problems + ['--mode segment needs --model, the folder of a trained cascade.']
        }
        if (params.retrain && !params.init) {
            problems = problems + ['--retrain belongs to --init, the model folder to start from; give it, or leave --retrain out.']
        }
        of_training = ['init', 'retrain', 'train_network'].findAll { name -> params[name] }.collect { name -> "--${name}" }
        if (of_training && params.mode in ['augment', 'segment']) {
            said = "${of_training.join(' and ')} ${of_training.size() > 1 ? 'belong' : 'belongs'}"
            problems = problems + ["${said} to --mode experiment, which trains the cascade, not ${params.mode}; change the mode or leave out what does not go with it."]
        }
        if (params.synthetic == 0 && params.mode != 'segment' && 'augmented' in params.arms.tokenize(',')) {
            problems = problems + ['--synthetic 0 leaves nothing for the arm augmented: give a number above 0, or --arms real.']
        }
        if (params.reproducible && 'gpu' in workflow.profile.tokenize(',')) {
            problems = problems + ['-profile reproducible and gpu exclude each other: a GPU does not give the same bytes twice.']
        }
        if (problems) {
            error(problems.join('\n'))
        }

        LESIONFORGE(
            file(params.input, glob: false).toAbsolutePath(),
            params.mode,
            params.arms.tokenize(',').unique(),
            params.model ? file(params.model, glob: false).toAbsolutePath() : [],
            params.init ? file(params.init, glob: false).toAbsolutePath() : [],
            params.quality_limits ? file(params.quality_limits, glob: false).toAbsolutePath() : [],
            params.registration,
            params.lesion_library ? file(params.lesion_library, glob: false).toAbsolutePath() : [],
        )
        LESIONFORGE.out.stopped.toSortedList().subscribe { sentences ->
            if (sentences) {
                log.warn("Skipped after an error:\n  ${sentences.join('\n  ')}")
            }
        }
        outdir = params.outdir
        workflow.onComplete {
            sayWhereTheReportIs(outdir)
        }
    }
}
