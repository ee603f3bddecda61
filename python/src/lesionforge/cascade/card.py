"""The card of a cascade's model folder: what inference and further training must know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from lesionforge import nets
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.errors import InputError
from lesionforge.images.names import ALWAYS, in_order
from lesionforge.nets.settings import Within, settings_of

NORMALISATIONS = {
    "zscore": "z-score inside the brain mask, 0 outside",
    "prepared": "as lesionforge prepare normalises, 0 outside the brain mask",
}


def cascade_entries(config: CascadeConfig, voxel_mm: float, contrasts: Sequence[str] = ALWAYS) -> dict[str, Any]:
    """What the card of a cascade holds of its input, these contrasts, and its settings; `read_cascade_card` reads it back."""
    return {
        "kind": "cascade",
        "contrasts": list(contrasts),
        "normalisation": NORMALISATIONS[config.normalisation],
        "voxel_mm": voxel_mm,
        "parameters": asdict(config),
    }


@dataclass(frozen=True)
class CascadeCard:
    """What `cascade_entries` wrote that is read back."""

    contrasts: tuple[str, ...]
    voxel_mm: Annotated[float, Within(0.5, 4)]
    parameters: CascadeConfig


@dataclass(frozen=True)
class Lineage:
    """The scans that a card says a cascade has seen: those it was trained and validated on, and those these were made of."""

    training: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    derived_from: tuple[str, ...] | None = None

    @property
    def is_complete(self) -> bool:
        """False for a card without `derived_from` that lists synthetic scans: whose lesions and brains they are is not said."""
        return self.derived_from is not None or not any(scan.startswith("sub-syn") for scan in self.training)


def lineages(card: dict[str, Any], where: str) -> list[Lineage]:
    """What a cascade has seen, and what each of those that it goes back to (`init`) has; `where` names the card's file.

    Raises InputError when a list is missing its form.
    """
    found = [settings_of(Lineage, card, where)]
    while "init" in card:
        card, where = card["init"], f"{where}: init"
        found.append(settings_of(Lineage, card, where))
    return found


def read_cascade_card(folder: Path) -> tuple[dict[str, Any], CascadeConfig, float]:
    """(card, settings, voxel size in mm) of a model folder; settings that an older card lacks have their defaults.

    The card's `contrasts_of` are sound. Raises InputError as `nets.read_card` does, when a value of the card is missing, of
    another type or out of its limits, and when its contrasts are not T1w, FLAIR and what may follow them.
    """
    card = nets.read_card(folder, "cascade")
    held = settings_of(CascadeCard, card, str(folder / nets.CARD))
    if held.contrasts[:2] != ALWAYS or held.contrasts != in_order(held.contrasts):
        raise InputError(
            f"{folder}: takes {', '.join(held.contrasts)}, but scans are prepared as T1w, FLAIR and maybe T2w, PDw; "
            "give a model of these contrasts"
        )
    return card, held.parameters, held.voxel_mm


def contrasts_of(card: dict[str, Any]) -> tuple[str, ...]:
    """The contrasts that a cascade takes, in the order of its channels, from a card that `read_cascade_card` has checked."""
    return tuple(card["contrasts"])


def refuse_missing_contrasts(model: Path, contrasts: Sequence[str], held: Sequence[str]) -> None:
    """Raise InputError when a cascade takes a contrast that the scans do not have; it leaves alone what it does not take."""
    missing = [name for name in contrasts if name not in held]
    if missing:
        raise InputError(
            f"{model}: takes {', '.join(contrasts)}, but the scans have no {' and no '.join(missing)}; "
            f"give the scans' {' and '.join(missing)} too, or another model"
        )
