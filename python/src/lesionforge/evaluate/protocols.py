"""The named protocols and what they measure of one prediction, on arrays.

Each does what its challenge's own program does, except that what is undefined is NaN with a reason, never 0 or 1.
docs/methods.md has them side by side, with their sources and where a program and its paper differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from lesionforge.evaluate.detection import (
    LesionPairs,
    Lesions,
    SizeBin,
    found_by_any_overlap,
    found_by_msseg2016,
    lesions_by_size,
    lesions_one_by_one,
    pair_lesions,
)
from lesionforge.evaluate.distances import Spacing, assd_mm, hd95_mm
from lesionforge.images.geometry import bounding_box
from lesionforge.images.lesions import least_voxels_above

Measured = dict[str, float]  # counts are int, all else float; an undefined value is NaN
Reasons = dict[str, str]


@dataclass(frozen=True)
class Evaluation:
    """What a protocol measures of one pair: the measures, why each that is NaN is undefined, detection by size, each lesion.

    Two are equal when all but `lesions` is, whose order follows that of the voxels.
    """

    measures: Measured
    reasons: Reasons
    by_size: list[SizeBin]
    lesions: Lesions = field(compare=False)


@dataclass(frozen=True)
class Protocol:
    """How a protocol defines a lesion, when one is found, and which distance belongs to it.

    `neighbours` connect the voxels of a lesion; lesions of `above_mm3` or less are taken out of both masks before lesions
    are counted, not before voxels are. `found` says which reference lesions are found; precision is the same with the roles
    swapped. `distance` is the measure of that name in mm.
    """

    title: str
    neighbours: int
    above_mm3: float = 0
    found: Callable[[LesionPairs], np.ndarray] = found_by_any_overlap
    distance: str | None = None


PROTOCOLS = {
    "ours": Protocol("lesionforge", 26),
    "isbi2015": Protocol("ISBI 2015 (Carass et al. 2017, doi 10.1016/j.neuroimage.2016.12.064)", 18),
    "miccai2008": Protocol("MICCAI 2008 (Styner et al. 2008)", 6, distance="assd_mm"),
    "msseg2016": Protocol("MSSEG 2016 (Commowick et al. 2018, doi 10.1038/s41598-018-31911-7)", 6, 3, found_by_msseg2016),
    "wmh2017": Protocol("WMH 2017 (Kuijf et al. 2019, doi 10.1109/TMI.2019.2905770)", 26, distance="hd95_mm"),
}
# Each with what a mask does that holds lesions, but has no boundary.
DISTANCES = {
    "hd95_mm": (hd95_mm, "fills every slice that it is in, so that it has no in-plane boundary"),
    "assd_mm": (assd_mm, "fills the grid"),
}

# The measures of every protocol, by name; what a lesion is, and when it is found, is the protocol's matter.
DESCRIPTIONS = {
    "dice": "Dice overlap of the two masks, 0..1; undefined when both are empty",
    "avd_percent": "absolute volume difference in percent of the reference volume; undefined for an empty reference",
    "volume_reference_ml": "lesion volume of the reference in ml",
    "volume_predicted_ml": "lesion volume of the prediction in ml",
    "voxel_precision": "fraction of the predicted volume that lies in the reference; undefined for an empty prediction",
    "voxel_recall": "fraction of the reference volume that the prediction covers; undefined for an empty reference",
    "lesion_recall": "fraction of reference lesions that are found; undefined without reference lesions",
    "lesion_precision": "fraction of predicted lesions that are true; undefined without predicted lesions",
    "lesion_f1": "harmonic mean of lesion_recall and lesion_precision, 0 when both are; undefined when one of them is",
    "lesions_reference": "number of lesions in the reference",
    "lesions_predicted": "number of lesions in the prediction",
    "lesions_found": "number of reference lesions that are found",
}
DISTANCE_DESCRIPTIONS = {
    "hd95_mm": "95th percentile of the Hausdorff distance between in-plane boundaries in mm; undefined when a mask is empty",
    "assd_mm": "average symmetric surface distance in mm; undefined when a mask is empty",
}


def descriptions(protocol: str) -> dict[str, str]:
    """What each measure of a protocol means, in the order of the tables; raises KeyError for an unknown protocol."""
    distance = PROTOCOLS[protocol].distance
    return DESCRIPTIONS | ({distance: DISTANCE_DESCRIPTIONS[distance]} if distance else {})


def ratio(part: float, whole: float) -> float:
    """part / whole, or NaN when `whole` is 0."""
    return part / whole if whole else float("nan")


def harmonic_mean(one: float, other: float) -> float:
    """The harmonic mean of two fractions: 0 when one is 0, NaN when one is NaN."""
    return 2 * one * other / (one + other) if one + other else 0.0


def measure_overlap(prediction: np.ndarray, reference: np.ndarray, voxel_mm3: float, protocol: str) -> Evaluation:
    """All measures of a protocol but its distance, of bool masks [x, y, z] of one grid with voxels of `voxel_mm3`.

    Raises KeyError for an unknown protocol.
    """
    rules = PROTOCOLS[protocol]
    size_predicted, size_reference = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    size_common = int(np.count_nonzero(prediction & reference))
    pairs = pair_lesions(prediction, reference, rules.neighbours, least_voxels_above(rules.above_mm3, voxel_mm3))
    found, true = rules.found(pairs), rules.found(pairs.swapped())
    recall, precision = ratio(int(found.sum()), len(found)), ratio(int(true.sum()), len(true))
    values: Measured = {
        "dice": ratio(2 * size_common, size_predicted + size_reference),
        "avd_percent": 100 * ratio(abs(size_predicted - size_reference), size_reference),
        "volume_reference_ml": size_reference * voxel_mm3 / 1000,
        "volume_predicted_ml": size_predicted * voxel_mm3 / 1000,
        "voxel_precision": ratio(size_common, size_predicted),
        "voxel_recall": ratio(size_common, size_reference),
        "lesion_recall": recall,
        "lesion_precision": precision,
        "lesion_f1": harmonic_mean(recall, precision),
        "lesions_reference": len(found),
        "lesions_predicted": len(true),
        "lesions_found": int(found.sum()),
    }
    lesions = lesions_one_by_one(pairs, found, true, voxel_mm3)
    return Evaluation(values, why_undefined(values, rules), lesions_by_size(lesions.reference_mm3, found), lesions)


def why_undefined(values: Measured, rules: Protocol) -> Reasons:
    """The reason for each undefined measure of `measure_overlap`."""
    size = f" above {rules.above_mm3:g} mm³" if rules.above_mm3 else ""
    no_reference, no_prediction = f"the reference holds no lesion{size}", f"the prediction holds no lesion{size}"
    because = {
        "dice": "neither the reference nor the prediction holds a lesion",
        "avd_percent": "the reference holds no lesion",
        "voxel_precision": "the prediction holds no lesion",
        "voxel_recall": "the reference holds no lesion",
        "lesion_recall": no_reference,
        "lesion_precision": no_prediction,
        "lesion_f1": no_prediction if values["lesions_reference"] else no_reference,
    }
    return {name: because[name] for name, value in values.items() if np.isnan(value)}


def measure_distance(prediction: np.ndarray, reference: np.ndarray, voxel_mm: Spacing, protocol: str) -> tuple[Measured, Reasons]:
    """The distance of a protocol in mm, if it has one: ({name: value}, {name: why it is undefined}), as `measure_overlap`."""
    name = PROTOCOLS[protocol].distance
    if name is None:
        return {}, {}
    distance, without_boundary = DISTANCES[name]
    value = distance(prediction, reference, voxel_mm)
    if not np.isnan(value):
        return {name: value}, {}
    empty = [word for word, mask in (("reference", reference), ("prediction", prediction)) if not mask.any()]
    no_lesion = f"the {' and the '.join(empty)} hold{'s' if len(empty) == 1 else ''} no lesion"
    return {name: value}, {name: no_lesion if empty else f"a mask {without_boundary}"}


def measure_pair(prediction: np.ndarray, reference: np.ndarray, voxel_mm: Spacing, voxel_mm3: float, protocol: str) -> Evaluation:
    """Every measure of `descriptions(protocol)`, in that order, of bool masks [x, y, z] of one grid.

    `voxel_mm` is the size of a voxel along each axis, `voxel_mm3` its volume. Raises KeyError for an unknown protocol.
    """
    # One voxel of margin, so that a boundary is where a mask ends, and the box ends only where the grid does.
    box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in bounding_box(prediction | reference))
    prediction, reference = prediction[box], reference[box]
    overlap = measure_overlap(prediction, reference, voxel_mm3, protocol)
    distance, distance_reasons = measure_distance(prediction, reference, voxel_mm, protocol)
    return replace(overlap, measures=overlap.measures | distance, reasons=overlap.reasons | distance_reasons)
