"""Tables of an experiment: one row per arm and test scan, and what the arms amount to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge.errors import InputError
from lesionforge.evaluate.cohort import SIZE_COLUMNS
from lesionforge.evaluate.detection import Lesions, lesions_by_size, size_bins
from lesionforge.evaluate.masks import Pair, evaluate_files
from lesionforge.evaluate.protocols import DESCRIPTIONS, Evaluation, Measured, Reasons
from lesionforge.images import Prepared, derivative, read_json, scan_labels
from lesionforge.nets.settings import fits

if TYPE_CHECKING:
    import pandas as pd

PROTOCOL = "ours"
LABEL = re.compile(r"[A-Za-z0-9_-]+")
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
# Those that differ from seed to seed in a way that matters; their spread is in the summary.
SPREAD = ("dice", "lesion_sensitivity", "lesion_false_discovery", "volume_predicted_ml", "avd_percent")
SUMMARY_COLUMNS = {
    "arm": "experiment arm",
    "subject": "test subject; n/a: all, each subject with the same weight",
    "n": "number of segmentations: test scans, each once per run",
    "scans": "number of test scans",
    "seeds": "number of seeds; 1 without",
    **{
        column: text
        for name, description in MEASURES.items()
        for column, text in (
            (name, f"mean over the segmentations where it is defined, subject by subject, of: {description}"),
            (f"{name}_n", f"segmentations in {name}"),
        )
    },
    **{f"{name}_seed_sd": f"standard deviation (n - 1) over the seeds of {name}; n/a for one seed" for name in SPREAD},
    "undefined": "measures without a mean, each with the reasons of the segmentations",
}
ARM_SIZE_COLUMNS = {
    "arm": "experiment arm",
    **{name: text for name, text in SIZE_COLUMNS.items() if name != "id"},
    "lesions": "number of these lesions, of all test scans and runs together: each once per segmentation",
    "dice": "mean Dice overlap of these lesions with the predicted lesions that touch them, 0 where none does; n/a without",
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
            raise InputError(f"--{name} {label!r}: is not made of letters, digits, hyphens and underscores; rename the {name}")
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
    """Read the JSON rows of `evaluate scan` into one table, scan by scan, the real arm first, with their `lesions`.

    Raises InputError when a file is no such row, two files are of the same arm, fold, seed and scan, or two of one scan were
    measured against different lesions.
    """
    import pandas as pd

    first: dict[tuple[str, ...], Path] = {}
    reference: dict[tuple[str, str], tuple[Path, list[float]]] = {}
    rows = []
    for path in paths:
        row = read_json(path)
        missing = [name for name in (*KEYS, *MEASURES, "lesions") if not isinstance(row, dict) or name not in row]
        if missing:
            raise InputError(f"{path}: has no {missing[0]}; give files that `lesionforge evaluate scan` wrote")
        reasons = row.get("reasons", {})
        odd = [name for name in MEASURES if row[name] is not None and not fits(row[name], float)]
        if odd or not fits(reasons, dict[str, str]):
            wrong = f"{odd[0]} is no number" if odd else "reasons are no sentences by measure"
            raise InputError(f"{path}: {wrong}; write it again with `evaluate scan`")
        key = tuple(str(row[name]) for name in KEYS)
        if key in first:
            raise InputError(f"{path}: is of the same arm, fold, seed and scan as {first[key]}; give each once")
        first[key] = path
        volumes = lesions_of_row(path, row)["reference_mm3"]
        known, wanted = reference.setdefault((str(row["subject"]), str(row["session"])), (path, volumes))
        if volumes != wanted:
            raise InputError(f"{path}: was measured against other lesions than {known}; evaluate both against the same mask")
        rows.append(row | {"reasons": reasons, "undefined": in_one_line(reasons.items())})
    table = pd.DataFrame(rows)
    for name in MEASURES:
        table[name] = pd.to_numeric(table[name])
    table["seed"] = table["seed"].astype(str)
    numbers = pd.to_numeric(table["seed"], errors="coerce")
    ranked = table.assign(later=table["arm"] != "real", number=numbers)
    order = ranked.sort_values(["subject", "session", "later", "arm", "fold", "number"], na_position="first").index
    return table.loc[order].reset_index(drop=True)


def in_one_line(reasons: Iterable[tuple[str, str]]) -> str:
    """Names of measures, each with why it is undefined, as the tables hold them."""
    return "; ".join(f"{name}: {why}" for name, why in sorted(set(reasons)))


def lesions_of_row(path: Path, row: dict[str, Any]) -> dict[str, list[float]]:
    """The lesions of a row one by one; raises InputError unless each list has a number for each lesion."""
    given = row["lesions"] if isinstance(row["lesions"], dict) else {}
    for name in LESION_LISTS:
        count = row["lesions_predicted" if name in ("predicted_mm3", "false") else "lesions_reference"]
        values = given.get(name)
        if not isinstance(values, list) or len(values) != count or not all(isinstance(value, int | float) for value in values):
            raise InputError(f"{path}: {name} of its lesions is no list of {count} numbers; write it again with `evaluate scan`")
    return given


def arm_order(arms: Iterable[str]) -> list[str]:
    """The names of the arms, each once, in reading order: `real` first, the rest by name."""
    return sorted(set(arms), key=lambda arm: (arm != "real", arm))


def mean_over_subjects(values: pd.DataFrame, name: str) -> float:
    """The mean over the subjects of each one's mean of a column, where it is defined; NaN when it is nowhere."""
    return float(values.groupby("subject")[name].mean().mean())


