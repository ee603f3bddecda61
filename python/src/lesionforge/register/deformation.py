"""What a deformation did to tissues, on arrays [x, y, z]."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lesionforge.images.deform import dice


def tissue_overlap(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Dice of CSF, GM and WM between two tissue volumes (1, 2, 3) on one grid."""
    return {f"dice_{name}": dice(a == label, b == label) for label, name in ((1, "csf"), (2, "gm"), (3, "wm"))}


def source_voxels(displacement: np.ndarray, affine: np.ndarray, source_affine: np.ndarray) -> np.ndarray:
    """Where each voxel of a grid comes from, in voxels of another grid: float32 [3, x, y, z].

    `displacement` is u in mm along the axes of the world, [x, y, z, 3], on the grid with `affine`; x + u(x) is looked up
    in the grid with `source_affine`.
    """
    to_source = np.linalg.inv(source_affine)
    linear = (to_source @ affine)[:3, :3]
    offset = (to_source @ affine)[:3, 3]
    index = np.indices(displacement.shape[:3], dtype=np.float32)
    voxels = np.tensordot(linear, index, axes=1) + np.tensordot(to_source[:3, :3], displacement, axes=(1, 3))
    return (voxels + offset.reshape(3, 1, 1, 1)).astype(np.float32)


def warp_tissues(tissues: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Tissues (0 to 3) as a deformation moves them: each voxel gets the one that is most probable by linear interpolation.

    `source` [3, x, y, z] is in voxels of `tissues`, as `source_voxels` gives it; uint8 on its grid, 0 outside.
    """
    best = np.zeros(source.shape[1:], np.uint8)
    highest = np.full(best.shape, 0.0, np.float32)
    for label in (0, 1, 2, 3):
        share = ndimage.map_coordinates((tissues == label).astype(np.float32), source, order=1)
        best[share > highest] = label
        highest = np.maximum(highest, share)
    return best
