"""A lesion mask comes from the grid it was drawn on to all others by the transforms between the scans."""

from __future__ import annotations

from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pytest

from lesionforge.images import find_image, read_image, read_mask, voxel_volume_mm3, write_json, write_mask
from lesionforge.images.interfaces import run
from lesionforge.phantom.head import rigid
from lesionforge.prepare.interfaces import Align

# From points of the FLAIR to points of the T1w, far more than heads move.
TO_T1W = rigid([8, -6, 12], [14, -10, 9])
# Balls in the space of the FLAIR: centre and radius, mm.
LESIONS = (((-25, -30, 20), 11), ((28, 5, 30), 14))


def balls(shape: tuple[int, ...], to_flair: np.ndarray) -> np.ndarray:
    """The voxels of a grid whose centres lie in LESIONS; `to_flair` leads from voxels to points of the FLAIR."""
    points = nib.affines.apply_affine(to_flair, np.moveaxis(np.indices(shape), 0, -1))
    return np.any([np.linalg.norm(points - centre, axis=-1) <= radius for centre, radius in LESIONS], axis=0)


@pytest.fixture
def scans(phantom_cohort: Path) -> dict[str, Path]:
    return {name.lower(): phantom_cohort / f"sub-p01/anat/sub-p01_{name}.nii.gz" for name in ("T1w", "FLAIR")}


@pytest.fixture
def stripped(phantom_cohort: Path, tmp_path: Path) -> Path:
    """What Strip writes for the first phantom, with the true brain, the transform TO_T1W and none to the template."""
    folder = tmp_path / "strip" / "sub-p01"
    folder.mkdir(parents=True)
    truth = phantom_cohort / "derivatives/phantom/sub-p01/anat/sub-p01_desc-truth_mask.nii.gz"
    write_mask(*read_mask(truth), folder / "sub-p01_space-T1w_res-3mm_desc-brain_mask.nii.gz", "brain")
    still = ants.new_ants_transform(dimension=3, transform_type="Euler3DTransform")
    ants.write_transform(still, str(folder / "sub-p01_from-MNI152_to-T1w_mode-image_desc-rough_xfm.h5"))
    flip = np.diag([-1, -1, 1])
    # Resampling looks up, for each point of the T1w, a point of the FLAIR.
    to_flair = np.linalg.inv(TO_T1W)
    moving = ants.create_ants_transform(
        transform_type="AffineTransform", matrix=flip @ to_flair[:3, :3] @ flip, translation=(flip @ to_flair[:3, 3]).tolist()
    )
    ants.write_transform(moving, str(folder / "sub-p01_from-FLAIR_to-T1w_mode-image_xfm.mat"))
    write_json({"skull_stripping": "given"}, folder / "sub-p01_desc-strip.json")
    return folder


def test_a_mask_drawn_on_the_flair_lies_where_the_transform_says(scans: dict[str, Path], stripped: Path, tmp_path: Path) -> None:
    flair = read_image(scans["flair"])
    drawn = balls(flair.shape, flair.affine)
    write_mask(drawn, flair.affine, tmp_path / "mask.nii.gz", "lesions", flair)
    mask = tmp_path / "mask.nii.gz"
    folder = run(Align, scan_id="sub-p01", **scans, lesion_mask=mask, stripped=stripped, out=tmp_path / "align")
    native = read_mask(find_image(folder, "space-FLAIR_res-native_label-lesion_mask.nii.gz"))[0]
    assert np.array_equal(native, drawn)
    for grid in ("space-T1w_res-3mm", "space-T1w_res-native"):
        found, affine = read_mask(find_image(folder, f"{grid}_label-lesion_mask.nii.gz"))
        expected = balls(found.shape, np.linalg.inv(TO_T1W) @ affine)
        assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
        drawn_mm3 = drawn.sum() * voxel_volume_mm3(flair.affine)
        assert found.sum() * voxel_volume_mm3(affine) == pytest.approx(drawn_mm3, rel=0.1)
