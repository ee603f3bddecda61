"""Displacements that go to disk and come back."""

from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from lesionforge.errors import InputError
from lesionforge.images.deform import read_displacement, write_displacement

AFFINE = nib.affines.from_matvec(np.diag([4.0, 4, 4]), [-30, -20, 10])


def test_a_written_displacement_moves_points_and_ants_agrees(tmp_path: Path, rng: np.random.Generator) -> None:
    place = nib.affines.apply_affine(AFFINE, np.moveaxis(np.indices((12, 13, 14)), 0, -1))
    # Linear in the place, so that interpolation is exact.
    matrix, shift = rng.normal(scale=0.1, size=(3, 3)), np.array([3.0, -2, 5])
    path = tmp_path / "rough_xfm.nii.gz"
    write_displacement(place @ matrix.T + shift, AFFINE, path)
    points = nib.affines.apply_affine(AFFINE, rng.uniform(1, 10, (20, 3)))
    moved = read_displacement(path)(points)
    np.testing.assert_allclose(moved, points + points @ matrix.T + shift, atol=1e-3)

    lps = pd.DataFrame(points * [-1, -1, 1], columns=["x", "y", "z"])
    by_ants = ants.apply_transforms_to_points(3, lps, [str(path)])[["x", "y", "z"]].to_numpy() * [-1, -1, 1]
    np.testing.assert_allclose(moved, by_ants, atol=1e-3)


def test_no_points_move_to_no_points(tmp_path: Path) -> None:
    write_displacement(np.zeros((3, 3, 3, 3), np.float32), AFFINE, tmp_path / "rough_xfm.nii.gz")
    assert read_displacement(tmp_path / "rough_xfm.nii.gz")(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("fault", ["text", "cut", "a volume", "NaN"])
def test_a_displacement_that_is_none_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "rough_xfm.nii.gz"
    write_displacement(np.full((9, 9, 9, 3), np.nan if fault == "NaN" else 1, np.float32), AFFINE, path)
    if fault == "text":
        path.write_text("no image")
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif fault == "a volume":
        nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), AFFINE), path)
    with pytest.raises(InputError, match=r"rough_xfm\.nii\.gz: (cannot be read as a displacement|holds NaN)"):
        read_displacement(path)
