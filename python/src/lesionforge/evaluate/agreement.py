"""What can only be said of several scans: agreement of volumes, and the score of ISBI 2015; on arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lesionforge.evaluate.protocols import Measured, Reasons

AGREEMENT_DESCRIPTIONS = {
    "volume_bias_ml": "mean of predicted minus reference volume in ml (Bland and Altman 1986)",
    "volume_limit_low_ml": "lower 95 % limit of agreement in ml: volume_bias_ml less 1.96 standard deviations (n - 1)",
    "volume_limit_high_ml": "upper 95 % limit of agreement in ml: volume_bias_ml and 1.96 standard deviations (n - 1)",
    "volume_pearson": "Pearson correlation of predicted and reference volume, -1..1; undefined for fewer than three scans",
    "volume_lin": "Lin's concordance correlation of both volumes (Lin 1989), -1..1; undefined for fewer than two scans",
}
SCORE_DESCRIPTION = (
    "ISBI 2015: dice / 8 + voxel_precision / 8 + lesion_precision / 4 + lesion_recall / 4, each the mean over the scans, "
    "+ volume_pearson / 4; undefined when one of them is, in any scan"
)
WEIGHTS = {"dice": 1 / 8, "voxel_precision": 1 / 8, "lesion_precision": 1 / 4, "lesion_recall": 1 / 4}


def volume_agreement(predicted_ml: np.ndarray, reference_ml: np.ndarray) -> tuple[Measured, Reasons]:
    """The measures of AGREEMENT_DESCRIPTIONS for lesion volumes in ml, float [scan], of at least one scan.

    Returns (the measures, why each that is NaN is undefined).
    """
    difference = predicted_ml - reference_ml
    scans, bias = len(difference), float(difference.mean())
    spread = float(difference.std(ddof=1)) if scans > 1 else float("nan")
    values = {
        "volume_bias_ml": bias,
        "volume_limit_low_ml": bias - 1.96 * spread,
        "volume_limit_high_ml": bias + 1.96 * spread,
        "volume_pearson": pearson(predicted_ml, reference_ml),
        "volume_lin": lin(predicted_ml, reference_ml),
    }
    constant = "the volumes of the scans do not differ"
    few = "one scan has no spread"
    because = {
        "volume_limit_low_ml": few,
        "volume_limit_high_ml": few,
        "volume_pearson": "a correlation needs three scans" if scans < 3 else constant,
        "volume_lin": "a concordance needs two scans" if scans < 2 else constant,
    }
    return values, {name: because[name] for name, value in values.items() if np.isnan(value)}


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of float [scan], -1..1; NaN for fewer than three scans (two are always ±1) or without spread."""
    if len(one) < 3 or not np.ptp(one) or not np.ptp(other):
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def lin(one: np.ndarray, other: np.ndarray) -> float:
    """Lin's concordance correlation coefficient (1989, doi 10.2307/2532051) of float [scan], -1..1, moments over n.

    NaN for fewer than two scans, and when all values of both are the same.
    """
    if len(one) < 2:
        return float("nan")
    shared = np.mean((one - one.mean()) * (other - other.mean()))
    whole = one.var() + other.var() + (one.mean() - other.mean()) ** 2
    return float(2 * shared / whole) if whole else float("nan")


def isbi2015_score(scans: Mapping[str, np.ndarray], correlation: float) -> tuple[float, str | None]:
    """The score SC of ISBI 2015, 0..1 where the correlation is not negative: (score, or NaN; why it is undefined).

    `scans` holds the measures of `protocols.descriptions("isbi2015")`, float [scan]; `correlation` is that of the volumes.
    """
    lacking = [name for name in WEIGHTS if np.isnan(scans[name]).any()]
    if lacking:
        count = int(np.isnan(scans[lacking[0]]).sum())
        return float("nan"), f"{lacking[0]} is undefined in {count} of {len(scans[lacking[0]])} scans"
    if np.isnan(correlation):
        return float("nan"), "volume_pearson is undefined"
    return float(sum(weight * np.mean(scans[name]) for name, weight in WEIGHTS.items()) + correlation / 4), None
