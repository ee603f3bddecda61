"""Speed and memory of the generator's training and painting: what `make bench-training` prints.

Scans are phantoms of 1 mm, prepared as any scan. Training reads its tiles from disk; a plain Keras fit, on one array of as many
tiles in memory, in the same run, says what that costs. Peak memory is that of a child process each. More subjects than there are
phantoms are copies of these with noise of their own. Scans that were made by an earlier run are not made again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from prepare import measured, prepare, sessions_in, table

from lesionforge.cli import prepare_environment
from lesionforge.images import Prepared, derivative, find_image, new_folder, read_mask, read_volume, write_volume
from lesionforge.nets.devices import Device, on_device
from lesionforge.synthesize.config import CONFIGURATIONS, DEFAULT_CONFIGURATION, GeneratorConfig
from lesionforge.synthesize.network import build_generator, compile_for_training
from lesionforge.synthesize.stage import Levels, store_training_scan
from lesionforge.synthesize.tiles import StoredScan, draw_tiles, tile_batch
from lesionforge.synthesize.training import train_generator

SEED = 1
PHANTOMS = 3
SUBJECTS = (3, 20)
NOISE_SD = 0.05
ROUNDS, EPOCHS = 3, 3
REPEATS = 3
LOAD_ML = 20
IMAGES = ("desc-preproc_T1w", "desc-preproc_FLAIR")
Times = list[tuple[float, float]]


def phantoms(out: Path) -> list[Path]:
    """The prepared folders of the phantoms."""
    cohort = out / "phantom"
    if not cohort.is_dir():
        measured(["phantom", str(cohort), "--patients", str(PHANTOMS), "--healthy", "0", "--voxel-mm", "1", "--seed", str(SEED)])
    masks = cohort / "derivatives" / "manual"
    sessions = sessions_in(cohort, "sub-*/anat/*_T1w.nii.gz")
    return [prepare(one, out, lesion_mask=next((masks / one.scan_id).rglob("*_mask.nii.gz"))) for one in sessions]


def subjects(originals: Sequence[Path], count: int, out: Path) -> list[tuple[Path, Path]]:
    """Prepared and levels folders of so many subjects: the phantoms, then copies of them."""
    found = []
    for number in range(count):
        folder = originals[number % len(originals)]
        if number >= len(originals):
            folder = copied(folder, out / "copies" / f"sub-c{number + 1:02d}", number)
        if not (out / "levels" / folder.name).is_dir():
            measured(["synthesize", "levels", "--prepared", str(folder), "--out", str(out / "levels")])
        found.append((folder, out / "levels" / folder.name))
    return found


def copied(original: Path, folder: Path, seed: int) -> Path:
    """A copy of a prepared folder under another name, with noise in both images."""
    if folder.is_dir():
        return folder
    rng = np.random.default_rng(seed)
    scan = Prepared.open(original)
    brain, affine = read_mask(scan.brain)
    with new_folder(folder) as made:
        for path in original.glob(f"{scan.scan_id}_{scan.grid}_*"):
            shutil.copyfile(path, made / path.name.replace(scan.scan_id, folder.name))
        for name in IMAGES:
            image, _ = read_volume(find_image(original, f"{scan.grid}_{name}.nii.gz"))
            image[brain] += rng.normal(0, NOISE_SD, np.count_nonzero(brain)).astype(np.float32)
            write_volume(image, affine, made / derivative(folder.name, scan.grid, name))
    return folder


def stopwatch() -> tuple[Times, Callable[..., None]]:
    """(wall and processor seconds between its calls, the function to call after each epoch)."""
    times: Times = []
    last = [time.perf_counter(), time.process_time()]

    def lap(*_: object) -> None:
        now = [time.perf_counter(), time.process_time()]
        times.append((now[0] - last[0], now[1] - last[1]))
        last[:] = now

    return times, lap


def streamed(scans: Sequence[StoredScan], config: GeneratorConfig) -> Times:
    """Seconds of each epoch as the project trains: tiles drawn anew and read from disk."""
    times, lap = stopwatch()
    train_generator(scans, [], config, seed=SEED, on_epoch=lap)
    return times


def from_memory(scans: Sequence[StoredScan], config: GeneratorConfig) -> Times:
    """Seconds of each epoch of a plain fit on one array of all tiles."""
    import keras

    inputs, targets, weights = tile_batch(scans, draw_tiles(scans, config, np.random.default_rng(SEED)), config)
    times, lap = stopwatch()
    with on_device(Device()):
        training, _ = build_generator(config)
        compile_for_training(training, config)
        training.fit(
            inputs,
            targets,
            sample_weight=weights,
            batch_size=config.batch_size,
            epochs=config.epochs,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lap)],
        )
    return times


def gathered(scans: Sequence[StoredScan], config: GeneratorConfig) -> Times:
    """Seconds to draw and gather the tiles of each epoch, without a network."""
    times, lap = stopwatch()
    for epoch in range(config.epochs):
        tiles = draw_tiles(scans, config, np.random.default_rng([SEED, epoch]))
        for start in range(0, len(tiles), config.batch_size):
            tile_batch(scans, tiles[start : start + config.batch_size], config)
        lap()
    return times


def speed_row(name: str, scans: Sequence[StoredScan], width: int, tiles: int) -> list[str]:
    """Tiles a second of a configuration, streamed and from memory by turns, since other work on the machine comes and goes."""
    config = replace(CONFIGURATIONS[name], width=width, tiles_per_epoch=tiles, epochs=EPOCHS, patience=None)
    found: dict[Callable[..., Times], Times] = {streamed: [], from_memory: [], gathered: []}
    for _ in range(ROUNDS):
        for measure, times in found.items():
            # The first epoch also builds the graph.
            times += measure(scans, config)[1:]
    wall, processor = np.median(list(found.values()), axis=1).T
    ratios = (f"{values[1] / values[0]:.2f}" for values in (wall, processor))
    click.echo(f"{name}: measured", err=True)
    return [name, *(f"{tiles / seconds:.1f}" for seconds in wall), *ratios]


def training_cost(patients: Sequence[tuple[Path, Path]], out: Path, width: int, tiles: int, epochs: int) -> dict[str, float]:
    """What the command that trains costs; its model folder is `out`."""
    shutil.rmtree(out, ignore_errors=True)
    folders = [part for prepared, levels in patients for part in ("--prepared", str(prepared), "--levels", str(levels))]
    limits = ["--width", str(width), "--epochs", str(epochs), "--tiles-per-epoch", str(tiles), "--device", "cpu"]
    return measured(["synthesize", "train-generator", *folders, *limits, "--out", str(out)])


def memory_rows(originals: Sequence[Path], out: Path, width: int, tiles: int) -> list[list[str]]:
    """The peak memory of training on few and on many subjects, with as many tiles.

    By turns and several times, since TensorFlow makes batches ahead of their use, more of them on some runs than on others.
    """
    costs: dict[int, list[dict[str, float]]] = {count: [] for count in SUBJECTS}
    for _ in range(REPEATS):
        for count, found in costs.items():
            found.append(training_cost(subjects(originals, count, out), out / "generator", width, tiles, 2))
            click.echo(f"{count} subjects: trained", err=True)
    return [[str(count), *middle_and_range(found, "memory_gb", 2)] for count, found in costs.items()]


def middle_and_range(costs: Sequence[dict[str, float]], name: str, digits: int) -> list[str]:
    """Median, least and most of one cost of several runs."""
    return [f"{value:.{digits}f}" for value in np.percentile([cost[name] for cost in costs], (50, 0, 100))]


def transplant(donor: tuple[Path, Path], canvas: Path, out: Path) -> Path:
    """A transplant of LOAD_ML at most onto a canvas."""
    for prepared in (donor[0], canvas):
        if not (out / "transforms" / prepared.name).is_dir():
            measured(["register", "--prepared", str(prepared), "--out", str(out / "transforms")])
    transforms = [str(out / "transforms" / prepared.name) for prepared in (donor[0], canvas)]
    scans = ["--donor", str(donor[0]), "--canvas", str(canvas)]
    options = ["--donor-transforms", transforms[0], "--canvas-transforms", transforms[1], "--out", str(out / "register")]
    measured(["register", "pair", *scans, *options])
    pair = out / "register" / f"{donor[0].name}_to_{canvas.name}"
    source = ["--pair", str(pair), "--canvas", str(canvas), "--donor-levels", str(donor[1]), "--load-ml", str(LOAD_ML)]
    measured(["synthesize", "transplant", "--id", "sub-syn0001", *source, "--out", str(out / "transplant")])
    return out / "transplant" / "sub-syn0001"


def painting_row(originals: Sequence[Path], generator: Path | None, out: Path) -> list[str]:
    """What painting one scan costs: at the default width by an untrained network, unless a generator is given."""
    donor, canvas = subjects(originals, 2, out)
    made = transplant(donor, canvas[0], out)
    if generator is None:
        config = CONFIGURATIONS[DEFAULT_CONFIGURATION]
        training_cost([donor], out / "untrained", config.width, config.batch_size, 1)
    scan = ["--transplant", str(made), "--canvas", str(canvas[0]), "--canvas-levels", str(canvas[1])]
    painted = ["--generator", str(generator or out / "untrained"), "--out", str(out / "painted")]
    costs = [measured(["synthesize", "paint", *scan, *painted]) for _ in range(REPEATS)]
    lesion, _ = read_mask(find_image(made, "label-lesion_mask.nii.gz"))
    lesions = f"{np.count_nonzero(lesion) / 1000:.1f} ml in {np.count_nonzero(lesion.any(axis=(0, 1)))} slices"
    times = (figure for name in ("wall_s", "cpu_s") for figure in middle_and_range(costs, name, 0)[:2])
    return [" x ".join(map(str, lesion.shape)), lesions, *times, middle_and_range(costs, "memory_gb", 2)[2]]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for phantoms and generators.")
@click.option("--width", default=8, show_default=True, help="Channels of the first level in training.")
@click.option("--tiles", default=512, show_default=True, help="Tiles of an epoch.")
@click.option(
    "--generator", type=click.Path(exists=True, path_type=Path), help="Model folder to paint with [default: untrained]."
)
def main(out: Path, width: int, tiles: int, generator: Path | None) -> None:
    """Print speed and memory of training and painting, as Markdown tables."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    prepare_environment(None, False)
    originals = phantoms(out)
    header = [
        "canvas",
        "lesions",
        f"painting, s: median of {REPEATS}",
        "least",
        "processor, s: median",
        "least",
        "memory, GB: most",
    ]
    table(header, [painting_row(originals, generator, out)])
    table(["subjects", "training: peak memory, GB: median", "least", "most"], memory_rows(originals, out, width, tiles))
    rows = []
    for name, config in CONFIGURATIONS.items():
        shutil.rmtree(out / "tiles", ignore_errors=True)
        patients = [(Prepared.open(prepared), Levels.open(levels)) for prepared, levels in subjects(originals, PHANTOMS, out)]
        scans = [store_training_scan(prepared, levels, out / "tiles", config) for prepared, levels in patients]
        rows.append(speed_row(name, scans, width, tiles))
    header = [
        "tiles/s",
        "streamed",
        "one array in memory",
        "gathered, no training",
        "streamed / in memory",
        "the same by processor time",
    ]
    table(header, rows)
    cores = len(os.sched_getaffinity(0))
    click.echo(f"Training: width {width}, epochs of {tiles} tiles, {cores} cores, medians of {ROUNDS * (EPOCHS - 1)} epochs.")


if __name__ == "__main__":
    main()
