"""Speed and memory of the cascade: what `make bench-cascade` prints.

Scans are phantoms of 1 mm, prepared as any scan; those of an earlier run are not made again. Networks have random weights, which
cost what trained ones do; thresholds are set so that the share of voxels that CNN1 lets through is one of trained networks.
Each measurement runs in a process of its own, with nothing else in its memory.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from prepare import measured, table
from scipy import ndimage
from training import phantoms

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import CONFIGURATIONS, NETWORKS, CascadeConfig
from lesionforge.cli import prepare_environment
from lesionforge.images import Prepared, Scan, new_folder, zscore
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.segment.cascade import lesion_probability
from lesionforge.train import blocks
from lesionforge.train.fit import Samples, batches, fit_network
from lesionforge.train.network import PATCH, build_network, build_optimizer
from lesionforge.train.patches import candidates, inner_part, patch_volume, score
from lesionforge.train.sampling import label_scan, pool, stored_scan

if TYPE_CHECKING:
    import keras

SEED = 1
HALF = PATCH // 2
PASSED_SHARE = 0.05
# Plain inference: patches in one call of predict. The published code cuts a batch, and predicts it; cutting more at once
# spares calls at the price of memory.
PLAIN_BATCHES = (128, 16_384)
SIDE, TRIES = 3000, 5
# Of either way to train, by turns.
RUNS = 3
PLAIN = "plain, {} patches a call"
TIMES_MORE = 10
NDIMAGE = "filters of ndimage"
BLOCK_STEPS = 50
COMPARED = ("lesionforge", "published")
PARTS = ("inference", "training", "blocks", "segment")
# A step of training: forward, the gradient of what comes in, the gradient of the weights.
PASSES = 3


@dataclass(frozen=True)
class Measurement:
    """What a measurement found, its seconds (wall and processor), multiply-adds in GFLOP, and the peak memory of its process."""

    found: Any
    wall_s: float
    cpu_s: float
    gflop: float
    memory_gb: float = np.nan


def alone(measure: Callable[..., Measurement], *arguments: Any) -> Measurement:
    """A measurement in a process of its own; says at once what it found, since a table waits for all of its rows."""
    name = " ".join([measure.__name__, *(str(one) for one in arguments if isinstance(one, str | int))])
    click.echo(f"{name} ...", err=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result: Measurement = pool.submit(_with_memory, measure, *arguments).result()
    click.echo(f"{name}: {result.wall_s:.1f} s, {result.memory_gb:.2f} GB, {result.gflop / result.wall_s:.0f} GFLOP/s", err=True)
    return result


def _with_memory(measure: Callable[..., Measurement], *arguments: Any) -> Measurement:
    nets.set_up(SEED)
    result = measure(*arguments)
    return replace(result, memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


class Counter:
    """Counts the floating-point operations of convolutions and products of matrices while it is in force."""

    def __init__(self) -> None:
        self.gflop = 0.0

    def layers(self, network: keras.Model, shape: tuple[int, ...]) -> None:
        """One pass of a network over a batch of this shape."""
        self.gflop += network_gflop(network, shape)

    @contextmanager
    def of_operations(self) -> Iterator[None]:
        """What is computed without a network's layers: our own use of the backend's operations."""
        from keras import ops

        conv, matmul = ops.conv, ops.matmul

        def counted_conv(inputs: Any, kernel: Any, **options: Any) -> Any:
            out = conv(inputs, kernel, **options)
            self.gflop += 2e-9 * prod(out.shape) * prod(kernel.shape[:-1])
            return out

        def counted_matmul(first: Any, second: Any) -> Any:
            self.gflop += 2e-9 * prod(first.shape) * second.shape[-1]
            return matmul(first, second)

        ops.conv, ops.matmul = counted_conv, counted_matmul
        try:
            yield
        finally:
            ops.conv, ops.matmul = conv, matmul


@cache
def network_gflop(network: keras.Model, shape: tuple[int, ...]) -> float:
    """Operations of the convolutions and dense layers of a network for a batch of this shape."""
    import keras

    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv3D | keras.layers.Dense)]
    shapes = keras.Model(network.inputs, [layer.output for layer in layers]).compute_output_shape(shape)
    return sum(2e-9 * prod(out) * prod(layer.kernel.shape[:-1]) for layer, out in zip(layers, shapes, strict=True))


@contextmanager
def counted(models: dict[str, keras.Model]) -> Iterator[Counter]:
    """Count the operations of our inference, by layers and without."""
    counter = Counter()
    for network in models.values():
        predict = network.predict_on_batch

        def counted_predict(batch: np.ndarray, network: Any = network, predict: Any = predict) -> Any:
            counter.layers(network, batch.shape)
            return predict(batch)

        network.predict_on_batch = counted_predict
    with counter.of_operations():
        yield counter


def networks(config: CascadeConfig) -> dict[str, keras.Model]:
    """Both networks with random weights, the same each time."""
    nets.set_up(SEED)
    return {name: build_network(config.network) for name in NETWORKS}


def realistic(models: dict[str, keras.Model], scan: Scan, config: CascadeConfig) -> CascadeConfig:
    """Thresholds that a share of the candidates passes, as with trained networks."""
    volume = patch_volume([scan.t1w, scan.flair], scan.brain, config)
    inner = inner_part(scan.brain, config.candidate_depth_mm, voxel_side_mm(scan.affine))
    voxels = candidates(volume, inner, config.candidate_flair_z)
    some = voxels[np.random.default_rng(SEED).permutation(len(voxels))[:4000]]
    first, second = (float(np.quantile(score(models[name], volume, some), 1 - PASSED_SHARE)) for name in NETWORKS)
    return replace(config, cnn1_threshold=first, lesion_threshold=second, lowest_threshold=None)


def ours(folder: Path, config: CascadeConfig) -> Measurement:
    """Our inference of one prepared scan: probabilities [x, y, z]."""
    scan, models = Prepared.open(folder).read(), networks(config)
    start = time.perf_counter(), time.process_time()
    with counted(models) as counter:
        found = lesion_probability(models, [scan.t1w, scan.flair], scan.brain, config, voxel_side_mm(scan.affine))
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    return Measurement(found, *spent, counter.gflop)


def plain(folder: Path, config: CascadeConfig, batch: int) -> Measurement:
    """The published inference without any of our code, as `ours`: patches are cut with numpy, and predicted call by call."""
    scan, models = Prepared.open(folder).read(), networks(config)
    start = time.perf_counter(), time.process_time()
    images = [np.where(scan.brain, zscore(image, scan.brain), 0) for image in (scan.t1w, scan.flair)]
    padded = np.pad(np.stack(images, axis=-1).astype(np.float32), [(HALF, HALF)] * 3 + [(0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (PATCH,) * 3, axis=(0, 1, 2))

    def predicted(network: keras.Model, voxels: np.ndarray) -> np.ndarray:
        parts = []
        for begin in range(0, len(voxels), batch):
            patches = np.moveaxis(windows[tuple(voxels[begin : begin + batch].T)], 1, -1)
            parts.append(network.predict(patches, batch_size=128, verbose=0)[:, 1])
        return np.concatenate(parts)

    voxels = np.argwhere(scan.brain & (images[1] > config.candidate_flair_z))
    kept = voxels[predicted(models["cnn1"], voxels) > config.cnn1_threshold]
    found = np.zeros(scan.brain.shape, np.float32)
    found[tuple(kept.T)] = predicted(models["cnn2"], kept)
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    patches = len(voxels) + len(kept)
    return Measurement(found, *spent, patches * network_gflop(models["cnn1"], (1, *(PATCH,) * 3, 2)))


def thresholds(folder: Path, config: CascadeConfig, model: Path) -> Measurement:
    """The configuration with realistic thresholds; its networks are saved as a model folder."""
    scan, models = Prepared.open(folder).read(), networks(config)
    config = realistic(models, scan, config)
    shutil.rmtree(model, ignore_errors=True)
    with new_folder(model) as made:
        nets.save_models(made, models, cascade_entries(config, voxel_side_mm(scan.affine)))
    return Measurement(config, np.nan, np.nan, np.nan)


def nothing() -> Measurement:
    """What a process costs that only imports the libraries and multiplies two matrices: its fastest product."""
    from keras import ops

    matrix = ops.ones((SIDE, SIDE))
    times = []
    for _ in range(TRIES):
        start = time.perf_counter()
        ops.convert_to_numpy(ops.matmul(matrix, matrix)[0, 0])
        times.append(time.perf_counter() - start)
    return Measurement(None, min(times), np.nan, 2e-9 * SIDE**3)


def stored_samples(folders: Sequence[Path], config: CascadeConfig, out: Path) -> Samples:
    """Prepared scans as training reads them, from files in the folder `out`, which is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    scans = []
    for number, folder in enumerate(folders):
        scan = label_scan(folder.name, Prepared.open(folder).read(), config)
        scans.append(stored_scan(scan, out / str(number)))
    return Samples(scans, pool([scan.lesion for scan in scans]), pool([scan.healthy for scan in scans]))


