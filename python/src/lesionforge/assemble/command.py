"""`lesionforge assemble`: the table of each arm, and the scans of the arms `classical` and `mix`."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path

import click

from lesionforge.assemble.arms import MADE_BY, ArmRow, CohortRow, Provenance, arm_rows, lacks_scans, stage_of
from lesionforge.cohort.rows import ARMS
from lesionforge.errors import InputError
from lesionforge.images import Prepared, derivative, read_json, read_tsv, whole_files, write_tsv
from lesionforge.nets.settings import fits
from lesionforge.options import FOLDER, OUT, SEED, OwnOptionsGroup

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
    """What the folder of a made scan says it was made of; raises InputError when its provenance is missing or incomplete."""
    path = folder / derivative(folder.name, "desc-provenance", extension=".json")
    content = read_json(path)
    if not isinstance(content, dict) or not {"donor", "canvas"} <= set(content):
        raise InputError(f"{path}: does not name donor and canvas; make the scan again")
    learned_from = content.get("generator_scans", [])
    if not fits(learned_from, tuple[str]):
        raise InputError(f"{path}: does not name the scans that its generator learned from; make the scan again")
    return Provenance(folder.name, str(content["donor"]), str(content["canvas"]), tuple(learned_from))


def prepared_rows(rows: list[ArmRow], root: Path, out: Path) -> list[dict[str, str]]:
    """The rows of an arm's table in `out`, for the scans that have a folder under `root`; what has none is said.

    Raises InputError when a folder holds no lesion mask.
    """
    found = []
    for row in rows:
        folder = root / stage_of(row) / row.scan_id
        if not folder.is_dir():
            click.echo(f"{row.arm}: {row.scan_id} is left out, it was not prepared", err=True)
            continue
        if Prepared.open(folder).lesion is None:
            raise InputError(f"{folder}: holds no lesion mask; run the stage that writes it again")
        # Paths stay as they are named: symbolic links of a task folder must not be resolved.
        relative = os.path.relpath(folder.absolute(), out.absolute())
        found.append(asdict(row) | {"id": row.scan_id, "folder": relative})
    return found


def read_made(root: Path) -> list[Provenance]:
    """The scans made of others that lie under `root`, by their folders."""
    found = (folder for prefix, (stage, _) in MADE_BY.items() for folder in sorted((root / stage).glob(f"{prefix}*")))
    return [read_provenance(folder) for folder in found if folder.is_dir()]


@click.group(cls=OwnOptionsGroup, invoke_without_command=True)
@click.option("--cohort", type=click.Path(path_type=Path), help="Folder that holds cohort.tsv.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that holds prepare/<id> and, by arm, synthesize/sub-syn*, assemble/sub-cla* or assemble/sub-mix*.",
)
@click.option("--arm", "arms", multiple=True, type=click.Choice(ARMS), help="May be given more than once.")
@click.option(
    "--on-subject-error",
    type=click.Choice(["finish", "skip"]),
    default="finish",
    show_default=True,
    help="skip: an arm whose training scans were all lost on the way is left out, if another is not.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for <arm>.tsv.")
@click.pass_context
def assemble(
    ctx: click.Context, cohort: Path | None, root: Path | None, arms: tuple[str, ...], on_subject_error: str, out: Path | None
) -> None:
    """Write the table of training and validation scans of each experiment arm (all but --on-subject-error are needed).

    The commands below make the scans of two of the arms.
    """
    if ctx.invoked_subcommand is not None:
        return
    if cohort is None or root is None or not arms or out is None:
        raise click.UsageError("--cohort, --root, --arm and --out are needed.")
    import pandas as pd

    cohort_rows = read_cohort(cohort)
    library = read_library_donors(cohort)
    synthetic = read_made(root)
    tables = {}
    wanted = set(arms)
    lacking = {arm for arm in wanted if lacks_scans(arm, synthetic)}
    if on_subject_error == "skip" and lacking < wanted:
        for arm in sorted(lacking):
            click.echo(f"{arm}: is left out, no scan was made for it", err=True)
        wanted -= lacking
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
    with whole_files(out) as folder:
        for arm, table in tables.items():
            write_tsv(table, folder / f"{arm}.tsv", COLUMNS)
    click.echo("; ".join(f"{arm}: {len(table)} scans" for arm, table in tables.items()) + f" -> {out}")


def refuse_other_ids(scan_id: str, prefix: str) -> None:
    """Raise InputError unless an id is a BIDS subject that begins with the prefix by which the arms know such scans."""
    if not re.fullmatch(rf"{prefix}[A-Za-z0-9]+", scan_id):
        raise InputError(f"--id {scan_id!r}: is no id of such a scan; use letters and digits after {prefix}, as in {prefix}0001")


@assemble.command()
@click.option("--id", "scan_id", required=True, help="Id of the copy, such as sub-cla0001.")
@click.option("--prepared", required=True, type=FOLDER, help="Prepared folder of an annotated scan.")
@SEED
@OUT
def classical(scan_id: str, prepared: Path, seed: int, out: Path) -> None:
    """Copy an annotated scan: flipped, turned, bent, its intensities changed, noisy."""
    from lesionforge.assemble.scans import write_classical

    refuse_other_ids(scan_id, "sub-cla")
    record = write_classical(scan_id, Prepared.open(prepared), out, seed)
    volumes = f"{record['lesion_volume_ml']:.2f} ml of lesions, of {record['source_lesion_volume_ml']:.2f} ml before"
    click.echo(f"{scan_id}: {volumes} -> {out / scan_id}")


@assemble.command()
@click.option("--id", "scan_id", required=True, help="Id of the mixed scan, such as sub-mix0001.")
@click.option("--pair", required=True, type=FOLDER, help="Pair folder of register.")
@click.option("--donor", required=True, type=FOLDER, help="Prepared folder of the annotated scan whose lesions are carved.")
@click.option("--canvas", required=True, type=FOLDER, help="Prepared folder of the scan that receives them.")
@click.option("--canvas-levels", type=FOLDER, help="Levels folder of the canvas, if it is a patient without a lesion mask.")
@SEED
@OUT
def mix(scan_id: str, pair: Path, donor: Path, canvas: Path, canvas_levels: Path | None, seed: int, out: Path) -> None:
    """Paste the lesions of one scan and what is around them into another, as CarveMix does."""
    from lesionforge.assemble.scans import write_mix

    refuse_other_ids(scan_id, "sub-mix")
    record = write_mix(scan_id, pair, Prepared.open(donor), Prepared.open(canvas), canvas_levels, out, seed)
    volumes = f"{record['carved_volume_ml']:.2f} ml pasted, {record['lesion_volume_ml']:.2f} ml of lesions"
    click.echo(f"{scan_id}: {volumes} -> {out / scan_id}")
