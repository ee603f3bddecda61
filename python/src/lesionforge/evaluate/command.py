"""`lesionforge evaluate`: one mask against another, a table of them, one scan of an arm, and the arms side by side."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lesionforge.options import OwnOptionsGroup

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)
PROTOCOL = click.option(
    "--protocol",
    type=click.Choice(["ours", "isbi2015", "miccai2008", "msseg2016", "wmh2017"]),
    default="ours",
    show_default=True,
    help="Whose definition of a lesion and of a found one.",
)
RATER_HELP = "What `evaluate` printed for a second human rater, for the scores of miccai2008"


def in_words(value: float) -> str:
    """Three decimals, or the word `undefined` for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """The values as JSON can hold them: NaN and infinity become None."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}


@click.group(cls=OwnOptionsGroup, invoke_without_command=True)
@click.option("--prediction", type=FILE, help="Predicted lesion mask, 0/1 NIfTI.")
@click.option("--reference", type=FILE, help="Reference lesion mask on the same grid.")
@PROTOCOL
@click.option("--probability", type=FILE, help="Probability map on the same grid, to measure its calibration.")
@click.option("--brain-mask", type=FILE, help="Where the probabilities count, 0/1 NIfTI [default: the whole grid].")
@click.option("--rater", type=FILE, help=f"{RATER_HELP}.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    prediction: Path | None,
    reference: Path | None,
    protocol: str,
    probability: Path | None,
    brain_mask: Path | None,
    rater: Path | None,
) -> None:
    """Measure a lesion mask against a reference and print JSON; or measure a table of them, or the arms of an experiment."""
    if ctx.invoked_subcommand is not None:
        return
    if prediction is None or reference is None:
        raise click.UsageError("give both --prediction and --reference, or one of the commands below", ctx)
    if brain_mask is not None and probability is None:
        raise click.UsageError("--brain-mask says where probabilities count: give --probability too, or neither", ctx)
    from lesionforge.evaluate.masks import Pair, evaluate_files, read_rater

    pair = Pair(prediction, reference, probability, brain_mask)
    got = evaluate_files(pair, protocol, read_rater(rater, protocol))
    none = {"reason": "no reference lesion of this size"}
    sizes = [asdict(part) | {"recall": part.recall} | ({} if part.lesions else none) for part in got.by_size]
    answer = {"protocol": protocol} | got.measures | {"reasons": got.reasons, "by_size": [plain(part) for part in sizes]}
    click.echo(json.dumps(plain(answer), indent=2))


@evaluate.command()
@click.argument("table", type=FILE)
@PROTOCOL
@click.option("--rater", type=FILE, help=f"{RATER_HELP}; all pairs are held against this one file.")
@click.option("--out", required=True, type=FOLDER, help="Folder for measures.tsv, sizes.tsv and agreement.tsv.")
def cohort(table: Path, protocol: str, rater: Path | None, out: Path) -> None:
    """Measure the pairs of a TABLE: a TSV with id, prediction, reference and, if wanted, probability and brain_mask."""
    from lesionforge.evaluate.cohort import (
        AGREEMENT_COLUMNS,
        SIZE_COLUMNS,
        evaluate_cohort,
        read_pairs,
        refuse_other_protocol,
        summarise_cohort,
    )
    from lesionforge.evaluate.masks import read_rater
    from lesionforge.images import refuse_overwritten_input, whole_files, write_tsv

    tables = [out / f"{name}.tsv" for name in ("measures", "sizes", "agreement")]
    refuse_overwritten_input([*tables, *(path.with_suffix(".json") for path in tables)], table, rater)
    refuse_other_protocol(tables[0], protocol)
    scans, columns, by_size = evaluate_cohort(read_pairs(table), protocol, read_rater(rater, protocol))
    agreement = summarise_cohort(scans, columns, protocol)
    contents = zip(tables, (scans, by_size, agreement), (columns, SIZE_COLUMNS, AGREEMENT_COLUMNS), strict=True)
    with whole_files(out) as folder:
        for path, content, meanings in contents:
            write_tsv(content, folder / path.name, meanings)
    dice = float(agreement.set_index("measure")["value"]["dice"])
    click.echo(f"{tables[-1]}: {len(scans)} pairs under {protocol}, mean Dice {in_words(dice)}")


@evaluate.command()
@click.option("--arm", required=True, help="What the networks were trained on, such as real or augmented.")
@click.option("--prediction", required=True, type=FOLDER, help="Folder of the scan as segment wrote it.")
@click.option("--prepared", required=True, type=FOLDER, help="Prepared folder of the scan, with its lesion mask.")
@click.option("--fold", help="Fold of the experiment that the networks belong to.")
@click.option("--seed", type=click.IntRange(0), help="Seed that the networks were trained with.")
@click.option("--out", required=True, type=FOLDER, help="Folder for <arm>_<id>.json, or <arm>_fold-<F>_seed-<N>_<id>.json.")
def scan(arm: str, prediction: Path, prepared: Path, fold: str | None, seed: int | None, out: Path) -> None:
    """Measure one segmented scan of one arm against its reference mask."""
    from lesionforge.evaluate.arms import row_name, scan_row
    from lesionforge.images import write_json

    row = scan_row(arm, prediction, prepared, fold, seed)
    path = out / row_name(row)
    write_json(row, path)
    click.echo(f"{path}: Dice {in_words(row['dice'])}, {row['lesions_found']} of {row['lesions_reference']} lesions found")


@evaluate.command()
@click.argument("rows", nargs=-1, required=True, type=FILE)
@click.option(
    "--out", required=True, type=FOLDER, help="Folder for arms.tsv, summary.tsv, comparisons.tsv, sizes.tsv and figures."
)
def compare(rows: tuple[Path, ...], out: Path) -> None:
    """Put the ROWS that `evaluate scan` wrote side by side: tables of scans, arms and paired differences, and figures."""
    from lesionforge.evaluate.arms import (
        ARM_SIZE_COLUMNS,
        ARMS_COLUMNS,
        NOT_GIVEN,
        SUMMARY_COLUMNS,
        found_by_size,
        read_rows,
        summarise,
    )
    from lesionforge.evaluate.charts import CAPTIONS, charts_of
    from lesionforge.evaluate.comparisons import COMPARISON_COLUMNS, compare_arms
    from lesionforge.images import whole_files, write_tsv

    arms = read_rows(list(rows))
    summary, comparisons = summarise(arms), compare_arms(arms)
    shown = arms.assign(**{name: arms[name].replace("", NOT_GIVEN) for name in ("session", "undefined")})
    charts = charts_of(arms, comparisons)
    with whole_files(out) as folder:
        write_tsv(shown, folder / "arms.tsv", ARMS_COLUMNS)
        write_tsv(summary, folder / "summary.tsv", SUMMARY_COLUMNS)
        write_tsv(comparisons, folder / "comparisons.tsv", COMPARISON_COLUMNS)
        write_tsv(found_by_size(arms), folder / "sizes.tsv", ARM_SIZE_COLUMNS)
        for name, figure in charts.items():
            figure.savefig(folder / name, metadata={"Software": None})
    # Those of other rows, which this time leave nothing to draw.
    for name in CAPTIONS.keys() - charts.keys():
        (out / name).unlink(missing_ok=True)
    means = ", ".join(f"{row['arm']} {in_words(row['dice'])}" for _, row in summary.iterrows() if row["subject"] == NOT_GIVEN)
    click.echo(f"{out / 'summary.tsv'}: mean Dice {means}")
