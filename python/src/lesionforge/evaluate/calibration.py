"""Whether the probabilities of a map are what they say, on arrays."""

from __future__ import annotations

import numpy as np

from lesionforge.evaluate.protocols import Measured, Reasons

PROBABILITY_BINS = 15  # Guo et al. 2017, arXiv 1706.04599

CALIBRATION_DESCRIPTIONS = {
    "expected_calibration_error": f"expected calibration error of the probability map, 0..1, over {PROBABILITY_BINS} equal bins "
    "of the probability of lesion: mean distance between mean probability and share of lesion; undefined without voxels",
    "brier_score": "mean squared difference between probability and reference, 0..1; undefined without voxels",
    "calibration_voxels": "number of voxels that both are taken over: those of the brain mask, without one the whole grid",
}


def measure_calibration(probability: np.ndarray, reference: np.ndarray, inside: np.ndarray | None) -> tuple[Measured, Reasons]:
    """The measures of CALIBRATION_DESCRIPTIONS for probabilities 0..1 [x, y, z] against a bool reference of the same grid.

    Only voxels of the bool mask `inside` count, or all. Returns (the measures, why each that is NaN is undefined).
    """
    where = np.ones(reference.shape, bool) if inside is None else inside
    chances, lesion = probability[where].astype(np.float64), reference[where]
    if not len(lesion):
        reason = "the brain mask is empty"
        values = {"expected_calibration_error": np.nan, "brier_score": np.nan, "calibration_voxels": 0}
        return values, {"expected_calibration_error": reason, "brier_score": reason}
    bins = np.minimum((chances * PROBABILITY_BINS).astype(int), PROBABILITY_BINS - 1)
    # A bin's share of the voxels times its gap is the difference of its two sums over the number of voxels.
    gaps = np.bincount(bins, weights=chances) - np.bincount(bins, weights=lesion)
    return {
        "expected_calibration_error": float(np.abs(gaps).sum() / len(lesion)),
        "brier_score": float(np.mean((chances - lesion) ** 2)),
        "calibration_voxels": len(lesion),
    }, {}
