"""Wiring, resume and refusals, in stub runs: Nextflow is real, each task but CHECK only asks its command for help."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import pytest

ROWS = [("01", "patient", "train"), ("02", "patient", "test"), ("03", "healthy", "train")]
PER_SCAN = {"STRIP": 3, "ALIGN": 3, "TISSUES": 3, "QUALITY": 3}
SYNTHESIS = {
    "TO_TEMPLATE": 2,
    "QUALITY_OF_TRANSFORM": 2,
    "PAIR": 1,
    "LEVELS": 1,
    "TRAIN_GENERATOR": 1,
    # As many synthetic scans as the profile test asks for, all of the one pair there is.
    "TRANSPLANT": 4,
    "PAINT": 4,
}
TWO_ARMS = {"ASSEMBLE": 2, "TRAIN": 2, "SEGMENT": 2, "TABULATE": 1, "EVALUATE": 2, "COMPARE": 1}


@pytest.fixture(scope="session")
def sheet(tmp_path_factory, sheet_writer):
    return sheet_writer(tmp_path_factory.mktemp("données d'un test") / "ma cohorte.csv", ROWS)


@pytest.fixture(scope="session")
def experiment(stub, sheet):
    run = stub(sheet, "experiment")
    assert run.code == 0, run.printed
    return run


@pytest.fixture(scope="session")
def repeated(stub, sheet, experiment):
    return stub(sheet, "experiment")


def counts(tasks):
    return Counter(task["process"].rsplit(":", 1)[1] for task in tasks)


def test_a_run_asks_for_no_parameter_that_is_not_defined(experiment):
    assert "undefined parameter" not in experiment.printed


def test_each_process_of_the_experiment_runs_as_often_as_the_cohort_asks(experiment):
    assert counts(experiment.tasks) == {"CHECK": 1, **PER_SCAN, **SYNTHESIS, **TWO_ARMS, "REPORT": 1}


def test_each_stage_publishes_into_the_folder_of_its_name(experiment):
    out = experiment.outdir
    for path in (
        "dataset_description.json",
        "cohort/cohort.tsv",
        "prepare/sub-02/sub-02_desc-prepare.json",
        "register/sub-03",
        "synthesize/levels/sub-01",
        "synthesize/generator/model.json",
        "synthesize/sub-syn0001",
        "synthesize/sub-syn0001/sub-syn0001_desc-draw.json",
        "assemble/augmented.tsv",
        "train/real/model.json",
        "segment/augmented/sub-02",
        "segment/scans.tsv",
        "evaluate/arms.tsv",
        "report/index.html",
    ):
        assert (out / path).exists(), path


def test_the_test_patient_reaches_neither_the_generator_nor_a_training_set(experiment):
    assert not (experiment.outdir / "synthesize" / "levels" / "sub-02").exists()
    assert not (experiment.outdir / "register" / "sub-02").exists()
    for arm in ("real", "augmented"):
        assert "sub-02" not in (experiment.outdir / "assemble" / f"{arm}.tsv").read_text()


def test_only_the_augmented_arm_gets_synthetic_scans(experiment):
    assert "sub-syn0001" in (experiment.outdir / "assemble" / "augmented.tsv").read_text()
    assert "sub-syn0001" not in (experiment.outdir / "assemble" / "real.tsv").read_text()


def test_a_repeated_run_reuses_everything(repeated):
    assert repeated.code == 0, repeated.printed
    assert {task["status"] for task in repeated.tasks} == {"CACHED"}


def test_the_other_parser_runs_the_same_pipeline(stub, sheet, experiment, repeated, monkeypatch):
    # Where the environment names the strict one, as continuous integration does, the usual one.
    monkeypatch.setenv("NXF_SYNTAX_PARSER", "v1" if os.environ.get("NXF_SYNTAX_PARSER") == "v2" else "v2")
    run = stub(sheet, "experiment_other")
    assert run.code == 0, run.printed
    assert counts(run.tasks) == counts(experiment.tasks)


def test_scans_are_told_by_their_content_and_not_by_their_times(stub, sheet_writer, tmp_path):
    sheet = sheet_writer(tmp_path / "cohort.csv", [("01", "patient", "train"), ("02", "patient", "test")])
    first = stub(sheet, "told", "--arms", "real")
    assert first.code == 0, first.printed
    for scan in tmp_path.glob("*.nii.gz"):
        os.utime(scan, (1, 1))
    copied = stub(sheet, "told", "--arms", "real")
    assert copied.code == 0 and copied.processes("COMPLETED") == set(), copied.printed
    scan = next(tmp_path.glob("*02*T1w*"))
    content = bytearray(scan.read_bytes())
    content[4] ^= 1  # the time in the head of a gzip file: other content of the same size, and as valid
    scan.write_bytes(content)
    os.utime(scan, (1, 1))
    run = stub(sheet, "told", "--arms", "real")
    assert run.code == 0, run.printed
    # Not QUALITY, which sees figures alone, by content too; those of a stub are empty.
    again = {"CHECK", "STRIP", "ALIGN", "TISSUES", "SEGMENT", "TABULATE", "EVALUATE", "COMPARE", "REPORT"}
    assert counts([task for task in run.tasks if task["status"] == "COMPLETED"]) == dict.fromkeys(again, 1)


def test_further_contrasts_reach_the_processes_that_prepare_them(stub, sheet, sheet_writer, tmp_path_factory):
    with_t2w = sheet_writer(tmp_path_factory.mktemp("trois") / "cohort.csv", ROWS)
    header, *rows = with_t2w.read_bytes().decode().split("\r\n")[:-1]
    for subject, _, _ in ROWS:
        (with_t2w.parent / f"tête {subject}, T2w.nii.gz").write_bytes((sheet.parent / f"tête {subject}, T1w.nii.gz").read_bytes())
    cells = [f'{row},"tête {subject}, T2w.nii.gz"' for row, (subject, _, _) in zip(rows, ROWS, strict=True)]
    with_t2w.write_bytes("\r\n".join([f"{header},t2w", *cells, ""]).encode())
    run = stub(with_t2w, "contrasts", "--mode", "augment")
    assert run.code == 0, run.printed
    staged = [path.name for path in run.outdir.parent.glob("work/*/*/t2w/*")]
    # STRIP and ALIGN of each scan.
    assert Counter(staged) == {f"tête {subject}, T2w.nii.gz": 2 for subject, _, _ in ROWS}


def test_pairwise_registers_each_pair_directly_and_prepares_nothing_anew(stub, sheet, repeated):
    assert "Registrations: 2 (composed takes 2, one per scan; pairwise 1, one per pair)" in repeated.printed
    run = stub(sheet, "pairwise", "--mode", "augment", "--registration", "pairwise")
    assert run.code == 0, run.printed
    assert "Registrations: 1 (" in run.printed
    assert (len(run.named("PAIR_DIRECTLY")), run.named("TO_TEMPLATE"), run.named("PAIR")) == (1, [], [])
    assert {task["status"] for task in run.named("TISSUES")} == {"CACHED"}


def test_masks_of_a_library_need_only_their_canvas_registered_and_no_test_subject_gets_in(
    stub, sheet, sheet_writer, template_masks
):
    """Then another test subject, whose mask the library does not have: nothing is trained anew."""
    library = template_masks(sheet.parent / "une bibliothèque", ["sub-02_label-lesion_mask", "sub-07_label-lesion_mask", "8"])
    options = ("--mode", "augment", "--lesion_library", str(library), "--registration", "pairwise", "--lesion_load", "5")
    run = stub(sheet, "library", *options)
    assert run.code == 0, run.printed
    assert "sub-02_label-lesion_mask.nii.gz, lesion_library: is named after sub-02 of split test" in run.printed
    assert {task["tag"] for task in run.named("PAIR_LIBRARY")} == {"lib-07 to sub-03", "lib-8 to sub-03"}
    assert [task["tag"] for task in run.named("TO_TEMPLATE")] == ["sub-03"]
    assert (len(run.named("STATISTICS")), len(run.named("TRANSPLANT")), len(run.named("PAINT"))) == (1, 4, 4)

    run = stub(with_another_patient(sheet, sheet_writer, "51"), "library", *options)
    assert run.code == 0, run.printed
    assert run.processes("COMPLETED") == {"CHECK", "STRIP", "ALIGN", "TISSUES", "QUALITY", "REPORT"}


@pytest.fixture(scope="session")
def unmasked(sheet_writer, template_masks, tmp_path_factory):
    """(sheet without masks of its training patients and without healthy scans, folder of masks in template space)."""
    folder = tmp_path_factory.mktemp("unmasked")
    rows = [("21", "patient", "train"), ("22", "patient", "train"), ("23", "patient", "test")]
    sheet = sheet_writer(folder / "cohort.csv", rows)
    for subject in (b"21", b"22"):
        sheet.write_bytes(sheet.read_bytes().replace(b'"' + subject + b' mask.nii.gz"', b""))
    return sheet, template_masks(folder / "library", ["a", "b"])


def test_without_masks_of_training_patients_the_arm_real_is_refused_before_any_work(stub, unmasked):
    sheet, library = unmasked
    run = stub(sheet, "real", "--lesion_library", str(library))
    assert run.code != 0
    assert [(task["process"].rsplit(":", 1)[1], task["status"]) for task in run.tasks] == [("CHECK", "FAILED")]
    assert "so the arm real has nothing to train on; give one a lesion_mask" in run.printed


def test_without_masks_of_training_patients_a_library_makes_an_experiment(stub, unmasked):
    sheet, library = unmasked
    run = stub(sheet, "unmasked", "--lesion_library", str(library), "--arms", "augmented")
    assert run.code == 0, run.printed
    assert "did not get through" not in run.printed
    synthesis = SYNTHESIS | {"PAIR_LIBRARY": 4, "STATISTICS": 1, "LEVELS": 2}
    del synthesis["PAIR"]
    one_arm = dict.fromkeys(("ASSEMBLE", "TRAIN", "SEGMENT", "TABULATE", "EVALUATE", "COMPARE", "REPORT"), 1)
    assert counts(run.tasks) == {"CHECK": 1, **PER_SCAN, **synthesis, **one_arm}
    assert "sub-syn0001" in (run.outdir / "assemble" / "augmented.tsv").read_text()


def test_without_masks_of_training_patients_augment_leaves_the_arm_real_out(stub, unmasked):
    sheet, library = unmasked
    run = stub(sheet, "unmasked", "--lesion_library", str(library), "--mode", "augment")
    assert run.code == 0, run.printed
    assert "so the arm real is left out" in run.printed
    assert "did not get through" not in run.printed
    assert [path.name for path in (run.outdir / "assemble").glob("*.tsv")] == ["augmented.tsv"]
    assert run.processes("COMPLETED") == {"CHECK", "REPORT"}


def test_an_edit_to_a_stage_reruns_it_and_what_follows_and_nothing_before(stub, sheet, pipeline, repeated):
    edited = pipeline / "python" / "src" / "lesionforge" / "evaluate" / "arms.py"
    before = edited.read_text()
    edited.write_text(before + "\n# A remark.\n")
    run = stub(sheet, "experiment")
    edited.write_text(before)
    assert run.code == 0, run.printed
    assert run.processes("COMPLETED") == {"EVALUATE", "COMPARE", "REPORT"}
    assert run.processes("CACHED") == {"CHECK", *PER_SCAN, *SYNTHESIS, "ASSEMBLE", "TRAIN", "SEGMENT", "TABULATE"}


def test_another_model_to_start_from_trains_anew_and_paints_nothing_anew(stub, sheet, tmp_path, write_cascade_folder, repeated):
    """CHECK judges it, so it runs too."""
    start = write_cascade_folder(tmp_path / "my start", voxel_mm=2.0, training=["sub-01"])
    run = stub(sheet, "experiment", "--init", str(start), "--train_network", "valverde2017")
    assert run.code == 0, run.printed
    assert run.processes("COMPLETED") == {"CHECK", "TRAIN", "SEGMENT", "TABULATE", "EVALUATE", "COMPARE", "REPORT"}
    assert run.processes("CACHED") == {*PER_SCAN, *SYNTHESIS, "ASSEMBLE"}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"voxel_mm": 2.0, "training": ["sub-02"]}, "column split: is test, but init/my start of --init has seen sub-02"),
        ({"voxel_mm": 1.0}, "is for voxels of 1 mm, but the scans will have 2 mm"),
    ],
    ids=["leak", "voxel size"],
)
def test_a_model_that_is_no_fair_start_is_refused_before_any_work(stub, sheet, tmp_path, write_cascade_folder, entries, said):
    run = stub(sheet, "unfair", "--init", str(write_cascade_folder(tmp_path / "my start", **entries)))
    assert run.code != 0
    assert [(task["process"].rsplit(":", 1)[1], task["status"]) for task in run.tasks] == [("CHECK", "FAILED")]
    assert said in run.printed


def test_what_goes_with_training_alone_is_refused_in_another_mode(stub, sheet, tmp_path):
    run = stub(sheet, "untrained", "--mode", "augment", "--init", str(tmp_path), "--train_network", "nicmslesions")
    assert run.code != 0 and run.tasks == []
    assert "--init and --train_network belong to --mode experiment, which trains the cascade, not augment" in run.printed
    run = stub(sheet, "untrained", "--retrain", "last")
    assert run.code != 0 and run.tasks == []
    assert "--retrain belongs to --init or --baseline, the model folder to start from" in run.printed


def with_another_patient(sheet, sheet_writer, subject):
    """A sheet beside the given one with a test patient more, whom no other test prepared."""
    more = sheet_writer(sheet.with_name("mehr.csv"), [(subject, "patient", "test")])
    more.write_bytes(sheet.read_bytes() + more.read_bytes().split(b"\r\n")[1] + b"\r\n")
    return more


def test_segment_needs_a_model_and_patients_only_and_another_patient_costs_its_own_work_and_the_tables(
    stub, sheet, sheet_writer, tmp_path, write_cascade_folder, repeated
):
    model = write_cascade_folder(tmp_path / "my model", voxel_mm=2.0)
    run = stub(sheet, "segment", "--mode", "segment", "--model", str(model))
    assert run.code == 0, run.printed
    per_patient = {"STRIP": 2, "ALIGN": 2, "TISSUES": 2, "QUALITY": 2, "SEGMENT": 2, "EVALUATE": 2}
    assert counts(run.tasks) == {"CHECK": 1, **per_patient, "TABULATE": 1, "COMPARE": 1, "REPORT": 1}
    # Preparation does not depend on the mode: what the experiment prepared is reused.
    assert {task["status"] for task in run.named("TISSUES")} == {"CACHED"}
    assert (run.outdir / "segment" / "model" / "sub-01").is_dir()
    assert (run.outdir / "segment" / "scans.tsv").is_file()

    knowing = write_cascade_folder(tmp_path / "knowing", voxel_mm=2.0, training=["sub-01"])
    run = stub(sheet, "segment_knowing", "--mode", "segment", "--model", str(knowing))
    assert run.code == 0, run.printed
    assert {task["tag"] for task in run.named("SEGMENT")} == {"sub-01 model", "sub-02 model"}
    assert {task["tag"] for task in run.named("EVALUATE")} == {"sub-02 model"}
    assert "is segmented but not measured against its mask" in run.printed

    run = stub(with_another_patient(sheet, sheet_writer, "52"), "segment", "--mode", "segment", "--model", str(model))
    assert run.code == 0, run.printed
    done = Counter(task["process"].rsplit(":", 1)[1] for task in run.tasks if task["status"] == "COMPLETED")
    once = ("STRIP", "ALIGN", "TISSUES", "QUALITY", "SEGMENT", "TABULATE", "EVALUATE", "COMPARE", "REPORT")
    assert done == dict.fromkeys(("CHECK", *once), 1)


@pytest.fixture(scope="session")
def skipping(stub, sheet_writer, template_masks, tmp_path_factory, repeated):
    """A run of mode augment with no healthy scan, one patient whose FLAIR breaks STRIP, one that first needs more memory,
    one beyond its quality limits, one whose T1w is no image and one that is no canvas; and of a library with masks that are
    none, one of them of a name that no shell carries."""
    folder = tmp_path_factory.mktemp("augment")
    rows = [
        ("04", "patient", "train"),
        ("05", "patient", "train"),
        ("06broken", "patient", "train"),
        ("07large", "patient", "train"),
        ("08unfit", "patient", "train"),
        ("09", "patient", "train"),
        ("10blank", "patient", "train"),
    ]
    sheet = sheet_writer(folder / "cohort.csv", rows)
    (folder / "tête 09, T1w.nii.gz").write_bytes(b"no image")
    library = template_masks(folder / "library", ["good"])
    (library / "text.nii.gz").write_bytes(b"no image")
    shutil.copy(library / "good.nii.gz", library / "$(touch pwned).nii.gz")
    options = ("--lesion_library", str(library), "--synthetic", "20")
    return stub(sheet, "augment", "--mode", "augment", "--on_subject_error", "skip", *options)


def test_augment_ends_with_the_data_set_and_the_report(skipping):
    ended = skipping.processes("COMPLETED")
    assert {"LEVELS", "PAINT", "ASSEMBLE", "REPORT"} <= ended
    assert not ended & {"TRAIN", "SEGMENT", "EVALUATE"}


def test_a_skipped_scan_is_named_and_the_others_go_on(skipping):
    assert skipping.code != 0
    assert "sub-06broken did not get through prepare" in skipping.printed
    assert sorted(path.name for path in (skipping.outdir / "prepare").iterdir()) == [
        "sub-04",
        "sub-05",
        "sub-07large",
        "sub-08unfit",
        "sub-10blank",
    ]


def test_a_scan_beyond_its_quality_limits_goes_no_further_but_is_there_to_look_at(skipping):
    assert "sub-08unfit did not get through prepare" in skipping.printed
    assert "sub-08unfit" not in {task["tag"] for task in skipping.named("LEVELS") + skipping.named("TO_TEMPLATE")}
    assert (skipping.outdir / "prepare" / "sub-08unfit").is_dir()


def test_a_task_that_was_killed_gets_more_memory_once_more(skipping):
    tries = [(task["attempt"], task["exit"], task["memory"]) for task in skipping.named("STRIP") if task["tag"] == "sub-07large"]
    assert [(attempt, code) for attempt, code, _ in tries] == [("1", "137"), ("2", "0")]
    assert tries[0][2] != tries[1][2]


def test_a_broken_scan_is_not_tried_again(skipping):
    assert [task["exit"] for task in skipping.named("STRIP") if task["tag"] == "sub-06broken"] == ["2"]


def test_a_scan_with_a_broken_file_is_left_out_by_check_and_counts_as_failed(skipping):
    assert sorted(task["tag"] for task in skipping.named("REFUSE")) == ["lib-text", "lib-touchpwned", "sub-09"]
    assert "sub-09 did not get through cohort: " in skipping.printed
    assert "tête 09, T1w.nii.gz: cannot be read as NIfTI" in skipping.printed
    assert "sub-09" not in {task["tag"] for task in skipping.named("STRIP")}


def test_a_broken_mask_of_a_library_is_left_out_by_check_and_counts_as_failed(skipping):
    assert "lib-text did not get through cohort: " in skipping.printed
    assert "text.nii.gz: cannot be read as NIfTI" in skipping.printed
    assert "lib-touchpwned did not get through cohort: " in skipping.printed
    assert {task["tag"].split(" ")[0] for task in skipping.named("PAIR_LIBRARY")} == {"lib-good"}
    assert not list(skipping.outdir.parent.parent.rglob("pwned"))


def test_a_canvas_that_takes_no_lesions_loses_its_scans_alone(skipping):
    pairs = (skipping.outdir / "cohort" / "pairs.tsv").read_text().splitlines()[1:]
    canvas_of = {row.split("\t")[0]: row.split("\t")[2] for row in pairs}
    lost = {task["tag"] for task in skipping.named("TRANSPLANT") if task["exit"] == "2"}
    assert lost and {canvas_of[name] for name in lost} == {"sub-10blank"}
    painted = {task["tag"] for task in skipping.named("PAINT") if task["status"] == "COMPLETED"}
    assert painted == {task["tag"] for task in skipping.named("TRANSPLANT")} - lost != set()
    for name in lost:
        assert f"{name} did not get through register, synthesize or assemble" in skipping.printed


def test_a_bids_folder_is_read_and_an_edit_of_its_participants_is_seen(stub, sheet_writer, tmp_path, repeated):
    folder = tmp_path / "my données"
    sheet_writer(tmp_path / "files" / "cohort.csv", [("01", "patient", "train"), ("02", "patient", "train")])
    for subject in ("01", "02"):
        for contrast in ("T1w", "FLAIR"):
            scan = folder / f"sub-{subject}" / "anat" / f"sub-{subject}_{contrast}.nii.gz"
            scan.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "files" / f"tête {subject}, {contrast}.nii.gz").rename(scan)
        mask = folder / "derivatives" / "manual" / f"sub-{subject}" / f"sub-{subject}_label-lesion_mask.nii.gz"
        mask.parent.mkdir(parents=True)
        (tmp_path / "files" / f"{subject} mask.nii.gz").rename(mask)
    participants = folder / "participants.tsv"
    participants.write_text("participant_id\tgroup\tsplit\nsub-01\tMS\ttrain\nsub-02\tHC\tn/a\n")
    run = stub(folder, "bids", "--mode", "augment")
    assert run.code != 0
    assert "my données, sub-02, lesion_mask: " in run.printed
    assert "holds lesions, but the subject is healthy" in run.printed

    participants.write_text(participants.read_text().replace("HC", "rrms"))
    run = stub(folder, "bids", "--mode", "augment")
    assert run.code == 0, run.printed
    assert {task["tag"] for task in run.named("STRIP")} == {"sub-01", "sub-02"}
    assert str(mask) in (run.outdir / "cohort" / "cohort.tsv").read_text()


def test_a_bad_sheet_stops_before_anything_else_is_queued(stub, sheet):
    bad = sheet.with_name("bad.csv")
    text = sheet.read_bytes().decode()
    bad.write_bytes(text.replace("\n01,", "\n$(touch pwned),").replace("patient,test", "pateint,test").encode())
    run = stub(bad, "bad")
    assert run.code != 0
    assert [task["status"] for task in run.named("CHECK")] == ["FAILED"]
    assert len(run.tasks) == 1
    assert "bad.csv, row 2, column subject" in run.printed
    assert "bad.csv, row 3, column role" in run.printed
    assert [path.name for path in run.outdir.iterdir()] == ["pipeline_info"]
    assert not list(run.outdir.parent.rglob("pwned"))


def test_unknown_and_impossible_parameters_are_refused_together_in_a_sentence_each(stub, sheet, tmp_path):
    odd = tmp_path / "$(touch pwned)"
    odd.mkdir()
    run = stub(
        *(sheet, "refused", "--voxel-mm", "1", "--mode", "everything", "--train_epochs", "0", "--seed", "one"),
        *("--synthetic_weight", "0", "--init", str(odd), "--train_configuration", "published", "--train_network", "dense"),
    )
    assert run.code != 0
    assert run.tasks == []
    for sentence in (
        # Some versions of Nextflow turn voxel-mm into voxelMm before anyone can see it.
        "is no parameter of this pipeline; did you mean --voxel_mm?",
        "--mode is 'everything', but must be one of experiment, augment, segment.",
        "--train_epochs is 0, but must lie between 1 and 10000.",
        "--seed is 'one', but must be of type integer",
        "--synthetic_weight is 0, but must be more than 0 and at most 1000.",
        "which holds a character that a shell could misread; rename it or its folder.",
        "--train_configuration is for training from scratch",
        "--train_network dense does not go with --train_configuration published",
    ):
        assert sentence in run.printed
