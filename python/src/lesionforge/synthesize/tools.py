"""`lesionforge fill`, `levels` and `paint`: steps of the synthesis for one subject's own scans."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lesionforge.prepare.command import (
    brain_mask_of,
    brain_option,
    engine_option,
    flair_option,
    further_scans,
    lesion_option,
    pdw_option,
    scan_id_of,
    t1w_option,
    t2w_option,
    voxel_option,
)
from lesionforge.synthesize.command import FOLDER, SEED

if TYPE_CHECKING:
    from lesionforge.images import Prepared

MASK = click.option(
    "--mask",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Lesions to paint, 0/1, on the grid of one of the scans.",
)
GENERATOR = click.option("--generator", required=True, type=FOLDER, help="Model folder of synthesize train-generator.")
LEVEL = click.option(
    "--level", type=click.IntRange(1, 12), default=6, show_default=True, help="How bright the lesions' inside is in the FLAIR."
)


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a tool that takes one subject's raw scans."""
    subject = click.option("--subject", default="01", show_default=True, help="BIDS subject label, for the names of the results.")
    out = click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for <id>/ and prepare/<id>/.")
    scans = (t1w_option, flair_option, t2w_option, pdw_option)
    for option in reversed((*scans, lesion_option, brain_option, engine_option, voxel_option, subject, out)):
        command = option(command)
    return command


def prepared(
    own: Iterable[str],
    *inputs: Path,
    t1w: Path,
    flair: Path,
    t2w: Path | None,
    pdw: Path | None,
    lesion_mask: Path | None,
    brain_mask: str | None,
    strip_engine: str,
    voxel_mm: float,
    subject: str,
    out: Path,
) -> tuple[Prepared, dict[str, Path]]:
    """Prepare one scan into `out/prepare/<id>`; returns that and the scans as given, by contrast.

    Raises InputError as `refuse_results` does, `own` being the tool's files; `inputs` are what else it reads.
    """
    from lesionforge.images import Prepared
    from lesionforge.prepare.workflow import PREPARED, prepare_scan, refuse_results

    scan_id = scan_id_of(subject, session=None)
    further = further_scans(t2w, pdw)
    refuse_results(out, scan_id, t1w, flair, *further.values(), lesion_mask, *inputs, own=own)
    folder = prepare_scan(
        t1w=t1w,
        flair=flair,
        further=further,
        scan_id=scan_id,
        out=out / PREPARED,
        lesion_mask=lesion_mask,
        brain_mask=brain_mask_of(brain_mask),
        voxel_mm=voxel_mm,
        engine=strip_engine,
    )
    return Prepared.open(folder), {"T1w": t1w, "FLAIR": flair} | further


@click.command(help="Fill the lesions of one subject's raw scans, for volumetry; without a mask, its hyperintensities.")
@scan_options
@SEED
def fill(seed: int, out: Path, **scan: Any) -> None:
    """Prepare, fill on the grids of the scans as given."""
    from lesionforge.synthesize.native import FILLED_FILES, write_filled

    made, scans = prepared(FILLED_FILES, out=out, **scan)
    click.echo(f"{made.scan_id}: filling", err=True)
    record = write_filled(made, scans, out, seed)
    click.echo(f"{record['id']}: {record['T1w']['voxels']} voxels of the T1w filled ({record['filled']}) -> {out / record['id']}")


@click.command(help="Intensity levels of the white-matter hyperintensities of one subject's raw scans.")
@scan_options
@SEED
def levels(seed: int, out: Path, **scan: Any) -> None:
    """Prepare, find the levels, write them on the working grid and on the grids of the scans as given."""
    from lesionforge.synthesize.native import write_native_levels
    from lesionforge.synthesize.stage import LEVELS_FILES, write_levels

    made, scans = prepared(LEVELS_FILES, out=out, **scan)
    click.echo(f"{made.scan_id}: levels", err=True)
    record = write_levels(made, out, seed, lambda folder, levels: write_native_levels(made, levels, scans, folder))
    click.echo(f"{made.scan_id}: {sum(record['level_volumes_ml']['flair']):.1f} ml in levels 1 to 12 -> {out / made.scan_id}")


@click.command(help="Paint the lesions of a mask onto one subject's raw scans.")
@scan_options
@MASK
@LEVEL
@GENERATOR
def paint(mask: Path, level: int, generator: Path, out: Path, **scan: Any) -> None:
    """Check mask and generator, prepare, paint, write the scans on the working grid and on the grids as given."""
    from lesionforge.images import grids_of, read_mask_on
    from lesionforge.images.check import check_mask
    from lesionforge.synthesize.generator_folder import read_generator_card
    from lesionforge.synthesize.levels import SUFFIXES
    from lesionforge.synthesize.native import PAINTED_FILES, write_painted_native

    check_mask(mask)
    read_mask_on(mask, grids_of({"T1w": scan["t1w"], "FLAIR": scan["flair"]} | further_scans(scan["t2w"], scan["pdw"])))
    read_generator_card(generator, tuple(name for name in SUFFIXES if scan[name]))
    made, scans = prepared(PAINTED_FILES, mask, generator, out=out, **scan)
    click.echo(f"{made.scan_id}: painting", err=True)
    record = write_painted_native(made, scans, mask, level, generator, out)
    click.echo(f"{record['id']}: {record['lesion_volume_ml']:.2f} ml of lesions painted -> {out / record['id']}")
