"""The folds of an experiment: who trains, validates and is tested in each, and whose masks no training may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lesionforge.cohort.rows import Problem, Row
from lesionforge.cohort.split import position

FOLDS = ("leave-one-out",)


@dataclass(frozen=True)
class Fold:
    """One way of splitting a cohort.

    `label` is the subject that is tested, or "" where there is one fold only. `rows` are the scans that take part, with their
    splits, and with the masks that may be used. `held` are the scans, with their masks, whose lesions may reach no training,
    be it by a copy in a library: those of the splits test and validation, and those that --train_on sets aside.
    """

    label: str
    rows: tuple[Row, ...]
    held: tuple[Row, ...]


def rotating(rows: Sequence[Row]) -> list[str]:
    """The subjects that --folds tests in turn, in the order of the rows: annotated patients that are not in split validation."""
    fixed = {row.subject for row in rows if row.split == "validation"}
    annotated = (row for row in rows if row.role == "patient" and row.lesion_mask and row.subject)
    return list(dict.fromkeys(str(row.subject) for row in annotated if row.subject not in fixed))


def rotate(rows: Sequence[Row]) -> list[Row]:
    """The rows with the splits that --folds gives them: test for all scans of a subject that is tested in its turn.

    Of the others an empty split follows the subject's other sessions, else it is train.
    """
    tested = set(rotating(rows))
    said: dict[str | None, str] = {row.subject: row.split for row in rows if row.split}
    splits = (row.split if row.split is None else said.get(row.subject, "train") for row in rows)
    return [replace(row, split="test" if row.subject in tested else split) for row, split in zip(rows, splits, strict=True)]


def folds_of(rows: Sequence[Row], leave_one_out: bool, train_on: int | None, seed: int) -> list[Fold]:
    """The folds of a cohort whose splits are chosen (`choose_splits`, or `rotate` where they are leave-one-out).

    With `train_on` so many annotated training subjects are drawn; the draw depends on seed and subject alone. The scans of
    the others stay without their masks where there is one fold. Among several they are left out of the fold: their prepared
    scans, which other folds use, bear the marks of the masks.
    """
    if not leave_one_out:
        return [set_aside(Fold("", tuple(rows), held_of(rows)), train_on, seed)]
    tested = rotating(rows)
    folds = []
    for label in tested:
        own = [replace(row, split="train") if row.subject in tested and row.subject != label else row for row in rows]
        fold = set_aside(Fold(label, tuple(own), held_of(own)), train_on, seed)
        folds.append(replace(fold, rows=tuple(row for row, had in zip(fold.rows, own, strict=True) if row == had)))
    return folds


def held_of(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows of the splits test and validation."""
    return tuple(row for row in rows if row.split in ("test", "validation"))


def set_aside(fold: Fold, train_on: int | None, seed: int) -> Fold:
    """The fold without the masks of the annotated training subjects beyond the `train_on` that the seed draws first."""
    if train_on is None:
        return fold
    order = sorted(training_subjects(fold.rows), key=lambda subject: position(seed, subject))
    unused = set(order[train_on:])
    aside = tuple(row for row in fold.rows if row.subject in unused)
    rows = tuple(replace(row, lesion_mask="") if row.subject in unused else row for row in fold.rows)
    return replace(fold, rows=rows, held=(*fold.held, *aside))


def training_subjects(rows: Sequence[Row]) -> list[str]:
    """The patients of split train that have a lesion mask, in the order of the rows."""
    found = (row for row in rows if row.role == "patient" and row.split == "train" and row.lesion_mask)
    return list(dict.fromkeys(str(row.subject) for row in found))


def judge_folds(rows: Sequence[Row], leave_one_out: bool, train_on: int | None, seed: int) -> list[Problem]:
    """Problems of --folds and --train_on for a cohort whose splits are chosen."""
    if leave_one_out and (count := len(rotating(rows))) < 2:
        return [
            Problem(
                "--folds leave-one-out needs at least 2 patients with a lesion mask outside split validation, but there "
                f"{'is 1' if count else 'is none'}; give others a lesion_mask, or leave --folds out"
            )
        ]
    if train_on is None:
        return []
    fewest = min(len(training_subjects(fold.rows)) for fold in folds_of(rows, leave_one_out, None, seed))
    if train_on <= fewest:
        return []
    where = "in a fold" if leave_one_out else "in split train"
    return [Problem(f"--train_on {train_on} is more than the {fewest} annotated patients {where}; give at most {fewest}")]


def unused_masks(folds: Sequence[Fold]) -> list[Problem]:
    """The remark whose masks --train_on sets aside in each fold, if it does."""
    remarks = []
    for fold in folds:
        if unused := [f"sub-{subject}" for subject in dict.fromkeys(row.subject for row in fold.held if row.split == "train")]:
            where = f" in fold {fold.label}" if fold.label else ""
            remarks.append(Problem(f"--train_on: the masks of {', '.join(unused)} are not used{where}"))
    return remarks
