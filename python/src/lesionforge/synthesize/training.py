"""Training the generator on scans in a scratch folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge.errors import InputError
from lesionforge.nets.checkpoint import TrainingState, load_state, restore, save_state, sweep, variables_of
from lesionforge.nets.devices import Device, on_device
from lesionforge.synthesize.config import GeneratorConfig
from lesionforge.synthesize.network import build_generator, compile_for_training
from lesionforge.synthesize.tiles import StoredScan, tile_stream

if TYPE_CHECKING:
    import keras


def draw_validation(subjects: list[str], rng: np.random.Generator, fraction: float) -> list[str]:
    """Draw which subjects validate: the fraction rounded, at least one of two or more, never all; sorted."""
    distinct = sorted(set(subjects))
    count = min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)
    return sorted(str(name) for name in rng.choice(distinct, count, replace=False)) if count > 0 else []


def train_generator(
    training_scans: Sequence[StoredScan],
    validation_scans: Sequence[StoredScan],
    config: GeneratorConfig,
    *,
    seed: int,
    device: Device | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Train a generator and return (inference model in float32 with the best weights, one history row per epoch).

    The best epoch has the lowest validation loss, or the lowest training loss without validation scans. Rows hold
    `epoch`, `loss`, `val_loss` (when there is validation) and the error of each output; `on_epoch` is called with each.
    With a `checkpoint` folder the state is saved there after every epoch, and a training that stopped goes on from it to
    the same weights. The default device is the CPU. Raises InputError when no epoch has a finite loss, or when the checkpoint
    is cut short or of another training.
    """
    device = (device or Device()).sharing(config.batch_size)
    identity = training_identity(training_scans, validation_scans, config, seed, device)
    state = None
    if checkpoint:
        sweep(checkpoint)
        state = load_state(checkpoint, identity)
    device.say(training=True)
    if state is None or not ended(state.history, config):
        with on_device(device):
            training, _ = build_generator(config)
            compile_for_training(training, config)
            _make_variables(training, device)
            if state:
                restore(training, state)
            epochs_done = len(state.history) if state else 0
            stream = tile_stream(training_scans, config, seed, epoch=epochs_done + 1, multiple_of=device.count)
            keeper = _state_keeper(training, state, config, stream.draw, on_epoch, checkpoint, identity)
            training.fit(
                stream,
                validation_data=(
                    tile_stream(validation_scans, config, seed, epoch=0, multiple_of=device.count) if validation_scans else None
                ),
                initial_epoch=epochs_done,
                epochs=config.epochs,
                # Tiles come in random order; Keras would shuffle batches by random numbers whose state is not saved.
                shuffle=False,
                verbose=0,
                callbacks=[keeper],
            )
            state = keeper.state
    if not np.isfinite([_monitored(row) for row in state.history]).any():
        raise InputError("the generator's training diverged, no epoch had a finite loss; check the scans' intensities")
    # Built anew on one device in float32, whatever it was trained on: what is saved runs everywhere.
    training, inference = build_generator(config)
    training.set_weights(state.best_weights)
    return inference, state.history


def _make_variables(training: keras.Model, device: Device) -> None:
    """Make the variables of the optimizer and of the losses' means, or the first step does and TensorFlow traces it twice."""
    import keras

    training.optimizer.build(training.trainable_variables)
    # On several devices Keras makes the means itself. `fit` begins them anew.
    if device.count == 1:
        nothing = {name: keras.ops.zeros((1,) * len(one.shape)) for name, one in training.output.items()}
        training.compute_loss(y=nothing, y_pred=nothing)


def ended(history: list[dict[str, float]], config: GeneratorConfig) -> bool:
    """Whether training is over: the epochs are used up, or none of the last `patience` was better than the best before."""
    since_best = len(history) - 1 - best_epoch(history) if history else 0
    return len(history) >= config.epochs or (config.patience is not None and since_best >= config.patience)


def best_epoch(history: list[dict[str, float]]) -> int:
    """Index of the row with the lowest validation loss, or training loss without validation; NaN is never the lowest."""
    return int(np.argmin([np.nan_to_num(_monitored(row), nan=np.inf) for row in history]))


def _monitored(row: dict[str, float]) -> float:
    return row.get("val_loss", row["loss"])


def training_identity(
    training_scans: Sequence[StoredScan],
    validation_scans: Sequence[StoredScan],
    config: GeneratorConfig,
    seed: int,
    device: Device,
) -> dict[str, Any]:
    """What makes a training this one, as JSON reads it back; its limit of epochs may be raised afterwards."""
    import keras

    # Lists, as JSON gives them back.
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    return {f"setting {name}": value for name, value in settings.items() if name != "epochs"} | {
        "seed": seed,
        "backend": keras.backend.backend(),
        "precision": device.precision,
        "training scans": [[scan.folder.name, scan.checksum] for scan in training_scans],
        "validation scans": [[scan.folder.name, scan.checksum] for scan in validation_scans],
    }


def _state_keeper(
    training: keras.Model,
    state: TrainingState | None,
    config: GeneratorConfig,
    draw_epoch: Callable[[int], None],
    on_epoch: Callable[[dict[str, float]], None],
    checkpoint: Path | None,
    identity: dict[str, Any],
) -> Any:
    """The callback that draws an epoch's tiles, keeps state, and ends training; its `state` is the last epoch's."""
    import keras

    class StateKeeper(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.state = state or TrainingState([], [], [], training.get_weights())

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            draw_epoch(epoch + 1)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            row = {"epoch": epoch + 1} | {name: float(value) for name, value in sorted((logs or {}).items())}
            history = [*self.state.history, row]
            # Through self.model, which with jax first brings the network's variables up to date.
            variables, optimizer = variables_of(self.model)
            best = self.model.get_weights() if best_epoch(history) == epoch else self.state.best_weights
            self.state = TrainingState(history, variables, optimizer, best)
            if checkpoint:
                save_state(checkpoint, self.state, identity)
            on_epoch(row)
            self.model.stop_training = ended(history, config)

    return StateKeeper()
