"""`--on-subject-error skip` leaves out scans with broken files, and nothing else; engines that are not there are refused."""

from __future__ import annotations

import numpy as np
import pytest

from lesionforge.images import read_tsv

SKIP = ("--on-subject-error", "skip")


def test_without_a_broken_file_the_problems_are_an_empty_table(sheet):
    assert sheet.run().exit_code == 0
    assert (sheet.out / "problems.tsv").read_text() == "id\tcolumn\tproblem\n"


def test_scans_with_broken_files_are_left_out_and_listed(sheet, write_scan, lesion):
    sheet.path(1, "flair").write_bytes(b"no image")
    sheet.path(4, "t1w").unlink()
    write_scan(sheet.path(3, "t1w"), np.full((8, 8, 8), 7, np.int16))
    write_scan(sheet.path(3, "flair"), np.random.default_rng(0).random((8, 8, 2)))
    result = sheet.run(*SKIP)
    assert result.exit_code == 0, result.output
    assert "; left out for broken files: 3" in result.stdout
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
        "cohort.csv, row 3, column flair",
        "cohort.csv, row 5, column t1w",
        "cohort.csv, row 5, column flair",
        "cohort.csv, row 6, column t1w",
    ]
    assert list(read_tsv(sheet.out / "cohort.tsv")["id"]) == ["sub-01", "sub-03"]
    problems = read_tsv(sheet.out / "problems.tsv")
    assert list(zip(problems["id"], problems["column"], strict=True)) == [
        ("sub-02", "flair"),
        ("sub-11", "t1w"),
        ("sub-11", "flair"),
        ("sub-12", "t1w"),
    ]
    assert problems["problem"][1] == f"{sheet.path(3, 't1w')}: has the value 7 in all voxels; give the scan itself"


def test_splits_are_chosen_among_the_sound_scans(sheet):
    for row in sheet.rows:
        row["split"] = ""
    assert sheet.run().exit_code == 0
    table = read_tsv(sheet.out / "cohort.tsv")
    tester = list(table["split"]).index("test")
    sheet.path(tester, "t1w").unlink()
    assert sheet.run(*SKIP).exit_code == 0
    assert {"train", "test"} <= set(read_tsv(sheet.out / "cohort.tsv")["split"])


def test_an_empty_mask_that_would_be_learned_from_is_left_out(sheet, write_scan, lesion):
    write_scan(sheet.path(0, "lesion_mask"), lesion(0))
    assert sheet.run(*SKIP).exit_code == 0
    assert list(read_tsv(sheet.out / "problems.tsv")["id"]) == ["sub-01"]


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("role", "sick", "is no role"),
        ("subject", "01", "is already in row 2"),
        ("flair", "01__T1w.nii.gz", "give each cell its own"),
    ],
)
def test_faults_of_the_sheet_still_stop_everything(sheet, column, cell, said):
    sheet.path(4, "t1w").unlink()
    sheet.rows[1][column] = cell
    result = sheet.run(*SKIP)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "row 6, column t1w" in result.stderr
    assert not sheet.out.exists()


def test_nothing_left_to_learn_from_is_an_error(sheet):
    for row in (0, 1):
        sheet.path(row, "lesion_mask").write_bytes(b"no image")
    result = sheet.run(*SKIP)
    assert result.exit_code == 2
    assert "cohort.csv: no patient of split train has a lesion mask" in result.stderr
    for row in range(5):
        sheet.path(row, "t1w").unlink()
    result = sheet.run(*SKIP)
    assert result.exit_code == 2
    assert "cohort.csv: has no scan without a broken file; correct the files" in result.stderr


def test_an_engine_that_is_not_installed_is_refused_before_anything_is_written(sheet, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = sheet.run("--strip-engine", "bet")
    assert result.exit_code == 2
    assert "its program bet is not on PATH; install it or choose builtin" in result.stderr
    assert not sheet.out.exists()
    program = tmp_path / "bet"
    program.touch(mode=0o755)
    assert sheet.run("--strip-engine", "bet").exit_code == 0


def test_given_masks_must_be_given(sheet, write_scan, lesion):
    sheet.rows[0]["brain_mask"] = "stripped"
    sheet.rows[2]["brain_mask"] = write_scan(sheet.folder / "brain.nii.gz", lesion()).name
    result = sheet.run("--strip-engine", "given")
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()[:-1]] == [
        f"cohort.csv, row {row}, column brain_mask" for row in (3, 5, 6)
    ]
