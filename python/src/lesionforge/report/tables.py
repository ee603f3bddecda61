"""Tables of the page: plain cells, ready for the template, from the tables and JSON files of the stages."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lesionforge.evaluate.charts import TITLES, over_subjects
from lesionforge.images import PLACES, Prepared, label_lesions, read_mask, voxel_volume_mm3
from lesionforge.prepare.quality import Limit, Verdict
from lesionforge.report.gather import Results, flat, real_first, sidecar
from lesionforge.report.quality import ScanQuality, both_limits

if TYPE_CHECKING:
    import pandas as pd

UNITS = {"ml": "ml", "mm3": "mm³", "mm": "mm", "s": "s", "percent": "%", "degrees": "°", "nats": "nats"}
NOTHING = "–"
MEASURES = {
    "dice": "Dice",
    "lesion_sensitivity": "lesion sensitivity",
    "lesion_false_discovery": "lesion false discovery",
    "volume_reference_ml": "volume, reference (ml)",
    "volume_predicted_ml": "volume, predicted (ml)",
    "lesions_reference": "lesions, reference",
    "lesions_predicted": "lesions, predicted",
    "lesions_found": "lesions found",
    "voxel_precision": "voxel precision",
    "voxel_recall": "voxel recall",
}


class JudgedCell(str):
    """A cell's text with the level of its figure (pass, warn or fail) and a hint that shows when it is pointed at."""

    level: str
    hint: str

    def __new__(cls, text: str, level: str, hint: str) -> JudgedCell:
        cell = super().__new__(cls, text)
        cell.level, cell.hint = level, hint
        return cell


@dataclass
class Table:
    """A heading row and rows of text cells; the first cell of a row names it. `note` stands below."""

    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    @property
    def textual(self) -> list[bool]:
        """For each column, whether it holds words (set to the left) and not numbers."""
        numeric = set("0123456789+−" + NOTHING)
        return [any(cell[:1] not in numeric for cell in column if cell) for column in zip(*self.rows, strict=True)]


def label(name: str) -> str:
    """A column name in words, its unit in parentheses: `lesion_volume_ml` becomes `lesion volume (ml)`."""
    words = name.replace("_", " ").split()
    if len(words) > 1 and words[-1] in UNITS:
        return f"{' '.join(words[:-1])} ({UNITS[words[-1]]})"
    return " ".join(words)


def show(value: Any, sign: bool = False) -> str:
    """A value for a reader: whole numbers whole, others with four figures or so, a dash for what is missing or undefined.

    With `sign`, numbers carry + or − (a difference).
    """
    if value is None or value in ("", "n/a"):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if 0 < size < 0.0005:
        text = f"{value:.3g}"
    else:
        text = f"{value:,.{0 if isinstance(value, int) or size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"
    return ("+" + text if sign and value > 0 else text).replace("-", "−").replace(",", "\u2009")


def as_number(text: str) -> float:
    """A table cell as a number (int where it is whole); NaN for `n/a` and other words."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return int(number) if number.is_integer() and "." not in text else number


def show_measure(name: str, text: str) -> str:
    """A cell of an evaluation table for a reader; a mean of counts stays whole if it is."""
    number = as_number(text)
    return show(int(number) if name.startswith("lesions_") and number == number // 1 else float(number))


def evaluation_table(summary: pd.DataFrame) -> Table:
    """Arms side by side, one row per measure; `summary` is summary.tsv as text."""
    summary = summary[summary["subject"] == "n/a"]
    arms = list(summary["arm"])
    scans = dict(zip(arms, summary["n"], strict=True))
    table = Table(["mean over test subjects"] + [f"{arm} (n = {scans[arm]})" for arm in arms])
    table.note = "n: segmentations, each test scan once per run of an arm."
    for name, words in MEASURES.items():
        if name not in summary:
            continue
        cells = []
        for arm, value, defined in zip(arms, summary[name], summary.get(f"{name}_n", summary["n"]), strict=True):
            text = show_measure(name, value)
            cells.append(text if defined == scans[arm] or text == NOTHING else f"{text} ({defined} of {scans[arm]})")
        table.rows.append([words, *cells])
    return table


def scans_table(arms: pd.DataFrame) -> Table:
    """One row per segmented test scan with the measures of the file contract; `arms` is arms.tsv as text."""
    measures = [name for name in MEASURES if name in arms and not name.startswith("voxel_")]
    table = Table(["subject", "arm", *(MEASURES[name] for name in measures)])
    for _, row in arms.iterrows():
        session = "" if row["session"] in ("", "n/a") else f", session {row['session']}"
        seed = "" if row["seed"] == "n/a" else f", seed {row['seed']}"
        table.rows.append([row["subject"] + session, row["arm"] + seed, *(show_measure(name, row[name]) for name in measures)])
    return table


def comparisons_table(comparisons: pd.DataFrame) -> Table:
    """One row per two arms: mean paired difference and interval of each measure; `comparisons` is comparisons.tsv as text."""
    table = Table(["mean paired difference", "test subjects", *TITLES.values()])
    for (arm, against), rows in comparisons.groupby(["arm", "against"], sort=False):
        cells, subjects = [], 0
        for measure in TITLES:
            row = over_subjects(rows[rows["measure"] == measure])
            low, high = (show(float(as_number(row[bound])), sign=True) for bound in ("low", "high"))
            text = show(float(as_number(row["difference"])), sign=True)
            cells.append(text if NOTHING in (low, high) else f"{text} ({low} to {high})")
            subjects = max(subjects, int(row["subjects"]))
        table.rows.append([f"{arm} minus {against}", str(subjects), *cells])
    table.note = "evaluate/comparisons.tsv has each test subject, what was drawn for each interval, and why one is missing."
    return table


def lesion_load(prepared: Prepared) -> tuple[int, float] | None:
    """(number of lesions, volume in ml) of a prepared scan's mask on the working grid; None without a mask."""
    if prepared.lesion is None:
        return None
    mask, affine = read_mask(prepared.lesion)
    return label_lesions(mask)[1], int(mask.sum()) * voxel_volume_mm3(affine) / 1000


