"""`lesionforge segment`: one prepared scan, and the table of all that were segmented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lesionforge import nets
from lesionforge.options import FiniteRange, OwnOptionsGroup
from lesionforge.segment.workflow import Cascade, in_words, segment_scan

model_path = click.Path(path_type=Path)
MODEL_HELP = "Model folder of lesionforge train."


def threshold_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that replace thresholds of the model; shared by segment and predict."""
    options = (
        click.option(
            "--lesion-threshold",
            type=FiniteRange(0, 1, min_open=True),
            help="A voxel is lesion from this probability on, and lesions do not grow "
            "[default: the model's, of ours the scan's own and 15 mm of growth].",
        ),
        click.option(
            "--min-volume-mm3",
            type=FiniteRange(0, 1_000_000),
            help="Lesions of this volume or less are dropped, before they grow [default: the model's].",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(cls=OwnOptionsGroup, invoke_without_command=True)
@click.option("--prepared", type=click.Path(path_type=Path), help="Folder of one prepared scan.")
@click.option("--model", type=model_path, help=MODEL_HELP)
@click.option("--name", help="What the results call the model [default: its folder's name].")
@threshold_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder for <id>/.")
@click.pass_context
def segment(
    ctx: click.Context,
    prepared: Path | None,
    model: Path | None,
    name: str | None,
    lesion_threshold: float | None,
    min_volume_mm3: float | None,
    out: Path | None,
) -> None:
    """Write lesion probability, mask and table of one prepared scan (--prepared, --model and --out are needed)."""
    if ctx.invoked_subcommand is not None:
        return
    if prepared is None or model is None or out is None:
        raise click.UsageError("--prepared, --model and --out are needed.")
    cascade = Cascade.open(model, lesion_threshold, min_volume_mm3)
    nets.set_up(seed=0)
    click.echo(in_words(segment_scan(prepared, cascade, out, name)) + f" -> {out}")


@segment.command()
@click.argument("summaries", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for scans.tsv.")
def tabulate(summaries: tuple[Path, ...], out: Path) -> None:
    """Put the SUMMARIES of segmented scans (their desc-segment.json) into one table of a cohort."""
    from lesionforge.images import whole_files, write_tsv
    from lesionforge.segment.lesions import SCAN_COLUMNS, scans_table

    table = scans_table(list(summaries))
    with whole_files(out) as folder:
        write_tsv(table, folder / "scans.tsv", {name: text for name, text in SCAN_COLUMNS.items() if name in table})
    empty = int((table["lesion_count"] == 0).sum())
    click.echo(f"{out / 'scans.tsv'}: {len(table)} segmentations, {empty} of them without a lesion")
