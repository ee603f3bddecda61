"""The command `lesionforge cohort`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import click

from lesionforge.cascade.settings import Architecture
from lesionforge.cohort.bids import read_bids
from lesionforge.cohort.cascades import Cascades
from lesionforge.cohort.files import file_warnings, inspect_files, judge_files, judge_lesions, shared_files
from lesionforge.cohort.folds import FOLDS, Fold, folds_of, judge_folds, rotate, unused_masks
from lesionforge.cohort.judge import contrasts_of, judge_rows, uneven_contrasts, used_rows
from lesionforge.cohort.library import Library, read_library
from lesionforge.cohort.pairs import Plan, judge_mix, plan_folds
from lesionforge.cohort.rows import (
    ANNOTATED_ARMS,
    ARMS,
    DEFAULT_ARMS,
    MADE_ARMS,
    PAINTED_ARMS,
    REQUIRED_COLUMNS,
    ROLES,
    SPLITS,
    Problem,
    Row,
)
from lesionforge.cohort.sheet import parse_sheet
from lesionforge.cohort.split import Needs, choose_splits, judge_cohort
from lesionforge.cohort.tables import FILES, write_cohort
from lesionforge.errors import InputError
from lesionforge.images import refuse_loss
from lesionforge.nets.devices import threads
from lesionforge.options import FiniteRange
from lesionforge.prepare.engines import NAMES, require_engine

PROGRESS_EVERY = 100


@click.command()
@click.option("--input", "source", required=True, type=click.Path(path_type=Path), help="CSV or TSV, or a BIDS folder.")
@click.option("--root", type=click.Path(path_type=Path), default=None, help="Folder of relative paths [default: the sheet's].")
@click.option("--mode", type=click.Choice(["experiment", "augment", "segment"]), default="experiment", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Chooses empty splits and the pairs.")
@click.option("--synthetic", type=click.IntRange(min=0), default=10, show_default=True, help="Synthetic scans to plan.")
@click.option(
    "--arm", "arms", multiple=True, type=click.Choice(ARMS), default=DEFAULT_ARMS, show_default=True, help="May be repeated."
)
@click.option("--folds", type=click.Choice(FOLDS), default=None, help="Every annotated patient is tested once, the others train.")
@click.option("--train-on", type=click.IntRange(min=1), default=None, help="So many annotated patients train, drawn by --seed.")
@click.option("--lesion-library", type=click.Path(path_type=Path), default=None, help="Folder of lesion masks in template space.")
@click.option(
    "--lesion-load",
    type=FiniteRange(min=0, min_open=True),
    default=None,
    help="Lesion load of each synthetic scan in ml [default: drawn from those of the donors].",
)
@click.option("--model", type=click.Path(path_type=Path), default=None, help="Folder of a trained cascade, for mode segment.")
@click.option("--init", type=click.Path(path_type=Path), default=None, help="Folder of a cascade that training will start from.")
@click.option("--baseline", type=click.Path(path_type=Path), default=None, help="Folder of a cascade to compare the arms with.")
@click.option("--network", type=click.Choice(get_args(Architecture)), default=None, help="Network that --init must hold.")
@click.option(
    "--voxel-mm",
    type=FiniteRange(0.5, 4),
    default=1.0,
    show_default=True,
    help="Voxel size that the scans will be prepared at; --model, --init and --baseline must be for it.",
)
@click.option(
    "--strip-engine",
    type=click.Choice(NAMES),
    default="builtin",
    show_default=True,
    help="What will strip the skulls; it must be installed.",
)
@click.option(
    "--on-subject-error",
    type=click.Choice(["finish", "skip"]),
    default="finish",
    show_default=True,
    help="A scan or a mask of the library that is broken: refuse the cohort, or leave it out.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
def cohort(
    source: Path,
    root: Path | None,
    mode: str,
    seed: int,
    synthetic: int,
    arms: tuple[str, ...],
    folds: str | None,
    train_on: int | None,
    lesion_library: Path | None,
    lesion_load: float | None,
    model: Path | None,
    init: Path | None,
    baseline: Path | None,
    network: str | None,
    voxel_mm: float,
    strip_engine: str,
    on_subject_error: str,
    out: Path,
) -> None:
    """Check a samplesheet or BIDS folder and every file of it, split it by subject, plan the synthetic scans.

    Columns of a sheet: subject, session (optional), role (patient or healthy), split (train, validation, test or empty), t1w,
    flair, t2w and pdw (optional, for all scans or none), lesion_mask (optional), brain_mask (optional: a file, or the word
    `stripped`). A BIDS folder says role and split in participants.tsv and has its masks in derivatives. All problems are
    reported together.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100
    source = Path(os.path.abspath(source))  # noqa: PTH100
    rows, problems, remarks = read_rows(source, root, mode)
    refuse_loss(out, source, own=FILES)
    # A row or column that was lost could be the very one the cohort needs.
    complete = not problems
    problems += option_problems(mode, arms, synthetic, {"--folds": folds, "--train_on": train_on})
    rows, row_problems = judge_rows(rows, os.path.abspath(root or source.parent))  # noqa: PTH100
    used = used_rows(rows, mode)
    cascades = Cascades(mode, model, init, network, voxel_mm, baseline, contrasts_of(used))
    problems += uneven_contrasts(used)
    problems += row_problems + list(shared_files(rows)) + cascades.model_problems() + check_strip(strip_engine, rows)
    skip = on_subject_error == "skip"
    needs = None if mode == "segment" else needs_of(mode, arms, lesion_library, synthetic, folds, baseline)
    checked = check_files(rows, needs, seed, skip)
    init_problems, init_remarks = cascades.init_problems(checked.rows)
    problems += init_problems
    remarks += init_remarks
    measured, seen_remarks = cascades.seen_by_model(checked.rows) if not problems else (checked.rows, [])
    remarks += seen_remarks
    of_cohort = folds_of(measured, bool(needs and needs.folds), train_on, seed)
    library = Library([], [], [], [])
    if lesion_library is not None and needs:
        library = read_library(Path(os.path.abspath(lesion_library)), of_cohort)  # noqa: PTH100
    problems += library.problems
    remarks += library.remarks
    if complete and used and not used_rows(checked.rows, mode):
        problems.append(Problem(f"has no {'patient' if mode == 'segment' else 'scan'} without a broken file; correct the files"))
    elif complete and rows and not used:
        problems.append(Problem("has no patient, and only patients are segmented; give at least one scan the role patient"))
    elif complete and needs:
        # A library that is at fault itself, or will be corrected, brings no second complaint.
        library_left = bool(library.donors or library.problems or (library.broken and not skip))
        if not needs.folds:
            problems += judge_cohort(checked.rows, needs, library_left)
        problems += judge_folds(checked.rows, needs.folds, train_on, seed)
        problems += judge_mix(of_cohort) if "mix" in arms else []
        remarks += unused_masks(of_cohort)
        remarks += arm_left_out(checked.rows, arms) if not needs.annotated else []
    file_problems = [*checked.file_problems, *(problem for _, problem in library.broken)]

    warnings = [warning.sentence(source.name) for warning in (*remarks, *checked.warnings)]
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    refused = [] if skip and not problems else [*problems, *file_problems]
    if refused:
        echo_problems(refused, source)
        number = "1 problem" if len(refused) == 1 else f"{len(refused)} problems"
        raise InputError(f"{source}: {number}, listed above; nothing was written, correct what is named there and start again")
    echo_problems(file_problems, source)
    plan = Plan((), filled=False, own=False)
    if needs:
        kinds = kinds_of(mode, arms)
        plan = plan_folds(of_cohort, checked.loads_ml, library.donors, kinds, synthetic, lesion_load, seed)
    names = {row.line: row.scan_id for row in rows}
    left_out = [(names[problem.line], problem) for problem in checked.file_problems if problem.line is not None]
    left_out += [(name, replace(problem, text=f"{problem.place}: {problem.text}")) for name, problem in library.broken]
    rows = checked.rows if needs is None or needs.folds else list(of_cohort[0].rows)
    write_cohort(out, rows, of_cohort, plan, left_out, warnings)
    click.echo(result_line(rows, of_cohort, plan, len({name for name, _ in left_out})))


