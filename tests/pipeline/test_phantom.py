"""The whole chain, truly run on the phantom cohort."""

from __future__ import annotations

import csv

import pytest


@pytest.fixture(scope="session")
def scores(phantom_run):
    assert phantom_run.code == 0, phantom_run.printed
    with (phantom_run.outdir / "evaluate" / "arms.tsv").open(newline="") as rows:
        return list(csv.DictReader(rows, delimiter="\t"))


def test_both_arms_are_scored_on_the_test_patient_alone(scores):
    assert sorted((row["arm"], row["subject"]) for row in scores) == [("augmented", "p03"), ("real", "p03")]


def test_the_augmented_arm_finds_the_lesions_of_an_unseen_head(scores):
    assert [float(row["dice"]) > 0.6 for row in scores if row["arm"] == "augmented"] == [True], scores


def test_the_table_of_the_cohort_lists_each_arm_and_test_scan(phantom_run):
    with (phantom_run.outdir / "segment" / "scans.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["model"], row["id"]) for row in rows] == [("real", "sub-p03"), ("augmented", "sub-p03")]
    for row in rows:
        folder = phantom_run.outdir / "segment" / row["model"] / row["id"]
        assert len((folder / f"{row['id']}_desc-lesions.tsv").read_text().splitlines()) == 1 + int(row["lesion_count"])


def test_every_stage_published_its_folder(phantom_run):
    out = phantom_run.outdir
    stages = {"cohort", "prepare", "register", "synthesize", "assemble", "train", "segment", "evaluate", "report"}
    assert stages <= {path.name for path in out.iterdir()}
    assert (out / "report" / "index.html").stat().st_size > 10_000
    # Tables name folders beside their own, which must hold in the published tree too.
    with (out / "assemble" / "augmented.tsv").open(newline="") as rows:
        assert all((out / "assemble" / row["folder"]).is_dir() for row in csv.DictReader(rows, delimiter="\t"))


def test_nothing_is_written_beside_results_and_work(phantom_run):
    assert {path.name for path in phantom_run.outdir.parent.iterdir() if not path.name.startswith(".")} <= {
        "cohort",
        "results",
        "work",
    }
