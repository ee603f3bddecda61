"""How well a predicted lesion mask meets a reference, by voxels and by lesions: the measures of an experiment's arms.

The protocol is ours: a lesion is a 26-connected component of any size, and it is found when any of its voxels overlaps
the other mask. The other protocols are in `protocols`, which also counts here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lesionforge.evaluate.protocols import measure_overlap

PROTOCOL = "ours"

# Every measure, in the order of the tables; the first five are the promise of the file contract.
DESCRIPTIONS = {
    "dice": "Dice overlap of the two masks, 0..1; undefined when both are empty",
    "lesion_sensitivity": "fraction of reference lesions that the prediction overlaps; undefined without reference lesions",
    "lesion_false_discovery": "fraction of predicted lesions that overlap no reference lesion; undefined without predicted ones",
    "volume_reference_ml": "lesion volume of the reference in ml",
    "volume_predicted_ml": "lesion volume of the prediction in ml",
    "lesions_reference": "number of lesions in the reference (26-connected, any size)",
    "lesions_predicted": "number of lesions in the prediction (26-connected, any size)",
    "lesions_found": "number of reference lesions that the prediction overlaps",
    "voxel_precision": "fraction of the predicted volume that lies in the reference; undefined for an empty prediction",
    "voxel_recall": "fraction of the reference volume that the prediction covers; undefined for an empty reference",
}


@dataclass(frozen=True)
class Measures:
    """The measures of one prediction, as in DESCRIPTIONS; an undefined one is NaN and has its reason in `reasons`."""

    dice: float
    lesion_sensitivity: float
    lesion_false_discovery: float
    volume_reference_ml: float
    volume_predicted_ml: float
    lesions_reference: int
    lesions_predicted: int
    lesions_found: int
    voxel_precision: float
    voxel_recall: float
    reasons: dict[str, str] = field(default_factory=dict)


def measure(prediction: np.ndarray, reference: np.ndarray, voxel_mm3: float) -> Measures:
    """Measure a bool mask [x, y, z] against a reference of the same grid, whose voxels have the volume `voxel_mm3`.

    Undefined measures are NaN, never 0 or 1, and `reasons` says why.
    """
    got = measure_overlap(prediction, reference, voxel_mm3, PROTOCOL)
    ours = {name: got.measures[name] for name in DESCRIPTIONS}
    return Measures(**ours, reasons={name: why for name, why in got.reasons.items() if name in ours})  # type: ignore[arg-type]
