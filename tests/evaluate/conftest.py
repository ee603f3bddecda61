"""Made-up rows of `evaluate scan`, whose measures follow from their lists of lesions."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lesionforge.evaluate.arms import MEASURES

Row = dict[str, Any]


def made_up_row(
    arm: str,
    subject: str,
    *,
    seed: int | str = "n/a",
    fold: str = "n/a",
    dice: float | None = 0.5,
    found: Sequence[int] = (1, 0),
    false: Sequence[int] = (0, 1),
    volumes: tuple[float, float] = (2.0, 1.0),
) -> Row:
    """A row whose lesions have 10, 20, 30 ... mm³; `volumes` are those of reference and prediction in ml."""
    lesions = {
        "reference_mm3": [10.0 * (number + 1) for number in range(len(found))],
        "found": list(found),
        "dice": [0.5 * each for each in found],
        "predicted_mm3": [10.0] * len(false),
        "false": list(false),
    }
    measures: dict[str, float | None] = dict.fromkeys(MEASURES, 0.5)
    measures |= {
        "dice": dice,
        "lesion_sensitivity": sum(found) / len(found) if found else None,
        "lesion_false_discovery": sum(false) / len(false) if false else None,
        "lesions_reference": len(found),
        "lesions_predicted": len(false),
        "lesions_found": sum(found),
        "volume_reference_ml": volumes[0],
        "volume_predicted_ml": volumes[1],
        "avd_percent": 100 * abs(volumes[1] - volumes[0]) / volumes[0],
    }
    labels = {
        "arm": arm,
        "id": f"sub-{subject}",
        "subject": subject,
        "session": "",
        "fold": fold,
        "seed": seed,
        "protocol": "ours",
    }
    return (
        labels
        | measures
        | {"reasons": {name: "made up" for name, value in measures.items() if value is None}, "lesions": lesions}
    )


@pytest.fixture
def row() -> Callable[..., Row]:
    return made_up_row
