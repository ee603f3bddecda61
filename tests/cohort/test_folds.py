"""Folds, patients to train on and the scans of the arms: nothing of a fold's test subject is planned for it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lesionforge.cohort.folds import folds_of, rotate, rotating
from lesionforge.cohort.rows import Row
from lesionforge.images import read_tsv
from lesionforge.images.template import load_template

FOLDS = ("--folds", "leave-one-out")
ALL_ARMS = [option for arm in ("real", "classical", "mix", "augmented", "synthetic", "published") for option in ("--arm", arm)]


def scan(subject: str, split: str = "", mask: str = "m", session: str = "", role: str = "patient") -> Row:
    return Row(2, subject, session, role, split, "t", "f", mask if role == "patient" else "")


def tables(sheet) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows of folds.tsv and pairs.tsv."""
    return tuple(read_tsv(sheet.out / f"{name}.tsv").to_dict("records") for name in ("folds", "pairs"))  # type: ignore[return-value]


def test_each_annotated_subject_outside_validation_is_tested_once_with_all_its_sessions():
    rows = [scan("a", "train", session="1"), scan("a", "train", mask="", session="2"), scan("b", "test"), scan("c", "validation")]
    rows += [scan("d", mask=""), scan("e", "test", mask=""), scan("h", role="healthy")]
    assert rotating(rows) == ["a", "b"]
    folds = folds_of(rotate(rows), True, None, 1)
    assert [fold.label for fold in folds] == ["a", "b"]
    splits = [{row.scan_id: row.split for row in fold.rows} for fold in folds]
    others = {"sub-c": "validation", "sub-d": "train", "sub-e": "test", "sub-h": "train"}
    assert splits[0] == {"sub-a_ses-1": "test", "sub-a_ses-2": "test", "sub-b": "train"} | others
    assert splits[1] == {"sub-a_ses-1": "train", "sub-a_ses-2": "train", "sub-b": "test"} | others


def test_a_lone_fold_keeps_the_unused_scans_without_their_masks():
    rows = [scan(name, "train", mask=name) for name in "abcdef"] + [scan("t", "test")]
    (fold,) = folds_of(rows, False, 2, 1)
    used = {row.subject for row in fold.rows if row.lesion_mask and row.split == "train"}
    assert len(used) == 2
    assert [row.scan_id for row in fold.rows] == [row.scan_id for row in rows]
    assert {row.subject for row in fold.held} == set("abcdeft") - used
    more = {row.subject for row in folds_of(rows, False, 3, 1)[0].rows if row.lesion_mask and row.split == "train"}
    assert used < more


def test_among_folds_the_unused_scans_are_left_out_of_the_fold():
    """Their prepared scans bear the marks of their masks."""
    for fold in folds_of(rotate([scan(name) for name in "abc"] + [scan("u", mask="")]), True, 1, 1):
        splits = Counter(row.split for row in fold.rows if row.lesion_mask)
        assert splits == {"train": 1, "test": 1}
        assert "u" in {row.subject for row in fold.rows}
        assert len(fold.rows) == 3


