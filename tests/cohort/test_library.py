"""A library of masks: what is refused, and that nothing of a test subject gets through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesionforge.images import read_tsv
from lesionforge.images.template import load_template

SKIP = ("--on-subject-error", "skip")
CENTRE = (49, 50, 40)  # of the template at 2 mm, in white matter or near


@pytest.fixture
def library(tmp_path: Path, write_scan) -> Path:
    """Three masks in template space, one of them without `sub-`."""
    folder = tmp_path / "a library"
    for n, name in enumerate(("sub-a_space-MNI152_label-lesion_mask", "sub-b_ses-2_space-MNI152_label-lesion_mask", "c mask")):
        write_scan(folder / f"{name}.nii.gz", mask(n), load_template(2).affine)
    return folder


def mask(shift: int = 0, value: float = 1) -> np.ndarray:
    """4 ml of lesions in the template's brain."""
    voxels = np.zeros(load_template(2).brain.shape, np.uint8 if value == 1 else np.float32)
    x, y, z = CENTRE
    voxels[x + shift : x + shift + 10, y : y + 10, z : z + 5] = value
    return voxels


def donors(sheet) -> set[str]:
    return set(read_tsv(sheet.out / "pairs.tsv")["donor"])


def run(sheet, library: Path, *options: str):
    return sheet.run("--lesion-library", str(library), "--synthetic", "30", *options)


def test_masks_of_a_library_are_donors(sheet, library):
    result = run(sheet, library)
    assert result.exit_code == 0, result.output
    assert "3 masks of the library among the donors" in result.stdout
    pairs = read_tsv(sheet.out / "pairs.tsv")
    assert set(pairs["donor"]) == {"sub-01", "sub-02", "lib-a", "lib-bses2", "lib-cmask"}
    paths = dict(zip(pairs["donor"], pairs["library_mask"], strict=True))
    assert paths["lib-cmask"] == str(library / "c mask.nii.gz")
    assert paths["sub-01"] == ""
    assert pairs["load_ml"].astype(float).between(2, 4).all()


def test_a_load_may_be_given(sheet, library):
    assert run(sheet, library, "--lesion-load", "2.5").exit_code == 0
    assert set(read_tsv(sheet.out / "pairs.tsv")["load_ml"]) == {"2.5"}


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_mask_named_after_a_held_out_subject_is_left_out_and_said(sheet, library, split):
    sheet.add("A", "patient", split)
    result = run(sheet, library)
    assert result.exit_code == 0, result.output
    assert "lib-a" not in donors(sheet)
    warning = (sheet.out / "warnings.txt").read_text()
    assert f"sub-a_space-MNI152_label-lesion_mask.nii.gz, lesion_library: is named after sub-A of split {split}" in warning


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize(("name", "subject"), [("D_mask", "d"), ("d_ses-2_mask", "D"), ("sub-x_to_sub-d", "d")])
def test_a_mask_that_training_would_take_for_a_held_out_subjects_is_left_out(sheet, library, write_scan, name, subject, split):
    """`train` knows a donor by its id alone, and refuses one of a validation subject when all else is done."""
    sheet.add(subject, "patient", split)
    write_scan(library / f"{name}.nii.gz", mask(3), load_template(2).affine)
    assert run(sheet, library).exit_code == 0
    assert donors(sheet) == {"sub-01", "sub-02", "lib-a", "lib-bses2", "lib-cmask"}
    said = f"{name}.nii.gz, lesion_library: is named after sub-{subject} of split {split} and is left out"
    assert said in (sheet.out / "warnings.txt").read_text()


def test_a_mask_named_after_two_subjects_is_painted_onto_neither(sheet, library, write_scan):
    del sheet.rows[3:]
    write_scan(library / "sub-x_to_sub-02.nii.gz", mask(3), load_template(2).affine)
    assert run(sheet, library).exit_code == 0
    pairs = read_tsv(sheet.out / "pairs.tsv")
    assert set(pairs["canvas"][pairs["donor"] == "lib-x"]) == {"sub-01"}


