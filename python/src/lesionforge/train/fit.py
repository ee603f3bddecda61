"""Training: one network, then the cascade."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionforge import nets
from lesionforge.cascade.settings import NETWORKS, CascadeConfig
from lesionforge.errors import InputError
from lesionforge.train.network import build_network, build_optimizer
from lesionforge.train.patches import score, turn_half
from lesionforge.train.sampling import LabelledScan, draw, draw_epoch, gather_pooled, hard_negatives, pool

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class EpochRow:
    """Mean cross-entropy of one epoch; `val_loss` is NaN without validation scans."""

    network: str
    epoch: int
    loss: float
    val_loss: float


@dataclass(frozen=True)
class Samples:
    """The two pools of voxels [n, 4] that one network is trained or validated on, and the scans they lie in."""

    scans: list[LabelledScan]
    lesion: np.ndarray
    healthy: np.ndarray


def cross_entropy(network: keras.Model, samples: Samples) -> float:
    """Mean cross-entropy over both pools, each weighing half."""
    losses = []
    for pooled, is_lesion in ((samples.lesion, True), (samples.healthy, False)):
        parts = [score(network, scan.volume, pooled[pooled[:, 0] == n, 1:]) for n, scan in enumerate(samples.scans)]
        lesion_probability = np.concatenate(parts)
        right = lesion_probability if is_lesion else 1 - lesion_probability
        losses.append(-np.log(np.maximum(right, 1e-7)).mean())
    return float(np.mean(losses))


def fit_network(
    name: str,
    network: keras.Model,
    training: Samples,
    validation: Samples | None,
    config: CascadeConfig,
    rng: np.random.Generator,
    report: Callable[[str], None],
) -> tuple[keras.Model, list[EpochRow]]:
    """Train what is trainable of a network; returns it with its best weights by validation loss (else the last) and its history.

    Every epoch draws new negatives and new augmentations. Both pools of `training` hold a voxel.
    Raises InputError when a loss or weight is not finite.
    """
    network.compile(optimizer=build_optimizer(config), loss="sparse_categorical_crossentropy")
    history: list[EpochRow] = []
    best_weights, best_epoch, best_loss = None, 0, np.inf
    steps = max(1, config.samples_per_epoch // config.batch_size)
    for epoch in range(1, config.epochs + 1):
        voxels, labels = draw_epoch(training.lesion, training.healthy, config.samples_per_epoch, rng)
        network.reset_metrics()
        loss = np.nan
        # Parts of nearly equal size: no last batch of one patch.
        for batch in np.array_split(np.arange(len(labels)), steps):
            patches = turn_half(gather_pooled(training.scans, voxels[batch]), rng)
            loss = float(network.train_on_batch(patches, labels[batch]))
        val_loss = cross_entropy(network, validation) if validation else np.nan
        # Of a network that breaks, the loss can stay a number: ReLU makes 0 of NaN.
        if not (np.isfinite(loss) and nets.is_finite(network) and (np.isfinite(val_loss) or not validation)):
            raise InputError(
                f"{name}: its loss or weights are NaN or infinite in epoch {epoch}, so nothing is saved; check the intensities "
                "of the training scans, and start from another model if one was given"
            )
        history.append(EpochRow(name, epoch, loss, val_loss))
        report(f"{name} epoch {epoch}/{config.epochs}: loss {loss:.4f}" + (f", validation {val_loss:.4f}" if validation else ""))
        if validation and val_loss < best_loss:
            best_weights, best_epoch, best_loss = network.get_weights(), epoch, val_loss
        if validation and epoch - best_epoch >= config.patience:
            report(f"{name}: no better validation loss for {config.patience} epochs, stopped")
            break
    if best_weights is not None:
        network.set_weights(best_weights)
        report(f"{name}: weights of epoch {best_epoch} kept")
    return network, history


def thin(samples: Samples, size: int, rng: np.random.Generator) -> Samples | None:
    """A fixed random part of both pools, at most `size` voxels in all and as many of each; None when one pool is empty."""
    each = min(size // 2, len(samples.lesion), len(samples.healthy))
    if not each:
        return None
    return Samples(samples.scans, draw(samples.lesion, each, rng), draw(samples.healthy, each, rng))


def train_cascade(
    training: list[LabelledScan],
    validation: list[LabelledScan],
    config: CascadeConfig,
    seed: int,
    report: Callable[[str], None],
    begin: Callable[[str], keras.Model] | None = None,
) -> tuple[dict[str, keras.Model], list[EpochRow]]:
    """Train CNN1, then CNN2 on what CNN1 gets wrong; returns both by name, and their history.

    `begin` gives the network to start from by its name in the cascade; without it, networks start from random weights.
    Call `nets.set_up(seed)` before. Raises InputError when the training scans hold no lesion voxel or no candidate.
    """
    rng = np.random.default_rng(seed)
    begin = begin or (lambda _name: build_network(config.network))
    first = Samples(training, pool([scan.lesion for scan in training]), pool([scan.healthy for scan in training]))
    if not len(first.lesion):
        raise InputError("the training scans hold no lesion voxel inside the brain; give at least one scan with lesions")
    if not len(first.healthy):
        raise InputError(
            f"the training scans hold no healthy voxel with FLAIR z-score above {config.candidate_flair_z:g}; "
            "check their lesion and brain masks"
        )
    report(f"{len(training)} training scans: {len(first.lesion)} lesion voxels, {len(first.healthy)} candidates")
    held_out = Samples(validation, pool([scan.lesion for scan in validation]), pool([scan.healthy for scan in validation]))
    judge = thin(held_out, config.samples_per_epoch, rng)
    if validation and judge is None:
        report("the validation scans hold no lesion voxel: the last weights are kept")
    cnn1, history1 = fit_network(NETWORKS[0], begin(NETWORKS[0]), first, judge, config, rng, report)

    negatives = hard_negatives(cnn1, training, config.samples_per_epoch // 2, config, rng)
    report(f"{NETWORKS[1]}: {len(negatives)} negatives chosen by {NETWORKS[0]}")
    second = Samples(training, first.lesion, negatives)
    if judge:
        wanted = len(judge.healthy)
        judge = thin(Samples(validation, judge.lesion, hard_negatives(cnn1, validation, wanted, config, rng)), 2 * wanted, rng)
    cnn2, history2 = fit_network(NETWORKS[1], begin(NETWORKS[1]), second, judge, config, rng, report)
    return {NETWORKS[0]: cnn1, NETWORKS[1]: cnn2}, history1 + history2
