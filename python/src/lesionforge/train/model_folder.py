"""The card of a cascade's model folder: what inference and further training must know."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.train.network import CONTRASTS, CascadeConfig


def cascade_entries(config: CascadeConfig, voxel_mm: float) -> dict[str, Any]:
    """What the card of a cascade holds of its input and settings; `read_cascade_card` reads it back."""
    return {
        "kind": "cascade",
        "contrasts": list(CONTRASTS),
        "normalisation": "z-score inside the brain mask, 0 outside",
        "voxel_mm": voxel_mm,
        "parameters": asdict(config),
    }


def read_cascade_card(folder: Path) -> tuple[dict[str, Any], CascadeConfig, float]:
    """(card, settings, voxel size in mm) of a model folder; settings that an older card lacks have their defaults.

    Raises InputError as `nets.read_card` does, and when the card lacks an entry or names other contrasts than T1w and FLAIR.
    """
    card = nets.read_card(folder, "cascade")
    try:
        known = {field.name for field in fields(CascadeConfig)}
        config = CascadeConfig(**{name: value for name, value in card["parameters"].items() if name in known})
        contrasts, voxel_mm = list(card["contrasts"]), float(card["voxel_mm"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: its card lacks {error}; train the model again with lesionforge train") from error
    if contrasts != list(CONTRASTS):
        raise InputError(
            f"{folder}: takes {', '.join(map(str, contrasts))}, but scans are prepared as {', '.join(CONTRASTS)}; "
            "give a model of these contrasts"
        )
    return card, config, voxel_mm
