"""Every fault a sheet can have is named with row, column and remedy; nothing is written."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lesionforge.images import write_json


def problems(result) -> list[str]:
    """The sentences on stderr, without the closing one."""
    return result.stderr.splitlines()[:-1]


def refuse(sheet, result, *expected: str) -> None:
    """The command ends with 2, says just these sentences, and has written nothing."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert not sheet.out.exists()
    found = [line.replace(f"{sheet.folder}/", "") for line in problems(result)]
    assert sorted(found) == sorted(expected)
    assert result.stderr.splitlines()[-1].startswith("Error: ")


LABEL = "is no subject label; use letters A-Z, a-z and digits only"
TWICE = "is already in row 2; remove one or give each its session"
BINARY = "write a mask with 0 outside and 1 inside only"
GREY = "not one number each; convert it to a grey-scale image"

CELLS = {
    "role": (0, "role", "pateint", "row 2, column role: 'pateint' is no role; write patient or healthy"),
    "empty role": (0, "role", "", "row 2, column role: '' is no role; write patient or healthy"),
    "split": (
        1,
        "split",
        "training",
        "row 3, column split: 'training' is no split; write train, validation or test, "
        "or leave the cell empty to have it chosen by seed",
    ),
    "duplicate": (
        1,
        "subject",
        "01",
        f"row 3, column subject: subject 01 {TWICE}",
    ),
    "duplicate with prefix": (
        1,
        "subject",
        "sub-01",
        f"row 3, column subject: subject 01 {TWICE}",
    ),
    "space": (1, "subject", "0 2", f"row 3, column subject: '0 2' {LABEL}"),
    "semicolon": (
        1,
        "subject",
        "02;rm",
        f"row 3, column subject: '02;rm' {LABEL}",
    ),
    "substitution": (
        1,
        "subject",
        "$(ls)",
        f"row 3, column subject: '$(ls)' {LABEL}",
    ),
    "accent": (1, "subject", "é", f"row 3, column subject: 'é' {LABEL}"),
    "prefix alone": (
        1,
        "subject",
        "sub-",
        f"row 3, column subject: 'sub-' {LABEL}",
    ),
    "empty subject": (1, "subject", "", "row 3, column subject: is empty; write a label of letters and digits"),
    "reserved": (
        1,
        "subject",
        "syn0001",
        "row 3, column subject: 'syn0001' is reserved for scans that are made (syn, cla or mix and digits); choose another label",
    ),
    "session": (
        1,
        "session",
        "a_b",
        "row 3, column session: 'a_b' is no session label; use letters A-Z, a-z and digits only, or leave the cell empty",
    ),
    "empty path": (3, "flair", "", "row 5, column flair: is empty; give the path of the NIfTI file"),
    "missing file": (3, "flair", "gone.nii.gz", "row 5, column flair: gone.nii.gz: no such file; check the path"),
    "same file": (
        3,
        "flair",
        "11__T1w.nii.gz",
        "row 5, column flair: 11__T1w.nii.gz is also the t1w of row 5; give each cell its own file",
    ),
    "file of another": (
        4,
        "t1w",
        "./11__T1w.nii.gz",
        "row 6, column t1w: 11__T1w.nii.gz is also the t1w of row 5; give each cell its own file",
    ),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells(sheet, case):
    row, column, cell, sentence = CELLS[case]
    sheet.rows[row][column] = cell
    refuse(sheet, sheet.run(), f"cohort.csv, {sentence}")


@pytest.mark.parametrize("cell", ['"a\nb.nii"', "a\x07b.nii", '"a""b.nii"', "$(ls).nii", "a;b.nii", "a*.nii"])
def test_paths_that_no_shell_can_carry(sheet, cell):
    sheet.rows[0]["t1w"] = cell
    result = sheet.run()
    assert result.exit_code == 2
    assert len(problems(result)) == 1
    assert "cohort.csv, row 2, column t1w: " in problems(result)[0]
    assert "holds a control character or one of $ " in problems(result)[0]


def leads_to(path: Path, target: Path) -> str:
    """The sentence about a link to a place that no shell can carry."""
    fault = r'holds a control character or one of $ ` \ " * ? [ ] { } ; | < > ! which no shell carries safely'
    return f"'{path}' leads by a link to {str(target)!r}, and that {fault}; rename what it leads to, or give a copy"


@pytest.mark.parametrize("column", ["t1w", "lesion_mask"])
@pytest.mark.parametrize("folder", ["x\ntouch pwned", "$(touch pwned)", "`touch pwned`"])
def test_links_to_what_no_shell_can_carry(sheet, column, folder):
    """A container engine would be told to mount that folder, on the command line."""
    path, target = sheet.path(1, column), sheet.folder / folder / "scan.nii.gz"
    target.parent.mkdir()
    path.rename(target)
    path.symlink_to(target)
    result = sheet.run()
    assert result.exit_code == 2
    assert problems(result) == [f"cohort.csv, row 3, column {column}: {leads_to(path, target)}"]
    assert not sheet.out.exists()


def test_folders_that_are_links_to_what_no_shell_can_carry(sheet):
    target = sheet.folder / "a;b"
    target.mkdir()
    (sheet.folder / "inside").symlink_to(target)
    sheet.path(0, "flair").rename(target / "scan.nii.gz")
    sheet.rows[0]["flair"] = "inside/scan.nii.gz"
    said = leads_to(sheet.folder / "inside" / "scan.nii.gz", target / "scan.nii.gz")
    assert problems(sheet.run()) == [f"cohort.csv, row 2, column flair: {said}"]


def test_links_to_what_a_shell_can_carry_are_followed(sheet):
    path, target = sheet.path(0, "t1w"), sheet.folder / "l'été (1)" / "MD5E-s1--0.nii.gz"
    target.parent.mkdir()
    path.rename(target)
    path.symlink_to(target)
    assert sheet.run().exit_code == 0


def test_rows_after_a_broken_cell_keep_their_number(sheet):
    sheet.rows[0]["brain_mask"] = '"a\nb"'
    sheet.rows[1]["role"] = "x"
    assert "cohort.csv, row 4, column role: 'x' is no role; write patient or healthy" in problems(sheet.run())


@pytest.mark.parametrize("name", ["subject", "role", "split", "t1w", "flair"])
def test_missing_column(sheet, name):
    sheet.columns = tuple(column for column in sheet.columns if column != name)
    refuse(sheet, sheet.run(), f"cohort.csv, row 1, column {name}: is missing; add this column to the header")


def test_unknown_and_repeated_columns(sheet):
    text = sheet.text().replace("lesion_mask", "lesionmask", 1).replace("brain_mask", "flair", 1)
    refuse(
        sheet,
        sheet.run(content=text),
        "cohort.csv, row 1, column lesionmask: is unknown; remove it or correct its name to one of "
        "subject, role, split, t1w, flair, session, t2w, pdw, lesion_mask, brain_mask",
        "cohort.csv, row 1, column flair: is there twice; keep one",
    )


CONTENTS = {
    "nothing": (b"", "cohort.csv: is empty; write a header line and one row for each scan"),
    "white space": (b"\xef\xbb\xbf \r\n\r\n", "cohort.csv: is empty; write a header line and one row for each scan"),
    "header only": (b"subject,role,split,t1w,flair\n", "cohort.csv: has a header but no rows; write one row for each scan"),
    "latin-1": ("subject,rôle".encode("latin-1"), "cohort.csv: is not UTF-8 text; save the sheet as CSV (UTF-8) or as TSV"),
    "zip": (b"PK\x03\x04\x00\x00", "cohort.csv: is not text but a binary file; save the sheet as CSV (UTF-8) or as TSV"),
    "semicolons": (
        b"subject;role\n01;patient\n",
        "cohort.csv, row 1: has only one column ('subject;role'); separate the columns with commas or tabs",
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_sheets_that_hold_no_rows(sheet, case):
    content, sentence = CONTENTS[case]
    refuse(sheet, sheet.run(content=content), sentence)


def test_wrong_number_of_cells(sheet):
    lines = sheet.text().splitlines()
    lines[2] = lines[2].removesuffix(",")
    lines[3] += ",more"
    remedy = "separate all cells, the empty ones too, and quote a cell that holds the separator"
    refuse(
        sheet,
        sheet.run(content="\n".join(lines)),
        f"cohort.csv, row 3: has 7 cells, but the header has 8; {remedy}",
        f"cohort.csv, row 4: has 9 cells, but the header has 8; {remedy}",
    )


def test_open_quotation(sheet):
    result = sheet.run(content=sheet.text().replace("\n02", '\n"02'))
    assert [line.startswith("cohort.csv, row 3: cannot be split into cells (") for line in problems(result)] == [True]


def test_a_missing_sheet(sheet):
    result = sheet.run("--input", str(sheet.folder / "no.csv"))
    assert result.exit_code == 2
    assert result.stderr == f"Error: {sheet.folder / 'no.csv'}: no such file; check the path\n"


def with_value(value: float) -> np.ndarray:
    data = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    data[1, 2, 3] = value
    return data


IMAGES = {
    "4-D": (np.random.default_rng(0).random((8, 8, 8, 2)), "has 4 dimensions, not 3; give one volume"),
    "zeros": (np.zeros((8, 8, 8)), "has the value 0 in all voxels; give the scan itself"),
    "constant": (np.full((8, 8, 8), 7, np.int16), "has the value 7 in all voxels; give the scan itself"),
    "NaN": (with_value(np.nan), "holds NaN or infinite voxels (1 of 512); replace them by 0 or export it again"),
    "infinite": (with_value(-np.inf), "holds NaN or infinite voxels (1 of 512); replace them by 0 or export it again"),
    "no voxels": (np.zeros((8, 0, 8), np.float32), "holds no voxels; export it again"),
    "complex": (
        np.ones((8, 8, 8), np.complex64),
        f"has voxels of type complex64, {GREY}",
    ),
    "colour": (
        np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
        f"has voxels of type [('R', 'u1'), ('G', 'u1'), ('B', 'u1')], {GREY}",
    ),
}


@pytest.mark.parametrize("column", ["t1w", "flair"])
@pytest.mark.parametrize("case", IMAGES)
def test_images(sheet, write_scan, case, column):
    data, fault = IMAGES[case]
    path = write_scan(sheet.path(1, column), data)
    refuse(sheet, sheet.run(), f"cohort.csv, row 3, column {column}: {path.name}: {fault}")


@pytest.mark.parametrize(
    ("patch", "start"),
    [
        ((80, np.float32(0)), "has the voxel size 0 x 10 x 10 mm in its header"),
        ((80, np.float32(np.nan)), "has the voxel size nan x 10 x 10 mm in its header"),
        ((280, np.float32(0)), "has an affine that is singular or not finite"),
        ((280, np.float32(np.inf)), "has an affine that is singular or not finite"),
    ],
    ids=["zero", "nan", "singular", "infinite"],
)
def test_grids(sheet, write_scan, patch, start):
    offset, value = patch
    path = write_scan(sheet.path(1, "flair"))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + 4] = value.tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    result = sheet.run()
    assert result.exit_code == 2
    assert [line.startswith(f"cohort.csv, row 3, column flair: {path}: {start}") for line in problems(result)] == [True]


@pytest.mark.parametrize("shape", [(32, 32, 32), (32, 32, 32, 1)])
def test_truncated_gzip(sheet, write_scan, shape):
    path = write_scan(sheet.path(1, "t1w"), np.random.default_rng(0).random(shape))
    write_scan(sheet.path(1, "lesion_mask"), np.eye(32)[:, :, None] * np.ones(32))
    path.write_bytes(path.read_bytes()[:-2000])
    sentence = f"{path.name}: its voxels cannot be read (EOFError); the file may be truncated, copy it again"
    refuse(sheet, sheet.run(), f"cohort.csv, row 3, column t1w: {sentence}")


def test_damaged_gzip(sheet, write_scan):
    path = write_scan(sheet.path(1, "t1w"), np.random.default_rng(0).random((32, 32, 32)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(bytes(content))
    result = sheet.run()
    assert result.exit_code == 2
    assert any(f"row 3, column t1w: {path}: " in line for line in problems(result)), result.stderr


@pytest.mark.parametrize("content", [b"", b"hello", gzip.compress(b"hello"), gzip.compress(b"x" * 5000)])
def test_no_nifti(sheet, content):
    path = sheet.path(1, "t1w")
    path.write_bytes(content)
    result = sheet.run()
    assert result.exit_code == 2
    assert [f"row 3, column t1w: {path}: cannot be read as NIfTI" in line for line in problems(result)] == [True]


def test_truncated_without_gzip(sheet, write_scan):
    path = write_scan(sheet.folder / "plain.nii")
    path.write_bytes(path.read_bytes()[:-100])
    sheet.rows[1]["t1w"] = path.name
    assert [f"row 3, column t1w: {path}: its voxels cannot be read" in line for line in problems(sheet.run())] == [True]


def masks(lesion, moved) -> dict:
    moved[2, 3] = 5
    return {
        "shape": (
            (0, "lesion_mask", lesion(shape=(8, 8, 7)), None),
            "lies on another grid (8 x 8 x 7 voxels, against 8 x 8 x 8 for the T1w and 8 x 8 x 8 for the FLAIR); "
            "resample it onto the grid of the T1w or FLAIR",
        ),
        "affine": (
            (0, "lesion_mask", lesion(), moved),
            "lies on another grid (8 x 8 x 8 voxels, against 8 x 8 x 8 for the T1w at another position and 8 x 8 x 8 "
            "for the FLAIR at another position); resample it onto the grid of the T1w or FLAIR",
        ),
        "no lesions": (
            (0, "lesion_mask", lesion(0), None),
            "holds no lesions, but the patient is in split train; set its split to test or leave the mask out",
        ),
        "255": ((0, "lesion_mask", lesion(255), None), f"holds the value 255; {BINARY}"),
        "probability": (
            (2, "lesion_mask", lesion(0.4), None),
            f"holds the value 0.4; {BINARY}",
        ),
        "NaN": (
            (0, "lesion_mask", lesion(np.nan), None),
            "holds NaN or infinite voxels (2 of 512); replace them by 0 or export it again",
        ),
        "healthy with lesions": (
            (3, "lesion_mask", lesion(), None),
            "holds lesions, but the subject is healthy; set its role to patient or leave the mask out",
        ),
        "empty brain": ((0, "brain_mask", lesion(0), None), "holds no brain; give another mask or none"),
        "brain grid": (
            (0, "brain_mask", lesion(shape=(9, 8, 8)), None),
            "lies on another grid (9 x 8 x 8 voxels, against 8 x 8 x 8 for the T1w); resample it onto the grid of the T1w",
        ),
    }


@pytest.mark.parametrize(
    "case",
    ["shape", "affine", "no lesions", "255", "probability", "NaN", "healthy with lesions", "empty brain", "brain grid"],
)
def test_masks(sheet, write_scan, lesion, affine, case):
    (row, column, data, affine), fault = masks(lesion, affine)[case]
    sheet.rows[row][column] = "given_mask.nii.gz"
    write_scan(sheet.folder / "given_mask.nii.gz", data, affine)
    refuse(sheet, sheet.run(), f"cohort.csv, row {row + 2}, column {column}: given_mask.nii.gz: {fault}")


def test_a_split_drawn_by_seed_is_named(sheet, write_scan, lesion):
    sheet.rows[0]["split"] = sheet.rows[1]["split"] = ""
    for row in (0, 1):
        write_scan(sheet.path(row, "lesion_mask"), lesion(0))
    assert any("is in split train, chosen by seed; set" in line for line in problems(sheet.run()))


def test_a_subject_in_two_splits(sheet):
    sheet.add("03", "patient", "train", session="2")
    refuse(
        sheet,
        sheet.run(),
        "cohort.csv, row 7, column split: subject 03 is train here but test in row 4; "
        "give all sessions of a subject the same split, or training would see the test subject",
    )


def test_a_subject_of_two_roles(sheet):
    sheet.add("01", "healthy", "train", session="2")
    refuse(
        sheet,
        sheet.run(),
        "cohort.csv, row 7, column role: subject 01 is healthy here but patient in row 2; "
        "give all rows of a subject the same role",
    )


NOBODY_TRAINS = (
    "cohort.csv: no patient of split train has a lesion mask, so there is nothing to learn from; "
    "give one a lesion_mask, and train or nothing in its split, or masks of others by --lesion_library, with --arms augmented"
)
NOBODY_TESTS = (
    "cohort.csv: no patient of split test has a lesion mask, so the experiment cannot be measured; "
    "give one a lesion_mask and the split test, or use --mode augment"
)


def test_no_patient_to_learn_from_or_to_test_on(sheet):
    train, test = sheet.rows[:2], sheet.rows[2]
    sheet.rows = [test, *sheet.rows[3:]]
    refuse(sheet, sheet.run(), NOBODY_TRAINS)
    sheet.rows = train
    refuse(sheet, sheet.run(), NOBODY_TESTS)
    for row in train:
        row["lesion_mask"] = ""
    refuse(sheet, sheet.run(), NOBODY_TRAINS, NOBODY_TESTS)
    refuse(sheet, sheet.run("--mode", "augment"), NOBODY_TRAINS)


def test_a_known_fault_brings_no_second_complaint(sheet):
    sheet.rows[2]["split"] = "tets"
    assert len(problems(sheet.run())) == 1


def test_all_problems_are_reported_together_in_order(sheet, write_scan):
    sheet.rows[4]["subject"] = "1 2"
    sheet.rows[0]["role"] = "sick"
    write_scan(sheet.path(2, "t1w"), with_value(np.nan))
    sheet.path(1, "flair").unlink()
    sheet.path(3, "flair").write_bytes(b"no image")
    result = sheet.run()
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in problems(result)] == [
        "cohort.csv, row 2, column role",
        "cohort.csv, row 3, column flair",
        "cohort.csv, row 4, column t1w",
        "cohort.csv, row 5, column flair",
        "cohort.csv, row 6, column subject",
    ]
    assert "5 problems, listed above; nothing was written" in result.stderr.splitlines()[-1]
    assert not sheet.out.exists()


def test_models(sheet, tmp_path):
    rows = "--mode", "segment"
    refuse(sheet, sheet.run(*rows), "cohort.csv: --mode segment needs --model; give the folder of a trained cascade")
    result = sheet.run(*rows, "--model", str(tmp_path / "nothing"))
    refuse(sheet, result, "cohort.csv: nothing: is no model folder (no model.json in it); give a folder that lesionforge wrote")
    write_json({"kind": "generator"}, tmp_path / "model.json")
    result = sheet.run(*rows, "--model", str(tmp_path))
    assert "holds a generator, not a cascade; give the other folder" in problems(result)[0]
    refuse(
        sheet,
        sheet.run("--model", "any"),
        "cohort.csv: --model belongs to --mode segment, not experiment; leave it out or change the mode",
    )


def test_an_old_result_stays_when_the_sheet_is_bad(sheet):
    sheet.run()
    before = (sheet.out / "cohort.tsv").read_bytes()
    sheet.rows[0]["role"] = "x"
    assert sheet.run().exit_code == 2
    assert (sheet.out / "cohort.tsv").read_bytes() == before


@pytest.mark.parametrize("place", [".", "results", "results/cohort"])
def test_a_folder_of_others_is_not_replaced(sheet, place):
    (sheet.out / "mine").mkdir(parents=True)
    result = sheet.run("--out", str(Path(sheet.folder, place)))
    assert result.exit_code == 2
    assert "give a new or empty output folder" in result.stderr or "is read from it" in result.stderr
    assert (sheet.out / "mine").exists()


def test_header_faults_are_not_logged_by_nibabel(sheet, write_scan):
    """In a process of its own, since nibabel's logger writes past the test runner."""
    path = write_scan(sheet.path(1, "flair"))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[80:84] = bytes(4)
    path.write_bytes(gzip.compress(bytes(content)))
    (sheet.folder / "cohort.csv").write_text(sheet.text())
    command = [sys.executable, "-m", "lesionforge", "cohort", "--input", "cohort.csv", "--out", "out"]
    done = subprocess.run(command, cwd=sheet.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
