#!/usr/bin/env python3
"""What a GPU is worth: training of both networks' kinds and inference on it beside the same machine's processors.

    .venv/bin/python benchmarks/gpu.py PREPARED --out FOLDER

PREPARED is the folder of one prepared scan with a lesion mask. Networks have random weights, which cost what trained ones do.
Each measurement runs in a process of its own, once before it counts: graphs are built and compiled then. Exits with code 2 where
Keras' backend finds no GPU.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from cascade import Measurement, alone, difference, networks, realistic, stored_samples
from prepare import measured, table
from training import stopwatch

from lesionforge import nets
from lesionforge.cascade.settings import CONFIGURATIONS
from lesionforge.cli import prepare_environment
from lesionforge.errors import InputError
from lesionforge.images import Prepared
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.nets.devices import find_device, on_one_device
from lesionforge.segment.cascade import lesion_probability
from lesionforge.synthesize.config import CONFIGURATIONS as GENERATORS
from lesionforge.synthesize.config import DEFAULT_CONFIGURATION
from lesionforge.synthesize.stage import Levels, store_training_scan
from lesionforge.synthesize.training import train_generator
from lesionforge.train.fit import batches, fit_network
from lesionforge.train.network import build_network

SEED = 1
KINDS = ("gpu", "cpu")
STEPS = {"lesionforge": 40, "published": 100}
TILES = 1024
LAPS = 2


def cascade_training(prepared: Path, name: str, scratch: Path, kind: str) -> Measurement:
    """One epoch of one network."""
    config = replace(CONFIGURATIONS[name], steps_per_epoch=STEPS[name], epochs=LAPS)
    device = find_device(kind).sharing(config.batch_size)
    with on_one_device(device):
        network = build_network(config.network)
    samples = stored_samples([prepared], config, scratch / f"{name}-{kind}")
    times, lap = stopwatch()
    fit_network("cnn1", network, samples, None, config, np.random.default_rng(SEED), lap, device=device)
    return Measurement(None, *min(times[1:]), np.nan)


def batch_making(prepared: Path, name: str, scratch: Path) -> Measurement:
    """Making the batches of one epoch, which threads do while a network learns."""
    config = replace(CONFIGURATIONS[name], steps_per_epoch=STEPS[name])
    samples = stored_samples([prepared], config, scratch / f"{name}-batches")
    times, lap = stopwatch()
    for _ in range(LAPS):
        for _ in batches(samples, config, np.random.default_rng(SEED)):
            pass
        lap()
    return Measurement(None, *min(times[1:]), np.nan)


def generator_training(prepared: Path, levels: Path, scratch: Path, kind: str) -> Measurement:
    """One epoch of a generator of full width."""
    config = replace(GENERATORS[DEFAULT_CONFIGURATION], tiles_per_epoch=TILES, epochs=LAPS, patience=None)
    folder = scratch / f"tiles-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    scan = store_training_scan(Prepared.open(prepared), Levels.open(levels), folder, config)
    times, lap = stopwatch()
    train_generator([scan], [], config, seed=SEED, device=find_device(kind), on_epoch=lap)
    return Measurement(None, *min(times[1:]), np.nan)


def inference(prepared: Path, name: str, kind: str) -> Measurement:
    """Probabilities [x, y, z] of one brain."""
    scan, config = Prepared.open(prepared).read(), CONFIGURATIONS[name]
    with on_one_device(find_device(kind)):
        models = networks(config)
        config = realistic(models, scan, config)
        times, lap = stopwatch()
        for _ in range(LAPS):
            found = lesion_probability(models, [scan.t1w, scan.flair], scan.brain, config, voxel_side_mm(scan.affine))
            lap()
    return Measurement(found, *min(times[1:]), np.nan)


def row(what: str, unit: str, amount: float, measure: Callable[[str], Measurement]) -> tuple[list[str], list[Any]]:
    """Amount a second (or seconds, for an amount of 0) on each kind of device, their ratio; and what was found."""
    results = [measure(kind) for kind in KINDS]
    cells = [f"{amount / one.wall_s:.1f}" if amount else f"{one.wall_s:.2f}" for one in results]
    return [what, unit, *cells, f"{results[1].wall_s / results[0].wall_s:.1f}"], [one.found for one in results]


@click.command()
@click.argument("prepared", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for what is made on the way.")
@click.option("--skip", type=click.Choice(["cascade", "generator", "inference"]), multiple=True, help="A part to leave out.")
def main(prepared: Path, out: Path, skip: tuple[str, ...]) -> None:
    """Print the speed of training and inference on a GPU beside that on the processors, as Markdown tables."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    prepare_environment(None, False)
    nets.set_up(SEED)
    try:
        find_device("gpu")
    except InputError as error:
        raise click.UsageError(str(error)) from error
    levels = out / "levels" / prepared.name
    if not levels.is_dir():
        measured(["synthesize", "levels", "--prepared", str(prepared), "--out", str(out / "levels")])
    import keras

    cores = len(os.sched_getaffinity(0))
    click.echo(f"Keras {keras.__version__} on {keras.backend.backend()}, Python {platform.python_version()}, {cores} cores.\n")
    rows = []
    for name, steps in STEPS.items() if "cascade" not in skip else ():
        amount = steps * CONFIGURATIONS[name].batch_size
        unit = "blocks/s" if CONFIGURATIONS[name].in_blocks else "patches/s"
        cells, _ = row(f"training, {name}", unit, amount, partial(alone, cascade_training, prepared, name, out))
        made = alone(batch_making, prepared, name, out)
        rows.append([*cells, f"{amount / made.wall_s:.1f}"])
    if "generator" not in skip:
        cells, _ = row("training, generator", "tiles/s", TILES, partial(alone, generator_training, prepared, levels, out))
        rows.append([*cells, ""])
    for name in STEPS if "inference" not in skip else ():
        cells, found = row(f"inference, {name}", "s a brain", 0, partial(alone, inference, prepared, name))
        rows.append([*cells, difference(*found)])
    table(["", "", "GPU", "processors", "times faster", "batches made, a second; difference of probabilities"], rows)


if __name__ == "__main__":
    main()
