"""Tables of an experiment: one row per arm and test scan, and what the arms amount to."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionforge.errors import InputError
from lesionforge.evaluate.detection import Lesions
from lesionforge.evaluate.masks import Pair, evaluate_files
from lesionforge.evaluate.protocols import DESCRIPTIONS, Evaluation, Measured, Reasons
from lesionforge.images import Prepared, derivative, read_json, scan_labels

if TYPE_CHECKING:
    import pandas as pd

PROTOCOL = "ours"
LABEL = re.compile(r"[A-Za-z0-9-]+")
KEYS = ("arm", "subject", "session", "fold", "seed")
NOT_GIVEN = "n/a"
LESION_LISTS = tuple(part.name for part in fields(Lesions))

# What a protocol calls otherwise: the name in the arms' tables, and the measure it is made of.
RENAMED = {"lesion_sensitivity": "lesion_recall", "lesion_false_discovery": "lesion_precision"}
# Every measure of the arms, in the order of the tables; the first five are the promise of the file contract.
MEASURES = {
    "dice": DESCRIPTIONS["dice"],
    "lesion_sensitivity": DESCRIPTIONS["lesion_recall"],
    "lesion_false_discovery": f"1 less the {DESCRIPTIONS['lesion_precision']}",
    **{
        name: DESCRIPTIONS[name]
        for name in (
            "volume_reference_ml",
            "volume_predicted_ml",
            "lesions_reference",
            "lesions_predicted",
            "lesions_found",
            "voxel_precision",
            "voxel_recall",
            "avd_percent",
        )
    },
}

ARMS_COLUMNS = {
    "arm": "experiment arm: what the networks were trained on; lesions are 26-connected, of any size, and found by any overlap",
    "subject": "subject label of the test scan, without sub-",
    "session": "session label without ses-; n/a without sessions",
    **MEASURES,
    "fold": "fold of the experiment that the networks belong to; n/a without folds",
    "seed": "seed that the networks were trained with; n/a without",
    "undefined": "measures without a value, each with its reason",
}
DIFFERENCE = "augmented minus real"
SUMMARY_COLUMNS = {
    "arm": f"experiment arm, or `{DIFFERENCE}`: the mean of the differences scan by scan",
    "n": "number of test scans, or of scans in both arms",
} | {
    column: text
    for name, description in MEASURES.items()
    for column, text in ((name, f"mean over the scans where it is defined of: {description}"), (f"{name}_n", f"scans in {name}"))
}


def scan_row(
    arm: str, prediction: Path, prepared_folder: Path, fold: str | None = None, seed: int | None = None
) -> dict[str, Any]:
    """Measure one segmented scan against the lesion mask of its prepared folder, on the working grid.

    `prediction` is the folder that `lesionforge segment` wrote for the scan. Undefined measures are NaN. `lesions` holds
    the lesions one by one (`detection.Lesions`), which the bootstrap of `evaluate compare` draws from.
    Raises InputError when the prepared folder is not named by a scan or has no lesion mask, or the prediction is missing or
    on another grid.
    """
    prepared = Prepared.open(prepared_folder)
    subject, session = scan_labels(prepared.scan_id)
    for name, label in (("arm", arm), ("fold", fold)):
        if label is not None and LABEL.fullmatch(label) is None:
            raise InputError(f"--{name} {label!r}: is not made of letters, digits and hyphens; rename the {name}")
    if prepared.lesion is None:
        raise InputError(f"{prepared_folder}: has no lesion mask to measure against; prepare the scan with --lesion-mask")
    mask = prediction / derivative(prepared.scan_id, prepared.grid, "label-lesion_mask")
    got = evaluate_files(Pair(mask, prepared.lesion), PROTOCOL)
    values, reasons = measures_of_arm(got)
    labels = {"arm": arm, "id": prepared.scan_id, "subject": subject, "session": session, "protocol": PROTOCOL}
    run = {"fold": fold or NOT_GIVEN, "seed": NOT_GIVEN if seed is None else seed}
    return labels | run | values | {"reasons": reasons, "lesions": plain_lesions(got.lesions)}


def row_name(row: dict[str, Any]) -> str:
    """The file name of a row: `<arm>_<id>.json`, with fold and seed where there are: `<arm>_fold-<F>_seed-<N>_<id>.json`."""
    run = [f"{name}-{row[name]}" for name in ("fold", "seed") if row[name] != NOT_GIVEN]
    return "_".join([row["arm"], *run, row["id"]]) + ".json"


def plain_lesions(lesions: Lesions) -> dict[str, list[float]]:
    """The lesions as JSON holds them, one list each: numbers to four decimals, yes and no as 1 and 0."""
    return {name: getattr(lesions, name).astype(float).round(4).tolist() for name in LESION_LISTS}


def measures_of_arm(got: Evaluation) -> tuple[Measured, Reasons]:
    """MEASURES, and why each that is NaN is undefined, from what a protocol measures."""
    made_of = {name: RENAMED.get(name, name) for name in MEASURES}
    values = {name: got.measures[source] for name, source in made_of.items()}
    values["lesion_false_discovery"] = 1 - values["lesion_false_discovery"]
    return values, {name: got.reasons[source] for name, source in made_of.items() if source in got.reasons}


def read_rows(paths: list[Path]) -> pd.DataFrame:
    """Read the JSON rows of `evaluate scan` into one table, scan by scan, the real arm first.

    Raises InputError when a file is no such row, or two files are of the same arm, fold, seed and scan.
    """
    import pandas as pd

    first: dict[tuple[str, ...], Path] = {}
    rows = []
    for path in paths:
        row = read_json(path)
        missing = [name for name in (*KEYS, *MEASURES) if not isinstance(row, dict) or name not in row]
        if missing:
            raise InputError(f"{path}: has no {missing[0]}; give files that `lesionforge evaluate scan` wrote")
        key = tuple(str(row[name]) for name in KEYS)
        if key in first:
            raise InputError(f"{path}: is of the same arm, fold, seed and scan as {first[key]}; give each once")
        first[key] = path
        reasons = row.get("reasons", {})
        rows.append(row | {"undefined": "; ".join(f"{name}: {why}" for name, why in sorted(reasons.items()))})
    table = pd.DataFrame(rows)
    for name in MEASURES:
        table[name] = pd.to_numeric(table[name])
    table["seed"] = table["seed"].astype(str)
    numbers = pd.to_numeric(table["seed"], errors="coerce")
    ranked = table.assign(later=table["arm"] != "real", number=numbers)
    order = ranked.sort_values(["subject", "session", "later", "arm", "fold", "number"], na_position="first").index
    return table.loc[order].reset_index(drop=True)


def average(label: str, values: pd.DataFrame) -> dict[str, Any]:
    """One row of the summary: the mean of each measure over the scans where it is defined, and how many those are."""
    row: dict[str, Any] = {"arm": label, "n": len(values)}
    for name in MEASURES:
        row |= {name: values[name].mean(), f"{name}_n": int(values[name].notna().sum())}
    return row


def summarise(arms: pd.DataFrame) -> pd.DataFrame:
    """The mean of each measure in each arm, and the paired difference augmented minus real over the scans in both.

    `arms` has one row per arm and scan, as `read_rows` gives it. A measure defined in no scan is NaN; a scan where a
    measure is undefined in one arm counts in that arm's mean alone, not in the difference.
    """
    import pandas as pd

    measures = list(MEASURES)
    by_arm = {str(arm): rows.set_index(["subject", "session"])[measures] for arm, rows in arms.groupby("arm", sort=False)}
    rows = [average(arm, by_arm[arm]) for arm in sorted(by_arm, key=lambda arm: (arm != "real", arm))]
    if {"real", "augmented"} <= set(by_arm):
        both = by_arm["augmented"].index.intersection(by_arm["real"].index)
        if len(both):
            rows.append(average(DIFFERENCE, by_arm["augmented"].loc[both] - by_arm["real"].loc[both]))
    return pd.DataFrame(rows)
