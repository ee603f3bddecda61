"""Which slice of a scan to show, and how: crop, window, orientation; on arrays.

Arrays are RAS [x, y, z]. A picture is an array [row, column] seen in radiological convention (the patient's right is on
the viewer's left; a sagittal picture looks to the left), with row 0 at the bottom.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# From a volume [x, y, z] to a picture [row, column].
Cut = Callable[[np.ndarray], np.ndarray]

MARGIN_VOXELS = 4
PERCENTILES = (1.0, 99.5)


def brain_box(brain: np.ndarray, margin: int = MARGIN_VOXELS) -> tuple[slice, slice, slice]:
    """The smallest box around a bool mask [x, y, z] with a margin in voxels; the whole grid for an empty mask."""
    if not brain.any():
        return (slice(None), slice(None), slice(None))
    box = []
    for axis in range(3):
        filled = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(int(filled[0]) - margin, 0), min(int(filled[-1]) + margin + 1, brain.shape[axis])))
    return (box[0], box[1], box[2])


def best_slice(candidates: list[np.ndarray], brain: np.ndarray) -> int:
    """The axial index where the first non-empty mask of `candidates` is largest, else the middle of the brain."""
    for mask in candidates:
        area = mask.sum(axis=(0, 1))
        if area.any():
            return int(area.argmax())
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    return int(heights[len(heights) // 2]) if len(heights) else brain.shape[2] // 2


def window(image: np.ndarray, brain: np.ndarray) -> tuple[float, float]:
    """The intensities shown as black and white: percentiles 1 and 99.5 inside the brain; (0, 1) without a finite voxel."""
    values = image[brain]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    return low, high if high > low else low + 1.0


def grey(image: np.ndarray, brain: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """An image of any shape in 0..1 between the limits, black outside the brain; NaN becomes black."""
    low, high = limits
    return np.nan_to_num(np.where(brain, (image - low) / (high - low), 0.0)).clip(0, 1)


def axial(volume: np.ndarray, index: int) -> np.ndarray:
    """The axial picture at a z index: front up, the patient's right on the viewer's left."""
    return volume[::-1, :, index].T


def sagittal(volume: np.ndarray, index: int) -> np.ndarray:
    """The sagittal picture at an x index: top up, the nose on the viewer's left."""
    return volume[index, ::-1, :].T


def axial_cut(index: int, brain: np.ndarray) -> Cut:
    """A function that takes any volume of the brain's grid to its axial picture at a z index, cropped to the brain there."""
    box = brain_box(brain[:, :, index : index + 1])
    return lambda volume: axial(volume[box[0], box[1]], index)


def sagittal_cut(brain: np.ndarray) -> Cut:
    """The same for a sagittal picture a little right of the middle, where it meets brain and not the cleft between the halves."""
    sides = np.flatnonzero(brain.any(axis=(1, 2)))
    index = int(np.percentile(sides, 58)) if len(sides) else brain.shape[0] // 2
    box = brain_box(brain[index : index + 1])
    return lambda volume: sagittal(volume[:, box[1], box[2]], index)
