"""The command `lesionforge assemble`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from lesionforge.assemble.arms import ArmRow, CohortRow, Provenance, arm_rows
from lesionforge.cohort.rows import ARMS
from lesionforge.errors import InputError
from lesionforge.images import Prepared, derivative, read_json, read_tsv, write_tsv

COLUMNS = {
    "arm": "experiment arm",
    "id": "scan",
    "subject": "subject of the scan; a synthetic scan is its own subject",
    "origin": "real or synthetic",
    "split": "train or validation",
    "folder": "folder of the scan, relative to the folder of this table",
}


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


def read_library_donors(cohort: Path) -> frozenset[str]:
    """The ids of the library's masks among the donors in `pairs.tsv` of the cohort folder; none without that table."""
    path = cohort / "pairs.tsv"
    if not path.is_file():
        return frozenset()
    return frozenset(pair["donor"] for pair in read_tsv(path).to_dict("records") if pair.get("library_mask"))


def read_provenance(folder: Path) -> Provenance:
    """Donor and canvas of a synthetic scan's folder; raises InputError when its provenance is missing or incomplete."""
    path = folder / derivative(folder.name, "desc-provenance", extension=".json")
    content = read_json(path)
    if not isinstance(content, dict) or not {"donor", "canvas"} <= set(content):
        raise InputError(f"{path}: does not name donor and canvas; make the scan again with lesionforge synthesize paint")
    return Provenance(folder.name, str(content["donor"]), str(content["canvas"]))


def prepared_rows(rows: list[ArmRow], root: Path, out: Path) -> list[dict[str, str]]:
    """The rows of an arm's table in `out`, for the scans that have a folder under `root`; what has none is said.

    Raises InputError when a folder holds no lesion mask.
    """
    found = []
    for row in rows:
        folder = root / ("prepare" if row.origin == "real" else "synthesize") / row.scan_id
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
    help="Folder that holds prepare/<id> and, for the augmented arm, synthesize/sub-syn*.",
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
    library = read_library_donors(cohort)
    synthetic = [read_provenance(folder) for folder in sorted((root / "synthesize").glob("sub-syn*"))]
    tables = {}
    wanted = set(arms)
    if on_subject_error == "skip" and not synthetic and wanted > {"augmented"}:
        click.echo("augmented: is left out, no synthetic scan was painted", err=True)
        wanted -= {"augmented"}
    for arm in sorted(wanted):
        rows = prepared_rows(arm_rows(arm, cohort_rows, synthetic, library), root, out)
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
