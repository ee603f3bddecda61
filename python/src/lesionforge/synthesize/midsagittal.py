"""The plane between the two halves of a brain, and the mirror image about it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, optimize

# A head is symmetric on this scale; finer detail would only slow the search down.
SEARCH_MM = 4.0
LARGEST_TILT_DEGREES = 20.0


def midsagittal_reflection(t1w: np.ndarray, brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    """The reflection about the midsagittal plane, 4 x 4 in voxels of the grid.

    `t1w` (float32, positive or negative) and `brain` (bool) are [x, y, z] on an isotropic RAS grid. The plane is the one
    about which the smoothed T1w of the brain is most like its mirror image (correlation), found from the plane x =
    centroid by turning about z and y by up to 20 degrees and shifting. Without a brain it is the middle of the grid.
    """
    if not brain.any():
        return _reflection(np.array([1.0, 0, 0]), (np.array(t1w.shape) - 1) / 2)
    step = max(SEARCH_MM / voxel_mm, 1.0)
    image = np.where(brain, t1w - t1w[brain].min(), 0).astype(np.float32)
    smooth = ndimage.gaussian_filter(image, step / 2)
    small = ndimage.affine_transform(
        smooth, np.diag([step] * 3), output_shape=tuple(int(n / step) + 1 for n in t1w.shape), order=1
    )
    centre = np.array(ndimage.center_of_mass(small))
    limits = np.array([np.inf, LARGEST_TILT_DEGREES, LARGEST_TILT_DEGREES])

    def unlikeness(plane: np.ndarray) -> float:
        if (np.abs(plane) > limits).any():
            return 1.0
        matrix = _reflection(_normal(plane), centre + plane[0] * np.array([1.0, 0, 0]))
        mirrored = ndimage.affine_transform(small, matrix[:3, :3], matrix[:3, 3], order=1)
        return 1 - float(np.corrcoef(small.ravel(), mirrored.ravel())[0, 1])

    start = np.array([[0.0, 0, 0], [2, 0, 0], [0, 6, 0], [0, 0, 6]])  # voxels and degrees
    options = {"initial_simplex": start, "xatol": 0.05, "fatol": 1e-5, "maxiter": 120}
    plane = optimize.minimize(unlikeness, start[0], method="Nelder-Mead", options=options).x
    return _reflection(_normal(plane), (centre + plane[0] * np.array([1.0, 0, 0])) * step)


def _normal(plane: np.ndarray) -> np.ndarray:
    """The unit normal of a plane (shift, turn about z, turn about y; degrees)."""
    about_z, about_y = np.deg2rad(plane[1:])
    normal = np.array([1.0, np.tan(about_z), np.tan(about_y)])
    return normal / np.linalg.norm(normal)


def _reflection(normal: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The 4 x 4 matrix that mirrors voxels about the plane through a point."""
    matrix = np.eye(4)
    matrix[:3, :3] -= 2 * np.outer(normal, normal)
    matrix[:3, 3] = 2 * normal * (normal @ point)
    return matrix
