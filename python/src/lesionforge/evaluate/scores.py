"""The scores of MICCAI 2008, which hold each measure against that of a second human rater."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np

from lesionforge.evaluate.protocols import Measured, Reasons
from lesionforge.nets.settings import Within

Error = Annotated[float, Within(0, 1e12)] | None
Fraction = Annotated[float, Within(0, 1)] | None


@dataclass(frozen=True)
class Rater:
    """The measures of a second human rater that the scores hold a prediction's against; None is undefined."""

    avd_percent: Error
    assd_mm: Error
    lesion_recall: Fraction
    lesion_precision: Fraction


FRACTIONS = ("lesion_recall", "lesion_precision")
RATED = tuple(field.name for field in fields(Rater))
TEXT = "score of {}, 0..100: 90 for the second rater's; undefined when that is 0 or either is undefined"
SCORE_DESCRIPTIONS = {f"score_{name}": TEXT.format(name) for name in RATED} | {
    "score": "mean of the four scores; undefined when one of them is"
}


def score_against_rater(measured: Measured, rater: Mapping[str, float | None]) -> tuple[Measured, Reasons]:
    """max(0, 100 - 10 · error / the second rater's error) for each of RATED, and their mean.

    The error of one of FRACTIONS is what it lacks to 1. `rater` holds the same measures of the second rater. Returns (the
    measures of SCORE_DESCRIPTIONS, why each that is NaN is undefined).
    """
    values: Measured = {}
    reasons: Reasons = {}
    for name in RATED:
        given = rater[name]
        own, other = error_of(name, measured[name]), error_of(name, float("nan") if given is None else given)
        if np.isnan(own):
            reasons[f"score_{name}"] = f"{name} is undefined"
        elif np.isnan(other) or other == 0:
            reasons[f"score_{name}"] = f"the second rater's {name} is undefined or perfect"
        undefined = f"score_{name}" in reasons
        values[f"score_{name}"] = float("nan") if undefined else max(0.0, 100 - 10 * own / other)
    values["score"] = float(np.mean(list(values.values())))
    if reasons:
        reasons["score"] = f"{next(iter(reasons))} is undefined"
    return values, reasons


def error_of(name: str, value: float) -> float:
    """A measure as an error, 0 for a perfect one."""
    return 1 - value if name in FRACTIONS else value
