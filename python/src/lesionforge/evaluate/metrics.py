"""How well a predicted lesion mask meets a reference, by voxels and by lesions, on arrays.

The protocol is ours: a lesion is a 26-connected component of any size, and it is found when any of its voxels overlaps
the other mask. Another protocol differs in how it labels and in what it calls found; both are single calls in `measure`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lesionforge.images import label_lesions

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
EMPTY_REFERENCE = "the reference holds no lesion"
EMPTY_PREDICTION = "the prediction holds no lesion"
BOTH_EMPTY = "neither the reference nor the prediction holds a lesion"


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


def ratio(part: float, whole: float) -> float:
    """part / whole, or NaN when `whole` is 0."""
    return part / whole if whole else float("nan")


def touched(labels: np.ndarray, count: int, other: np.ndarray) -> np.ndarray:
    """For each lesion 1..count of a label array [x, y, z], whether a bool mask of the same shape overlaps it: bool [count]."""
    return np.bincount(labels[other], minlength=count + 1)[1:] > 0


def undefined(reference_empty: bool, prediction_empty: bool) -> dict[str, str]:
    """The measures that have no value, each with its reason, when one mask or both hold nothing."""
    reasons: dict[str, str] = {}
    if reference_empty:
        reasons |= {"lesion_sensitivity": EMPTY_REFERENCE, "voxel_recall": EMPTY_REFERENCE}
    if prediction_empty:
        reasons |= {"lesion_false_discovery": EMPTY_PREDICTION, "voxel_precision": EMPTY_PREDICTION}
    if reference_empty and prediction_empty:
        reasons["dice"] = BOTH_EMPTY
    return reasons


def measure(prediction: np.ndarray, reference: np.ndarray, voxel_mm3: float) -> Measures:
    """Measure a bool mask [x, y, z] against a reference of the same grid, whose voxels have the volume `voxel_mm3`.

    Undefined measures are NaN, never 0 or 1, and `reasons` says why.
    """
    size_predicted, size_reference = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    size_common = int(np.count_nonzero(prediction & reference))
    labels_reference, lesions_reference = label_lesions(reference)
    labels_predicted, lesions_predicted = label_lesions(prediction)
    found = int(touched(labels_reference, lesions_reference, prediction).sum())
    true = int(touched(labels_predicted, lesions_predicted, reference).sum())
    return Measures(
        dice=ratio(2 * size_common, size_predicted + size_reference),
        lesion_sensitivity=ratio(found, lesions_reference),
        lesion_false_discovery=ratio(lesions_predicted - true, lesions_predicted),
        volume_reference_ml=size_reference * voxel_mm3 / 1000,
        volume_predicted_ml=size_predicted * voxel_mm3 / 1000,
        lesions_reference=lesions_reference,
        lesions_predicted=lesions_predicted,
        lesions_found=found,
        voxel_precision=ratio(size_common, size_predicted),
        voxel_recall=ratio(size_common, size_reference),
        reasons=undefined(size_reference == 0, size_predicted == 0),
    )
