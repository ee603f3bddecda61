"""What -resume does again after a change: what depends on it, and nothing else. Here the whole chain is run, by the stand-in."""

from __future__ import annotations

import os
from collections import Counter

import pytest

SCANS = {"STRIP", "ALIGN", "TISSUES", "QUALITY"}
LATE = {"TRAIN", "SEGMENT", "TABULATE", "EVALUATE", "COMPARE", "REPORT"}
GENERATED = {"TRAIN_GENERATOR", "PAINT", "ASSEMBLE", *LATE}
PAINTING = {"LEVELS", "TRAIN_GENERATOR", "TRANSPLANT", "PAINT"}
ALL = {"CHECK", *SCANS, "TO_TEMPLATE", "QUALITY_OF_TRANSFORM", "PAIR", *PAINTING, "ASSEMBLE", *LATE}
# What runs code of a stage, which others may import (assemble that of cohort, all that of prepare), and what follows. The gates
# of quality see figures alone, by content: those of the registration are as they were.
RUN_AGAIN = {
    "report": {"REPORT"},
    "evaluate": {"EVALUATE", "COMPARE", "REPORT"},
    "segment": LATE - {"TRAIN"},
    "train": LATE,
    "assemble": {"ASSEMBLE", *LATE},
    "synthesize": {*PAINTING, "ASSEMBLE", *LATE},
    "register": {"TO_TEMPLATE", "PAIR", "TRANSPLANT", "PAINT", "ASSEMBLE", *LATE},
    "cohort": {"CHECK", "ASSEMBLE", *LATE},
    "prepare": ALL,
}


@pytest.fixture(scope="module")
def finished(make_workshop):
    """A workshop with a finished run."""
    workshop = make_workshop()
    run = workshop.start().end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED").keys() == ALL
    return workshop


@pytest.mark.slow
@pytest.mark.parametrize("stage", RUN_AGAIN)
def test_an_edit_to_the_python_of_a_stage_runs_it_again_and_what_follows(finished, stage):
    finished.edit(f"python/src/lesionforge/{stage}/command.py", "\n# A remark.\n")
    run = finished.start("-resume").end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED").keys() == RUN_AGAIN[stage]


@pytest.mark.parametrize(
    ("option", "value", "again"),
    [
        pytest.param("--min_volume_mm3", "5", LATE - {"TRAIN"}, id="volume"),
        pytest.param("--train_epochs", "7", LATE, id="epochs", marks=pytest.mark.slow),
        pytest.param("--generator_epochs", "7", GENERATED, id="generator", marks=pytest.mark.slow),
        pytest.param("--denoise", "true", ALL - {"CHECK", "STRIP"}, id="denoise", marks=pytest.mark.slow),
        pytest.param("--arms", "real", {"CHECK", "REPORT", "TABULATE", "COMPARE"}, id="arms", marks=pytest.mark.slow),
    ],
)
def test_a_changed_parameter_runs_again_only_what_depends_on_it(finished, option, value, again):
    run = finished.start("-resume", option, value).end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED").keys() == again


def test_trainings_that_get_a_gpu_are_others(finished, tmp_path):
    site = finished.folder / "gpu.config"
    site.write_text("process { withLabel: '(gpu)' { accelerator = 1 } }\n")
    run = finished.start("-resume", "-c", site, env=os.environ | {"TMPDIR": f"{tmp_path}"}).end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED").keys() == GENERATED


@pytest.mark.slow
def test_an_option_of_some_trainings_trains_no_other_anew(finished, write_cascade_folder):
    baseline = ("--baseline", write_cascade_folder(finished.folder / "model"))

    def trained(*options):
        run = finished.start("-resume", *baseline, *options).end()
        assert run.code == 0, run.printed
        return {task["tag"] for task in run.tasks if (task["process"], task["status"]) == ("TRAIN", "COMPLETED")}

    assert trained("--retrain", "last") == {"baseline_adapted"}
    assert trained("--retrain", "all") == {"baseline_adapted"}
    # The baseline takes as many steps as the arms.
    assert trained("--retrain", "all", "--train_network", "nicmslesions") == {"real", "augmented", "baseline_adapted"}


def cohort(numbers):
    """Rows of test patients."""
    return [(f"{number:03}", "patient", "test") for number in numbers]


def named_in_all_tables(outdir, scan):
    """Whether every table of the cohort names a scan, or none does."""
    tables = ("cohort/cohort.tsv", "cohort/folds.tsv", "segment/scans.tsv", "evaluate/arms.tsv", "report/quality.tsv")
    (answer,) = {scan in (outdir / table).read_text() for table in tables}
    return answer


@pytest.mark.slow
def test_ten_more_subjects_cost_only_theirs_and_one_taken_out_leaves_the_tables(workshop, write_cascade_folder):
    """A hundred are processed; then there are ten more, then the first is taken out."""
    model = write_cascade_folder(workshop.folder / "model")
    options = ("--mode", "segment", "--model", model)
    workshop.sheet(cohort(range(110)), "all.csv")
    lines = (workshop.folder / "data" / "all.csv").read_bytes().split(b"\r\n")

    def sheet(name, rows):
        path = workshop.folder / "data" / name
        path.write_bytes(b"\r\n".join([lines[0], *rows, b""]))
        return path

    run = workshop.start(*options, sheet=sheet("hundred.csv", lines[1:101])).end()
    assert run.code == 0, run.printed
    per_subject = (*SCANS, "SEGMENT", "EVALUATE")
    once = ("CHECK", "TABULATE", "COMPARE", "REPORT")
    assert run.named("COMPLETED") == Counter(dict.fromkeys(per_subject, 100) | dict.fromkeys(once, 1))

    run = workshop.start(*options, "-resume", sheet=sheet("more.csv", lines[1:111])).end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED") == Counter(dict.fromkeys(per_subject, 10) | dict.fromkeys(once, 1))
    assert named_in_all_tables(run.outdir, "sub-000") and named_in_all_tables(run.outdir, "sub-109")

    run = workshop.start(*options, "-resume", sheet=sheet("fewer.csv", lines[2:111])).end()
    assert run.code == 0, run.printed
    assert run.named("COMPLETED") == Counter(once)
    assert not named_in_all_tables(run.outdir, "sub-000") and named_in_all_tables(run.outdir, "sub-001")
