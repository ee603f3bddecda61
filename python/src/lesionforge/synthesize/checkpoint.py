"""The state of a training on disk after each epoch, so that one that was killed goes on."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesionforge.errors import InputError
from lesionforge.images.files import whole_file

NAME = "checkpoint.npz"
PARTS = ("weights", "optimizer", "best_weights")


@dataclass(frozen=True)
class TrainingState:
    """A training after an epoch: the rows of its history, all variables of network and optimizer, and the best weights.

    The tiles of an epoch depend on seed and epoch only, and the network draws nothing: the history's length is all the
    random state there is.
    """

    history: list[dict[str, float]]
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best_weights: list[np.ndarray]


def save_state(folder: Path, state: TrainingState, identity: dict[str, Any]) -> None:
    """Write the state into `folder`, whole or not at all; `identity` is what must be the same for a training to go on."""
    arrays = {f"{part}_{n:04d}": array for part in PARTS for n, array in enumerate(getattr(state, part))}
    record = json.dumps({"identity": identity, "history": state.history})
    with whole_file(folder / NAME) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, record=np.array(record), **arrays)
        file.flush()
        os.fsync(file.fileno())


def load_state(folder: Path, identity: dict[str, Any]) -> TrainingState | None:
    """The state in `folder`, or None when there is none yet.

    Raises InputError when the file is cut short, changed or of another training.
    """
    path = folder / NAME
    if not path.exists():
        return None
    with path.open("rb") as file:
        content = io.BytesIO(file.read())
    try:
        with np.load(content, allow_pickle=False) as archive:
            record = json.loads(str(archive["record"]))
            arrays = {part: [archive[name] for name in sorted(archive.files) if name.startswith(f"{part}_")] for part in PARTS}
        found, state = record["identity"], TrainingState(history=record["history"], **arrays)
    # A changed byte may look like a compression, an encryption or a type that there is not, each with an error of its own.
    except Exception as error:
        raise InputError(f"{path}: is cut short or no checkpoint ({type(error).__name__}); delete it and start again") from error
    if found != identity:
        others = [name for name in sorted({*found, *identity}) if found.get(name) != identity.get(name)]
        raise InputError(
            f"{path}: belongs to another training (other {', '.join(others)}); delete it or give another --checkpoint"
        )
    return state


def sweep(folder: Path) -> None:
    """Make the folder, and delete what a training that was killed while it wrote its state left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f".*.{NAME}"):
        path.unlink()
