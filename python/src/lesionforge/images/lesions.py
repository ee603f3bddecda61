"""The one definition of a lesion: a 26-connected component of the mask, of any size. Challenge protocols keep their own."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lesionforge.images.geometry import bounding_box

SQUARED_REACH = {6: 1, 18: 2, 26: 3}  # neighbours of a voxel: those that share a face, also an edge, also a corner


def label_lesions(mask: np.ndarray, neighbours: int = 26) -> tuple[np.ndarray, int]:
    """Number the lesions of a bool mask [x, y, z]: (int array of labels from 1, count).

    `neighbours` is 26, our definition, or the 6 or 18 of a challenge protocol.
    """
    # Labelling only the box around the lesions takes a tenth of the time.
    box = bounding_box(mask)
    labels = np.zeros(mask.shape, np.int32)
    labels[box], count = ndimage.label(mask[box], structure=ndimage.generate_binary_structure(3, SQUARED_REACH[neighbours]))
    return labels, int(count)


def least_voxels_above(volume_mm3: float, voxel_mm3: float) -> int:
    """The size in voxels of the smallest lesion larger than a volume in mm³; 1 for a volume of 0.

    A lesion of exactly that volume is not larger, whatever the rounding of the voxel size in a header.
    """
    return int(np.floor(volume_mm3 / voxel_mm3 * (1 + 1e-5))) + 1


def most_probable(probability: np.ndarray, size: int) -> np.ndarray:
    """A connected bool mask of about `size` voxels with the highest probability above 0; empty where all is 0.

    Pieces are joined to the largest along the most probable path; one that no path of voxels above 0 reaches is left out.
    """
    from skimage.graph import MCP

    allowed = probability > 0
    order = np.argsort(-probability, axis=None, kind="stable")[: min(size, int(allowed.sum()))]
    chosen = np.zeros(probability.shape, bool)
    chosen.flat[order] = True
    pieces, count = label_lesions(chosen)
    while count > 1:
        main = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        # A step through a chosen voxel costs next to nothing, one through an improbable voxel much.
        costs = np.where(allowed, np.where(chosen, 1e-6, 1.01 - probability.clip(max=1)), -1)
        walk = MCP(costs, fully_connected=True)
        reach, _ = walk.find_costs(np.argwhere(main))
        reach[~chosen | main] = np.inf
        end = np.unravel_index(reach.argmin(), reach.shape)
        if not np.isfinite(reach[end]):
            return main  # other lesions lie between the pieces
        chosen[tuple(np.transpose(walk.traceback(end)))] = True
        pieces, count = label_lesions(chosen)
    return chosen


def lesions_touching(numbers: np.ndarray, tissue: np.ndarray) -> list[int]:
    """The numbers of the lesions that overlap a bool mask or touch it (26 neighbours), ascending; arrays [x, y, z]."""
    near = ndimage.binary_dilation(tissue, np.ones((3, 3, 3)))
    return [int(number) for number in np.unique(numbers[near]) if number]