def read_rows(source: Path, root: Path | None, mode: str) -> tuple[list[Row], list[Problem], list[Problem]]:
    """(rows, problems, remarks) of a samplesheet or a BIDS folder; raises InputError when there is no such file or folder."""
    if source.is_dir():
        if root is not None:
            raise InputError(f"{source}: is a folder, and --root belongs to a samplesheet; leave --root out")
        return read_bids(source)
    if not source.is_file():
        raise InputError(f"{source}: no such file; check the path")
    required = tuple(name for name in REQUIRED_COLUMNS if mode != "segment" or name != "split")
    return *parse_sheet(source.read_bytes(), required), []


def option_problems(mode: str, arms: Sequence[str], synthetic: int, of_training: Mapping[str, object]) -> list[Problem]:
    """A problem for each arm that no scan is made for, and for each option of training that is given where nothing is trained."""
    problems = []
    bare = [arm for arm in arms if arm in MADE_ARMS] if mode != "segment" else []
    if synthetic == 0 and bare:
        named = f"arm {bare[0]}" if len(bare) == 1 else f"arms {' and '.join(bare)}"
        problems.append(Problem(f"--synthetic 0 leaves nothing for the {named}; give a number above 0, or --arm real"))
    for option, value in of_training.items():
        if value is not None and mode != "experiment":
            text = f"{option} belongs to --mode experiment, which trains the cascade, not {mode}; leave it out or change the mode"
            problems.append(Problem(text))
    return problems