def test_no_fold_plans_a_scan_of_its_test_subject(sheet):
    result = sheet.run(*FOLDS, *ALL_ARMS, "--synthetic", "4")
    assert result.exit_code == 0, result.output
    assert "folds: 3" in result.stdout
    folds, pairs = tables(sheet)
    assert {row["id"]: row["split"] for row in folds if row["fold"] == "03"} == {
        "sub-01": "train",
        "sub-02": "train",
        "sub-03": "test",
        "sub-11": "train",
        "sub-12": "train",
    }
    assert Counter((pair["fold"], pair["kind"]) for pair in pairs) == {
        (fold, kind): 4 for fold in ("01", "02", "03") for kind in ("syn", "cla", "mix")
    }
    assert len({pair["synthetic_id"] for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert f"sub-{pair['fold']}" not in (pair["donor"], pair["canvas"]), pair
        assert pair["synthetic_id"].startswith(f"sub-{pair['kind']}")
        assert (pair["donor"] == pair["canvas"]) == (pair["kind"] == "cla")
    donors = Counter((pair["fold"], pair["donor"]) for pair in pairs if pair["kind"] == "cla")
    assert set(donors.values()) == {2}


def test_more_scans_a_fold_begin_with_the_same_ones(sheet):
    assert sheet.run(*FOLDS, *ALL_ARMS, "--synthetic", "2").exit_code == 0
    few = tables(sheet)[1]
    assert sheet.run(*FOLDS, *ALL_ARMS, "--synthetic", "7").exit_code == 0
    many = {pair["synthetic_id"]: pair for pair in tables(sheet)[1]}
    plan = ("donor", "canvas", "fold", "kind")
    assert [[pair[name] for name in plan] for pair in few] == [
        [many[pair["synthetic_id"]][name] for name in plan] for pair in few
    ]


def template_mask(sheet, write_scan, name: str, shift: int = 0) -> str:
    voxels = np.zeros(load_template(2).brain.shape, np.uint8)
    voxels[49 + shift : 55 + shift, 50:55, 40:45] = 1
    write_scan(sheet.folder / "library" / f"{name}.nii.gz", voxels, load_template(2).affine)
    return str(sheet.folder / "library")


def test_masks_of_a_library_are_barred_from_the_fold_of_their_subject_alone(sheet, write_scan):
    for shift, name in enumerate(("sub-01_ses-9_mask", "sub-02", "other")):
        library = template_mask(sheet, write_scan, name, shift)
    result = sheet.run(*FOLDS, "--lesion-library", library, "--synthetic", "40")
    assert result.exit_code == 0, result.output
    donors = {(pair["fold"], pair["donor"]) for pair in tables(sheet)[1] if pair["library_mask"]}
    lib = {"01": "lib-01ses9", "02": "lib-02", "03": "lib-other"}
    assert donors == {(fold, name) for fold in lib for subject, name in lib.items() if subject != fold or name == "lib-other"}
    assert "is named after sub-01 of split test and is left out of fold 01" in (sheet.out / "warnings.txt").read_text()


def test_a_mask_of_a_library_of_a_patient_that_is_set_aside_is_left_out(sheet, write_scan):
    template_mask(sheet, write_scan, "sub-01")
    library = template_mask(sheet, write_scan, "sub-02", 1)
    result = sheet.run("--train-on", "1", "--lesion-library", library, "--synthetic", "20")
    assert result.exit_code == 0, result.output
    donors = {pair["donor"][4:] for pair in tables(sheet)[1]}
    assert len(donors) == 1
    (unused,) = {"01", "02"} - donors
    assert f"is named after sub-{unused} set aside by --train_on and is left out" in result.stderr
    table = read_tsv(sheet.out / "cohort.tsv").set_index("id")
    assert table["lesion_mask"][f"sub-{unused}"] == "" and table["split"][f"sub-{unused}"] == "train"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--train-on", "3"), "--train_on 3 is more than the 2 annotated patients in split train; give at most 2"),
        ((*FOLDS, "--train-on", "3"), "--train_on 3 is more than the 2 annotated patients in a fold; give at most 2"),
        (
            ("--synthetic", "0", "--arm", "mix", "--arm", "synthetic"),
            "--synthetic 0 leaves nothing for the arms mix and synthetic",
        ),
        (("--mode", "augment", *FOLDS), "--folds belongs to --mode experiment"),
        (("--mode", "augment", "--train-on", "1"), "--train_on belongs to --mode experiment"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(sheet, options, said):
    result = sheet.run(*options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not sheet.out.exists()


def test_folds_need_two_annotated_patients(sheet):
    for row in (0, 1):
        sheet.rows[row]["lesion_mask"] = ""
    result = sheet.run(*FOLDS)
    assert result.exit_code == 2
    assert "needs at least 2 patients with a lesion mask outside split validation, but there is 1;" in result.stderr


def test_with_folds_an_empty_mask_helps_nobody_whatever_its_split(sheet, write_scan, shape):
    for row, split in ((0, "train"), (1, "test")):
        sheet.rows[row]["split"] = split
        write_scan(sheet.path(row, "lesion_mask"), np.zeros(shape, np.uint8))
    result = sheet.run(*FOLDS)
    assert result.exit_code == 2
    assert (
        result.stderr.count("holds no lesions, but with --folds every annotated patient is learned from; leave the mask out") == 2
    )


def test_arms_of_annotated_scans_need_one(sheet):
    for row in (0, 1):
        sheet.rows[row]["lesion_mask"] = ""
    result = sheet.run("--arm", "mix", "--arm", "classical")
    assert result.exit_code == 2
    assert "no patient of split train has a lesion mask" in result.stderr


def test_the_arm_mix_needs_a_second_subject(sheet):
    del sheet.rows[3:], sheet.rows[1]
    assert sheet.run("--arm", "augmented").exit_code == 0
    result = sheet.run("--arm", "augmented", "--arm", "mix")
    assert result.exit_code == 2
    assert "the arm mix needs scans of two training subjects, but the split train has only those of sub-01" in result.stderr


def test_a_baseline_that_has_seen_a_subject_of_any_fold_is_refused(sheet, tmp_path, write_cascade_folder):
    baseline = write_cascade_folder(tmp_path / "seen", training=["sub-02"])
    assert sheet.run("--baseline", str(baseline)).exit_code == 0
    result = sheet.run(*FOLDS, "--baseline", str(baseline))
    assert result.exit_code == 2
    assert f"is test, but {baseline} of --baseline has seen sub-02" in result.stderr
