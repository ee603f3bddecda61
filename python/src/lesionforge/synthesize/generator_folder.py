"""The model folder of a generator: generator.keras, its card model.json and history.tsv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.images import new_folder, write_tsv
from lesionforge.synthesize.config import GeneratorConfig, config_entries, config_of_card
from lesionforge.synthesize.levels import LEVEL_FACTORS
from lesionforge.synthesize.network import LATENT_VARIANCE
from lesionforge.synthesize.tiles import NETWORK_UNITS
from lesionforge.synthesize.training import best_epoch

if TYPE_CHECKING:
    import keras

NETWORK = "generator"


def save_generator(
    out: Path,
    model: keras.Model,
    config: GeneratorConfig,
    history: list[dict[str, float]],
    *,
    seed: int,
    trained_on: list[str],
    validated_on: list[str],
    typical_levels: dict[str, list[int]],
) -> dict[str, Any]:
    """Write the model folder `out` and return its card, which holds all that painting must know.

    `typical_levels` says by contrast other than the FLAIR which level goes with its level 0..12, for lesions without a donor.
    """
    import pandas as pd

    card = config_entries(config) | {
        "kind": NETWORK,
        "epochs": len(history),
        "best_epoch": best_epoch(history) + 1,
        "seed": seed,
        "level_factors": LEVEL_FACTORS,
        "typical_levels": typical_levels,
        "input_units": {name: NETWORK_UNITS[name] for name in config.contrasts}
        if config.own_levels
        else "normalised intensities",
        "trained_on": trained_on,
        "validated_on": validated_on,
        "parameters": model.count_params(),
    }
    with new_folder(out) as folder:
        nets.save_models(folder, {NETWORK: model}, card)
        columns = {name: _history_description(name) for name in history[0]}
        write_tsv(pd.DataFrame(history).astype({"epoch": int}), folder / "history.tsv", columns)
    return card


def read_generator_card(folder: Path, contrasts: tuple[str, ...]) -> tuple[dict[str, Any], GeneratorConfig]:
    """The card and the settings of a generator that paints these contrasts.

    Raises InputError as `nets.read_card` does, and when the card is of another version or the contrasts are others.
    """
    card = nets.read_card(folder, NETWORK)
    config = config_of_card(card, folder)
    if config.contrasts != contrasts:
        raise InputError(
            f"{folder}: was trained on {', '.join(config.contrasts)}, but canvases have {', '.join(contrasts)}; "
            "give a generator of these contrasts"
        )
    return card, config


def _history_description(name: str) -> str:
    if name == "epoch":
        return "number of the epoch, from 1"
    who = "validation" if name.startswith("val_") else "training"
    what = name.removeprefix("val_").removesuffix("_loss")
    if what == "loss":
        return f"total loss on the {who} tiles"
    if what == LATENT_VARIANCE:
        return f"mean variance between the latents on the {who} tiles"
    return f"mean absolute error of {what.replace('_', ' ')} on the {who} tiles, weighted as configured, in units of the input"
