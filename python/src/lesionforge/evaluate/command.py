"""`lesionforge evaluate`: one mask against another, one scan of an arm, and the arms side by side."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)


def in_words(value: float) -> str:
    """Three decimals, or the word `undefined` for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.3f}"


@click.group(invoke_without_command=True)
@click.option("--prediction", type=FILE, help="Predicted lesion mask, 0/1 NIfTI.")
@click.option("--reference", type=FILE, help="Reference lesion mask on the same grid.")
@click.pass_context
def evaluate(ctx: click.Context, prediction: Path | None, reference: Path | None) -> None:
    """Measure a lesion mask against a reference and print JSON; or measure and compare the arms of an experiment."""
    if ctx.invoked_subcommand is not None:
        return
    if prediction is None or reference is None:
        raise click.UsageError("give both --prediction and --reference, or one of the commands below", ctx)
    from lesionforge.evaluate.masks import measure_files
    from lesionforge.evaluate.metrics import PROTOCOL

    measures = asdict(measure_files(prediction, reference)) | {"protocol": PROTOCOL}
    plain = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in measures.items()}
    click.echo(json.dumps(plain, indent=2))


@evaluate.command()
@click.option("--arm", required=True, help="What the networks were trained on, such as real or augmented.")
@click.option("--prediction", required=True, type=FOLDER, help="Folder of the scan as segment wrote it.")
@click.option("--prepared", required=True, type=FOLDER, help="Prepared folder of the scan, with its lesion mask.")
@click.option("--out", required=True, type=FOLDER, help="Folder for <arm>_<id>.json.")
def scan(arm: str, prediction: Path, prepared: Path, out: Path) -> None:
    """Measure one segmented scan of one arm against its reference mask."""
    from lesionforge.evaluate.arms import scan_row
    from lesionforge.images import write_json

    row = scan_row(arm, prediction, prepared)
    path = out / f"{arm}_{row['id']}.json"
    write_json(row, path)
    click.echo(f"{path}: Dice {in_words(row['dice'])}, {row['lesions_found']} of {row['lesions_reference']} lesions found")


@evaluate.command()
@click.argument("rows", nargs=-1, required=True, type=FILE)
@click.option("--out", required=True, type=FOLDER, help="Folder for arms.tsv and summary.tsv.")
def compare(rows: tuple[Path, ...], out: Path) -> None:
    """Put the ROWS that `evaluate scan` wrote side by side: one table of scans, one of arms."""
    from lesionforge.evaluate.arms import ARMS_COLUMNS, SUMMARY_COLUMNS, read_rows, summarise
    from lesionforge.images import write_tsv

    arms = read_rows(list(rows))
    summary = summarise(arms)
    arms[["session", "undefined"]] = arms[["session", "undefined"]].replace("", "n/a")
    write_tsv(arms, out / "arms.tsv", ARMS_COLUMNS)
    write_tsv(summary, out / "summary.tsv", SUMMARY_COLUMNS)
    means = ", ".join(f"{arm} {in_words(dice)}" for arm, dice in zip(summary["arm"], summary["dice"], strict=True))
    click.echo(f"{out / 'summary.tsv'}: mean Dice {means}")
