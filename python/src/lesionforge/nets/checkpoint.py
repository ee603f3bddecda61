"""The state of a training on disk after each epoch, so that one that was killed goes on."""

from __future__ import annotations

import io
import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge.errors import InputError
from lesionforge.images.files import whole_file

if TYPE_CHECKING:
    import keras

NAME = "checkpoint.npz"
PARTS = ("weights", "optimizer", "best_weights", "earlier")


@dataclass(frozen=True)
class TrainingState:
    """A training after an epoch: the rows of its history, all variables of network and optimizer, and the best weights.

    `random` is the state of the generators that draw what epochs see, None where seed and epoch say all. `earlier` is what was
    made before the network that is trained, in an order of the trainer's own.
    """

    history: list[dict[str, Any]]
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best_weights: list[np.ndarray]
    random: dict[str, Any] | None = None
    earlier: list[np.ndarray] = field(default_factory=list)


def save_state(folder: Path, state: TrainingState, identity: dict[str, Any]) -> None:
    """Write the state into `folder`, whole or not at all; `identity` is what must be the same for a training to go on."""
    arrays = {f"{part}_{n:04d}": array for part in PARTS for n, array in enumerate(getattr(state, part))}
    record = json.dumps({"identity": identity, "history": state.history, "random": state.random})
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
        found, state = record["identity"], TrainingState(history=record["history"], random=record["random"], **arrays)
    # A changed byte may look like a compression, an encryption or a type that there is not, each with an error of its own.
    except Exception as error:
        raise InputError(f"{path}: is cut short or no checkpoint ({type(error).__name__}); delete it and start again") from error
    if found != identity:
        others = [name for name in sorted({*found, *identity}) if found.get(name) != identity.get(name)]
        raise InputError(
            f"{path}: belongs to another training (other {', '.join(others)}); delete it or give another --checkpoint"
        )
    return state


def refuse_inside(checkpoint: Path | None, out: Path) -> None:
    """Raise InputError when a checkpoint lies in the model folder that the training replaces."""
    if checkpoint and checkpoint.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{checkpoint}: lies in {out}, which the model folder replaces; give a --checkpoint beside it")


def sweep(folder: Path) -> None:
    """Make the folder, and delete what a training that was killed while it wrote its state left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f".*.{NAME}"):
        path.unlink()


def variables_of(network: keras.Model) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The variables of a network, those that its dropout draws from too, and the ones of its optimizer, which is built."""
    import keras

    own, optimizer = (
        [keras.ops.convert_to_numpy(variable) for variable in part] for part in (network.variables, network.optimizer.variables)
    )
    return own, optimizer


def restore(network: keras.Model, state: TrainingState) -> None:
    """Put what `variables_of` gave back into a network that is compiled and whose optimizer is built."""
    for variables, values in ((network.variables, state.weights), (network.optimizer.variables, state.optimizer)):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def random_state(rng: np.random.Generator) -> dict[str, Any]:
    """The state, as JSON, of a generator of random numbers and of those of Python, which seeds layers of Keras, and of torch."""
    torchs = [generator.get_state().numpy().tobytes().hex() for generator in _torch_generators()]
    return {"numpy": rng.bit_generator.state, "python": random.getstate(), "torch": torchs}


def restore_random(rng: np.random.Generator, state: dict[str, Any]) -> None:
    """Put what `random_state` gave back, read from JSON."""
    rng.bit_generator.state = state["numpy"]
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    # A training may go on on a machine with fewer GPUs.
    for generator, content in zip(_torch_generators(), state.get("torch", ()), strict=False):
        bits = generator.get_state()
        bits.numpy()[:] = np.frombuffer(bytes.fromhex(content), np.uint8)
        generator.set_state(bits)


def _torch_generators() -> list[Any]:
    """What dropout draws from on torch, which gives it no seed; empty on other backends."""
    import keras

    if keras.backend.backend() != "torch":
        return []
    import torch

    if not torch.cuda.is_available():
        return [torch.default_generator]
    torch.cuda.init()
    return [torch.default_generator, *torch.cuda.default_generators]
