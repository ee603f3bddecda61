"""Choosing the split of subjects whose cell is empty, and what the patients of a cohort must give to a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from lesionforge.cohort.rows import Problem, Row

TEST_BELOW = 0.2
VALIDATION_BELOW = 0.35
TO_TRAIN = "give one a lesion_mask, and train or nothing in its split"


@dataclass(frozen=True)
class Needs:
    """Which patients a run needs.

    `library` says that masks of a library give lesions too, `real` that a network is trained on an arm of annotated scans,
    which `arms` names, `test` that the arms are measured, on a test patient with a lesion mask, `folds` that all annotated
    patients are tested in turn.
    """

    library: bool
    real: bool
    test: bool
    arms: tuple[str, ...] = ("real",)
    folds: bool = False

    @property
    def annotated(self) -> bool:
        """True when a training patient needs a lesion mask; else one without teaches the generator, too."""
        return self.real or not self.library


def position(seed: int, subject: str) -> float:
    """A number in [0, 1) that depends on seed and subject alone, so that new subjects move no old one."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8], "big") / 2**64


def choose_splits(rows: list[Row], seed: int, needs: Needs) -> list[Row]:
    """Fill the empty splits, subject by subject; what the sheet says is never overridden.

    A session without a split follows its subject's other sessions. Else healthy subjects go to train; a patient's
    `position` says test, validation or train. Then, among the patients chosen so: where a test patient is needed and none
    with a lesion mask is in test, the one of lowest position with a mask goes there; if no patient that can be trained on is
    in train, the one of highest position goes there, one without a mask first where that suffices. Rows whose subject, role
    or split is None are left as they are.
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

    patients = {row.subject for row in rows if row.role == "patient" and row.subject is not None}
    annotated = {row.subject for row in rows if row.subject in patients and row.lesion_mask != ""}
    if needs.test and annotated & free.keys() and not any(chosen[subject] == "test" for subject in annotated):
        chosen[min(annotated & free.keys(), key=lambda subject: free[subject])] = "test"
    learners = annotated if needs.annotated else patients
    if learners & free.keys() and not any(chosen[subject] == "train" for subject in learners):
        chosen[max(learners & free.keys(), key=lambda subject: (subject not in annotated, free[subject]))] = "train"
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


def judge_cohort(rows: list[Row], needs: Needs, library_left: bool) -> list[Problem]:
    """Problems of the cohort as a whole: no patient to learn from, no lesions to paint, none to test on where that is needed.

    `library_left` says that a mask of the library can be a donor. A row whose role, split or lesion mask is already known to
    be wrong counts as if it were the one that is wanted.
    """

    def patients_in(split: str) -> list[Row]:
        return [row for row in rows if row.role in ("patient", None) and row.split in (split, None)]

    def annotated(split: str) -> bool:
        return any(row.lesion_mask != "" for row in patients_in(split))

    problems = []
    if not annotated("train"):
        nobody = "no patient of split train has a lesion mask"
        if not needs.library:
            remedy = f"{TO_TRAIN}, or masks of others by --lesion_library, with --arms augmented"
            problems.append(Problem(f"{nobody}, so there is nothing to learn from; {remedy}"))
        elif needs.real:
            named = f"arm {needs.arms[0]} has" if len(needs.arms) == 1 else f"arms {' and '.join(needs.arms)} have"
            problems.append(Problem(f"{nobody}, so the {named} nothing to train on; {TO_TRAIN}, or use --arms augmented"))
        elif not library_left:
            remedy = f"{TO_TRAIN}, or other masks to the library"
            problems.append(Problem(f"{nobody} and no mask of the library is left, so there are no lesions to paint; {remedy}"))
        if needs.library and not patients_in("train"):
            remedy = "write train or nothing in the split of one"
            problems.append(Problem(f"no patient is in split train, so nothing tells how bright lesions are; {remedy}"))
    if needs.test and not annotated("test"):
        problems.append(
            Problem(
                "no patient of split test has a lesion mask, so the experiment cannot be measured; give one a lesion_mask "
                "and the split test, or use --mode augment"
            )
        )
    return problems
