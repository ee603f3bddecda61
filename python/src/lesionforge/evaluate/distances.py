"""Distances in mm between the boundaries of two masks, as two challenges define them, on arrays."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

Spacing = tuple[float, float, float]

# What ITK calls a ball of radius 1 holds the diagonals too: 3 x 3 in the plane of the first two axes, 18 neighbours in space.
IN_PLANE = np.ones((3, 3, 1), bool)
IN_SPACE = ndimage.generate_binary_structure(3, 2)


def boundary(mask: np.ndarray, structure: np.ndarray) -> np.ndarray:
    """The voxels of a bool mask [x, y, z] that its erosion by a structuring element takes away: int [voxel, 3].

    Beyond the array the mask goes on, as in ITK, so that what is cut off by the field of view has no boundary there.
    """
    return np.argwhere(mask & ~ndimage.binary_erosion(mask, structure, border_value=1))


def directed_distances_mm(
    prediction: np.ndarray, reference: np.ndarray, voxel_mm: Spacing, structure: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """From each boundary voxel of one mask to the nearest boundary voxel of the other: (prediction's, reference's), in mm.

    Bool masks [x, y, z] of one grid with a voxel size in mm for each axis. A mask without a boundary, be it empty or all
    of the array, gives two arrays of NaN.
    """
    points = [boundary(mask, structure) * np.asarray(voxel_mm) for mask in (prediction, reference)]
    if not all(len(part) for part in points):
        return np.full(1, np.nan), np.full(1, np.nan)
    return KDTree(points[1]).query(points[0])[0], KDTree(points[0]).query(points[1])[0]


def hd95_mm(prediction: np.ndarray, reference: np.ndarray, voxel_mm: Spacing) -> float:
    """The larger 95th percentile of both directed distances between in-plane boundaries, in mm, 0 or more.

    WMH 2017 (Kuijf et al. 2019, doi 10.1109/TMI.2019.2905770): the plane is that of the first two axes as stored.
    NaN when a mask has no boundary.
    """
    there, back = directed_distances_mm(prediction, reference, voxel_mm, IN_PLANE)
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def assd_mm(prediction: np.ndarray, reference: np.ndarray, voxel_mm: Spacing) -> float:
    """The average symmetric surface distance in mm, 0 or more: the mean over the boundary voxels of both masks.

    MICCAI 2008 (Styner et al. 2008): boundaries in space. NaN when a mask has no boundary.
    """
    there, back = directed_distances_mm(prediction, reference, voxel_mm, IN_SPACE)
    return float((there.sum() + back.sum()) / (len(there) + len(back)))
