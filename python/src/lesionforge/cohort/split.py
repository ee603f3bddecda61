"""Choosing the split of subjects whose cell is empty."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from lesionforge.cohort.rows import Problem, Row

TEST_BELOW = 0.2
VALIDATION_BELOW = 0.35


def position(seed: int, subject: str) -> float:
    """A number in [0, 1) that depends on seed and subject alone, so that new subjects move no old one."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8], "big") / 2**64


def choose_splits(rows: list[Row], seed: int, need_test: bool) -> list[Row]:
    """Fill the empty splits, subject by subject; what the sheet says is never overridden.

    A session without a split follows its subject's other sessions. Else healthy subjects go to train; a patient's
    `position` says test, validation or train. Then, among the patients chosen so: if no patient with a lesion mask is in
    train, the one of highest position goes there; with `need_test`, if none is in test, the one of lowest position goes
    there, unless train would lose its last. Rows whose subject, role or split is None are left as they are.
    """
    said: dict[str, set[str | None]] = {}
    roles: dict[str, str | None] = {}
    for row in rows:
        if row.subject is not None:
            said.setdefault(row.subject, set()).update({row.split} - {""})
            roles[row.subject] = row.role
    chosen: dict[str, str | None] = {}
    free = {}
    for subject, splits in said.items():
        if splits:
            chosen[subject] = next(iter(splits)) if len(splits) == 1 else None
        elif roles[subject] == "patient":
            free[subject] = position(seed, subject)
            chosen[subject] = split_at(free[subject])
        else:
            chosen[subject] = "train" if roles[subject] == "healthy" else None

    annotated = {row.subject for row in rows if row.role == "patient" and row.subject is not None and row.lesion_mask != ""}
    movable = sorted(annotated & free.keys(), key=lambda subject: free[subject])
    if movable and not any(chosen[subject] == "train" for subject in annotated):
        chosen[movable[-1]] = "train"
    if need_test and movable and not any(chosen[subject] == "test" for subject in annotated):
        stays = any(chosen[subject] == "train" for subject in annotated - {movable[0]})
        chosen[movable[0]] = "test" if stays else chosen[movable[0]]
    filled = []
    for row in rows:
        if row.split == "":
            split = None if row.subject is None else chosen[row.subject]
            row = replace(row, split=split, split_drawn=row.subject in free)
        filled.append(row)
    return filled


def split_at(u: float) -> str:
    """The split of a patient at position u in [0, 1): 20 % test, 15 % validation, the rest train."""
    if u < TEST_BELOW:
        return "test"
    return "validation" if u < VALIDATION_BELOW else "train"


def judge_cohort(rows: list[Row], need_test: bool) -> list[Problem]:
    """Problems of the cohort as a whole: no patient to learn from, with `need_test` none to test on.

    A row whose role, split or lesion mask is already known to be wrong counts as if it were the one that is wanted.
    """

    def annotated(split: str) -> bool:
        return any(row.role in ("patient", None) and row.split in (split, None) and row.lesion_mask != "" for row in rows)

    problems = []
    if not annotated("train"):
        problems.append(
            Problem(
                "no patient of split train has a lesion mask, so there is nothing to learn from; give one a lesion_mask, "
                "and train or nothing in its split"
            )
        )
    if need_test and not annotated("test"):
        problems.append(
            Problem(
                "no patient of split test has a lesion mask, so the experiment cannot be measured; give one a lesion_mask "
                "and the split test, or use --mode augment"
            )
        )
    return problems