def test_a_mask_of_a_training_subject_stays(sheet, library):
    sheet.add("a", "patient", "train")
    assert run(sheet, library).exit_code == 0
    assert "lib-a" in donors(sheet)


@pytest.mark.parametrize("change", ["same file", "cropped", "axes turned"])
def test_a_copy_of_a_test_mask_under_another_name_is_left_out(sheet, library, write_scan, change):
    """The test patient's scans lie in template space, as public ones do."""
    affine = load_template(2).affine.copy()
    voxels = mask(1)
    for column in ("t1w", "flair"):
        write_scan(sheet.path(2, column), np.random.default_rng(0).random(voxels.shape, np.float32), affine)
    write_scan(sheet.path(2, "lesion_mask"), voxels, affine)
    if change == "cropped":
        voxels = voxels[2:]
        affine[:3, 3] += 2 * affine[:3, 0]
    elif change == "axes turned":
        voxels = voxels[:, ::-1].astype(np.float32)
        affine[:3, 3] += (voxels.shape[1] - 1) * affine[:3, 1]
        affine[:3, 1] *= -1
    write_scan(library / "sub-b_ses-2_space-MNI152_label-lesion_mask.nii.gz", voxels, affine)
    result = run(sheet, library)
    assert result.exit_code == 0, result.output
    assert donors(sheet) == {"sub-01", "sub-02", "lib-a", "lib-cmask"}
    assert "holds the very lesions of sub-03 of split test" in (sheet.out / "warnings.txt").read_text()


def test_a_mask_without_lesions_is_left_out_and_said(sheet, library, write_scan):
    write_scan(library / "d.nii.gz", np.zeros_like(mask()), load_template(2).affine)
    result = run(sheet, library)
    assert result.exit_code == 0, result.output
    assert "d.nii.gz, lesion_library: holds no lesions" in result.stderr


def shifted(mm: float) -> np.ndarray:
    affine = load_template(2).affine.copy()
    affine[0, 3] += mm
    return affine


def changed(value: float) -> np.ndarray:
    """A sound mask with one odd voxel."""
    voxels = mask().astype(np.float32)
    voxels[0, 0, 0] = value
    return voxels


def test_what_cannot_be_a_library_is_refused_in_a_sentence_each(sheet, library, write_scan):
    write_scan(library / "two.nii.gz", changed(2), load_template(2).affine)
    write_scan(library / "minus.nii.gz", changed(-1), load_template(2).affine)
    write_scan(library / "nan.nii.gz", changed(np.nan), load_template(2).affine)
    write_scan(library / "line\nbreak.nii.gz", mask(), load_template(2).affine)
    write_scan(library / "c_mask\udcff.nii.gz", mask(), load_template(2).affine)
    write_scan(library / "halves.nii.gz", mask(value=0.5), load_template(2).affine)
    write_scan(library / "elsewhere.nii.gz", mask(), shifted(70))
    write_scan(library / "slab.nii.gz", mask()[:, :, :60], load_template(2).affine)
    edge = np.zeros_like(mask())
    edge[:3, :3, :3] = 1
    write_scan(library / "outside.nii.gz", edge, load_template(2).affine)
    write_scan(library / "sub-a.nii.gz", mask(), load_template(2).affine)
    write_scan(library / "é!.nii.gz", mask(), load_template(2).affine)
    write_scan(library / "é.nii.gz", mask(), load_template(2).affine)
    (library / "text.nii.gz").write_text("no image")
    (library / "linked.nii.gz").symlink_to(write_scan(library / "`a`" / "mask.nii.gz", mask(), load_template(2).affine))
    result = run(sheet, library)
    assert result.exit_code == 2
    assert not sheet.out.exists()
    sentences = (
        "two.nii.gz, lesion_library: holds the value 2; write a mask with 0 outside and 1 inside only",
        "minus.nii.gz, lesion_library: holds the value -1; write a mask",
        "nan.nii.gz, lesion_library: holds NaN or infinite voxels (1 of ",
        "line\\nbreak.nii.gz' holds a control character",
        "c_mask\\udcff.nii.gz' holds a control character",
        "halves.nii.gz, lesion_library: holds the value 0.5",
        "elsewhere.nii.gz, lesion_library: covers",
        "slab.nii.gz, lesion_library: covers",
        "outside.nii.gz, lesion_library: has only 0 % of its lesions in the template's brain",
        "its name gives the label a, as that of sub-a.nii.gz does; rename one, as with a ses- label, or take it away",
        "é!.nii.gz' holds a control character",
        "é.nii.gz, lesion_library: its name gives no label",
        "text.nii.gz, lesion_library: cannot be read as NIfTI",
        f"linked.nii.gz' leads by a link to '{library}/`a`/mask.nii.gz', and that holds a control character",
    )
    for sentence in sentences:
        assert sentence in result.stderr, sentence
    assert len(result.stderr.splitlines()) == len(sentences) + 1


