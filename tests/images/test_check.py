"""What one file must satisfy by itself: no localizer, sound voxel sizes, contrast, masks of 0 and 1."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from lesionforge.errors import InputError
from lesionforge.images.check import check_mask, check_scan, form_disagreement_mm, form_warnings, inspect_file


def write(path, shape, voxel_mm, data=None):
    data = np.random.default_rng(0).random(shape, np.float32) if data is None else data
    nib.save(nib.Nifti1Image(data, np.diag([*voxel_mm, 1.0])), path)
    return path


@pytest.mark.parametrize(
    ("shape", "voxel_mm", "fault"),
    [
        ((64, 64, 2), (4, 4, 10), "has 64 x 64 x 2 voxels over 256 x 256 x 20 mm and looks like a localizer"),
        ((64, 64, 7), (4, 4, 10), "looks like a localizer"),
        ((64, 64, 10), (4, 4, 5), "over 256 x 256 x 50 mm and looks like a localizer"),
        ((20, 20, 20), (10, 10, 13), "has voxels of 10 x 10 x 13 mm, beyond 12 mm"),
    ],
)
def test_a_scan_that_covers_no_head_is_named(tmp_path, shape, voxel_mm, fault):
    path = write(tmp_path / "scan.nii.gz", shape, voxel_mm)
    with pytest.raises(InputError) as refused:
        check_scan(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert fault in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "voxel_mm"), [((64, 64, 12), (4, 4, 5)), ((140, 130, 125), (0.5, 0.5, 0.5)), ((8, 8, 8), (12, 12, 12))]
)
def test_thick_slices_and_fine_voxels_pass(tmp_path, shape, voxel_mm):
    check_scan(write(tmp_path / "scan.nii", shape, voxel_mm))


def test_a_mask_holds_0_and_1_and_may_be_empty(tmp_path):
    check_mask(write(tmp_path / "empty.nii.gz", None, (1, 1, 1), np.zeros((4, 4, 4), np.uint8)))
    path = write(tmp_path / "odd.nii.gz", None, (1, 1, 1), np.full((4, 4, 4), 2, np.uint8))
    with pytest.raises(InputError, match=r"odd\.nii\.gz: holds the value 2; write a mask"):
        check_mask(path)


@pytest.mark.parametrize(
    ("shift_mm", "codes", "warned"),
    [(5.0, (1, 1), True), (0.5, (1, 1), False), (5.0, (1, 0), False), (5.0, (0, 1), False)],
)
def test_an_sform_and_a_qform_that_disagree_are_only_a_warning(tmp_path, shift_mm, codes, warned):
    sform, qform = np.diag([8.0, 8.0, 8.0, 1.0]), np.diag([8.0, 8.0, 8.0, 1.0])
    qform[0, 3] = shift_mm
    image = nib.Nifti1Image(np.random.default_rng(0).random((10, 10, 10)), None)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    nib.save(image, tmp_path / "scan.nii.gz")
    facts = inspect_file(str(tmp_path / "scan.nii.gz"), is_mask=False)
    assert facts.faults == ()
    said = "has an sform and a qform that disagree (by up to 5.0 mm); its sform is used"
    assert facts.warnings == ((said,) if warned else ())


def test_an_image_without_forms_is_only_a_warning(tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(0).random((10, 10, 10)), None)
    image.header["pixdim"][1:4] = 8
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), tmp_path / "scan.nii.gz")
    facts = inspect_file(str(tmp_path / "scan.nii.gz"), is_mask=False)
    assert facts.faults == ()
    assert facts.warnings == ("has neither an sform nor a qform, so that its left and right are a guess; convert it again",)


def test_a_qform_that_is_no_rotation_has_no_distance_and_is_only_a_warning():
    image = nib.Nifti1Image(np.random.default_rng(0).random((10, 10, 10)), np.diag([8.0, 8.0, 8.0, 1.0]))
    image.set_qform(image.affine, code=1)
    assert form_disagreement_mm(image) == 0
    image.header["quatern_b"] = 2
    assert np.isnan(form_disagreement_mm(image))
    assert form_warnings(image) == ("has a qform that is no rotation; its sform is used",)
