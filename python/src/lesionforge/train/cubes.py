"""Linear filters of small cubes, as products of matrices.

`ndimage` does the same line by line, which takes longer (`make bench-cascade`).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage


def blurred(cubes: np.ndarray, sigma: float) -> np.ndarray:
    """Cubes [..., n, n, n] of any type, smoothed by a Gaussian of `sigma` voxels, mirrored at the faces; float32.

    Equal to `ndimage.gaussian_filter` of each to rounding. A NaN spreads over the whole cube.
    """
    return _along_axes(cubes, ndimage.gaussian_filter1d(np.eye(cubes.shape[-1], dtype=np.float32), sigma, axis=0))


def zoomed(cubes: np.ndarray, side: int) -> np.ndarray:
    """Cubes [..., n, n, n] of any type, interpolated linearly to `side` voxels along each axis over the same extent; float32.

    Equal to `ndimage.zoom` of each with `order=1, mode="nearest", grid_mode=True` to rounding. A NaN spreads over the whole cube.
    """
    return _along_axes(cubes, _zoom_matrix(cubes.shape[-1], side))


@cache
def _zoom_matrix(before: int, after: int) -> np.ndarray:
    """The matrix [after, before] of linear interpolation: what a line becomes in which one voxel alone is 1."""
    lines = np.eye(before, dtype=np.float32)
    return np.asarray(ndimage.zoom(lines, (after / before, 1), order=1, mode="nearest", grid_mode=True))


def _along_axes(cubes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Cubes [..., n, n, n] multiplied along each axis by a matrix [m, n]; float32 [..., m, m, m]."""
    filtered = matrix @ (cubes.astype(np.float32, copy=False) @ matrix.T)
    return np.asarray((matrix @ filtered.swapaxes(-3, -2)).swapaxes(-3, -2))