def test_a_broken_mask_of_a_held_out_patient_hides_no_other_problem(sheet, library):
    row = next(n for n, row in enumerate(sheet.rows) if row["split"] == "test")
    sheet.path(row, "lesion_mask").unlink()
    sheet.path(0, "t1w").unlink()
    result = run(sheet, library)
    assert result.exit_code == 2
    assert f"row {row + 2}, column lesion_mask" in result.stderr and "row 2, column t1w" in result.stderr, result.stderr


def test_under_skip_broken_masks_are_left_out_and_listed(sheet, library, write_scan):
    write_scan(library / "two.nii.gz", changed(2), load_template(2).affine)
    write_scan(library / "$(touch pwned).nii.gz", mask(), load_template(2).affine)
    write_scan(library / "é.nii.gz", mask(), load_template(2).affine)
    sheet.path(4, "t1w").unlink()
    result = run(sheet, library, *SKIP)
    assert result.exit_code == 0, result.output
    assert "3 masks of the library among the donors; left out for broken files: 4" in result.stdout
    assert "two.nii.gz, lesion_library: holds the value 2" in result.stderr
    assert {"lib-a", "lib-bses2", "lib-cmask"} == {name for name in donors(sheet) if name.startswith("lib-")}
    problems = read_tsv(sheet.out / "problems.tsv")
    assert set(zip(problems["id"], problems["column"], strict=True)) == {
        ("lib-two", "lesion_library"),
        ("lib-touchpwned", "lesion_library"),
        ("lib-unnamed", "lesion_library"),
        ("sub-12", "t1w"),
    }
    said = dict(zip(problems["id"], problems["problem"], strict=True))
    assert said["lib-two"].startswith(f"{library / 'two.nii.gz'}: holds the value 2;")


def test_under_skip_two_masks_of_one_label_still_stop_everything(sheet, library, write_scan):
    write_scan(library / "sub-a.nii.gz", mask(), load_template(2).affine)
    result = run(sheet, library, *SKIP)
    assert result.exit_code == 2
    sentence = (
        "sub-a_space-MNI152_label-lesion_mask.nii.gz, lesion_library: its name gives the label a, as that of sub-a.nii.gz does"
    )
    assert f"{sentence}; rename one, as with a ses- label, or take it away" in result.stderr
    assert not sheet.out.exists()


@pytest.mark.parametrize("options", [(), SKIP])
@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_masks_is_refused(sheet, tmp_path, make, options):
    if make:
        (tmp_path / "empty").mkdir()
    result = run(sheet, tmp_path / "empty", *options)
    assert result.exit_code == 2
    assert "empty, lesion_library: holds no lesion mask (.nii or .nii.gz); give a folder of masks in" in result.stderr
    assert "correct what is named there and start again" in result.stderr
    assert not sheet.out.exists()


