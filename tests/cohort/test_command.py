"""The command on sound sheets."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lesionforge.images import read_tsv

NAME = "été à, Zürich (l'un & l'autre) #1 T1w.nii.gz"


def test_outputs_and_result_line(sheet):
    result = sheet.run("--synthetic", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout == "cohort: 5 scans (train 2 patient and 2 healthy, test 1 patient), synthetic scans planned: 3\n"
    table = read_tsv(sheet.out / "cohort.tsv")
    scans, masks = ["t1w", "flair", "t2w", "pdw"], ["lesion_mask", "brain_mask"]
    assert list(table.columns) == ["id", "subject", "session", "role", "split", *scans, *masks]
    assert list(table["id"]) == ["sub-01", "sub-02", "sub-03", "sub-11", "sub-12"]
    assert list(table["split"]) == ["train", "train", "test", "train", "train"]
    assert table["t1w"][0] == str(sheet.folder / "01__T1w.nii.gz")
    assert list(table["lesion_mask"][3:]) == ["", ""]
    pairs = read_tsv(sheet.out / "pairs.tsv")
    assert set(pairs["donor"]) <= {"sub-01", "sub-02"}
    assert set(pairs["canvas"]) == {"sub-11", "sub-12"}
    assert set(pairs["split"]) == {"train"}
    for name in ("cohort", "pairs"):
        assert list(read_tsv(sheet.out / f"{name}.tsv")) and json.loads((sheet.out / f"{name}.json").read_text())
    assert json.loads((sheet.out / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_seed_same_bytes(sheet):
    sheet.run("--seed", "7")
    first = folder_bytes(sheet.out)
    sheet.run("--seed", "7")
    assert folder_bytes(sheet.out) == first


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.removesuffix("\n"),
        lambda text: "\n" + text.replace("\n", "\n\n,,,,,,,\n  \n"),
        lambda text: text.replace(",", " , "),
        lambda text: "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines()),
        lambda text: text.replace("\n0", "\nsub-0").replace("\n1", "\nsub-1"),
        lambda text: "\n".join(line + "," for line in text.splitlines()).replace(",\n", "\n", 1),
    ],
    ids=["tsv", "bom", "crlf", "cr", "no last newline", "blank lines", "spaces", "quoted", "sub-", "empty cells at the end"],
)
def test_forms_of_a_sheet_are_equal(sheet, change):
    sheet.run()
    plain = folder_bytes(sheet.out)
    result = sheet.run(content=change(sheet.text()))
    assert result.exit_code == 0, result.output
    assert folder_bytes(sheet.out) == plain


def test_optional_columns_may_lack(sheet):
    sheet.columns = tuple(name for name in sheet.columns if name not in ("session", "brain_mask"))
    assert sheet.run().exit_code == 0


def test_sessions_make_the_id(sheet):
    sheet.add("04", "patient", "train", session="ses-pre")
    assert sheet.run().exit_code == 0
    assert read_tsv(sheet.out / "cohort.tsv")["id"].iloc[-1] == "sub-04_ses-pre"


def test_paths_with_spaces_accents_and_commas(sheet):
    shutil.move(sheet.path(0, "t1w"), sheet.folder / NAME)
    sheet.rows[0]["t1w"] = f'"{NAME}"'
    result = sheet.run(name="cohorte d'été.csv")
    assert result.exit_code == 0, result.output
    assert read_tsv(sheet.out / "cohort.tsv")["t1w"][0] == str(sheet.folder / NAME)


def test_root_is_the_folder_of_relative_paths(sheet):
    shutil.copytree(sheet.folder, sheet.folder / "copy")
    result = sheet.run("--root", str(sheet.folder / "copy"))
    assert result.exit_code == 0, result.output
    assert read_tsv(sheet.out / "cohort.tsv")["flair"][1] == str(sheet.folder / "copy" / "02__FLAIR.nii.gz")


def test_the_word_stripped_is_no_path(sheet):
    sheet.rows[0]["brain_mask"] = "stripped"
    assert sheet.run().exit_code == 0
    assert read_tsv(sheet.out / "cohort.tsv")["brain_mask"][0] == "stripped"


def test_an_empty_mask_of_a_test_patient_is_fine(sheet, write_scan, shape):
    write_scan(sheet.path(2, "lesion_mask"), np.zeros(shape, np.uint8))
    assert sheet.run().exit_code == 0


def test_a_lesion_mask_may_lie_on_the_flair_grid(sheet, write_scan, lesion):
    thick = np.diag([10.0, 10.0, 12.0, 1.0])
    write_scan(sheet.path(0, "flair"), np.random.default_rng(0).random((8, 8, 9)), thick)
    write_scan(sheet.path(0, "lesion_mask"), lesion(shape=(8, 8, 9)), thick)
    assert sheet.run().exit_code == 0


def test_a_last_axis_of_one_is_a_volume(sheet, write_scan, shape):
    write_scan(sheet.path(0, "t1w"), np.random.default_rng(0).random((*shape, 1)))
    assert sheet.run().exit_code == 0


def test_a_qform_that_disagrees_is_a_warning_that_names_the_scan(sheet, affine):
    path = sheet.path(1, "flair")
    image = nib.load(path)
    image.set_sform(affine, 1)
    image.set_qform(affine + np.diag([0, 0, 3, 0]), 1)
    nib.save(image, path)
    result = sheet.run()
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"Warning: cohort.csv, row 3, column flair: {path}: has an sform and a qform that disagree")


def test_without_healthy_scans_the_line_says_who_is_the_canvas(sheet):
    sheet.rows = sheet.rows[:3]
    result = sheet.run("--synthetic", "5")
    assert "synthetic scans planned: 5; no healthy scans, so lesion-filled patients are the canvases" in result.stdout
    assert Counter(read_tsv(sheet.out / "pairs.tsv")["donor"]) in ({"sub-01": 3, "sub-02": 2}, {"sub-01": 2, "sub-02": 3})


def test_augment_needs_no_test_patient(sheet):
    del sheet.rows[2]
    assert sheet.run("--mode", "augment").exit_code == 0


@pytest.fixture
def model(tmp_path: Path, write_cascade_folder) -> Path:
    return write_cascade_folder(tmp_path / "model")


def test_segment_needs_neither_masks_nor_splits(sheet, model):
    sheet.columns = ("subject", "role", "t1w", "flair")
    result = sheet.run("--mode", "segment", "--model", str(model))
    assert result.exit_code == 0, result.output
    assert result.stdout == "cohort: 5 scans (to segment 3 patient, not to segment 2 healthy), synthetic scans planned: 0\n"
    assert (sheet.out / "pairs.tsv").read_text() == "synthetic_id\tdonor\tcanvas\tsplit\tload_ml\tlibrary_mask\tfold\tkind\n"
    assert set(read_tsv(sheet.out / "cohort.tsv")["split"]) == {""}


def test_segment_needs_a_patient(sheet, model):
    sheet.rows[:] = [row for row in sheet.rows if row["role"] == "healthy"]
    result = sheet.run("--mode", "segment", "--model", str(model))
    assert result.exit_code == 2
    assert "has no patient, and only patients are segmented" in result.output


def test_segment_says_when_all_patients_are_broken(sheet, model):
    for path in (sheet.path(n, "t1w") for n, row in enumerate(sheet.rows) if row["role"] == "patient"):
        path.unlink()
    result = sheet.run("--mode", "segment", "--model", str(model), "--on-subject-error", "skip")
    assert result.exit_code == 2
    assert "has no patient without a broken file; correct the files" in result.output


def test_four_hundred_subjects(sheet, record_property):
    for n in range(100, 495):
        sheet.add(str(n), "patient", "")
    start = time.perf_counter()
    result = sheet.run("--synthetic", "400")
    record_property("seconds", time.perf_counter() - start)
    print(f"400 subjects: {time.perf_counter() - start:.2f} s")
    assert result.exit_code == 0, result.output
    assert "1100 of" in result.stderr
    assert len(read_tsv(sheet.out / "pairs.tsv")) == 400


def test_the_arm_augmented_needs_synthetic_scans(sheet):
    """As main.nf refuses it, which a user of the command does not pass."""
    result = sheet.run("--synthetic", "0")
    assert result.exit_code == 2
    assert "--synthetic 0 leaves nothing for the arm augmented" in result.stderr
    assert not sheet.out.exists()
    assert sheet.run("--synthetic", "0", "--arm", "real").exit_code == 0
    assert "--synthetic" not in sheet.run("--synthetic", "0", "--mode", "segment").stderr