def needs_of(
    mode: str, arms: Sequence[str], library: Path | None, synthetic: int, folds: str | None, baseline: Path | None
) -> Needs:
    """What a run needs of its patients. Mode augment trains no network, so that an arm may be empty beside another.

    The baseline is adapted to the scans of the arm real.
    """
    bare = [arm for arm in arms if arm in ANNOTATED_ARMS or (arm == "published" and synthetic == 0)]
    if baseline is not None and "real" not in bare:
        bare.append("baseline_adapted")
    return Needs(
        library=library is not None,
        real=bool(bare) and (mode == "experiment" or set(arms) == set(bare)),
        test=mode == "experiment",
        arms=tuple(bare),
        folds=folds is not None and mode == "experiment",
    )


def kinds_of(mode: str, arms: Sequence[str]) -> list[str]:
    """The kinds of scans to make for the arms; mode augment paints in any case."""
    wanted = {"syn": mode == "augment" or set(arms) & set(PAINTED_ARMS), "cla": "classical" in arms, "mix": "mix" in arms}
    return [kind for kind, is_wanted in wanted.items() if is_wanted]


def arm_left_out(rows: Sequence[Row], arms: Sequence[str]) -> list[Problem]:
    """The remark that the arms of annotated scans have none, if they have none."""
    bare = [arm for arm in arms if arm in ANNOTATED_ARMS]
    if not bare or any(row.role == "patient" and row.split == "train" and row.lesion_mask for row in rows):
        return []
    named = f"arm {bare[0]} is" if len(bare) == 1 else f"arms {' and '.join(bare)} are"
    return [Problem(f"no patient of split train has a lesion mask, so the {named} left out")]


@dataclass(frozen=True)
class Checked:
    """Rows whose splits are chosen, without those left out, the problems of their files, the warnings.

    `loads_ml` has the volume of each sound lesion mask by its path.
    """

    rows: list[Row]
    file_problems: list[Problem]
    warnings: list[Problem]
    loads_ml: dict[str, float]


def check_files(rows: list[Row], needs: Needs | None, seed: int, skip: bool) -> Checked:
    """Read all files and choose the splits that a run needs, if any; with `skip`, rows with a broken file are left out before."""

    def progress(done: int, total: int) -> None:
        if done % PROGRESS_EVERY == 0:
            click.echo(f"cohort: {done} of {total} files read", err=True)

    def sound(rows: list[Row], problems: list[Problem]) -> list[Row]:
        broken = {problem.line for problem in problems}
        return [row for row in rows if not (skip and row.line in broken)]

    facts = inspect_files(rows, threads(), progress)
    file_problems = judge_files(rows, facts)
    left = sound(rows, file_problems)
    if needs:
        left = rotate(left) if needs.folds else choose_splits(left, seed, needs)
        file_problems += judge_lesions(left, facts, in_turn=bool(needs.folds))
        left = sound(left, file_problems)
    masks = [row.lesion_mask for row in left if row.lesion_mask]
    loads_ml = {path: facts[path, True].inside_ml for path in masks}
    return Checked(left, file_problems, file_warnings(left, facts), loads_ml)


def echo_problems(problems: Sequence[Problem], source: Path) -> None:
    """Print problems in the order of the rows, those of the whole at the end."""
    for problem in sorted(problems, key=lambda problem: problem.line or math.inf):
        click.echo(problem.sentence(source.name), err=True)


def check_strip(engine: str, rows: Sequence[Row]) -> list[Problem]:
    """The problems of --strip-engine: its program is not installed, or masks are to be given and a row has none."""
    if engine == "given":
        text = "is empty, but with --strip_engine given each scan needs a mask, or the word stripped; add it or choose builtin"
        return [row.problem(text, "brain_mask") for row in rows if row.brain_mask == ""]
    try:
        require_engine(engine)
    except InputError as error:
        return [Problem(str(error))]
    return []


def result_line(rows: Sequence[Row], folds: Sequence[Fold], plan: Plan, left_out: int) -> str:
    """One line that counts patients and healthy scans per split, the folds, the scans to make, the masks of a library."""
    counts = []
    for split in (*SPLITS, ""):
        inside = [row.role for row in rows if row.split == split]
        # Only the mode segment leaves scans without a split, and it segments patients alone.
        joint = " and " if split else ", not to segment "
        if words := joint.join(f"{inside.count(role)} {role}" for role in ROLES if role in inside):
            counts.append(f"{split or 'to segment'} {words}")
    line = f"cohort: {len(rows)} scans ({', '.join(counts)}), synthetic scans planned: {len(plan.pairs)}"
    if folds[0].label:
        line += f", folds: {len(folds)}"
    if masks := {pair.donor.mask for pair in plan.pairs if pair.donor.mask}:
        line += f", {len(masks)} masks of the library among the donors"
    if plan.filled and any(pair.kind == "syn" for pair in plan.pairs):
        line += "; no healthy scans, so lesion-filled patients are the canvases"
    if left_out:
        line += f"; left out for broken files: {left_out}"
    if plan.own:
        line += "; with a single patient, it is painted onto its own filled scan"
    return line
