"""Two mask files measured against each other, with everything checked that would make the figures wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesionforge.errors import InputError
from lesionforge.evaluate.metrics import Measures, measure
from lesionforge.images import read_volume, same_grid, voxel_volume_mm3

# How far a stored label may be from 0 or 1: scaled integer headers round.
LABEL_TOLERANCE = 1e-3


def read_binary_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mask as (bool array [x, y, z], affine); raises InputError when a voxel is anything but 0 or 1, NaN included."""
    data, affine = read_volume(path)
    lesion = data > 0.5
    wrong = ~(np.abs(data - lesion) <= LABEL_TOLERANCE)
    if wrong.any():
        example = data[wrong][0]
        raise InputError(f"{path}: holds the value {example:g} where a mask has only 0 and 1; threshold it or pick one label")
    return lesion, affine


def measure_files(prediction: Path, reference: Path) -> Measures:
    """Measure one mask file against a reference file; raises InputError when one is no mask or their grids differ."""
    predicted, affine_predicted = read_binary_mask(prediction)
    wanted, affine_wanted = read_binary_mask(reference)
    if predicted.shape != wanted.shape:
        raise InputError(
            f"{prediction}: has {predicted.shape} voxels but the reference {reference} has {wanted.shape}; "
            "give both on the same grid"
        )
    if not same_grid(predicted.shape, affine_predicted, wanted.shape, affine_wanted):
        raise InputError(
            f"{prediction}: its affine puts voxels elsewhere than that of the reference {reference}; give both on the same grid"
        )
    return measure(predicted, wanted, voxel_volume_mm3(affine_wanted))
