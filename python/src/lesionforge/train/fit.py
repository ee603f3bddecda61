"""Training: one network, then the cascade."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lesionforge import nets
from lesionforge.cascade.settings import NETWORKS, CascadeConfig
from lesionforge.errors import InputError
from lesionforge.images.names import ALWAYS
from lesionforge.train.blocks import block_loss
from lesionforge.train.network import build_network, build_optimizer
from lesionforge.train.patches import score, turn_half
from lesionforge.train.sampling import LabelledScan, draw, draw_epoch, gather_blocks, gather_pooled, hard_negatives, pool

if TYPE_CHECKING:
    import keras

# Of the validation scans, so that judging an epoch takes a fraction of its time.
JUDGED_VOXELS = 20_000


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
    contrasts: tuple[str, ...] = ALWAYS


def cross_entropy(network: keras.Model, samples: Samples) -> float:
    """Mean cross-entropy over both pools, each weighing half."""
    both = np.concatenate([samples.lesion, samples.healthy])
    is_lesion = np.arange(len(both)) < len(samples.lesion)
    right = np.empty(len(both), np.float32)
    for number, scan in enumerate(samples.scans):
        rows = both[:, 0] == number
        right[rows] = score(network, scan.volume, both[rows, 1:])
    right = np.where(is_lesion, right, 1 - right)
    entropy = -np.log(np.maximum(right, 1e-7))
    return float((entropy[is_lesion].mean() + entropy[~is_lesion].mean()) / 2)


def batches(samples: Samples, config: CascadeConfig, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of one epoch, changed at random: patches and labels, or blocks and their classes."""
    voxels, labels = draw_epoch(samples.scans, samples.lesion, samples.healthy, config, rng)
    # Parts of nearly equal size: no last batch of one patch.
    for batch in np.array_split(np.arange(len(labels)), config.steps_per_epoch):
        if config.in_blocks:
            yield gather_blocks(samples.scans, voxels[batch], samples.contrasts, rng)
        else:
            yield turn_half(gather_pooled(samples.scans, voxels[batch]), rng), labels[batch]


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
    loss_function = block_loss if config.in_blocks else "sparse_categorical_crossentropy"
    network.compile(optimizer=build_optimizer(config), loss=loss_function)
    history: list[EpochRow] = []
    best_weights, best_epoch, best_loss = None, 0, np.inf
    for epoch in range(1, config.epochs + 1):
        network.reset_metrics()
        loss = np.nan
        for inputs, targets in batches(training, config, rng):
            loss = float(network.train_on_batch(inputs, targets))
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
    return replace(samples, lesion=draw(samples.lesion, each, rng), healthy=draw(samples.healthy, each, rng))


def train_cascade(
    training: list[LabelledScan],
    validation: list[LabelledScan],
    config: CascadeConfig,
    seed: int,
    report: Callable[[str], None],
    begin: Callable[[str], keras.Model] | None = None,
    contrasts: tuple[str, ...] = ALWAYS,
) -> tuple[dict[str, keras.Model], list[EpochRow]]:
    """Train CNN1, then CNN2 on what CNN1 gets wrong; returns both by name, and their history.

    `begin` gives the network to start from by its name in the cascade; without it, networks start from random weights, but for
    a dense CNN2, which goes on from CNN1. Call `nets.set_up(seed)` before. Raises InputError when the training scans hold no
    lesion voxel or no candidate.
    """
    rng = np.random.default_rng(seed)
    first = _all_samples(training, contrasts)
    if not len(first.lesion):
        raise InputError("the training scans hold no lesion voxel inside the brain; give at least one scan with lesions")
    if not len(first.healthy):
        raise InputError(
            f"the training scans hold no healthy voxel with a normalised FLAIR above {config.candidate_flair_z:g}; "
            "check their lesion and brain masks"
        )
    report(f"{len(training)} training scans: {len(first.lesion)} lesion voxels, {len(first.healthy)} candidates")
    judge = thin(_all_samples(validation, contrasts), JUDGED_VOXELS, rng)
    if validation and judge is None:
        report("the validation scans hold no lesion voxel: the last weights are kept")
    cnn1 = begin(NETWORKS[0]) if begin else build_network(config.network, contrasts)
    cnn1, history1 = fit_network(NETWORKS[0], cnn1, first, judge, config, rng, report)

    negatives = hard_negatives(cnn1, training, config.samples_per_epoch // 2, config, rng)
    report(f"{NETWORKS[1]}: {len(negatives)} negatives chosen by {NETWORKS[0]}")
    if judge:
        wanted = len(judge.healthy)
        chosen = hard_negatives(cnn1, validation, wanted, config, rng)
        judge = thin(replace(judge, healthy=chosen), 2 * wanted, rng)
    cnn2 = begin(NETWORKS[1]) if begin else build_network(config.network, contrasts)
    if config.in_blocks and not begin:
        cnn2.set_weights(cnn1.get_weights())
    cnn2, history2 = fit_network(NETWORKS[1], cnn2, replace(first, healthy=negatives), judge, config, rng, report)
    return {NETWORKS[0]: cnn1, NETWORKS[1]: cnn2}, history1 + history2


def _all_samples(scans: list[LabelledScan], contrasts: tuple[str, ...]) -> Samples:
    return Samples(scans, pool([scan.lesion for scan in scans]), pool([scan.healthy for scan in scans]), contrasts)
