"""A table of predictions and references evaluated under one protocol: one row per pair, and what they amount to."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge.errors import InputError
from lesionforge.evaluate.agreement import AGREEMENT_DESCRIPTIONS, SCORE_DESCRIPTION, isbi2015_score, volume_agreement
from lesionforge.evaluate.calibration import CALIBRATION_DESCRIPTIONS
from lesionforge.evaluate.masks import Pair, evaluate_files, measure_descriptions
from lesionforge.images import read_tsv

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("id", "prediction", "reference")
OPTIONAL = ("probability", "brain_mask")
AGREEMENT_COLUMNS = {
    "measure": "name of the measure",
    "value": "its mean over the scans where it is defined, or what `meaning` says; n/a when undefined",
    "scans": "number of scans it is taken over",
    "reason": "why it is undefined, or in how many scans; n/a when it is defined in all",
    "meaning": "what the measure is",
}
SIZE_COLUMNS = {
    "id": "id of the pair; n/a: the lesions of all pairs together",
    "from_mm3": "reference lesions of at least this volume in mm³",
    "below_mm3": "and of less than this; n/a: without an upper bound",
    "lesions": "number of these lesions",
    "found": "how many of them are found under the protocol",
    "recall": "found / lesions; n/a without lesions of this size",
}


def refuse_other_protocol(measures: Path, protocol: str) -> None:
    """Raise InputError when a table of measures is there under another protocol, and would be replaced."""
    if not measures.is_file():
        return
    there = read_tsv(measures)
    if other := sorted({*there["protocol"]} - {protocol} if "protocol" in there else ()):
        raise InputError(f"{measures}: holds measures under {', '.join(other)}, which would be replaced; give another --out")


def read_pairs(table: Path) -> dict[str, Pair]:
    """Read a TSV of pairs: {id: files}, in its order; paths are relative to the table, other columns are passed over.

    Raises InputError when the table is missing, empty or no TSV, lacks a column, has an id twice or the id n/a, an empty
    cell, or names a file that is not there. Cells of the columns probability and brain_mask may be empty or n/a.
    """
    lines = read_lines(table)
    header = lines[0]
    lacking = [name for name in REQUIRED if name not in header]
    if lacking:
        raise InputError(f"{table}: lacks the column {', '.join(lacking)}; write a TSV with the columns {', '.join(REQUIRED)}")
    twice = [name for name in (*REQUIRED, *OPTIONAL) if header.count(name) > 1]
    if twice:
        raise InputError(f"{table}: has the column {twice[0]} twice; keep one")
    if len(lines) == 1:
        raise InputError(f"{table}: has a header but no rows; write one row for each pair")
    pairs: dict[str, Pair] = {}
    for number, cells in enumerate(lines[1:], start=1):
        if len(cells) != len(header):
            raise InputError(
                f"{table}: row {number} has {len(cells)} cells but the header has {len(header)}; separate all by tabs"
            )
        row = dict(zip(header, cells, strict=True))
        empty = [name for name in REQUIRED if not row[name]]
        if empty:
            raise InputError(f"{table}: row {number} has no {empty[0]}; fill the cell or remove the row")
        if row["id"].lower() == "n/a":
            raise InputError(f"{table}: row {number} has the id n/a, which stands for all pairs together; give it another")
        if row["id"] in pairs:
            raise InputError(f"{table}: has the id {row['id']} twice; give each pair an id of its own")
        pairs[row["id"]] = pair_of_row(table, row)
    return pairs


def read_lines(table: Path) -> list[list[str]]:
    """The lines of a TSV that are not blank, as stripped cells; raises InputError when it is missing, no text or empty.

    `images.read_tsv` is for tables of ours: it renames a column that is there twice and fills up rows that are too short,
    both of which is a fault to be named in a table that a user wrote.
    """
    if not table.is_file():
        raise InputError(f"{table}: no such file; check the path")
    try:
        text = table.read_text(encoding="utf-8-sig")
        lines = [[cell.strip() for cell in cells] for cells in csv.reader(io.StringIO(text), delimiter="\t")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: is no table in UTF-8 text; save it as TSV") from error
    lines = [cells for cells in lines if any(cells)]
    if not lines:
        raise InputError(f"{table}: is empty; write a TSV with the columns {', '.join(REQUIRED)}")
    return lines


def pair_of_row(table: Path, row: dict[str, str]) -> Pair:
    """The files of one row; raises InputError when one is not there."""
    files = {
        name: table.parent / row[name] for name in (*REQUIRED[1:], *OPTIONAL) if row.get(name) and row[name].lower() != "n/a"
    }
    for name, path in files.items():
        if not path.is_file():
            raise InputError(f"{path}: no such file, but {table} names it as {name} of {row['id']}; check the path")
    if "brain_mask" in files and "probability" not in files:
        del files["brain_mask"]  # it only says where probabilities count
    return Pair(**files)


def evaluate_cohort(
    pairs: dict[str, Pair], protocol: str, rater: dict[str, Any] | None = None
) -> tuple[pd.DataFrame, dict[str, str], pd.DataFrame]:
    """Evaluate every pair: (one row per pair; what each of its columns is; one row per pair and size, with SIZE_COLUMNS).

    A row of the first has the id, the measures, and the undefined ones, which are NaN, with their reasons. The last rows of
    the sizes are those of all pairs together, the lesions of all counted as one. Raises InputError as `evaluate_files` does.
    """
    import pandas as pd

    calibrated = any(pair.probability is not None for pair in pairs.values())
    rows, sizes = [], []
    for scan_id, pair in pairs.items():
        got = evaluate_files(pair, protocol, rater)
        reasons = dict(got.reasons)
        if calibrated and pair.probability is None:
            reasons |= dict.fromkeys(CALIBRATION_DESCRIPTIONS, "no probability map is given")
        undefined = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        rows.append({"id": scan_id, "protocol": protocol} | got.measures | {"undefined": undefined or "n/a"})
        sizes += [{"id": scan_id} | asdict(part) | {"recall": part.recall} for part in got.by_size]
    columns = {"id": "id of the pair", "protocol": "protocol of the measures"}
    columns |= measure_descriptions(protocol, calibrated, rater is not None)
    columns["undefined"] = "measures without a value, each with its reason"
    by_size = pd.DataFrame(sizes)
    together = by_size.groupby(["from_mm3", "below_mm3"], as_index=False)[["lesions", "found"]].sum()
    together = together.assign(id="n/a", recall=together["found"] / together["lesions"])
    by_size = pd.concat([by_size, together], ignore_index=True)
    by_size["below_mm3"] = by_size["below_mm3"].replace(float("inf"), float("nan"))
    return pd.DataFrame(rows).reindex(columns=list(columns)), columns, by_size


def summarise_cohort(scans: pd.DataFrame, columns: dict[str, str], protocol: str) -> pd.DataFrame:
    """What the pairs of `evaluate_cohort` amount to, with AGREEMENT_COLUMNS: means and the agreement of volumes.

    Undefined is NaN, with its reason.
    """
    import pandas as pd

    measures = {name: text for name, text in columns.items() if name not in ("id", "protocol", "undefined")}
    values = {name: scans[name].to_numpy(float) for name in measures}
    rows = [mean_row(name, text, values[name]) for name, text in measures.items()]
    volumes, why = volume_agreement(values["volume_predicted_ml"], values["volume_reference_ml"])
    rows += [summary_row(name, volumes[name], len(scans), why.get(name), text) for name, text in AGREEMENT_DESCRIPTIONS.items()]
    if protocol == "isbi2015":
        score, reason = isbi2015_score(values, volumes["volume_pearson"])
        rows.append(summary_row("isbi2015_score", score, len(scans), reason, SCORE_DESCRIPTION))
    return pd.DataFrame(rows)


def summary_row(measure: str, value: float, scans: int, reason: str | None, meaning: str) -> dict[str, Any]:
    """One row of the agreement."""
    return {"measure": measure, "value": value, "scans": scans, "reason": reason or "n/a", "meaning": meaning}


def mean_row(name: str, text: str, values: np.ndarray) -> dict[str, Any]:
    """The mean of a measure over the scans where it is defined, float [scan] with NaN."""
    defined = values[~np.isnan(values)]
    mean = float(defined.mean()) if len(defined) else float("nan")
    reason = f"undefined in {len(values) - len(defined)} of {len(values)} scans" if len(defined) < len(values) else None
    return summary_row(name, mean, len(defined), reason, f"mean over the scans where it is defined of: {text}")