def cohort_table(cohort: pd.DataFrame, loads: dict[str, tuple[int, float] | None]) -> Table:
    """One row per scan of the cohort; lesions are counted in the prepared folder."""
    table = Table(["scan", "role", "split", "lesion mask", "lesions", "lesion volume (ml)"])
    for _, row in cohort.iterrows():
        load = loads.get(row["id"])
        count, volume = load if load else (None, None)
        mask = "yes" if row.get("lesion_mask") not in (None, "", "n/a") else "no"
        table.rows.append([row["id"], row["role"], show(row["split"]), mask, show(count), show(volume)])
    table.note = "Lesions are counted on the working grid: 26-connected components of any size."
    return table


def lesions_table(scans: pd.DataFrame) -> Table:
    """How many lesions of which place each model found in each scan; `scans` is segment/scans.tsv as text."""
    counts = {f"lesions_{place}": place for place in PLACES}
    columns = {"lesion_count": "lesions", "volume_ml": "volume (ml)", "largest_lesion_mm3": "largest (mm³)"} | counts
    table = Table(["scan", "model", *columns.values()])
    for _, row in scans.iterrows():
        table.rows.append([row["id"], row["model"], *(show(as_number(row[name])) for name in columns)])
    table.note = (
        "Counted and measured on the working grid. Infratentorial: in cerebellum or brainstem; periventricular: within 3 mm of a "
        "ventricle; juxtacortical: touches grey matter; deep: none of these."
    )
    return table


def keyed_table(records: dict[str, dict[str, Any]]) -> Table | None:
    """One row per scan and one column per key found in any of the records, or the other way round when scans are fewer."""
    keys = list(dict.fromkeys(key for record in records.values() for key in record))
    if not keys:
        return None
    if len(records) < len(keys):
        rows = [[label(key), *(show(record.get(key)) for record in records.values())] for key in keys]
        return Table(["", *records], rows)
    return Table(
        ["scan", *map(label, keys)], [[name, *(show(record.get(key)) for key in keys)] for name, record in records.items()]
    )


def doubtful_table(scans: list[ScanQuality]) -> Table:
    """The scans that do not pass, in the order given, each with what is wrong."""
    return Table(
        ["scan", "status", "what is wrong"],
        [[scan.scan_id, scan.status, "; ".join(scan.reasons)] for scan in scans if scan.status != "pass"],
    )


def quality_table(scans: list[ScanQuality], limits: dict[str, Limit]) -> Table | None:
    """Every figure of the scans that have any, in the order given; each cell bears its level and limits."""

    def cell(verdict: Verdict) -> JudgedCell:
        limit = limits[verdict.figure]
        remedy = "" if verdict.level == "pass" else f"; {limit.remedy}"
        return JudgedCell(show(verdict.value), verdict.level, both_limits(limit) + remedy)

    return keyed_table({scan.scan_id: {name: cell(v) for name, v in scan.verdicts.items()} for scan in scans if scan.verdicts})


def provenance(results: Results, scan_id: str) -> dict[str, Any]:
    """What a synthetic scan was made of, flat, from its provenance file and else from pairs.tsv."""
    planned: dict[str, Any] = {}
    if results.pairs is not None:
        for _, row in results.pairs[results.pairs["synthetic_id"] == scan_id].iterrows():
            planned = {"donor": row["donor"], "canvas": row["canvas"]}
    return planned | flat(sidecar(results.synthetic[scan_id].folder, "desc-provenance"))


def synthetic_table(made_of: dict[str, dict[str, Any]], loads: dict[str, tuple[int, float] | None]) -> Table:
    """One row per synthetic scan: its `provenance`, what became of the donor's lesions, how much lesion it has."""
    fates = ("kept", "moved", "cut", "dropped")
    table = Table(["scan", "donor", "canvas", *(f"lesions {fate}" for fate in fates), "lesions", "lesion volume (ml)"])
    for scan_id, origin in made_of.items():
        counts = {fate: next((origin[key] for key in origin if key.split()[-1] == fate), None) for fate in fates}
        count, volume = loads.get(scan_id) or (None, None)
        table.rows.append([scan_id, *map(show, (origin.get("donor"), origin.get("canvas"), *counts.values(), count, volume))])
    table.note = (
        "Kept: the lesion lies on the canvas whole; moved: whole, up to some millimetres away, where the canvas has room; "
        "cut: only where there is room, and grown again around that; dropped: there is no room near. Lesions never touch, "
        "so none is counted twice."
    )
    return table


def arms_table(results: Results) -> Table | None:
    """How many real and synthetic scans each arm trains on."""
    table = Table(["arm", "real, training", "synthetic, training", "real, validation"])
    for arm in real_first(results.indices):
        index = results.indices[arm]
        kinds = [("real", "train"), ("synthetic", "train"), ("real", "validation")]
        counts = [int(((index["origin"] == origin) & (index["split"] == split)).sum()) for origin, split in kinds]
        table.rows.append([arm, *map(str, counts)])
    return table if table.rows else None


def models_table(cards: dict[str, dict[str, Any]]) -> Table | None:
    """What each model's card says, without checksums and versions."""
    records = {
        name: flat({key: value for key, value in card.items() if key not in ("checksums", "versions")})
        for name, card in cards.items()
    }
    return keyed_table(records)