@pytest.fixture
def unmasked(sheet):
    """The sheet, its training patients without lesion masks."""
    for row in sheet.rows[:2]:
        row["lesion_mask"] = ""
    return sheet


AUGMENTED = ("--arm", "augmented")
NOBODY_TRAINS = "cohort.csv: no patient of split train has a lesion mask"


@pytest.mark.parametrize("canvases", ["healthy", "patients"])
@pytest.mark.parametrize("options", [("--mode", "augment"), AUGMENTED])
def test_a_library_makes_masks_of_training_patients_needless(unmasked, library, options, canvases):
    if canvases == "patients":
        del unmasked.rows[3:]
    result = run(unmasked, library, *options)
    assert result.exit_code == 0, result.output
    assert donors(unmasked) == {"lib-a", "lib-bses2", "lib-cmask"}
    canvas = {"healthy": {"sub-11", "sub-12"}, "patients": {"sub-01", "sub-02"}}[canvases]
    assert set(read_tsv(unmasked.out / "pairs.tsv")["canvas"]) == canvas
    said = f"{NOBODY_TRAINS}, so the arm real is left out" in (unmasked.out / "warnings.txt").read_text()
    assert said == (options != AUGMENTED)


@pytest.mark.parametrize("options", [(), ("--arm", "real"), ("--mode", "augment", "--arm", "real"), SKIP])
def test_the_arm_real_needs_an_annotated_training_scan(unmasked, library, options):
    result = run(unmasked, library, *options)
    assert result.exit_code == 2
    remedy = "give one a lesion_mask, and train or nothing in its split, or use --arms augmented"
    assert result.stderr.splitlines()[0] == f"{NOBODY_TRAINS}, so the arm real has nothing to train on; {remedy}"
    assert len(result.stderr.splitlines()) == 2
    assert not unmasked.out.exists()


def test_an_experiment_without_training_masks_still_needs_a_test_patient(unmasked, library):
    unmasked.rows[2]["lesion_mask"] = ""
    result = run(unmasked, library, *AUGMENTED)
    assert result.exit_code == 2
    assert "cohort.csv: no patient of split test has a lesion mask, so the experiment cannot be measured" in result.stderr


def test_somebody_must_tell_how_bright_lesions_are(unmasked, library):
    del unmasked.rows[:2]
    result = run(unmasked, library, *AUGMENTED)
    assert result.exit_code == 2
    said = "cohort.csv: no patient is in split train, so nothing tells how bright lesions are"
    assert result.stderr.splitlines()[0] == f"{said}; write train or nothing in the split of one"


@pytest.mark.parametrize("fault", ["broken", "empty", "held out"])
def test_without_any_mask_there_is_nothing_to_paint(unmasked, library, write_scan, fault):
    for path in library.iterdir():
        path.unlink()
    path = write_scan(library / "sub-03.nii.gz", mask(0 if fault == "empty" else 1), load_template(2).affine)
    if fault == "broken":
        path.rename(library / "z.nii.gz").write_bytes(b"no image")
    elif fault == "empty":
        write_scan(path.rename(library / "z.nii.gz"), 0 * mask(), load_template(2).affine)
    result = run(unmasked, library, *AUGMENTED, *SKIP)
    assert result.exit_code == 2
    said = f"{NOBODY_TRAINS} and no mask of the library is left, so there are no lesions to paint; give one a lesion_mask"
    assert said in result.stderr


def test_a_broken_library_brings_no_second_complaint(unmasked, library):
    for path in library.iterdir():
        path.write_bytes(b"no image")
    result = run(unmasked, library, *AUGMENTED)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 4


def test_under_skip_patients_go_on_without_a_library_whose_masks_are_all_broken(sheet, library):
    for path in library.iterdir():
        path.write_bytes(b"no image")
    result = run(sheet, library, *SKIP)
    assert result.exit_code == 0, result.output
    assert donors(sheet) == {"sub-01", "sub-02"}
    assert len(read_tsv(sheet.out / "problems.tsv")) == 3