def trained_by_us(folders: Sequence[Path], steps: int, epochs: int, out: Path) -> Measurement:
    """Our training of one network: steps a second of each epoch but the first, which also builds the graph."""
    config = replace(CONFIGURATIONS["published"], steps_per_epoch=steps, epochs=epochs)
    samples = stored_samples(folders, config, out)
    network = build_network(config.network)
    laps = [(time.perf_counter(), time.process_time())]

    def lap(_: str) -> None:
        laps.append((time.perf_counter(), time.process_time()))

    fit_network("cnn1", network, samples, None, config, np.random.default_rng(SEED), lap)
    return training_measurement(laps, network, config)


def trained_plainly(folders: Sequence[Path], steps: int, epochs: int) -> Measurement:
    """The published training without any of our code: all patches of all lesion voxels, and as many others, in one array."""
    import keras

    config = replace(CONFIGURATIONS["published"], steps_per_epoch=steps, epochs=epochs)
    rng = np.random.default_rng(SEED)
    patches, labels = [], []
    for folder in folders:
        scan = Prepared.open(folder).read()
        images = [np.where(scan.brain, zscore(image, scan.brain), 0) for image in (scan.t1w, scan.flair)]
        padded = np.pad(np.stack(images, axis=-1).astype(np.float32), [(HALF, HALF)] * 3 + [(0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (PATCH,) * 3, axis=(0, 1, 2))
        lesion = np.argwhere(scan.lesion & scan.brain)
        healthy = np.argwhere(scan.brain & ~scan.lesion & (images[1] > config.candidate_flair_z))
        healthy = healthy[rng.permutation(len(healthy))[: len(lesion)]]
        voxels = np.concatenate([lesion, healthy])
        patches.append(np.moveaxis(windows[tuple(voxels.T)], 1, -1))
        labels.append(np.arange(len(voxels)) < len(lesion))
    order = rng.permutation(sum(map(len, labels)))
    x, y = np.concatenate(patches)[order], np.concatenate(labels)[order].astype(np.uint8)
    del patches, labels
    network = build_network(config.network)
    network.compile(optimizer=build_optimizer(config), loss="sparse_categorical_crossentropy")
    laps = [(time.perf_counter(), time.process_time())]

    def lap(*_: object) -> None:
        laps.append((time.perf_counter(), time.process_time()))

    # As many steps in an epoch as ours, over all patches in turn.
    times = keras.callbacks.LambdaCallback(on_epoch_end=lap)
    network.fit(x, y, batch_size=config.batch_size, steps_per_epoch=steps, epochs=epochs, verbose=0, callbacks=[times])
    return replace(training_measurement(laps, network, config), found=len(x))


def training_measurement(laps: Sequence[tuple[float, float]], network: keras.Model, config: CascadeConfig) -> Measurement:
    """The fastest epoch after the first: with two threads, some epochs of a plain fit run on one core, for no cause of ours."""
    wall, processor = min(np.diff(laps, axis=0)[1:].tolist())
    gflop = PASSES * network_gflop(network, (config.samples_per_epoch, *(PATCH,) * 3, 2))
    return Measurement(None, float(wall), float(processor), gflop)


def by_ndimage() -> None:
    """From here on the blocks of this process are filtered by `ndimage`."""

    def zoomed(cubes: np.ndarray, side: int) -> np.ndarray:
        cubes = cubes.astype(np.float32)
        if cubes.ndim > 3:
            return np.stack([zoomed(cube, side) for cube in cubes])
        return np.asarray(ndimage.zoom(cubes, side / len(cubes), order=1, mode="nearest", grid_mode=True))

    blocks.blurred = lambda cube, sigma: ndimage.gaussian_filter(cube.astype(np.float32), sigma)
    blocks.zoomed = zoomed


def blocks_made(folders: Sequence[Path], out: Path, filters: str) -> Measurement:
    """The batches of an epoch of the default, which threads make while a network learns; the images [batch] of them."""
    if filters == NDIMAGE:
        by_ndimage()
    config = replace(CONFIGURATIONS["lesionforge"], steps_per_epoch=BLOCK_STEPS)
    samples = stored_samples(folders, config, out)
    start = time.perf_counter(), time.process_time()
    found = [images for images, _ in batches(samples, config, np.random.default_rng(SEED))]
    return Measurement(found, time.perf_counter() - start[0], time.process_time() - start[1], np.nan)


def figures(result: Measurement, peak: float) -> list[str]:
    """Seconds, processor seconds, memory, GFLOP, GFLOP/s, share of the peak."""
    speed = result.gflop / result.wall_s
    cells = (f"{result.wall_s:.1f}", f"{result.cpu_s:.1f}", f"{result.memory_gb:.2f}", f"{result.gflop:.0f}", f"{speed:.0f}")
    return [*cells, f"{100 * speed / peak:.0f}"]


def difference(found: np.ndarray, reference: np.ndarray) -> str:
    """The largest difference of probabilities [x, y, z], and how many voxels near a threshold one alone judged."""
    both = (found > 0) & (reference > 0)
    return f"{np.abs(found - reference)[both].max():.1e}, {np.count_nonzero((found > 0) != (reference > 0))}"


def inference_table(folder: Path, configs: dict[str, CascadeConfig], peak: float) -> None:
    """Ours beside plain implementations of the published path, on one brain."""
    published = configs["published"]
    plainly = {PLAIN.format(batch): alone(plain, folder, published, batch) for batch in PLAIN_BATCHES}
    by_us = {name: alone(ours, folder, config) for name, config in configs.items()}
    rows = []
    for name, result in (plainly | by_us).items():
        faster = [f"{reference.wall_s / result.wall_s:.1f}" for reference in plainly.values()]
        reference = next(iter(plainly.values())).found
        same = difference(result.found, reference) if name in (*plainly, "published") else "another network"
        rows.append([name, *figures(result, peak), *faster, same])
    header = [
        "inference of one brain",
        "s",
        "processor, s",
        "peak memory, GB",
        "GFLOP",
        "GFLOP/s",
        "% of the product of matrices",
    ]
    header += [f"times faster than {name}" for name in plainly]
    table([*header, "largest difference of probabilities; voxels that one alone judged"], rows)


def training_table(folders: Sequence[Path], steps: int, epochs: int, out: Path, peak: float) -> None:
    """Ours beside a plain fit on all patches in memory, by turns, since other work on the machine comes and goes."""
    ways: dict[str, Callable[[], Measurement]] = {
        "plain fit, all patches in memory": lambda: alone(trained_plainly, folders, steps, epochs),
        "published": lambda: alone(trained_by_us, folders, steps, epochs, out / "training"),
    }
    results: dict[str, list[Measurement]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, way in ways.items():
            results[name].append(way())
    best = {name: min(found, key=lambda one: one.wall_s) for name, found in results.items()}
    reference = next(iter(best.values()))
    patches = steps * CONFIGURATIONS["published"].batch_size
    rows = []
    for name, result in best.items():
        ratio = f"{reference.wall_s / result.wall_s:.2f}", f"{reference.cpu_s / result.cpu_s:.2f}"
        memory = f"{result.memory_gb / reference.memory_gb:.2f}"
        rows.append([name, f"{patches / result.wall_s:.0f}", *figures(result, peak), *ratio, memory])
    header = [f"training on {len(folders)} scans", "patches/s", "s", "processor, s", "peak memory, GB", "GFLOP", "GFLOP/s"]
    header += ["% of the product of matrices", "speed against plain", "the same by processor time", "memory against plain"]
    table(header, rows)
    counted = RUNS * (epochs - 1)
    more = [*folders] * TIMES_MORE
    memory = alone(trained_by_us, more, steps, epochs, out / "training").memory_gb
    click.echo(
        f"The plain fit holds {reference.found} patches. Epochs of {patches} patches, the fastest of {counted}. "
        f"Training on {len(more)} scans took {memory:.2f} GB.\n"
    )


def blocks_table(folders: Sequence[Path], out: Path) -> None:
    """Changing blocks at random, by products of matrices beside `ndimage`, by turns."""
    results: dict[str, list[Measurement]] = {NDIMAGE: [], "lesionforge": []}
    for _ in range(RUNS):
        for filters, found in results.items():
            found.append(alone(blocks_made, folders, out / "blocks", filters))
    best = {filters: min(found, key=lambda one: one.wall_s) for filters, found in results.items()}
    reference = best[NDIMAGE]
    rows = []
    for filters, result in best.items():
        made = sum(map(len, result.found))
        different = max(float(np.abs(one - other).max()) for one, other in zip(result.found, reference.found, strict=True))
        spent = f"{made / result.wall_s:.0f}", f"{1000 * result.cpu_s / made:.1f}"
        rows.append([filters, *spent, f"{reference.wall_s / result.wall_s:.1f}", f"{different:.1e}"])
    table(["making blocks", "blocks/s", "processor, ms a block", "speed against ndimage", "largest difference"], rows)


def segment_table(folder: Path, models: dict[str, Path], out: Path) -> None:
    """What the command costs, its start included."""
    rows = []
    for name, model in models.items():
        cost = measured(["segment", "--prepared", str(folder), "--model", str(model), "--out", str(out / "segment" / name)])
        rows.append([name, *(f"{cost[figure]:.1f}" for figure in ("wall_s", "cpu_s")), f"{cost['memory_gb']:.2f}"])
    table(["lesionforge segment", "s", "processor, s", "peak memory, GB"], rows)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for phantoms and models.")
@click.option("--skip", type=click.Choice(PARTS), multiple=True, help="A part to leave out.")
@click.option("--steps", default=100, show_default=True, help="Steps of an epoch of training.")
@click.option(
    "--epochs", default=4, type=click.IntRange(2), show_default=True, help="Epochs of training; the first is not counted."
)
def main(out: Path, skip: tuple[str, ...], steps: int, epochs: int) -> None:
    """Print speed and memory of the cascade beside plain implementations, as Markdown tables."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    prepare_environment(None, False)
    folders = phantoms(out)
    scan = Prepared.open(folders[0]).read()
    models = {name: out / "model" / name for name in COMPARED}
    configs = {name: alone(thresholds, folders[0], CONFIGURATIONS[name], model).found for name, model in models.items()}
    start = alone(nothing)
    peak = start.gflop / start.wall_s
    click.echo(
        f"One brain of 1 mm: {' x '.join(map(str, scan.brain.shape))} voxels, {np.count_nonzero(scan.brain)} of them brain. "
        f"{len(os.sched_getaffinity(0))} cores, which multiply {SIDE} x {SIDE} matrices at {peak:.0f} GFLOP/s (best of {TRIES}). "
        f"A process that only does this takes {start.memory_gb:.2f} GB.\n"
    )
    if "inference" not in skip:
        inference_table(folders[0], configs, peak)
    if "training" not in skip:
        training_table(folders, steps, epochs, out, peak)
    if "blocks" not in skip:
        blocks_table(folders, out)
    if "segment" not in skip:
        segment_table(folders[0], models, out)


if __name__ == "__main__":
    main()
