"""Displacements that go to disk and come back."""

from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pandas as pd

from lesionforge.images.deform import displaced, write_displacement

AFFINE = nib.affines.from_matvec(np.diag([4.0, 4, 4]), [-30, -20, 10])


def test_a_written_displacement_moves_points_and_ants_agrees(tmp_path: Path, rng: np.random.Generator) -> None:
    place = nib.affines.apply_affine(AFFINE, np.moveaxis(np.indices((12, 13, 14)), 0, -1))
    # Linear in the place, so that interpolation is exact.
    matrix, shift = rng.normal(scale=0.1, size=(3, 3)), np.array([3.0, -2, 5])
    path = tmp_path / "rough_xfm.nii.gz"
    write_displacement(place @ matrix.T + shift, AFFINE, path)
    points = nib.affines.apply_affine(AFFINE, rng.uniform(1, 10, (20, 3)))
    moved = displaced(points, path)
    np.testing.assert_allclose(moved, points + points @ matrix.T + shift, atol=1e-3)

    lps = pd.DataFrame(points * [-1, -1, 1], columns=["x", "y", "z"])
    by_ants = ants.apply_transforms_to_points(3, lps, [str(path)])[["x", "y", "z"]].to_numpy() * [-1, -1, 1]
    np.testing.assert_allclose(moved, by_ants, atol=1e-3)


def test_no_points_move_to_no_points(tmp_path: Path) -> None:
    write_displacement(np.zeros((3, 3, 3, 3), np.float32), AFFINE, tmp_path / "rough_xfm.nii.gz")
    assert displaced(np.zeros((0, 3)), tmp_path / "rough_xfm.nii.gz").shape == (0, 3)
