"""Tables of an experiment: one row per arm and test scan, and what the arms amount to."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionforge.errors import InputError
from lesionforge.evaluate.masks import measure_files
from lesionforge.evaluate.metrics import DESCRIPTIONS, PROTOCOL
from lesionforge.images import Prepared, derivative, read_json

if TYPE_CHECKING:
    import pandas as pd

SCAN_ID = re.compile(r"sub-(?P<subject>[A-Za-z0-9]+)(?:_ses-(?P<session>[A-Za-z0-9]+))?")
ARM = re.compile(r"[A-Za-z0-9-]+")
KEYS = ("arm", "subject", "session")

ARMS_COLUMNS = {
    "arm": "experiment arm: what the networks were trained on",
    "subject": "subject label of the test scan, without sub-",
    "session": "session label without ses-; n/a without sessions",
    **DESCRIPTIONS,
    "undefined": "measures without a value, each with its reason",
}
DIFFERENCE = "augmented minus real"
SUMMARY_COLUMNS = {
    "arm": f"experiment arm, or `{DIFFERENCE}`: the mean of the differences scan by scan",
    "n": "number of test scans, or of scans in both arms",
} | {
    column: text
    for name, description in DESCRIPTIONS.items()
    for column, text in ((name, f"mean over the scans where it is defined of: {description}"), (f"{name}_n", f"scans in {name}"))
}


def scan_row(arm: str, prediction: Path, prepared_folder: Path) -> dict[str, Any]:
    """Measure one segmented scan against the lesion mask of its prepared folder, on the working grid.

    `prediction` is the folder that `lesionforge segment` wrote for the scan. Undefined measures are NaN.
    Raises InputError when the prepared folder has no lesion mask, or the prediction is missing or on another grid.
    """
    prepared = Prepared.open(prepared_folder)
    names = SCAN_ID.fullmatch(prepared.scan_id)
    if names is None:
        raise InputError(f"{prepared_folder}: is not named by a scan (sub-01 or sub-01_ses-1); give the folder prepare wrote")
    if ARM.fullmatch(arm) is None:
        raise InputError(f"--arm {arm!r}: is not made of letters, digits and hyphens; rename the arm")
    if prepared.lesion is None:
        raise InputError(f"{prepared_folder}: has no lesion mask to measure against; prepare the scan with --lesion-mask")
    mask = prediction / derivative(prepared.scan_id, prepared.grid, "label-lesion_mask")
    return {
        "arm": arm,
        "id": prepared.scan_id,
        "subject": names["subject"],
        "session": names["session"] or "",
        "protocol": PROTOCOL,
    } | asdict(measure_files(mask, prepared.lesion))


def read_rows(paths: list[Path]) -> pd.DataFrame:
    """Read the JSON rows of `evaluate scan` into one table, scan by scan, the real arm first.

    Raises InputError when a file is no such row, or two files are of the same arm and scan.
    """
    import pandas as pd

    first: dict[tuple[str, ...], Path] = {}
    rows = []
    for path in paths:
        row = read_json(path)
        missing = [name for name in (*KEYS, *DESCRIPTIONS) if not isinstance(row, dict) or name not in row]
        if missing:
            raise InputError(f"{path}: has no {missing[0]}; give files that `lesionforge evaluate scan` wrote")
        key = tuple(str(row[name]) for name in KEYS)
        if key in first:
            raise InputError(f"{path}: is of the same arm and scan as {first[key]}; give each once")
        first[key] = path
        reasons = row.get("reasons", {})
        rows.append(row | {"undefined": "; ".join(f"{name}: {why}" for name, why in sorted(reasons.items()))})
    table = pd.DataFrame(rows)
    for name in DESCRIPTIONS:
        table[name] = pd.to_numeric(table[name])
    order = table.assign(later=table["arm"] != "real").sort_values(["subject", "session", "later", "arm"]).index
    return table.loc[order].reset_index(drop=True)


def average(label: str, values: pd.DataFrame) -> dict[str, Any]:
    """One row of the summary: the mean of each measure over the scans where it is defined, and how many those are."""
    row: dict[str, Any] = {"arm": label, "n": len(values)}
    for name in DESCRIPTIONS:
        row |= {name: values[name].mean(), f"{name}_n": int(values[name].notna().sum())}
    return row


def summarise(arms: pd.DataFrame) -> pd.DataFrame:
    """The mean of each measure in each arm, and the paired difference augmented minus real over the scans in both.

    `arms` has one row per arm and scan, as `read_rows` gives it. A measure defined in no scan is NaN; a scan where a
    measure is undefined in one arm counts in that arm's mean alone, not in the difference.
    """
    import pandas as pd

    measures = list(DESCRIPTIONS)
    by_arm = {str(arm): rows.set_index(["subject", "session"])[measures] for arm, rows in arms.groupby("arm", sort=False)}
    rows = [average(arm, by_arm[arm]) for arm in sorted(by_arm, key=lambda arm: (arm != "real", arm))]
    if {"real", "augmented"} <= set(by_arm):
        both = by_arm["augmented"].index.intersection(by_arm["real"].index)
        if len(both):
            rows.append(average(DIFFERENCE, by_arm["augmented"].loc[both] - by_arm["real"].loc[both]))
    return pd.DataFrame(rows)
