"""Lesions under a deformation: none splits, none merges with another, none vanishes; on arrays [x, y, z]."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

from lesionforge.images import label_lesions, most_probable

TOUCHING = np.ones((3, 3, 3))


def warp_lesions(lesion: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The lesions of a bool mask as a deformation moves them, each keeping its number; uint16 on the grid of `source`.

    `source` [3, x, y, z] says for each voxel of the new grid where it comes from, in voxels of `lesion`. A lesion takes its
    most probable voxels (linear interpolation of that lesion alone), as many as the sum of its probabilities, so that it
    keeps its deformed volume, at least one. No voxel of it touches another lesion (26 neighbours), the smaller lesion
    choosing first, and pieces are joined along the most probable path. So the new mask has the same number of lesions as
    the old one; only a lesion that leaves the grid, or that others leave no room, is lost. Numbers are those of
    `label_lesions`.
    """
    numbers, count = label_lesions(lesion)
    warped = np.zeros(source.shape[1:], np.uint16)
    clouds = _probable_voxels(numbers, count, source)
    for number in sorted(clouds, key=lambda number: clouds[number][1].sum()):
        voxels, probability = clouds[number]
        box = tuple(slice(max(axis.min() - 1, 0), axis.max() + 2) for axis in voxels)
        inside = tuple(axis - part.start for axis, part in zip(voxels, box, strict=True))
        local = np.zeros(warped[box].shape)
        local[inside] = probability
        local[ndimage.binary_dilation(warped[box] > 0, TOUCHING)] = 0
        warped[box][most_probable(local, max(1, round(probability.sum())))] = number
    return warped


def _probable_voxels(numbers: np.ndarray, count: int, source: np.ndarray) -> dict[int, tuple[tuple[np.ndarray, ...], np.ndarray]]:
    """For each lesion, the voxels of the new grid where its probability is above 0, and the probabilities."""
    near = ndimage.binary_dilation(numbers > 0, TOUCHING)
    candidates = ndimage.map_coordinates(near.astype(np.uint8), source, order=0) > 0
    place = np.stack(np.nonzero(candidates))
    from_voxel = source[:, candidates].astype(np.float64)
    lower = np.floor(from_voxel).astype(np.int32)
    share = from_voxel - lower
    padded = np.pad(numbers, 1)  # a corner outside the old grid is no lesion
    found, weights, which = [], [], []
    for corner in product((0, 1), repeat=3):
        step = np.array(corner)[:, None]
        weight = np.where(step, share, 1 - share).prod(axis=0)
        number = padded[tuple(lower + step + 1)]
        hit = np.flatnonzero((number > 0) & (weight > 0))
        found.append(number[hit])
        weights.append(weight[hit])
        which.append(hit)
    key = np.concatenate(which).astype(np.int64) * (count + 1) + np.concatenate(found)
    pairs, inverse = np.unique(key, return_inverse=True)
    probability = np.bincount(inverse, weights=np.concatenate(weights), minlength=pairs.size)
    voxel, number = pairs // (count + 1), pairs % (count + 1)
    return {int(one): (tuple(place[:, voxel[number == one]]), probability[number == one]) for one in np.unique(number)}
