"""T2w and PDw are optional, for all scans or for none."""

import csv
import io

import pytest

from lesionforge.images import read_tsv

FURTHER = ("t2w", "pdw")
GIVEN = (
    ("--mode", "segment", "--model"),
    ("--init",),
    ("--baseline",),
    ("--folds", "leave-one-out", "--init"),
    ("--folds", "leave-one-out", "--train-on", "1", "--baseline"),
)


@pytest.fixture
def with_t2w(sheet, write_scan):
    """The sound sheet, with a T2w of each scan and an empty column pdw."""
    sheet.columns = (*sheet.columns, *FURTHER)
    for number, row in enumerate(sheet.rows):
        row |= {"t2w": f"{number}_T2w.nii.gz", "pdw": ""}
        write_scan(sheet.folder / row["t2w"])
    return sheet


def test_they_are_in_the_table_of_the_cohort(with_t2w) -> None:
    result = with_t2w.run()
    assert result.exit_code == 0, result.output
    table = read_tsv(with_t2w.out / "cohort.tsv")
    assert [path.rsplit("/", 1)[1] for path in table["t2w"]] == [row["t2w"] for row in with_t2w.rows]
    assert set(table["pdw"]) == {""}
    assert list(table.columns)[5:9] == ["t1w", "flair", "t2w", "pdw"]


def test_rows_that_lack_one_are_named_in_one_sentence(with_t2w) -> None:
    for number in (0, 3):
        with_t2w.rows[number]["t2w"] = ""
    result = with_t2w.run()
    assert result.exit_code == 2
    said = "cohort.csv, column t2w: is empty in row 2, row 5, but not in all rows; give all scans the same contrasts"
    assert said in result.output and "1 problem," in result.output


def test_scans_that_are_not_segmented_may_lack_one(with_t2w, write_cascade_folder, tmp_path) -> None:
    model = write_cascade_folder(tmp_path / "model", contrasts=["T1w", "FLAIR", "T2w"])
    for row in with_t2w.rows:
        row["t2w"] = row["t2w"] if row["role"] == "patient" else ""
    result = with_t2w.run("--mode", "segment", "--model", str(model))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("contrasts", [["T1w", "FLAIR"], ["T1w", "FLAIR", "T2w"]])
def test_a_model_of_no_more_contrasts_than_the_scans_have_is_taken(with_t2w, write_cascade_folder, tmp_path, contrasts) -> None:
    model = write_cascade_folder(tmp_path / "model", contrasts=contrasts)
    for arguments in GIVEN:
        result = with_t2w.run(*arguments, str(model))
        assert result.exit_code == 0
        told = f"Warning: cohort.csv: {model} of {arguments[-1]} takes T1w, FLAIR and leaves the scans' T2w alone"
        fewer = len(contrasts) == 2
        assert (told in result.output) == fewer, result.output
        assert ("what is trained from random weights takes it" in result.output) == (fewer and arguments[-1] != "--model")


def test_a_model_of_more_contrasts_is_refused(with_t2w, write_cascade_folder, tmp_path) -> None:
    model = write_cascade_folder(tmp_path / "model", contrasts=["T1w", "FLAIR", "T2w", "PDw"])
    for arguments in GIVEN:
        result = with_t2w.run(*arguments, str(model))
        assert result.exit_code == 2
        assert "takes T1w, FLAIR, T2w, PDw, but the scans have no PDw; give the scans' PDw too" in result.output


def test_its_file_is_checked_as_the_flair_is(with_t2w) -> None:
    with_t2w.path(1, "t2w").write_bytes(b"no image")
    with_t2w.rows[2]["t2w"] = with_t2w.rows[2]["flair"]
    result = with_t2w.run()
    assert result.exit_code == 2
    assert "row 3, column t2w" in result.output and "1_T2w.nii.gz" in result.output
    assert "is also the flair of row 4" in result.output


def test_of_a_bids_folder_they_are_taken_when_every_scan_has_one(tmp_path, write_scan, lesion) -> None:
    from click.testing import CliRunner

    from lesionforge.cli import main

    root = tmp_path / "ds"
    for subject in ("01", "02", "03"):
        for suffix in ("T1w", "FLAIR", "T2w"):
            write_scan(root / f"sub-{subject}/anat/sub-{subject}_{suffix}.nii.gz")
        mask = root / f"derivatives/manual/sub-{subject}/anat/sub-{subject}_label-lesion_mask.nii.gz"
        write_scan(mask, lesion())
    write_scan(root / "sub-02/anat/sub-02_PDw.nii.gz")

    def run(out: str):
        result = CliRunner().invoke(main, ["--threads", "1", "cohort", "--input", str(root), "--out", str(tmp_path / out)])
        assert result.exit_code == 0, result.output
        return result.stderr, read_tsv(tmp_path / out / "cohort.tsv")

    said, table = run("whole")
    assert all(path.endswith("_T2w.nii.gz") for path in table["t2w"]) and set(table["pdw"]) == {""}
    assert "sub-01: has no PDw, and 1 more are so, so no PDw of any scan is used" in said and "T2w" not in said

    write_scan(root / "sub-03/anat/sub-03_acq-two_T2w.nii.gz")
    said, table = run("twice")
    assert set(table["t2w"]) == {""}
    assert "sub-03: has 2 T2w, so no T2w of any scan is used; give each scan one" in said


def test_the_sheet_of_a_phantom_has_the_contrasts_it_was_asked_for(tmp_path) -> None:
    from lesionforge.phantom.cohort import Subject, write_tables

    for further, columns in (((), ["t1w", "flair"]), (("T2w",), ["t1w", "flair", "t2w"])):
        write_tables(tmp_path, [Subject("p01", "patient", "train", 0)], further)
        rows = list(csv.DictReader(io.StringIO((tmp_path / "cohort.csv").read_text())))
        assert [name for name in rows[0] if name in ("t1w", "flair", *FURTHER)] == columns
