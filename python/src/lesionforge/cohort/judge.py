"""What the rows of a cohort must satisfy before any file is opened."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lesionforge.cohort.rows import FILE_COLUMNS, FURTHER_COLUMNS, ROLES, SPLITS, STRIPPED, Problem, Row
from lesionforge.images.names import ALWAYS, FURTHER

LABEL = re.compile(r"[A-Za-z0-9]+")
# What a task's shell would interpret in the name of a file that Nextflow stages.
UNSAFE = '$`\\"*?[]{};|<>!'
# Of the rows that lack a contrast so many are named.
MOST_NAMED = 20
RESERVED = re.compile(r"(syn|cla|mix)[0-9]+", re.IGNORECASE)


def judge_rows(rows: list[Row], root: str) -> tuple[list[Row], list[Problem]]:
    """Clean and judge the cells of each row, then the rows against each other.

    Labels lose their `sub-` and `ses-`, paths become absolute against the absolute folder `root` (no file is opened);
    a cell with a problem becomes None. Returns (rows, problems).
    """
    judged, problems = [], []
    for row in rows:
        cells: dict[str, Any] = {}
        for column, judge in (
            ("subject", judge_subject),
            ("session", judge_session),
            ("role", judge_role),
            ("split", judge_split),
        ):
            cell = getattr(row, column)
            cells[column], text = judge(cell) if cell is not None else (None, None)
            if text:
                problems.append(row.problem(text, column))
        for column in FILE_COLUMNS:
            cell = getattr(row, column)
            cells[column], text = judge_path(cell, column, root) if cell is not None else (None, None)
            if text:
                problems.append(row.problem(text, column))
        judged.append(replace(row, **cells))
    problems += [*duplicate_scans(judged), *spellings(judged), *contradictions(judged, "role"), *contradictions(judged, "split")]
    return judged, problems


def judge_subject(cell: str) -> tuple[str | None, str | None]:
    """(label without `sub-`, None), or (None, what is wrong)."""
    label = cell.removeprefix("sub-")
    if not cell:
        return None, "is empty; write a label of letters and digits"
    if not LABEL.fullmatch(label):
        return None, f"{cell!r} is no subject label; use letters A-Z, a-z and digits only"
    if RESERVED.fullmatch(label):
        return None, f"{cell!r} is reserved for scans that are made (syn, cla or mix and digits); choose another label"
    return label, None


def judge_session(cell: str) -> tuple[str | None, str | None]:
    """(label without `ses-` or "", None), or (None, what is wrong)."""
    label = cell.removeprefix("ses-")
    if cell and not LABEL.fullmatch(label):
        return None, f"{cell!r} is no session label; use letters A-Z, a-z and digits only, or leave the cell empty"
    return label, None


def judge_role(cell: str) -> tuple[str | None, str | None]:
    """(role, None), or (None, what is wrong)."""
    if cell not in ROLES:
        return None, f"{cell!r} is no role; write patient or healthy"
    return cell, None


def judge_split(cell: str) -> tuple[str | None, str | None]:
    """(split or "", None), or (None, what is wrong)."""
    if cell and cell not in SPLITS:
        return None, f"{cell!r} is no split; write train, validation or test, or leave the cell empty to have it chosen by seed"
    return cell, None


def judge_path(cell: str, column: str, root: str) -> tuple[str | None, str | None]:
    """(absolute path, "" or `stripped`, None), or (None, what is wrong).

    A path that `is_unsafe` is refused, and so is one that links lead to such a path: a container engine mounts what they lead to.
    """
    if not cell:
        needed = column in ("t1w", "flair")
        return (None, "is empty; give the path of the NIfTI file") if needed else ("", None)
    if column == "brain_mask" and cell == STRIPPED:
        return cell, None
    path = os.path.abspath(os.path.join(root, cell))  # noqa: PTH100, PTH118  (Path.resolve would follow links)
    fault = f"holds a control character or one of {' '.join(UNSAFE)} which no shell carries safely"
    if is_unsafe(path):
        return None, f"{path!r} {fault}; rename it"
    target = os.path.realpath(path)
    if is_unsafe(target):
        return None, f"{path!r} leads by a link to {target!r}, and that {fault}; rename what it leads to, or give a copy"
    return path, None


def is_unsafe(path: str) -> bool:
    """Whether the tables or the shell between stages cannot carry a path: control characters, bytes that are no text, UNSAFE."""
    return any(character in UNSAFE or unicodedata.category(character) in ("Cc", "Cs") for character in path)


def used_rows(rows: Sequence[Row], mode: str) -> list[Row]:
    """The rows whose scans a run works on: in the mode segment patients only."""
    return [row for row in rows if mode != "segment" or row.role in ("patient", None)]


def contrasts_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The contrasts that scans of these rows have; a cell with a problem counts as a scan."""
    return (*ALWAYS, *(name for name in FURTHER if _having(rows, name.lower())))


def uneven_contrasts(rows: Sequence[Row]) -> Iterator[Problem]:
    """A problem for each further contrast that some of the rows have and others lack."""
    for column in FURTHER_COLUMNS:
        lacking = [row for row in rows if not getattr(row, column) and getattr(row, column) is not None]
        if not lacking or not _having(rows, column):
            continue
        named = ", ".join(row.where for row in lacking[:MOST_NAMED])
        more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
        remedy = "give all scans the same contrasts, or leave this one out of all"
        yield Problem(f"is empty in {named}{more}, but not in all rows; {remedy}", column=column)


def _having(rows: Sequence[Row], column: str) -> bool:
    return any(getattr(row, column) != "" for row in rows)


def duplicate_scans(rows: list[Row]) -> Iterator[Problem]:
    """A problem for each row whose subject and session another row above has."""
    seen: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.subject is None or row.session is None:
            continue
        first = seen.setdefault((row.subject, row.session), row)
        if first is not row:
            scan = f"subject {row.subject}" + (f", session {row.session}," if row.session else "")
            yield row.problem(f"{scan} is already in {first.where}; remove one or give each its session", "subject")


def spellings(rows: list[Row]) -> Iterator[Problem]:
    """A problem for each row whose subject another row above writes in another case: it would be two subjects, in two splits."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.subject is None:
            continue
        before = first.setdefault(row.subject.lower(), row)
        if before.subject != row.subject:
            remedy = "write it the same way, or give another label"
            yield row.problem(f"subject {row.subject} is written {before.subject} in {before.where}; {remedy}", "subject")


def contradictions(rows: list[Row], column: str) -> Iterator[Problem]:
    """A problem for each row whose role or split differs from that of its subject's first row that says one."""
    remedy = {
        "role": "give all rows of a subject the same role",
        "split": "give all sessions of a subject the same split, or training would see the test subject",
    }[column]
    first: dict[str, tuple[str, str]] = {}
    for row in rows:
        cell = getattr(row, column)
        if row.subject is None or not cell:
            continue
        said, where = first.setdefault(row.subject, (cell, row.where))
        if said != cell:
            yield row.problem(f"subject {row.subject} is {cell} here but {said} in {where}; {remedy}", column)
