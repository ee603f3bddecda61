"""The command `lesionforge assemble`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from lesionforge.assemble.arms import MADE, ArmRow, CohortRow, Provenance, arm_rows
from lesionforge.cohort.rows import ARMS
from lesionforge.errors import InputError
from lesionforge.images import Prepared, derivative, read_json, read_tsv, write_tsv

COLUMNS = {
    "arm": "experiment arm",
    "id": "scan",
    "subject": "subject of the scan; a synthetic scan is its own subject",
    "origin": "real, or how the scan was made: synthetic (painted), mix or classical",
    "split": "train or validation",
    "folder": "folder of the scan, relative to the folder of this table",
}

# Where the scans of an origin lie; those that assemble makes itself lie beside the tables.
STAGES = {"real": "prepare", "synthetic": "synthesize"}
KINDS = (("synthesize", "sub-syn"), ("assemble", "sub-cla"), ("assemble", "sub-mix"))


def read_cohort(cohort: Path) -> list[CohortRow]:
    """The rows of `cohort.tsv` in the cohort folder; raises InputError when the file or a column is missing."""
    path = cohort / "cohort.tsv"
    table = read_tsv(path)
    missing = {"id", "subject", "role", "split", "lesion_mask"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: has no column {', '.join(sorted(missing))}; write it again with lesionforge cohort")
    return [
        CohortRow(row["id"], row["subject"], row["role"], row["split"], row["lesion_mask"] not in ("", "n/a"))
        for row in table.to_dict("records")
    ]


def read_plan(cohort: Path) -> list[dict[str, str]]:
    """The rows of `pairs.tsv` in the cohort folder: the scans to make, which name the library's masks; none without that table."""
    path = cohort / "pairs.tsv"
    return read_tsv(path).to_dict("records") if path.is_file() else []


def read_provenance(folder: Path) -> Provenance:
    """What a made scan's folder says it was made of; raises InputError when its provenance is missing or incomplete."""
    path = folder / derivative(folder.name, "desc-provenance", extension=".json")
    content = read_json(path)
    if not isinstance(content, dict) or not {"donor", "canvas"} <= set(content):
        raise InputError(f"{path}: does not name donor and canvas; make the scan again with lesionforge synthesize paint")
    learned_from = tuple(map(str, content.get("generator_scans", [])))
    return Provenance(folder.name, str(content["donor"]), str(content["canvas"]), learned_from)


def prepared_rows(rows: list[ArmRow], root: Path, out: Path) -> list[dict[str, str]]:
    """The rows of an arm's table in `out`, for the scans that have a folder under `root`; what has none is said.

    Raises InputError when a folder holds no lesion mask.
    """
    found = []
    for row in rows:
        folder = root / STAGES.get(row.origin, "assemble") / row.scan_id
        if not folder.is_dir():
            click.echo(f"{row.arm}: {row.scan_id} is left out, it was not prepared", err=True)
            continue
        if Prepared.open(folder).lesion is None:
            raise InputError(f"{folder}: holds no lesion mask; run the stage that writes it again")
        # Paths stay as they are named: symbolic links of a task folder must not be resolved.
        relative = os.path.relpath(folder.absolute(), out.absolute())
        found.append(asdict(row) | {"id": row.scan_id, "folder": relative})
    return found


@click.command(help="Write the table of training and validation scans of each experiment arm.")
@click.option("--cohort", required=True, type=click.Path(path_type=Path), help="Folder that holds cohort.tsv.")
@click.option(
    "--root",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder that holds prepare/<id> and, for the arms that need them, synthesize/sub-syn*, assemble/sub-cla* and sub-mix*.",
)
@click.option("--arm", "arms", required=True, multiple=True, type=click.Choice(ARMS), help="May be given more than once.")
@click.option(
    "--on-subject-error",
    type=click.Choice(["finish", "skip"]),
    default="finish",
    show_default=True,
    help="skip: an arm whose training scans were all lost on the way is left out, if another is not.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for <arm>.tsv.")
def assemble(cohort: Path, root: Path, arms: tuple[str, ...], on_subject_error: str, out: Path) -> None:
    """Check everything first, then write one table per arm."""
    import pandas as pd

    cohort_rows = read_cohort(cohort)
    planned = read_plan(cohort)
    library = frozenset(pair["donor"] for pair in planned if pair.get("library_mask"))
    found = [folder for stage, kind in KINDS for folder in sorted((root / stage).glob(f"{kind}*")) if folder.is_dir()]
    made = [read_provenance(folder) for folder in found]
    tables = {}
    wanted = set(arms)
    bare = {arm for arm in wanted & set(MADE) if not any(scan.scan_id.startswith(MADE[arm]) for scan in made)}
    if not any(pair["synthetic_id"].startswith(MADE["published"]) for pair in planned):
        bare -= {"published"}
    if on_subject_error == "skip" and wanted > bare:
        for arm in sorted(bare):
            click.echo(f"{arm}: is left out, none of the scans that were planned for it was made", err=True)
        wanted -= bare
    elif "published" in bare:
        raise InputError(f"{root}: holds none of the synthetic scans planned for the arm published; run synthesize again")
    for arm in sorted(wanted):
        rows = prepared_rows(arm_rows(arm, cohort_rows, made, library), root, out)
        if any(row["split"] == "train" for row in rows):
            tables[arm] = pd.DataFrame(rows)
        elif on_subject_error == "skip":
            click.echo(f"{arm}: is left out, none of its training scans was prepared", err=True)
        else:
            raise InputError(f"{root}: holds none of the training scans of arm {arm}; run the stages before again")
    if not tables:
        raise InputError(f"{root}: holds no training scan of any arm; run the stages before again")
    for arm, table in tables.items():
        write_tsv(table, out / f"{arm}.tsv", COLUMNS)
    click.echo("; ".join(f"{arm}: {len(table)} scans" for arm, table in tables.items()) + f" -> {out}")