def average(arm: str, subject: str, values: pd.DataFrame) -> dict[str, Any]:
    """One row of the summary, with SUMMARY_COLUMNS, from the rows of an arm."""
    row: dict[str, Any] = {"arm": arm, "subject": subject, "n": len(values)}
    row["scans"] = len(values[["subject", "session"]].drop_duplicates())
    row["seeds"] = values["seed"].nunique()
    for name in MEASURES:
        row |= {name: mean_over_subjects(values, name), f"{name}_n": int(values[name].notna().sum())}
    seeds = [rows for _, rows in values.groupby("seed")]
    for name in SPREAD:
        means = np.array([mean_over_subjects(rows, name) for rows in seeds])
        means = means[~np.isnan(means)]
        row[f"{name}_seed_sd"] = float(means.std(ddof=1)) if len(means) > 1 else float("nan")
    lacking = (one for reasons in values["reasons"] for one in reasons.items() if one[0] in MEASURES and np.isnan(row[one[0]]))
    return row | {"undefined": in_one_line(lacking) or NOT_GIVEN}


def summarise(arms: pd.DataFrame) -> pd.DataFrame:
    """What each arm amounts to over all test scans and in each test subject, with SUMMARY_COLUMNS.

    `arms` has one row per arm, fold, seed and scan, as `read_rows` gives it. A measure defined nowhere is NaN.
    """
    import pandas as pd

    rows = []
    for arm in arm_order(arms["arm"]):
        own = arms[arms["arm"] == arm]
        rows.append(average(arm, NOT_GIVEN, own))
        rows += [average(arm, str(subject), scans) for subject, scans in own.groupby("subject")]
    return pd.DataFrame(rows)


def found_by_size(arms: pd.DataFrame) -> pd.DataFrame:
    """What each arm finds of the reference lesions of each size, with ARM_SIZE_COLUMNS; `arms` is as `read_rows` gives it.

    NaN where there is no lesion of a size, and for the upper bound of the largest.
    """
    import pandas as pd

    rows = []
    for arm in arm_order(arms["arm"]):
        scans = arms.loc[arms["arm"] == arm, "lesions"]
        volumes, found, dice = (np.concatenate([scan[name] for scan in scans]) for name in ("reference_mm3", "found", "dice"))
        bins = size_bins(volumes)
        for place, part in enumerate(lesions_by_size(volumes, found.astype(bool))):
            overlap = dice[bins == place].mean() if part.lesions else np.nan
            rows.append({"arm": arm} | asdict(part) | {"recall": part.recall, "dice": overlap})
    return pd.DataFrame(rows, columns=list(ARM_SIZE_COLUMNS)).replace({"below_mm3": {np.inf: np.nan}})
