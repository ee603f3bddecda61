"""Training: one network, then the cascade."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge import __version__, nets
from lesionforge.cascade.settings import NETWORKS, CascadeConfig
from lesionforge.errors import InputError
from lesionforge.images.names import ALWAYS
from lesionforge.nets.checkpoint import (
    TrainingState,
    load_state,
    random_state,
    restore,
    restore_random,
    save_state,
    sweep,
    variables_of,
)
from lesionforge.nets.devices import Device, on_device, on_one_device, threads
from lesionforge.train.blocks import block_loss, plain_block, training_block
from lesionforge.train.lean import for_inference
from lesionforge.train.network import build_network, build_optimizer
from lesionforge.train.patches import score, turn_half
from lesionforge.train.sampling import (
    LabelledScan,
    draw,
    draw_by_lesion,
    draw_by_scan,
    draw_epoch,
    gather_blocks,
    gather_pooled,
    hard_negatives,
    pool,
)

if TYPE_CHECKING:
    import keras

# Of the validation scans, so that judging an epoch takes a fraction of its time.
JUDGED_VOXELS = 20_000
JUDGED_BLOCKS = 96
# A scan's file is mapped anew after so many batches, and their patches are gathered at once: more mean fewer page faults and
# reads of the same place, fewer mean less in memory.
MAPPED_BATCHES = 8


@dataclass(frozen=True)
class EpochRow:
    """Mean loss of the steps of one epoch; `val_loss` is NaN without validation scans."""

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


def mean_block_loss(network: keras.Model, samples: Samples, batch_size: int) -> float:
    """Mean of `block_loss`, which training makes small, over batches of unchanged blocks around the voxels of both pools."""
    from keras import ops

    centres = np.concatenate([samples.lesion, samples.healthy])
    # In the same order each time, in which lesions are in most batches.
    centres = centres[np.random.default_rng(0).permutation(len(centres))]
    losses = []
    for part in np.array_split(centres, -(-len(centres) // batch_size)):
        images, classes = gather_blocks(samples.scans, part, plain_block)
        found = ops.convert_to_tensor(network.predict_on_batch(images))
        losses.append(float(block_loss(ops.convert_to_tensor(classes), found)))
    return float(np.mean(losses))


def judge_epoch(network: keras.Model, validation: Samples, config: CascadeConfig) -> float:
    """The validation loss after an epoch: of blocks the loss of training, of voxels the cross-entropy."""
    if config.in_blocks:
        return mean_block_loss(network, validation, config.batch_size)
    return cross_entropy(network, validation)


def batches(
    samples: Samples, config: CascadeConfig, rng: np.random.Generator, multiple_of: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of one epoch, changed at random: patches and labels, or blocks and their classes.

    What a batch holds is repeated until its number is a `multiple_of`, for batches that several devices share.
    """
    voxels, labels = draw_epoch(samples.scans, samples.lesion, samples.healthy, config, rng)
    # Parts of nearly equal size: no last batch of one patch.
    parts = np.array_split(np.arange(len(labels)), config.steps_per_epoch)
    parts = [np.resize(part, -(-len(part) // multiple_of) * multiple_of) for part in parts]
    change = partial(training_block, contrasts=samples.contrasts)
    with ThreadPoolExecutor(threads()) as workers:
        for first in range(0, len(parts), MAPPED_BATCHES):
            several = parts[first : first + MAPPED_BATCHES]
            if config.in_blocks:
                # Of many scans only these few are open at once.
                scans = {number: samples.scans[number].mapped() for number in np.unique(voxels[np.concatenate(several), 0])}
                for batch in several:
                    # Each block has a generator of its own, so that what is drawn does not depend on which thread is faster.
                    own = [np.random.default_rng(seed) for seed in rng.integers(2**63, size=len(batch))]
                    yield gather_blocks(scans, voxels[batch], change, own, each=workers.map)
            else:
                turned = _turned(samples.scans, [voxels[batch] for batch in several], rng)
                yield from zip(turned, (labels[batch] for batch in several), strict=True)


def _turned(scans: list[LabelledScan], several: list[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The patches of several batches of voxels, gathered at once, half of each batch turned."""
    ends = np.cumsum([len(voxels) for voxels in several])
    for patches in np.split(gather_pooled(scans, np.concatenate(several)), ends[:-1]):
        turn_half(patches, rng)
        yield patches


def ahead(steps: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same batches in their order, each made by a thread while the one before is learned from."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, steps, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, steps, None)
            yield batch


@dataclass(frozen=True)
class Record:
    """Where the state of a training goes after each epoch, nowhere without a folder, and the one that was found there.

    `identity` is what must be the same for a training to go on.
    """

    folder: Path | None = None
    identity: dict[str, Any] | None = None
    found: TrainingState | None = None

    @classmethod
    def open(cls, folder: Path, identity: dict[str, Any]) -> Record:
        """Raises InputError when the state in the folder is cut short or of another training."""
        sweep(folder)
        return cls(folder, identity, load_state(folder, identity))

    def rows_of(self, name: str) -> list[EpochRow]:
        """What was found of the history of a network."""
        rows = self.found.history if self.found else []
        return [EpochRow(**row) for row in rows if row["network"] == name]

    def state_of(self, name: str) -> TrainingState | None:
        """What was found, if it is of the training of this network."""
        return self.found if self.found and self.found.history[-1]["network"] == name else None

    def save(self, state: TrainingState) -> None:
        """Write the state, if there is a folder."""
        if self.folder:
            save_state(self.folder, state, self.identity or {})


def best_row(history: list[EpochRow]) -> EpochRow | None:
    """The epoch with the lowest validation loss, the first of several; None without validation."""
    judged = [row for row in history if np.isfinite(row.val_loss)]
    return min(judged, key=lambda row: row.val_loss, default=None)


def ended(history: list[EpochRow], config: CascadeConfig) -> bool:
    """Whether the training of a network is over: the epochs are used up, or the last `patience` were no better."""
    best = best_row(history)
    return len(history) >= config.epochs or (best is not None and len(history) - best.epoch >= config.patience)


def fit_network(
    name: str,
    network: keras.Model,
    training: Samples,
    validation: Samples | None,
    config: CascadeConfig,
    rng: np.random.Generator,
    report: Callable[[str], None],
    *,
    device: Device | None = None,
    record: Record | None = None,
    before: list[EpochRow] | None = None,
    earlier: list[np.ndarray] | None = None,
) -> tuple[keras.Model, list[EpochRow]]:
    """Train what is trainable of a network; returns it with its best weights by validation loss (else the last) and its history.

    Every epoch draws new negatives and new augmentations. Both pools of `training` hold a voxel. After each epoch the state goes
    to `record`, with the history `before` and `earlier`, what was made before this network; what is found there is gone on from.
    The default device is the CPU. Raises InputError when a loss or weight is not finite.
    """
    device, record = device or Device(), record or Record()
    trained = _to_train(network, config, training.contrasts, device)
    history, best_weights = record.rows_of(name), network.get_weights()
    if state := record.state_of(name):
        with on_device(device):
            restore(trained, state)
        network.set_weights(trained.get_weights())
        best_weights = state.best_weights
        restore_random(rng, state.random or {})
        report(f"{name}: goes on after epoch {len(history)}, from {record.folder}")
    while not ended(history, config):
        epoch = len(history) + 1
        with on_device(device):
            loss = _train_epoch(trained, batches(training, config, rng, device.count), config, device)
        if trained is not network:
            network.set_weights(trained.get_weights())
        val_loss = judge_epoch(network, validation, config) if validation else np.nan
        # Of a network that breaks, the loss can stay a number: ReLU makes 0 of NaN.
        if not (np.isfinite(loss) and nets.is_finite(network) and (np.isfinite(val_loss) or not validation)):
            raise InputError(
                f"{name}: its loss or weights are NaN or infinite in epoch {epoch}, so nothing is saved; check the intensities "
                "of the training scans, and start from another model if one was given"
            )
        history.append(EpochRow(name, epoch, loss, val_loss))
        if best_row(history) is history[-1]:
            best_weights = network.get_weights()
        if record.folder:
            rows = [asdict(row) for row in [*(before or []), *history]]
            record.save(TrainingState(rows, *variables_of(trained), best_weights, random_state(rng), earlier or []))
        report(f"{name} epoch {epoch}/{config.epochs}: loss {loss:.4f}" + (f", validation {val_loss:.4f}" if validation else ""))
    if len(history) < config.epochs:
        report(f"{name}: no better validation loss for {config.patience} epochs, stopped")
    if best := best_row(history):
        network.set_weights(best_weights)
        report(f"{name}: weights of epoch {best.epoch} kept")
    return network, history


def _to_train(network: keras.Model, config: CascadeConfig, contrasts: tuple[str, ...], device: Device) -> keras.Model:
    """What is trained, compiled: its like in half precision on all GPUs, else the network, with TensorFlow a faster copy."""
    from keras.backend import backend

    with on_device(device):
        trained = network
        if device.kind == "gpu":
            trained = build_network(config.network, contrasts)
            trained.set_weights(network.get_weights())
            for mine, theirs in zip(trained.layers, network.layers, strict=True):
                mine.trainable = theirs.trainable
        elif backend() == "tensorflow":
            from lesionforge.train.normalisation import with_fused_normalisation

            trained = with_fused_normalisation(network)
        loss = block_loss if config.in_blocks else "sparse_categorical_crossentropy"
        trained.compile(optimizer=build_optimizer(config), loss=loss)
        # Or the first step makes its variables, and TensorFlow traces it twice.
        trained.optimizer.build(trained.trainable_variables)
    return trained


def _train_epoch(
    network: keras.Model, steps: Iterator[tuple[np.ndarray, np.ndarray]], config: CascadeConfig, device: Device
) -> float:
    """The mean loss of the steps of an epoch."""
    if device.count > 1:
        # `train_on_batch` gives each device the whole batch.
        return float(network.fit(steps, steps_per_epoch=config.steps_per_epoch, shuffle=False, verbose=0).history["loss"][0])
    losses, sizes = [], []
    for inputs, targets in ahead(steps):
        losses.append(float(network.train_on_batch(inputs, targets)))
        sizes.append(len(inputs))
    return float(np.average(losses, weights=sizes))


def judged_part(samples: Samples, config: CascadeConfig, rng: np.random.Generator, wanted: int | None = None) -> Samples | None:
    """A random part of both pools to judge every epoch by; None when one pool is empty.

    Of voxels as many of each, at most `wanted`, without it half of JUDGED_VOXELS. Of centres of blocks half of JUDGED_BLOCKS
    each, as training draws them, or all of a smaller pool.
    """
    each = min(wanted or JUDGED_VOXELS // 2, len(samples.lesion), len(samples.healthy))
    if not each:
        return None
    if config.in_blocks:
        most, drawn = JUDGED_BLOCKS // 2, (draw_by_lesion, draw_by_scan)
        lesion, healthy = (
            part if len(part) <= most else by(samples.scans, part, most, rng)
            for by, part in zip(drawn, (samples.lesion, samples.healthy), strict=True)
        )
        return replace(samples, lesion=lesion, healthy=healthy)
    return replace(samples, lesion=draw(samples.lesion, each, rng), healthy=draw(samples.healthy, each, rng))


def training_identity(
    training: list[LabelledScan],
    validation: list[LabelledScan],
    config: CascadeConfig,
    seed: int,
    contrasts: tuple[str, ...],
    device: Device,
) -> dict[str, Any]:
    """What makes a training this one, as JSON reads it back."""
    import keras

    scans = {
        f"{split} scans": [[scan.scan_id, scan.weight, _checksum(scan)] for scan in part]
        for split, part in (("training", training), ("validation", validation))
    }
    settings = {f"setting {name}": value for name, value in asdict(config).items()}
    return (
        settings
        | scans
        | {
            "seed": seed,
            "contrasts": list(contrasts),
            "backend": keras.backend.backend(),
            "precision": device.precision,
            "version": __version__,
            "keras": keras.__version__,
        }
    )


def _checksum(scan: LabelledScan) -> str:
    """Of the images and labels of a scan; its candidates follow from them."""
    digest = hashlib.sha256()
    for volume in (scan.volume, scan.labels):
        for plane in volume.data:
            digest.update(plane.tobytes())
    return digest.hexdigest()


def train_cascade(
    training: list[LabelledScan],
    validation: list[LabelledScan],
    config: CascadeConfig,
    seed: int,
    report: Callable[[str], None],
    begin: Callable[[str], keras.Model] | None = None,
    contrasts: tuple[str, ...] = ALWAYS,
    *,
    device: Device | None = None,
    checkpoint: Path | None = None,
    start: dict[str, Any] | None = None,
) -> tuple[dict[str, keras.Model], list[EpochRow]]:
    """Train CNN1, then CNN2 on what CNN1 gets wrong; returns both by name, in float32, and their history.

    `begin` gives the network to start from by its name in the cascade; without it, networks start from random weights, but for
    a dense CNN2, which goes on from CNN1. Call `nets.set_up(seed)` before. With a `checkpoint` folder the state is saved there
    after every epoch, and a training that was killed goes on from it to the same weights; `start` says in JSON what `begin`
    gives. The default device is the CPU. Raises InputError when the training scans hold no lesion voxel or no candidate, and when
    the checkpoint is cut short or of another training.
    """
    device = device or Device()
    rng = np.random.default_rng(seed)
    first = _all_samples(training, contrasts)
    if not len(first.lesion):
        raise InputError("the training scans hold no lesion voxel inside the brain; give at least one scan with lesions")
    if not len(first.healthy):
        raise InputError(
            f"the training scans hold no healthy voxel with a normalised FLAIR above {config.candidate_flair_z:g}; "
            "check their lesion and brain masks"
        )
    record = Record()
    if checkpoint:
        identity = training_identity(training, validation, config, seed, contrasts, device)
        record = Record.open(checkpoint, identity | {"start": start})
    report(f"{len(training)} training scans: {len(first.lesion)} lesion voxels, {len(first.healthy)} candidates")
    judge = judged_part(_all_samples(validation, contrasts), config, rng)
    if validation and judge is None:
        report("the validation scans hold no lesion voxel: the last weights are kept")
    with on_one_device(device):
        cnn1 = begin(NETWORKS[0]) if begin else build_network(config.network, contrasts)
        if second := record.state_of(NETWORKS[1]):
            *weights, negatives, lesion, healthy = second.earlier
            cnn1.set_weights(weights)
            history1 = record.rows_of(NETWORKS[0])
            judge = replace(judge, lesion=lesion, healthy=healthy) if judge and len(lesion) else None
        else:
            cnn1, history1 = fit_network(NETWORKS[0], cnn1, first, judge, config, rng, report, device=device, record=record)
            chooser = for_inference(cnn1, config.network)
            negatives = hard_negatives(chooser, training, config.negatives_per_epoch, config, rng)
            report(f"{NETWORKS[1]}: {len(negatives)} negatives chosen by {NETWORKS[0]}")
            if judge:
                wanted = len(judge.healthy)
                chosen = hard_negatives(chooser, validation, wanted, config, rng)
                judge = judged_part(replace(judge, healthy=chosen), config, rng, wanted)
        cnn2 = begin(NETWORKS[1]) if begin else build_network(config.network, contrasts)
        if config.in_blocks and not begin:
            cnn2.set_weights(cnn1.get_weights())
        judged = [judge.lesion, judge.healthy] if judge else [np.zeros((0, 4), np.int16)] * 2
        cnn2, history2 = fit_network(
            NETWORKS[1],
            cnn2,
            replace(first, healthy=negatives),
            judge,
            config,
            rng,
            report,
            device=device,
            record=record,
            before=history1,
            earlier=[*cnn1.get_weights(), negatives, *judged],
        )
    return {NETWORKS[0]: cnn1, NETWORKS[1]: cnn2}, history1 + history2


def _all_samples(scans: list[LabelledScan], contrasts: tuple[str, ...]) -> Samples:
    return Samples(scans, pool([scan.lesion for scan in scans]), pool([scan.healthy for scan in scans]), contrasts)
