"""Arms, folds, seeds and a baseline of an experiment, in stub runs."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

ROWS = [("31", "patient", "train"), ("32", "patient", "test"), ("34", "patient", "validation"), ("35", "patient", "train")]
MASKLESS = "35"
TESTED = ("31", "32")
ARMS = {"real": "", "classical": "cla", "mix": "mix", "augmented": "syn", "synthetic": "syn", "published": "syn"}
# All that learns, and what is made for it.
LEARNING = ("TRAIN_GENERATOR", "STATISTICS", "TRANSPLANT", "PAINT", "CLASSICAL", "MIX", "ASSEMBLE", "TRAIN")


@pytest.fixture(scope="module")
def sheet(tmp_path_factory, sheet_writer):
    path = sheet_writer(tmp_path_factory.mktemp("experiment") / "cohort.csv", ROWS)
    path.write_bytes(path.read_bytes().replace(f'"{MASKLESS} mask.nii.gz"'.encode(), b""))
    return path


@pytest.fixture(scope="module")
def options(sheet, template_masks, tmp_path_factory, write_cascade_folder):
    library = template_masks(sheet.parent / "library", ["sub-31", "sub-32", "other"])
    baseline = write_cascade_folder(tmp_path_factory.mktemp("baseline") / "their model", voxel_mm=2.0, training=["sub-99"])
    return ("--folds", "leave-one-out", "--lesion_library", str(library), "--baseline", str(baseline), "--synthetic", "3")


@pytest.fixture(scope="module")
def two_arms(stub, sheet, options):
    run = stub(sheet, "two", *options)
    assert run.code == 0, run.printed
    return run


@pytest.fixture(scope="module")
def all_arms(stub, sheet, options, two_arms):
    run = stub(sheet, "all", *options, "--arms", ",".join(ARMS))
    assert run.code == 0, run.printed
    assert "did not get through" not in run.printed
    return run


def counts(run, *statuses: str) -> Counter:
    return Counter(task["process"].rsplit(":", 1)[1] for task in run.tasks if not statuses or task["status"] in statuses)


def staged(run, task: dict[str, str]) -> set[str]:
    """The names of the files and folders that a task was given."""
    (folder,) = (run.outdir.parent / "work").glob(f"{task['hash']}*")
    return {path.name for path in folder.rglob("*") if path.is_symlink()}


def pairs(run) -> list[dict[str, str]]:
    with (run.outdir / "cohort" / "pairs.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_what_depends_on_no_fold_runs_once(all_arms):
    done = counts(all_arms)
    assert {done[name] for name in ("STRIP", "ALIGN", "TISSUES", "LEVELS")} == {len(ROWS)}
    assert done["TO_TEMPLATE"] == len(ROWS) - 1  # all but the validation patient
    planned = {(pair["donor"], pair["canvas"]) for pair in pairs(all_arms) if pair["kind"] != "cla"}
    assert done["PAIR"] + done["PAIR_LIBRARY"] == len(planned)
    assert done["PAIR"] == len({pair for pair in planned if pair[0].startswith("sub-")}) > 0


def test_each_fold_has_its_generator_and_trains_each_arm(all_arms):
    done = counts(all_arms)
    assert (done["TRAIN_GENERATOR"], done["STATISTICS"], done["ASSEMBLE"]) == (2, 2, 2 * 6)
    assert (done["CLASSICAL"], done["MIX"], done["PAINT"]) == (6, 6, 6)
    assert (done["TRAIN"], done["SEGMENT"], done["EVALUATE"]) == (2 * 7, 2 * 8, 2 * 8)
    out = all_arms.outdir
    for path in (
        "synthesize/generator_fold-32",
        "synthesize/sub-syn0006",
        "assemble/mix_fold-32.tsv",
        "assemble/sub-mix0001",
        "assemble/sub-cla0006",
        "train/published_fold-32",
        "train/baseline_adapted_fold-31",
        "segment/baseline_fold-31/sub-31",
    ):
        assert (out / path).exists(), path
    assert [path.name for path in (out / "segment" / "real_fold-31").iterdir()] == ["sub-31"]


def test_nothing_of_a_folds_test_subject_is_given_to_anything_that_learns_in_it(all_arms):
    """By the files that each task was given; the tasks of made scans belong to the fold that the plan says."""
    fold_of = {pair["synthetic_id"]: pair["fold"] for pair in pairs(all_arms)}
    seen = Counter()
    for task in all_arms.tasks:
        name = task["process"].rsplit(":", 1)[1]
        if name not in LEARNING:
            continue
        tag = task["tag"]
        fold = fold_of[tag] if tag in fold_of else tag.split("fold-")[-1].split("_")[0]
        assert fold in TESTED, task
        given = staged(all_arms, task)
        assert not [path for path in given if f"sub-{fold}" in path or f"lib-{fold}" in path], (task, given)
        assert {fold_of[path] for path in given if path in fold_of} <= {fold}, (task, given)
        seen[name, fold] += 1
    assert set(seen) == {(name, fold) for name in LEARNING for fold in TESTED}


def test_each_arm_gets_the_scans_of_its_kind(all_arms):
    for arm, kind in ARMS.items():
        text = (all_arms.outdir / "assemble" / f"{arm}_fold-32.tsv").read_text()
        assert {name for name in ("cla", "mix", "syn") if f"sub-{name}" in text} == ({kind} if kind else set())
        assert ("sub-31" in text) == (arm != "synthetic")
        assert "sub-34" in text and f"sub-{MASKLESS}" not in text


def test_published_is_trained_as_published_and_the_baseline_is_adapted(all_arms):
    for task in all_arms.named("TRAIN"):
        given = staged(all_arms, task)
        assert ("their model" in given) == task["tag"].startswith("baseline_adapted"), task


def test_an_arm_more_reruns_nothing_of_the_others(two_arms, all_arms):
    for process in ("ASSEMBLE", "TRAIN"):
        new = {task["tag"].split("_fold")[0] for task in all_arms.named(process) if task["status"] == "COMPLETED"}
        assert new == set(ARMS) - {"real", "augmented"}, process
    rerun = counts(all_arms, "COMPLETED")
    assert set(rerun) == {"CHECK", *LEARNING[4:], "SEGMENT", "EVALUATE", "TABULATE", "COMPARE", "REPORT"}


def test_a_seed_more_trains_with_it_alone(stub, sheet):
    few = ("--arms", "real", "--train_seeds")
    assert stub(sheet, "seeds", *few, "2").code == 0
    run = stub(sheet, "seeds", *few, "3")
    assert run.code == 0, run.printed
    once = dict.fromkeys(("TRAIN", "SEGMENT", "EVALUATE", "TABULATE", "COMPARE", "REPORT"), 1)
    assert counts(run, "COMPLETED") == once
    assert sorted(path.name for path in (run.outdir / "train").iterdir()) == ["real_seed-1", "real_seed-2", "real_seed-3"]


def test_the_seed_0_has_a_name_too(stub, sheet):
    run = stub(sheet, "seed_0", "--mode", "experiment", "--arms", "real", "--seed", "0", "--train_seeds", "2")
    assert run.code == 0, run.printed
    assert sorted(path.name for path in (run.outdir / "train").iterdir()) == ["real_seed-0", "real_seed-1"]


def test_a_baseline_is_adapted_with_each_seed_and_judged_once_as_it_is(stub, sheet, options):
    baseline = options[options.index("--baseline") :][:2]
    run = stub(sheet, "adapted", "--arms", "real", "--train_seeds", "2", *baseline)
    assert run.code == 0, run.printed
    expected = [f"{arm}_seed-{seed}" for arm in ("baseline_adapted", "real") for seed in (1, 2)]
    assert sorted(path.name for path in (run.outdir / "train").iterdir()) == expected
    assert sorted(path.name for path in (run.outdir / "segment").iterdir() if path.is_dir()) == ["baseline", *expected]


def test_masks_beyond_train_on_are_used_by_nothing(stub, sheet_writer, tmp_path):
    rows = [("31", "patient", "train"), ("33", "patient", "train"), ("32", "patient", "test")]
    run = stub(sheet_writer(tmp_path / "cohort.csv", rows), "one", "--train_on", "1", "--arms", "real,mix")
    assert run.code == 0, run.printed
    (unused,) = {"31", "33"} - {pair["donor"].removeprefix("sub-") for pair in pairs(run)}
    assert f"the masks of sub-{unused} are not used" in run.printed
    assert f"sub-{unused}" not in Path(run.outdir / "assemble" / "real.tsv").read_text()
    for task in run.tasks:
        assert task["process"].endswith(":CHECK") or f"{unused} mask.nii.gz" not in staged(run, task), task
    assert f"sub-{unused}" in {task["tag"] for task in run.named("LEVELS")}
    assert run.named("TRAIN_GENERATOR") == []


def test_what_cannot_be_an_experiment_is_refused_together(stub, sheet):
    run = stub(sheet, "nothing", "--synthetic", "0", "--arms", "real,mix,synthetic", "--mode", "augment", "--train_on", "1")
    assert run.code != 0 and run.tasks == []
    assert "--synthetic 0 leaves nothing for the arms mix and synthetic" in run.printed
    assert "--train_on belongs to --mode experiment, which trains the cascade, not augment" in run.printed
    run = stub(sheet, "unknown", "--arms", "real,nnunet")
    assert run.code != 0 and run.tasks == []
    assert "--arms is 'real,nnunet', which does not fit" in run.printed
