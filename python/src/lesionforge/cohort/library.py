"""A library of lesion masks in template space: what its masks must satisfy, and which of them may be donors."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from lesionforge.cohort.folds import Fold
from lesionforge.cohort.judge import judge_path
from lesionforge.cohort.pairs import Donor
from lesionforge.cohort.rows import Problem, Row
from lesionforge.errors import InputError
from lesionforge.images import library_id, read_mask, voxel_volume_mm3
from lesionforge.images.check import inspect_file
from lesionforge.images.names import shown, subjects_in, subjects_of
from lesionforge.images.resample import covered
from lesionforge.images.template import load_template

TEMPLATE_MM = 2
# Of the template's brain, what a mask's grid must cover; of a mask's lesions, what must lie in that brain.
LEAST_COVERED = 0.98
LEAST_INSIDE = 0.9
COLUMN = "lesion_library"


@dataclass(frozen=True)
class Library:
    """The donors of a library, sorted by name of file, the problems of its folder, and remarks on the masks left out.

    `broken` has the id and the problem of each mask that cannot be used.
    """

    donors: list[Donor]
    problems: list[Problem]
    broken: list[tuple[str, Problem]]
    remarks: list[Problem]


def read_library(folder: Path, folds: Sequence[Fold]) -> Library:
    """Judge the masks of a folder for the folds of a cohort.

    A mask without lesions gives nothing. A mask that is named after a subject that a fold holds out of training
    (`sub-<label>` anywhere in the name of its file, or by its id, as whoever trains on it asks), or that holds just the lesions
    of such a subject's mask, is barred from that fold, and left out if all folds hold it.
    """
    paths = sorted(path for path in folder.glob("*") if re.search(r"\.nii(\.gz)?$", path.name) and not path.name.startswith("."))
    if not paths:
        text = "holds no lesion mask (.nii or .nii.gz); give a folder of masks in template space"
        return Library([], [problem(folder, text)], [], [])
    held = {fold.label: {str(row.subject).lower(): row for row in fold.held} for fold in folds}
    masks = dict.fromkeys((row.lesion_mask, str(row.subject).lower()) for fold in folds for row in fold.held if row.lesion_mask)
    copies = {}
    for mask, subject in masks:
        # One that cannot be read is a problem of its row.
        with suppress(InputError):
            copies[lesion_places(mask)] = subject
    donors: dict[str, Donor] = {}
    problems, broken, remarks = [], [], []
    for path in paths:
        fault, load_ml = judge_mask(path)
        if fault is not None:
            broken.append((path.name, problem(path, fault)))
            continue
        donor_id = library_id(path.name)
        subjects = dict.fromkeys([*subjects_in(path.name), *subjects_of(donor_id)])
        copied = copies.get(lesion_places(str(path)), "") if copies and load_ml else ""
        barred = {}
        for label, rows_of in held.items():
            if named := [subject for subject in subjects if subject in rows_of]:
                barred[label] = f"is named after {held_as(rows_of[named[0]])}"
            elif copied in rows_of:
                barred[label] = f"holds the very lesions of {held_as(rows_of[copied])}"
        if barred and len(barred) == len(held):
            remarks.append(problem(path, f"{next(iter(barred.values()))} and is left out"))
            continue
        remarks += [problem(path, f"{why} and is left out of fold {label}") for label, why in barred.items()]
        if not load_ml:
            remarks.append(problem(path, "holds no lesions and is left out"))
        elif donor_id in donors:
            other = Path(donors[donor_id].mask).name
            label = donor_id.removeprefix("lib-")
            text = f"its name gives the label {label}, as that of {other} does; rename one, as with a ses- label, or take it away"
            problems.append(problem(path, text))
        else:
            donors[donor_id] = Donor(donor_id, frozenset(subjects), load_ml, str(path), frozenset(barred))
    return Library(list(donors.values()), problems, ids_of_broken(broken, set(donors)), remarks)


def held_as(row: Row) -> str:
    """Who a scan is that is held out of training, and why: `sub-01 of split test`."""
    why = "set aside by --train_on" if row.split == "train" else f"of split {row.split}"
    return f"sub-{row.subject} {why}"


def ids_of_broken(broken: Sequence[tuple[str, Problem]], taken: set[str]) -> list[tuple[str, Problem]]:
    """Masks by file name, by ids instead that neither another of them nor a sound mask has."""
    found, used = [], set(taken)
    for name, fault in broken:
        label = id_of_broken(name)
        number = next(number for number in itertools.count() if f"{label}{number or ''}" not in used)
        found.append((f"{label}{number or ''}", fault))
        used.add(found[-1][0])
    return found


def problem(path: Path, text: str) -> Problem:
    return Problem(text, column=COLUMN, place=shown(path))


def id_of_broken(name: str) -> str:
    """The id of a mask, or of one whose name gives none, what letters and digits there are in it."""
    try:
        return library_id(name)
    except InputError:
        return f"lib-{re.sub('[^A-Za-z0-9]', '', name.split('.nii')[0]) or 'unnamed'}"


def judge_mask(path: Path) -> tuple[str | None, float]:
    """(what is wrong with a mask of a library or None, its volume in ml)."""
    _, unsafe = judge_path(str(path), COLUMN, os.sep)
    if unsafe:
        return unsafe, 0.0
    try:
        library_id(path.name)
    except InputError as error:
        return str(error).removeprefix(f"{path.name}: "), 0.0
    facts = inspect_file(str(path), is_mask=True)
    if facts.faults:
        return facts.faults[0], 0.0
    return judge_space(*read_mask(path)), facts.inside_ml


def judge_space(mask: np.ndarray, affine: np.ndarray) -> str | None:
    """What tells that a mask [x, y, z] does not lie in template space: its field of view, or lesions outside the brain."""
    template = load_template(TEMPLATE_MM)
    share = covered(mask.shape, np.linalg.inv(affine) @ template.affine, template.brain.shape)[template.brain].mean()
    remedy = "so it does not lie in template space; give masks in that of MNI152"
    if share < LEAST_COVERED:
        return f"covers {100 * share:.0f} % of the template's brain, {remedy}"
    to_template = np.linalg.inv(template.affine) @ affine
    places = np.rint(apply_affine(to_template, np.argwhere(mask))).astype(int)
    on_grid = ((places >= 0) & (places < template.brain.shape)).all(axis=1)
    inside = np.count_nonzero(template.brain[tuple(places[on_grid].T)])
    if inside < LEAST_INSIDE * len(places):
        share = inside / len(places)
        return (
            f"has only {100 * share:.0f} % of its lesions in the template's brain, so it does not lie in template space; {remedy}"
        )
    return None


def lesion_places(path: str) -> tuple[float, bytes]:
    """What is the same for two files with the same lesions, however their grids are cropped and their axes ordered.

    The voxel's volume in mm³ and the sorted places of the lesions' voxels in the world, to a tenth of a millimetre.
    """
    mask, affine = read_mask(path)
    places = np.rint(10 * apply_affine(affine, np.argwhere(mask))).astype(np.int32)
    return round(voxel_volume_mm3(affine), 3), places[np.lexsort(places.T)].tobytes()
