#!/usr/bin/env python3
"""What a threshold or one setting of the cascade is worth, on the scans that an experiment left behind.

    .venv/bin/python benchmarks/ablation.py agreement RESULTS
    .venv/bin/python benchmarks/ablation.py curves RESULTS
    .venv/bin/python benchmarks/ablation.py inference RESULTS --arm synthetic --judge own --set mirrored=false
    .venv/bin/python benchmarks/ablation.py train RESULTS --arm synthetic --seed 1 --set ZOOM=[0.8,2.4] --set synthetic_weight=4

RESULTS is the output folder of an experiment with folds, such as results/experiment-open-ms. `agreement` looks at no mask: it
segments the scans that have none with each network of an arm, by the rules of the default with other highest thresholds, and
prints how alike every two networks' masks are. `curves` reads the probability maps in RESULTS, all by the rules of the default.
`inference` segments with the networks of an arm by changed settings of `CascadeConfig` or other tiles; `train` trains the arm of
each fold anew, with such settings or constants of `train.blocks` changed. Both judge a fold's test scans or, with `--judge own`,
its annotated ones. These three print Dice / lesion sensitivity / false discovery / millilitres as a scan is segmented, by its
own threshold and grown, and at each threshold without growth; where test scans are looked at, what is chosen by their tables is
not blind. All tables are Markdown. Nothing is written.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from dataclasses import fields, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
from prepare import table

from lesionforge import nets
from lesionforge.cascade.settings import CONFIGURATIONS, CascadeConfig
from lesionforge.evaluate.protocols import measure_overlap
from lesionforge.images import Prepared, Scan, find_image, read_mask, read_volume, voxel_volume_mm3
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.report.gather import Results, gather, tested_by
from lesionforge.segment.cascade import found_lesions, lesion_mask, lesion_probability
from lesionforge.segment.workflow import Cascade
from lesionforge.train import blocks
from lesionforge.train.command import read_arm
from lesionforge.train.fit import train_cascade
from lesionforge.train.loading import load_judges
from lesionforge.train.network import DENSE_FACTOR

HIGHEST = (0.9, 0.95, 0.99, 1.0)
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
DEFAULT = CONFIGURATIONS["lesionforge"]
# Constants of train.blocks that inference reads.
TILING = {"LARGEST_TILE", "HALO"}
SETTINGS = {field.name for field in fields(CascadeConfig)}
HEADER = ["run", "scan", "own threshold", "as segmented", *(f"{threshold:g}" for threshold in THRESHOLDS)]
RESULTS = click.argument("results", type=click.Path(exists=True, path_type=Path))
ARM = click.option("--arm", default="augmented", show_default=True)
JUDGE = click.option(
    "--judge",
    type=click.Choice(["test", "own"]),
    default="test",
    show_default=True,
    help="The fold's test scans, or its own annotated ones, which the arm synthetic alone does not hold.",
)
say = partial(click.echo, err=True)


def row_of(run: str, probability: np.ndarray, prepared: Prepared, scan: Scan, config: CascadeConfig) -> list[str]:
    """The row of one probability map [x, y, z] of a scan that was read without its lesion mask, against that mask."""
    voxel_mm3 = voxel_volume_mm3(scan.affine)
    reference = read_mask(prepared.lesion)[0]
    mask, own = found_lesions(probability, scan, config)
    cells = []
    for found in (mask, *(lesion_mask(probability, voxel_mm3, one, config.min_volume_mm3) for one in THRESHOLDS)):
        got = measure_overlap(found, reference, voxel_mm3, "ours").measures
        false = 1 - got["lesion_precision"]
        cells.append(f"{got['dice']:.2f} / {got['lesion_recall']:.2f} / {false:.2f} / {got['volume_predicted_ml']:.1f}")
    say(f"{run}, {prepared.scan_id}: judged")
    return [run, prepared.scan_id, f"{own:.2f}", *cells]


def changed(config: CascadeConfig, changes: dict[str, Any]) -> CascadeConfig:
    """The configuration with what is a field of it changed; what is a constant of `train.blocks` is changed there."""
    for name, value in changes.items():
        if name not in SETTINGS:
            if not name.isupper() or not hasattr(blocks, name):
                raise click.UsageError(f"--set {name}: is no setting of the cascade and no constant of train.blocks; see there")
            if name in TILING and (not isinstance(value, int) or value % DENSE_FACTOR):
                raise click.UsageError(f"--set {name}: is {value}, but must be a multiple of {DENSE_FACTOR}")
            setattr(blocks, name, value)
    return replace(config, **{name: value for name, value in changes.items() if name in SETTINGS})


def parsed(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE with a JSON value, as a dict."""
    try:
        return {name: json.loads(value) for name, value in (text.split("=", 1) for text in given)}
    except ValueError as error:
        raise click.BadParameter("give NAME=VALUE, the value as JSON") from error


