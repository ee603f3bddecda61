"""The model folder of a generator: generator.keras, its card model.json and history.tsv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.images import new_folder, write_tsv
from lesionforge.nets.settings import Within, settings_of
from lesionforge.synthesize.config import SIZE_MULTIPLE, GeneratorConfig, config_entries, config_of_card
from lesionforge.synthesize.levels import ALWAYS, LEVEL_COUNT, LEVEL_FACTORS
from lesionforge.synthesize.network import LATENT_VARIANCE
from lesionforge.synthesize.tiles import NETWORK_UNITS, network_inputs
from lesionforge.synthesize.training import best_epoch

if TYPE_CHECKING:
    import keras

NETWORK = "generator"


@dataclass(frozen=True)
class CardForPainting:
    """What painting takes from a card besides the settings; `save_generator` says what it means."""

    seed: Annotated[int, Within(0, 2**31 - 1)]
    typical_levels: dict[Literal["t1w", "flair", "t2w", "pdw"], tuple[Annotated[int, Within(0, LEVEL_COUNT)], ...]]
    trained_on: tuple[str, ...] = ()
    validated_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError when a level is left without a typical one."""
        if "t1w" not in self.typical_levels or {len(levels) for levels in self.typical_levels.values()} != {LEVEL_COUNT + 1}:
            raise ValueError(f"typical_levels lacks the t1w, or one of the levels 0 to {LEVEL_COUNT}")


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
        "level_factors": {name: LEVEL_FACTORS[name] for name in config.contrasts},
        "typical_levels": typical_levels,
        "input_units": {name: NETWORK_UNITS[name] for name in config.contrasts}
        if config.own_levels
        else "normalised intensities",
        "trained_on": trained_on,
        "validated_on": validated_on,
        "parameters": model.count_params(),
    }
    with new_folder(out, own=nets.MODEL_FILES) as folder:
        nets.save_models(folder, {NETWORK: model}, card)
        columns = {name: _history_description(name) for name in history[0]}
        write_tsv(pd.DataFrame(history).astype({"epoch": int}), folder / "history.tsv", columns)
    return card


def read_generator_card(folder: Path, contrasts: tuple[str, ...]) -> tuple[dict[str, Any], GeneratorConfig]:
    """The card and the settings of a generator for canvases of these contrasts, of which it paints those it was trained on.

    Raises InputError as `nets.read_card` and `config_of_card` do, when what painting needs is missing or of another kind, and
    when canvases lack a contrast of the generator.
    """
    card = nets.read_card(folder, NETWORK)
    config = config_of_card(card, folder / nets.CARD)
    held = settings_of(CardForPainting, card, str(folder / nets.CARD))
    if config.contrasts[:2] != ALWAYS or config.contrasts != tuple(name for name in contrasts if name in config.contrasts):
        raise InputError(
            f"{folder}: was trained on {', '.join(config.contrasts)}, but canvases have {', '.join(contrasts)}; "
            "give a generator of these contrasts"
        )
    if lacking := [name for name in config.contrasts if name != "flair" and name not in held.typical_levels]:
        raise InputError(f"{folder / nets.CARD}: typical_levels lacks the {lacking[0]}; train the generator again")
    return card, config


def load_generator(folder: Path, config: GeneratorConfig) -> keras.Model:
    """The network of a generator's folder; raises InputError when it cannot be loaded or its inputs are not those of `config`."""
    model = nets.load_model(folder, NETWORK)
    side = SIZE_MULTIPLE if config.shared_slopes else config.tile_size
    window = np.zeros((len(config.contrasts), 1, config.slices, side, side), np.uint8)
    fed = [array.shape[1:] for array in network_inputs(window, window, config).values()]
    taken = [tuple(size or side for size in tensor.shape[1:]) for tensor in model.inputs]
    if fed != taken:
        raise InputError(f"{folder / nets.CARD}: its config is not that of its network; copy the whole model folder again")
    return model


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
