"""Nonlinear registration, as `prepare` (roughly, to strip) and `register` need it, and what it did: fields, folding, overlap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images.files import whole_file
from lesionforge.images.geometry import RAS_TO_LPS, grid_fault

if TYPE_CHECKING:
    import ants

SEED = 1
# Iterations of the affine step from coarse to fine; the deformation that follows corrects what the last level would.
AFFINE_ITERATIONS = (1000, 500, 250, 0)
# SyN, with iterations at 4, 2 and 1 times the voxel size of the fixed image; `syn_sampling` is the histogram's bins.
ROUGH = {"reg_iterations": (40, 10, 0)}
# Longer steps and fewer bins than antspyx's own (0.2, 32) bring tissues closer in the same time.
FINE = {"reg_iterations": (40, 20, 10), "grad_step": 0.3, "syn_sampling": 16}


def fix_seed() -> None:
    """Give every registration that follows the same seed for the samples its metric draws.

    antspyx ignores a `random_seed` given to `ants.registration`; without this, two runs differ in every voxel.
    """
    import ants

    ants.config.set_ants_deterministic(on=False, seed_value=SEED)


def affine_and_syn(
    fixed: ants.ANTsImage, moving: ants.ANTsImage, outprefix: str, recipe: dict[str, Any] = ROUGH
) -> tuple[str, str]:
    """Register `moving` onto `fixed`, affine then SyN, by mutual information; files beginning with `outprefix` are written.

    `recipe` is ROUGH or FINE. Returns the paths of the composite transforms moving to fixed and fixed to moving. The seed
    is fixed.
    Source: Avants et al. 2008, doi 10.1016/j.media.2007.06.004.
    """
    import ants

    fix_seed()
    affine = ants.registration(fixed, moving, "Affine", outprefix=outprefix + "affine_", aff_iterations=AFFINE_ITERATIONS)
    syn = ants.registration(
        fixed,
        moving,
        "SyNOnly",
        initial_transform=affine["fwdtransforms"][0],
        outprefix=outprefix + "syn_",
        write_composite_transform=True,
        **recipe,
    )
    return syn["fwdtransforms"], syn["invtransforms"]


def jacobian_determinant(displacement: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Determinant of the Jacobian of x -> x + u(x); float32 [x, y, z].

    `displacement` is u in mm along the axes of the world, [x, y, z, 3], on a grid with the given affine.
    Positive values keep the orientation; zero or less is folding. Border voxels use one-sided differences.
    """
    world_to_voxel = np.linalg.inv(affine[:3, :3])
    steps = np.stack([np.stack(np.gradient(displacement[..., c]), axis=-1) for c in range(3)], axis=-2)
    jacobian = steps @ world_to_voxel.astype(displacement.dtype) + np.eye(3, dtype=displacement.dtype)
    determinant: np.ndarray = np.linalg.det(jacobian)
    return determinant.astype(np.float32)


def folding_fraction(displacement: np.ndarray, affine: np.ndarray, brain: np.ndarray) -> float:
    """Fraction of the brain's voxels where a deformation folds space; NaN for an empty brain."""
    return float((jacobian_determinant(displacement, affine)[brain] <= 0).mean()) if brain.any() else float("nan")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice overlap of two bool masks; NaN when both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def displacement_field(grid: ants.ANTsImage, transforms: list[str], outprefix: str) -> np.ndarray:
    """The displacement in mm along the RAS axes, [x, y, z, 3], that a list of transforms makes on a grid."""
    import ants

    path = ants.apply_transforms(grid, grid, transforms, compose=outprefix + "composed_")
    field = np.asanyarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj, dtype=np.float32).squeeze()
    return field @ RAS_TO_LPS.astype(np.float32)


def write_displacement(displacement: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a displacement in mm along the RAS axes, [x, y, z, 3], as a NIfTI that ANTs takes for a transform (LPS, float32)."""
    data = (displacement @ RAS_TO_LPS)[:, :, :, None].astype(np.float32)
    image = nib.Nifti1Image(data, affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    with whole_file(path) as temporary:
        nib.save(image, temporary)


def read_displacement(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The way that a file of `write_displacement` leads points [n, 3], RAS mm: a function, linear between its voxels.

    Raises InputError when the file cannot be read or is none.
    """
    try:
        image = nib.nifti1.Nifti1Image.from_filename(path)
        field = np.asanyarray(image.dataobj, dtype=np.float32).squeeze(axis=3) @ RAS_TO_LPS
    except Exception as error:  # nibabel and the archives under it raise many
        raise InputError(f"{path}: cannot be read as a displacement ({type(error).__name__}); prepare the scan again") from error
    fault = grid_fault(field.shape[:3], image.affine)
    if fault is None and not np.isfinite(field).all():
        fault = "holds NaN or infinite voxels; prepare the scan again"
    if fault:
        raise InputError(f"{path}: {fault}")
    to_voxel = np.linalg.inv(image.affine)

    def displaced(points: np.ndarray) -> np.ndarray:
        voxels = nib.affines.apply_affine(to_voxel, points).T
        moved = [ndimage.map_coordinates(field[..., axis], voxels, order=1, mode="nearest") for axis in range(3)]
        return np.asarray(points + np.stack(moved, axis=-1))

    return displaced