CHANGES = click.option(
    "--set", "changes", multiple=True, callback=parsed, help="NAME=VALUE, the value as JSON; may be given again."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """What a threshold or one setting of the cascade is worth."""


@main.command()
@RESULTS
def curves(results: Path) -> None:
    """Print the table of the probability maps that an experiment left in RESULTS."""
    left, rows = gather(results), []
    for run, folders in left.segmented.items():
        for scan_id in sorted(tested_by(left, run) & set(folders)):
            prepared = left.prepared[scan_id]
            path = find_image(folders[scan_id], f"{prepared.grid}_label-lesion_probseg.nii.gz")
            rows.append(row_of(run, read_volume(path)[0], prepared, prepared.unmarked().read(), DEFAULT))
    table(HEADER, rows)


def probability_of(models: dict[str, Any], contrasts: tuple[str, ...], scan: Scan, config: CascadeConfig) -> np.ndarray:
    """What a cascade says of a scan, [x, y, z]."""
    images = list(scan.images(contrasts).values())
    return lesion_probability(models, images, scan.brain, config, voxel_side_mm(scan.affine))


def alike(one: np.ndarray, other: np.ndarray, voxel_mm3: float) -> tuple[float, float]:
    """Dice of two masks, and the mean share of the lesions of each that the other touches."""
    got = measure_overlap(one, other, voxel_mm3, "ours").measures
    return got["dice"], (got["lesion_recall"] + got["lesion_precision"]) / 2


@main.command()
@RESULTS
@ARM
def agreement(results: Path, arm: str) -> None:
    """Print how alike the networks of ARM segment the scans without a lesion mask, by the highest threshold allowed."""
    left, rows = gather(results), []
    cascades = {name: Cascade.open(left.models[name]) for name in runs_of(arm, left.models, results)}
    unmarked = {name: prepared for name, prepared in left.prepared.items() if prepared.lesion is None}
    if len(cascades) < 2 or not unmarked:
        raise click.UsageError(f"--arm {arm}: {results} needs two of its networks and a scan without a lesion mask")
    models = {name: load_judges(one.folder, one.config, one.contrasts) for name, one in cascades.items()}
    for scan_id, prepared in unmarked.items():
        scan = prepared.read()
        maps = [probability_of(models[name], one.contrasts, scan, one.config) for name, one in cascades.items()]
        for highest in HIGHEST:
            found = [found_lesions(one, scan, replace(DEFAULT, lesion_threshold=highest)) for one in maps]
            pairs = [alike(one, other, voxel_volume_mm3(scan.affine)) for (one, _), (other, _) in combinations(found, 2)]
            cells = [f"{mean:.3f}" for mean in np.mean(pairs, axis=0)]
            held = sum(threshold >= highest for _, threshold in found)
            volumes = [mask.sum() * voxel_volume_mm3(scan.affine) / 1000 for mask, _ in found]
            rows.append([scan_id, f"{highest:g}", f"{held} of {len(maps)}", *cells, " ".join(f"{one:.1f}" for one in volumes)])
        say(f"{scan_id}: {len(maps)} networks")
    table(["scan", "highest threshold", "reach it", "Dice", "lesions in common", "ml"], rows)


def runs_of(arm: str, named: Collection[str], results: Path) -> list[str]:
    """The runs of an arm in each fold, of those named; raises UsageError when there are none."""
    if runs := [name for name in named if name.startswith(f"{arm}_fold-")]:
        return runs
    arms = {name.split("_fold-")[0] for name in named}
    raise click.UsageError(f"--arm {arm}: {results} has no folds of it; name one of {', '.join(sorted(arms))}")


def judged_by(judge: str, arm: str, left: Results, run: str) -> list[Prepared]:
    """The scans that a run of an arm is judged on: its test scans, or the annotated ones of its fold."""
    if judge == "own" and arm != "synthetic":
        raise click.UsageError(f"--judge own: {arm} is trained on the very scans; give --arm synthetic")
    tested = tested_by(left, run)
    annotated = {name for name, prepared in left.prepared.items() if prepared.lesion}
    return [left.prepared[name] for name in sorted(tested if judge == "test" else annotated - tested)]


def judged(run: str, models: dict[str, Any], contrasts: tuple[str, ...], prepared: Prepared, config: CascadeConfig) -> list[str]:
    """The row of one scan by a cascade."""
    scan = prepared.unmarked().read()
    return row_of(run, probability_of(models, contrasts, scan, config), prepared, scan, config)


@main.command()
@RESULTS
@ARM
@JUDGE
@CHANGES
def inference(results: Path, arm: str, judge: str, changes: dict[str, Any]) -> None:
    """Segment with each cascade of ARM in RESULTS by changed settings and print its table."""
    if unknown := sorted({*changes} - SETTINGS - TILING):
        raise click.UsageError(f"--set {unknown[0]}: is no setting of the cascade and none of {', '.join(sorted(TILING))}")
    left, rows = gather(results), []
    for run in runs_of(arm, left.models, results):
        scans, one = judged_by(judge, arm, left, run), Cascade.open(left.models[run])
        config = changed(one.config, changes)
        models = load_judges(one.folder, config, one.contrasts)
        rows += [judged(run, models, one.contrasts, prepared, config) for prepared in scans]
    click.echo(" ".join(f"{name}={value}" for name, value in changes.items()))
    table(HEADER, rows)


@main.command()
@RESULTS
@ARM
@click.option("--seed", default=1, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--steps", default=150, show_default=True)
@click.option("--configuration", type=click.Choice([*CONFIGURATIONS]), default="lesionforge", show_default=True)
@JUDGE
@CHANGES
def train(
    results: Path, arm: str, seed: int, epochs: int, steps: int, configuration: str, judge: str, changes: dict[str, Any]
) -> None:
    """Train ARM of each fold in RESULTS with changed settings and print its table."""
    config = changed(replace(CONFIGURATIONS[configuration], epochs=epochs, steps_per_epoch=steps), changes)
    left, rows = gather(results), []
    for run in runs_of(arm, left.indices, results):
        judged_scans = judged_by(judge, arm, left, run)
        with tempfile.TemporaryDirectory() as scratch:
            scans = read_arm(results / "assemble" / f"{run}.tsv", config, None, Path(scratch))
            nets.set_up(seed)
            models, _ = train_cascade(scans.scans["train"], [], config, seed, say, contrasts=scans.contrasts)
        rows += [judged(run, models, scans.contrasts, prepared, config) for prepared in judged_scans]
    how = [f"{configuration}, {epochs} epochs of {steps} steps, seed {seed}"]
    click.echo(" ".join(how + [f"{name}={value}" for name, value in changes.items()]))
    table(HEADER, rows)


if __name__ == "__main__":
    main()
