#!/usr/bin/env python3
"""What a threshold or one setting of the cascade's training is worth, on the scans that an experiment left behind.

    .venv/bin/python benchmarks/ablation.py curves RESULTS
    .venv/bin/python benchmarks/ablation.py train RESULTS --arm synthetic --seed 1 --set ZOOM=[0.8,2.4] --set synthetic_weight=4

RESULTS is the output folder of an experiment with folds, such as results/experiment-open-ms. `curves` reads the probability maps
in it. `train` trains an arm of each fold anew, with settings of `CascadeConfig` or constants of `train.blocks` changed, and
judges the fold's test scans. Both print a Markdown table: Dice / lesion sensitivity / false discovery / millilitres at each
threshold, and at the scan's own. Nothing is written. Test scans are looked at: what is chosen by these tables is not blind.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from lesionforge import nets
from lesionforge.cascade.settings import CONFIGURATIONS, CascadeConfig
from lesionforge.errors import InputError
from lesionforge.evaluate.protocols import measure_overlap
from lesionforge.images import Prepared, find_image, read_volume, voxel_volume_mm3
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.segment.cascade import lesion_mask, lesion_probability, scan_threshold
from lesionforge.train import blocks
from lesionforge.train.command import read_arm
from lesionforge.train.fit import train_cascade

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FOLD = re.compile(r"(?P<arm>\w+)_fold-(?P<fold>[A-Za-z0-9]+)(_seed-\d+)?")
DEFAULT = CONFIGURATIONS["lesionforge"]


def line(*cells: str) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def judge(probability: np.ndarray, prepared: Prepared, config: CascadeConfig) -> list[str]:
    """The cells of one probability map [x, y, z] against the lesion mask of its scan."""
    reference = prepared.read()
    voxel_mm3 = voxel_volume_mm3(reference.affine)
    own = scan_threshold(probability, prepared.unmarked().read(), config)
    cells = []
    for threshold in (*THRESHOLDS, own):
        found = lesion_mask(probability, voxel_mm3, threshold, config.min_volume_mm3)
        got = measure_overlap(found, reference.lesion & reference.brain, voxel_mm3, "ours").measures
        false = 1 - got["lesion_precision"]
        cells.append(f"{got['dice']:.2f} / {got['lesion_recall']:.2f} / {false:.2f} / {got['volume_predicted_ml']:.1f}")
    return [f"{own:.2f}", cells[-1], *cells[:-1]]


def header() -> str:
    """The head of the table."""
    names = ["run", "test scan", "own threshold", "there", *(f"{threshold:g}" for threshold in THRESHOLDS)]
    return f"{line(*names)}\n{line(*['---'] * len(names))}"


def test_scans(results: Path, fold: str) -> Iterator[Prepared]:
    """The annotated scans of the subject that a fold tests."""
    for folder in sorted((results / "prepare").glob(f"sub-{fold}*")):
        prepared = Prepared.open(folder)
        if re.fullmatch(rf"sub-{fold}(_ses-.*)?", prepared.scan_id) and prepared.lesion:
            yield prepared


def changed(config: CascadeConfig, changes: dict[str, Any]) -> CascadeConfig:
    """The configuration with what is a field of it changed; what is a constant of `train.blocks` is changed there."""
    own = {field.name for field in fields(CascadeConfig)}
    for name, value in changes.items():
        if name not in own:
            if not name.isupper() or not hasattr(blocks, name):
                raise InputError(f"--set {name}: is no setting of the cascade and no constant of train.blocks; see their files")
            setattr(blocks, name, value)
    return replace(config, **{name: value for name, value in changes.items() if name in own})


def parsed(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE with a JSON value, as a dict."""
    try:
        return {name: json.loads(value) for name, value in (text.split("=", 1) for text in given)}
    except ValueError as error:
        raise click.BadParameter("give NAME=VALUE, the value as JSON") from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """What a threshold or one setting of the cascade's training is worth."""


@main.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
def curves(results: Path) -> None:
    """Print the table of the probability maps that an experiment left in RESULTS."""
    print(header())
    for folder in sorted((results / "segment").iterdir()):
        if named := FOLD.fullmatch(folder.name):
            for prepared in test_scans(results, named["fold"]):
                path = find_image(folder / prepared.scan_id, f"{prepared.grid}_label-lesion_probseg.nii.gz")
                print(line(folder.name, prepared.scan_id, *judge(read_volume(path)[0], prepared, DEFAULT)), flush=True)


@main.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.option("--arm", default="augmented", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--steps", default=150, show_default=True)
@click.option("--set", "changes", multiple=True, callback=parsed, help="NAME=VALUE, the value as JSON; may be given again.")
def train(results: Path, arm: str, seed: int, epochs: int, steps: int, changes: dict[str, Any]) -> None:
    """Train ARM of each fold in RESULTS with changed settings and print its table."""
    config = changed(replace(DEFAULT, epochs=epochs, steps_per_epoch=steps), changes)
    name = " ".join([arm, f"seed {seed}", *(f"{key}={value}" for key, value in changes.items())])
    say = partial(click.echo, err=True)
    print(header())
    for index in sorted((results / "assemble").glob(f"{arm}_fold-*.tsv")):
        named = FOLD.fullmatch(index.stem)
        if named is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            scans = read_arm(index, config, None, Path(scratch))
            nets.set_up(seed)
            models, _ = train_cascade(scans.scans["train"], [], config, seed, say, contrasts=scans.contrasts)
        for prepared in test_scans(results, named["fold"]):
            scan = prepared.unmarked().read()
            images = list(scan.images(scans.contrasts).values())
            probability = lesion_probability(models, images, scan.brain, config, voxel_mm=voxel_side_mm(scan.affine))
            print(line(name, prepared.scan_id, *judge(probability, prepared, config)), flush=True)


if __name__ == "__main__":
    main()
