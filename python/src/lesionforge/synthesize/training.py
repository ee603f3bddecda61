"""Training the generator on scans in a scratch folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lesionforge.errors import InputError
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
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Train a generator and return (inference model with the best weights, one history row per epoch).

    The best epoch has the lowest validation loss, or the lowest training loss without validation scans. Rows hold
    `epoch`, `loss`, `val_loss` (when there is validation) and the error of each output; `on_epoch` is called with each.
    Raises InputError when no epoch has a finite loss.
    """
    import keras

    training, inference = build_generator(config)
    compile_for_training(training, config)
    monitor = "val_loss" if validation_scans else "loss"
    history: list[dict[str, float]] = []
    best: tuple[float, list[np.ndarray]] = (np.inf, training.get_weights())

    def end_of_epoch(epoch: int, logs: dict[str, float]) -> None:
        nonlocal best
        if logs[monitor] < best[0]:
            best = (logs[monitor], training.get_weights())
        history.append({"epoch": epoch + 1} | {name: float(value) for name, value in sorted(logs.items())})
        on_epoch(history[-1])

    training.fit(
        tile_stream(training_scans, config, seed, redraw=True),
        validation_data=tile_stream(validation_scans, config, seed, redraw=False) if validation_scans else None,
        epochs=config.epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=end_of_epoch)],
    )
    if not np.isfinite(best[0]):
        raise InputError("the generator's training diverged, no epoch had a finite loss; check the scans' intensities")
    training.set_weights(best[1])
    return inference, history
