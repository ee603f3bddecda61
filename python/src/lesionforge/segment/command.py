"""The command `lesionforge segment`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lesionforge import nets
from lesionforge.segment.workflow import Cascade, in_words, segment_scan


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which cascade to use, and how; shared by segment and predict."""
    options = (
        click.option("--model", required=True, type=click.Path(path_type=Path), help="Model folder of lesionforge train."),
        click.option(
            "--lesion-threshold",
            type=click.FloatRange(0, 1, min_open=True),
            help="A voxel is lesion from this probability on [default: the model's].",
        ),
        click.option(
            "--min-volume-mm3",
            type=click.FloatRange(min=0),
            help="Lesions of this volume or less are dropped [default: the model's].",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(help="Write lesion probability, mask and table of one prepared scan.")
@click.option("--prepared", required=True, type=click.Path(path_type=Path), help="Folder of one prepared scan.")
@model_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for <id>/.")
def segment(prepared: Path, model: Path, lesion_threshold: float | None, min_volume_mm3: float | None, out: Path) -> None:
    """Check the model, segment, say what was found."""
    cascade = Cascade.open(model, lesion_threshold, min_volume_mm3)
    nets.set_up(seed=0)
    click.echo(in_words(segment_scan(prepared, cascade, out)) + f" -> {out}")
