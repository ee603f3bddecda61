"""What a deformation did: folding and overlap, on arrays [x, y, z]."""

from __future__ import annotations

import numpy as np


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


def tissue_overlap(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Dice of CSF, GM and WM between two tissue volumes (1, 2, 3) on one grid."""
    return {f"dice_{name}": dice(a == label, b == label) for label, name in ((1, "csf"), (2, "gm"), (3, "wm"))}
