"""`lesionforge phantom`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from lesionforge.options import FiniteRange

# All slices but the T1w's are twice as thick: 12 mm is the most that the check of scans takes.
MOST_MM = 6


def further_contrasts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """The contrasts besides T1w and FLAIR in a list with commas; raises click.BadParameter when it is none of contrasts."""
    from lesionforge.images.names import ALWAYS, CONTRASTS, in_order

    named = value.split(",")
    if len(set(named)) < len(named) or not set(ALWAYS) <= set(named) <= set(CONTRASTS):
        raise click.BadParameter(f"{value} is not T1w,FLAIR and maybe T2w, PDw.")
    return in_order(named)[len(ALWAYS) :]


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--patients", type=click.IntRange(min=0), default=4, show_default=True, help="Heads with lesions.")
@click.option("--healthy", type=click.IntRange(min=0), default=2, show_default=True, help="Heads without lesions.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--voxel-mm", type=FiniteRange(0.5, MOST_MM), default=2.0, show_default=True, help="Voxel size of the T1w in mm.")
@click.option(
    "--contrasts",
    default="T1w,FLAIR",
    show_default=True,
    callback=further_contrasts,
    help="Contrasts of each head, comma-separated: T1w and FLAIR, and T2w, PDw or both.",
)
def phantom(out: Path, patients: int, healthy: int, seed: int, voxel_mm: float, contrasts: tuple[str, ...]) -> None:
    """Make a cohort of synthetic heads with known lesions in the new folder OUT.

    OUT is a BIDS dataset; OUT/cohort.csv is its samplesheet. All slices but the T1w's are twice --voxel-mm thick.
    """
    from lesionforge.phantom.cohort import write_cohort

    write_cohort(out, patients, healthy, seed, voxel_mm, progress=partial(click.echo, err=True), further=contrasts)
    click.echo(f"{out / 'cohort.csv'}: {patients} patients, {healthy} healthy")
