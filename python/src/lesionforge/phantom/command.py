"""`lesionforge phantom`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from lesionforge.options import FiniteRange


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--patients", type=click.IntRange(min=0), default=4, show_default=True, help="Heads with lesions.")
@click.option("--healthy", type=click.IntRange(min=0), default=2, show_default=True, help="Heads without lesions.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--voxel-mm", type=FiniteRange(0.5, 8), default=2.0, show_default=True, help="Voxel size of the T1w in mm.")
def phantom(out: Path, patients: int, healthy: int, seed: int, voxel_mm: float) -> None:
    """Make a cohort of synthetic heads with known lesions in the new folder OUT.

    OUT is a BIDS dataset; OUT/cohort.csv is its samplesheet. FLAIR slices are twice --voxel-mm thick.
    """
    from lesionforge.phantom.cohort import write_cohort

    write_cohort(out, patients, healthy, seed, voxel_mm, progress=partial(click.echo, err=True))
    click.echo(f"{out / 'cohort.csv'}: {patients} patients, {healthy} healthy")
