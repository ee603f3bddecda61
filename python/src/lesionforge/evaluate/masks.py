"""Mask files measured against each other, with everything checked that would make the figures wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from lesionforge.errors import InputError
from lesionforge.evaluate.calibration import CALIBRATION_DESCRIPTIONS, measure_calibration
from lesionforge.evaluate.protocols import Evaluation, Measured, Reasons, descriptions, measure_pair
from lesionforge.evaluate.scores import SCORE_DESCRIPTIONS, Rater, score_against_rater
from lesionforge.images import Grid, read_record, read_volume, same_grid, voxel_volume_mm3
from lesionforge.nets.settings import settings_of

# How far a stored label may be from 0 or 1: scaled integer headers round.
LABEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Pair:
    """The files of one evaluation; a probability map and a brain mask, both on the grid of the reference, are optional."""

    prediction: Path
    reference: Path
    probability: Path | None = None
    brain_mask: Path | None = None


def read_binary_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mask as (bool array [x, y, z], affine); raises InputError when a voxel is anything but 0 or 1, NaN included."""
    data, affine = read_volume(path)
    lesion = data > 0.5
    wrong = ~(np.abs(data - lesion) <= LABEL_TOLERANCE)
    if wrong.any():
        example = data[wrong][0]
        raise InputError(f"{path}: holds the value {example:g} where a mask has only 0 and 1; threshold it or pick one label")
    return lesion, affine


def read_probability(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a probability map as (float32 array [x, y, z], affine), clipped to 0..1.

    Raises InputError when a voxel is beyond 0..1 by more than rounding, or NaN.
    """
    data, affine = read_volume(path)
    wrong = ~((data >= -LABEL_TOLERANCE) & (data <= 1 + LABEL_TOLERANCE))
    if wrong.any():
        raise InputError(f"{path}: holds the value {data[wrong][0]:g} where probabilities lie from 0 to 1; scale it to them")
    return data.clip(0, 1), affine


def refuse_other_grid(path: Path, grid: Grid, reference: Path, wanted: Grid) -> None:
    """Raise InputError unless the grid of the file `path` is that of the reference."""
    if grid[0] != wanted[0]:
        raise InputError(
            f"{path}: has {grid[0]} voxels but the reference {reference} has {wanted[0]}; give both on the same grid"
        )
    if not same_grid(*grid, *wanted):
        raise InputError(
            f"{path}: its affine puts voxels elsewhere than that of the reference {reference}; give both on the same grid"
        )


def read_pair(prediction: Path, reference: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read two masks of one grid: (prediction, reference, their affine); raises InputError if one is no mask or grids differ."""
    predicted, affine = read_binary_mask(prediction)
    wanted, wanted_affine = read_binary_mask(reference)
    refuse_other_grid(prediction, (predicted.shape, affine), reference, (wanted.shape, wanted_affine))
    return predicted, wanted, wanted_affine


def evaluate_files(pair: Pair, protocol: str, rater: dict[str, Any] | None = None) -> Evaluation:
    """Every measure of a pair of files, those of `measure_descriptions`, and detection by lesion size.

    `rater` holds the measures of a second human rater (MICCAI 2008). Raises InputError when a mask holds other values than
    0 and 1, a probability map others than 0 to 1, or a grid differs from that of the reference.
    """
    predicted, wanted, affine = read_pair(pair.prediction, pair.reference)
    sizes = nib.affines.voxel_sizes(affine)
    voxel_mm = (float(sizes[0]), float(sizes[1]), float(sizes[2]))
    got = measure_pair(predicted, wanted, voxel_mm, voxel_volume_mm3(affine), protocol)
    if pair.probability is not None:
        more, why = calibration_of_files(pair.probability, pair.brain_mask, wanted, affine, pair.reference)
        got = replace(got, measures=got.measures | more, reasons=got.reasons | why)
    if rater is not None:
        more, why = score_against_rater(got.measures, rater)
        got = replace(got, measures=got.measures | more, reasons=got.reasons | why)
    return got


def calibration_of_files(
    probability: Path, brain_mask: Path | None, wanted: np.ndarray, affine: np.ndarray, reference: Path
) -> tuple[Measured, Reasons]:
    """`measure_calibration` of a map against the reference `wanted`, read from the file `reference`, with its affine."""
    grid = (wanted.shape, affine)
    chances, chances_affine = read_probability(probability)
    refuse_other_grid(probability, (chances.shape, chances_affine), reference, grid)
    inside = None
    if brain_mask is not None:
        inside, inside_affine = read_binary_mask(brain_mask)
        refuse_other_grid(brain_mask, (inside.shape, inside_affine), reference, grid)
    return measure_calibration(chances, wanted, inside)


def measure_descriptions(protocol: str, calibrated: bool, rated: bool) -> dict[str, str]:
    """What `evaluate_files` measures under a protocol: with a probability map, and with a second rater, something more."""
    return descriptions(protocol) | (CALIBRATION_DESCRIPTIONS if calibrated else {}) | (SCORE_DESCRIPTIONS if rated else {})


def read_rater(path: Path | None, protocol: str) -> dict[str, Any] | None:
    """Read what `lesionforge evaluate` printed for a second rater, if it is given.

    Raises InputError when the protocol is not MICCAI 2008, whose scores are the only ones that need it, when the file is of
    another protocol, lacks a measure or has one that is none.
    """
    if path is None:
        return None
    if protocol != "miccai2008":
        raise InputError(f"{path}: a second rater counts under the protocol miccai2008 only; leave --rater out")
    record = read_record(path, "protocol")
    if record["protocol"] != protocol:
        raise InputError(f"{path}: is of the protocol {record['protocol']}; evaluate the second rater under {protocol}")
    return asdict(settings_of(Rater, record, str(path), "give what `lesionforge evaluate` printed for the second rater"))
