"""The command `lesionforge cohort`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from lesionforge.cohort.files import file_warnings, inspect_files, judge_files
from lesionforge.cohort.judge import judge_rows
from lesionforge.cohort.pairs import Plan, plan_pairs
from lesionforge.cohort.rows import REQUIRED_COLUMNS, ROLES, SPLITS, Problem, Row
from lesionforge.cohort.sheet import parse_sheet
from lesionforge.cohort.split import choose_splits, judge_cohort
from lesionforge.cohort.tables import check_destination, write_cohort
from lesionforge.errors import InputError
from lesionforge.nets import read_card

PROGRESS_EVERY = 100


@click.command()
@click.option("--input", "sheet", required=True, type=click.Path(path_type=Path), help="CSV or TSV, one row for each scan.")
@click.option("--root", type=click.Path(path_type=Path), default=None, help="Folder of relative paths [default: the sheet's].")
@click.option("--mode", type=click.Choice(["experiment", "augment", "segment"]), default="experiment", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Chooses empty splits and the pairs.")
@click.option("--synthetic", type=click.IntRange(min=0), default=20, show_default=True, help="Synthetic scans to plan.")
@click.option("--model", type=click.Path(path_type=Path), default=None, help="Folder of a trained cascade, for mode segment.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
def cohort(sheet: Path, root: Path | None, mode: str, seed: int, synthetic: int, model: Path | None, out: Path) -> None:
    """Check a samplesheet and every file in it, split it by subject, plan the synthetic scans.

    Columns: subject, session (optional), role (patient or healthy), split (train, validation, test or empty), t1w, flair,
    lesion_mask (optional), brain_mask (optional: a file, or the word `stripped`). All problems are reported together.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100
    content = read_sheet(sheet)
    check_destination(out, Path(os.path.abspath(sheet)).parent)  # noqa: PTH100
    rows, problems = check_sheet(content, sheet.name, os.path.abspath(root or sheet.parent), mode, seed)  # noqa: PTH100
    problems += check_model(mode, model)
    if problems:
        for problem in sorted(problems, key=lambda problem: problem.line or math.inf):
            click.echo(problem.sentence(sheet.name), err=True)
        number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{sheet}: {number}, listed above; nothing was written, correct the sheet and start again")
    if mode == "segment":
        plan = Plan((), possible=0, filled=False, own=False)
    else:
        plan = plan_pairs(rows, synthetic, np.random.default_rng(seed))
    write_cohort(out, rows, plan)
    click.echo(result_line(rows, plan, synthetic if mode != "segment" else 0))


def read_sheet(sheet: Path) -> bytes:
    """The bytes of the sheet; raises InputError when there is no such file."""
    if sheet.is_dir():
        raise InputError(f"{sheet}: is a folder, and BIDS folders cannot be read yet; give a CSV or TSV sheet")
    if not sheet.is_file():
        raise InputError(f"{sheet}: no such file; check the path")
    return sheet.read_bytes()


def check_sheet(content: bytes, name: str, root: str, mode: str, seed: int) -> tuple[list[Row], list[Problem]]:
    """All rows with their splits chosen, and all problems of rows, cohort and files, found in one pass."""
    required = tuple(name for name in REQUIRED_COLUMNS if mode != "segment" or name != "split")
    rows, problems = parse_sheet(content, required)
    # A row or column that was lost could be the very one the cohort needs.
    complete = not problems
    rows, row_problems = judge_rows(rows, root)
    problems += row_problems
    if mode != "segment":
        rows = choose_splits(rows, seed, need_test=mode == "experiment")
        problems += judge_cohort(rows, need_test=mode == "experiment") if complete else []

    def progress(done: int, total: int) -> None:
        if done % PROGRESS_EVERY == 0:
            click.echo(f"cohort: {done} of {total} files read", err=True)

    facts = inspect_files(rows, int(os.environ.get("OMP_NUM_THREADS", "1")), progress)
    for warning in file_warnings(rows, facts):
        click.echo(f"Warning: {warning.sentence(name)}", err=True)
    return rows, problems + judge_files(rows, facts, masks_train=mode != "segment")


def check_model(mode: str, model: Path | None) -> list[Problem]:
    """The problem of --model for a mode, if there is one."""
    if mode != "segment":
        return [Problem(f"--model belongs to --mode segment, not {mode}; leave it out or change the mode")] if model else []
    if model is None:
        return [Problem("--mode segment needs --model; give the folder of a trained cascade")]
    try:
        read_card(model, "cascade")
    except InputError as error:
        return [Problem(str(error))]
    return []


def result_line(rows: Sequence[Row], plan: Plan, asked: int) -> str:
    """One line that counts patients and healthy scans per split and the pairs."""
    counts = []
    for split in (*SPLITS, ""):
        inside = [row.role for row in rows if row.split == split]
        if inside:
            words = " and ".join(f"{inside.count(role)} {role}" for role in ROLES if role in inside)
            counts.append(f"{split or 'to segment'} {words}")
    line = f"cohort: {len(rows)} scans ({', '.join(counts)}), synthetic scans planned: {len(plan.pairs)}"
    if len(plan.pairs) < asked:
        line += f" of {asked} asked for (there are no more pairs)"
    if plan.pairs and plan.filled:
        line += "; no healthy scans, so lesion-filled patients are the canvases"
    if plan.own:
        line += "; with a single patient, it is painted onto its own filled scan"
    return line
