"""Find what a run left behind: the folders of every stage under one root, each of them optional."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionforge.errors import InputError
from lesionforge.evaluate.charts import CAPTIONS
from lesionforge.images import PLACES, Prepared, read_json, read_tsv

if TYPE_CHECKING:
    import pandas as pd

# The name of the only "arm" when scans were segmented with a model that the user gave.
GIVEN_MODEL = "given model"
# By the field of Results: each table, and the columns that the page cannot do without.
TABLES = {
    "cohort": ("cohort/cohort.tsv", ("id", "role", "split")),
    "folds": ("cohort/folds.tsv", ("fold", "id", "split")),
    "pairs": ("cohort/pairs.tsv", ("synthetic_id", "donor", "canvas")),
    "arms": ("evaluate/arms.tsv", ("arm", "subject", "session", "seed")),
    "summary": ("evaluate/summary.tsv", ("arm", "subject", "n", "dice")),
    "comparisons": (
        "evaluate/comparisons.tsv",
        ("arm", "against", "measure", "subject", "resampled", "difference", "low", "high", "subjects"),
    ),
    "lesions": (
        "segment/scans.tsv",
        ("id", "model", "lesion_count", "volume_ml", "largest_lesion_mm3", *(f"lesions_{place}" for place in PLACES)),
    ),
}


@dataclass
class Results:
    """What a run left under its root; a stage that left nothing has an empty entry (None for a table).

    `lesions` is the table of the segmented scans, `charts` the charts of the arms by file name, `registered` has the figures of
    each registration. Folders are keyed by scan id, `models` by the name of a generator or run, `segmented` by run, then scan
    id. `unreadable` holds one sentence for each thing that is there but cannot be read.
    """

    cohort: pd.DataFrame | None
    folds: pd.DataFrame | None
    pairs: pd.DataFrame | None
    arms: pd.DataFrame | None
    summary: pd.DataFrame | None
    comparisons: pd.DataFrame | None
    charts: dict[str, Path]
    lesions: pd.DataFrame | None
    indices: dict[str, pd.DataFrame]
    prepared: dict[str, Prepared]
    registered: dict[str, dict[str, Any]]
    levels: dict[str, Path]
    synthetic: dict[str, Prepared]
    models: dict[str, Path]
    segmented: dict[str, dict[str, Path]]
    unreadable: list[str] = field(default_factory=list)


def readable(unreadable: list[str], read: Callable[[Any], Any], what: dict[str, Any]) -> dict[str, Any]:
    """What can be read, by name; for what cannot, a sentence is added to `unreadable`."""
    found = {}
    for name, place in what.items():
        try:
            found[name] = read(place)
        except InputError as error:
            unreadable.append(str(error))
    return found


def read_table(path: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """A table of ours, as text; raises InputError when it is none, lacks one of the columns or was cut within a row."""
    table = read_tsv(path)
    lacking = [name for name in columns if name not in table]
    if lacking or not path.read_bytes().endswith(b"\n"):
        fault = f"lacks {', '.join(lacking)}" if lacking else "is cut short"
        raise InputError(f"{path}: {fault}; write it again with the command that made it")
    return table


def folders(parent: Path, pattern: str = "*") -> dict[str, Path]:
    """The visible sub-folders of a folder (links to folders included) by name, sorted; empty when it is missing."""
    return {path.name: path for path in sorted(parent.glob(pattern)) if path.is_dir() and not path.name.startswith(".")}


def gather(root: Path) -> Results:
    """Look through the stage folders under `root`; raises InputError when it is no folder or holds no stage at all."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds cohort/, prepare/ and the other stages")
    unreadable: list[str] = []

    def scans(stage: str) -> dict[str, Prepared]:
        return readable(unreadable, Prepared.open, folders(root / stage, "sub-*"))

    there = {name: (root / path, columns) for name, (path, columns) in TABLES.items() if (root / path).is_file()}
    tables: dict[str, Any] = dict.fromkeys(TABLES) | readable(unreadable, lambda table: read_table(*table), there)
    figures = readable(unreadable, lambda path: sidecar(path, "desc-register"), folders(root / "register", "sub-*"))
    segmented = {arm: folders(path, "sub-*") for arm, path in folders(root / "segment").items() if not arm.startswith("sub-")}
    if direct := folders(root / "segment", "sub-*"):
        segmented[GIVEN_MODEL] = direct
    trained = folders(root / "train")
    models = folders(root / "synthesize", "generator*") | {arm: trained[arm] for arm in real_first(trained)}
    results = Results(
        **tables,
        charts={name: root / "evaluate" / name for name in CAPTIONS if (root / "evaluate" / name).is_file()},
        indices=readable(
            unreadable,
            lambda path: read_table(path, ("origin", "split")),
            {path.stem: path for path in sorted((root / "assemble").glob("[!.]*.tsv"))},
        ),
        prepared=scans("prepare"),
        registered={name: found for name, found in figures.items() if found},
        levels=folders(root / "synthesize" / "levels", "sub-*"),
        synthetic=scans("synthesize"),
        models=models,
        segmented={arm: segmented[arm] for arm in real_first(segmented) if segmented[arm]},
        unreadable=unreadable,
    )
    if results.cohort is None and not (results.prepared or results.segmented or results.synthetic):
        nothing = f"{root}: holds no output of any stage; give the folder that holds cohort/, prepare/ and the others"
        raise InputError(unreadable[0] if unreadable else nothing)
    return results


def expected_scans(cohort: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The rows of a cohort table that a mode works on: all, or the patients alone where it only segments."""
    return cohort[cohort["role"] == "patient"] if mode == "segment" else cohort


def tested_by(results: Results, run: str) -> set[str]:
    """The scans of split test in the fold of a run, whose name says it (`real_fold-07_seed-2`)."""
    found = re.search(r"_fold-([A-Za-z0-9]+)", run)
    table = results.cohort if found is None or results.folds is None else results.folds[results.folds["fold"] == found[1]]
    return set() if table is None else set(table.loc[table["split"] == "test", "id"])


def real_first(arms: Iterable[str]) -> list[str]:
    """The arms in reading order: `real` first, the rest by name."""
    return sorted(arms, key=lambda arm: (arm != "real", arm))


def sidecar(folder: Path, ending: str) -> dict[str, Any]:
    """The content of the JSON file `*_<ending>.json` of a folder, empty without one; raises InputError when it is damaged."""
    found = sorted(folder.glob(f"[!.]*_{ending}.json"))
    content = read_json(found[0]) if found else {}
    if not isinstance(content, dict):
        raise InputError(f"{found[0]}: holds no JSON object; write it again with the command that made it")
    return content


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The numbers, words and truth values of nested JSON under names joined by spaces; lists are left out."""
    out: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            out |= flat(value, name)
        elif isinstance(value, int | float | str):
            out[name] = value
    return out
