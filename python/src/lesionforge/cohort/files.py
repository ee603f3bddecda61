"""What the image files of a cohort must satisfy: each by itself, for what its row says, and on the grid of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from lesionforge.cohort.rows import Problem, Row
from lesionforge.images import same_grid
from lesionforge.images.check import Facts, inspect_file, times

MASK_COLUMNS = ("lesion_mask", "brain_mask")


def inspect_files(rows: Iterable[Row], threads: int, progress: Callable[[int, int], None]) -> dict[tuple[str, bool], Facts]:
    """The facts of every file the rows name, by (path, is a mask); `threads` volumes are in memory at a time.

    `progress` is called with (files done, files in all) after each.
    """
    wanted = list(dict.fromkeys((path, column in MASK_COLUMNS) for row in rows for column, path in row.files.items()))
    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for done, (key, facts) in enumerate(zip(wanted, pool.map(lambda key: inspect_file(*key), wanted), strict=True), start=1):
            found[key] = facts
            progress(done, len(wanted))
    return found


def judge_files(rows: list[Row], facts: Mapping[tuple[str, bool], Facts]) -> list[Problem]:
    """Problems of each file, and of the files of a row against each other and against its role."""
    problems = []
    for row in rows:
        own = {column: facts[path, column in MASK_COLUMNS] for column, path in row.files.items()}
        for column, path in row.files.items():
            faults = list(own[column].faults)
            if column in MASK_COLUMNS:
                faults += mask_meaning(row, column, own[column].maximum)
                faults += mask_grid(column, own)
            problems += [row.problem(f"{path}: {fault}", column) for fault in faults]
    return problems


def judge_lesions(rows: list[Row], facts: Mapping[tuple[str, bool], Facts], in_turn: bool = False) -> list[Problem]:
    """Problems of masks without lesions that would be learned from: those of patients in train or validation.

    With `in_turn` those that are tested in their turn are among them.
    """
    problems = []
    for row in rows:
        learned_from = in_turn or row.split in ("train", "validation")
        if not row.lesion_mask or row.role != "patient" or not learned_from:
            continue
        if facts[row.lesion_mask, True].maximum <= 0.5:
            split = f"{row.split}, chosen by seed" if row.split_drawn else row.split
            fault = f"the patient is in split {split}; set its split to test or leave the mask out"
            if in_turn:
                fault = "with --folds every annotated patient is learned from; leave the mask out"
            problems.append(row.problem(f"{row.lesion_mask}: holds no lesions, but {fault}", "lesion_mask"))
    return problems


def file_warnings(rows: list[Row], facts: Mapping[tuple[str, bool], Facts]) -> list[Problem]:
    """What is odd about the files of the rows without being a fault."""
    return [
        row.problem(f"{path}: {warning}", column)
        for row in rows
        for column, path in row.files.items()
        for warning in facts[path, column in MASK_COLUMNS].warnings
    ]


def mask_meaning(row: Row, column: str, maximum: float) -> list[str]:
    """The fault of a mask for what its row says it is; none where its largest voxel is NaN, because it has other faults."""
    if column == "brain_mask" and maximum <= 0.5:
        return ["holds no brain; give another mask or none"]
    if column == "lesion_mask" and row.role == "healthy" and maximum > 0.5:
        return ["holds lesions, but the subject is healthy; set its role to patient or leave the mask out"]
    return []


def mask_grid(column: str, own: Mapping[str, Facts]) -> list[str]:
    """The fault of a mask that lies on another grid than the scans it may lie on; none while one of these is unsound."""
    mask = own[column]
    references = {name: own.get(name) for name in (("t1w", "flair") if column == "lesion_mask" else ("t1w",))}
    sound = {name: scan for name, scan in references.items() if scan is not None and scan.has_grid}
    if not mask.has_grid or any(same_grid(mask.shape, mask.affine, scan.shape, scan.affine) for scan in sound.values()):  # type: ignore[arg-type]
        return []
    if len(sound) < len(references):
        return []
    names = {"t1w": "T1w", "flair": "FLAIR"}
    grids = " and ".join(
        f"{times(scan.shape)} for the {names[name]}" + (" at another position" if scan.shape == mask.shape else "")
        for name, scan in sound.items()
    )
    return [
        f"lies on another grid ({times(mask.shape)} voxels, against {grids}); "
        f"resample it onto the grid of the {' or '.join(names[name] for name in sound)}"
    ]


def shared_files(rows: Iterable[Row]) -> Iterator[Problem]:
    """A problem for each cell that names a file which another cell named before, links followed."""
    seen: dict[str, tuple[Row, str]] = {}
    for row in rows:
        for column, path in row.files.items():
            first, other = seen.setdefault(os.path.realpath(path), (row, column))
            if (first.line, other) != (row.line, column):
                yield row.problem(f"{path} is also the {other} of {first.where}; give each cell its own file", column)
