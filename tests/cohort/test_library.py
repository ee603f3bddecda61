"""A library of masks: what is refused, and that nothing of a test subject gets through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesionforge.images import read_tsv
from lesionforge.images.template import load_template

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
        "has the label a as sub-a.nii.gz has; rename one",
        "é!.nii.gz' holds a control character",
        "é.nii.gz, lesion_library: its name gives no label",
        "text.nii.gz, lesion_library: cannot be read as NIfTI",
    )
    for sentence in sentences:
        assert sentence in result.stderr, sentence
    assert len(result.stderr.splitlines()) == len(sentences) + 1


def test_under_skip_broken_masks_are_left_out_and_listed(sheet, library, write_scan):
    write_scan(library / "two.nii.gz", changed(2), load_template(2).affine)
    write_scan(library / "$(touch pwned).nii.gz", mask(), load_template(2).affine)
    write_scan(library / "é.nii.gz", mask(), load_template(2).affine)
    sheet.path(4, "t1w").unlink()
    result = run(sheet, library, "--on-subject-error", "skip")
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
    result = run(sheet, library, "--on-subject-error", "skip")
    assert result.exit_code == 2
    assert "has the label a as sub-a.nii.gz has; rename one" in result.stderr
    assert not sheet.out.exists()


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_masks_is_refused(sheet, tmp_path, make):
    if make:
        (tmp_path / "empty").mkdir()
    result = run(sheet, tmp_path / "empty")
    assert result.exit_code == 2
    assert "empty, lesion_library: holds no lesion mask" in result.stderr
