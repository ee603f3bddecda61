"""From a BIDS folder to rows: one scan for each subject and session that has a T1w and a FLAIR."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lesionforge.cohort.judge import is_unsafe
from lesionforge.cohort.rows import Problem, Row
from lesionforge.cohort.sheet import split_cells
from lesionforge.errors import InputError
from lesionforge.images import read_image, same_grid
from lesionforge.images.names import FURTHER

SUFFIXES = {"t1w": "T1w", "flair": "FLAIR"}
# Taken when every scan has one.
FURTHER_SCANS = {name.lower(): name for name in FURTHER}
# A mask's name in label- or desc-, and the spaces that it may be in: a scan's own, or unsaid.
MASKS = {
    "lesion_mask": ("lesion", (None, "orig", "T1w", "FLAIR")),
    "brain_mask": ("brain", (None, "orig", "T1w")),
}
OUTSIDE_SUBJECTS = re.compile(r"^/(?!sub-)")
# Not indexed, because they hold no scan or mask for us, may hold many files, or (work) links to the very same ones.
IGNORED = [
    re.compile(r"/(work|sourcedata|code|stimuli|func|dwi|fmap|perf|meg|eeg|ieeg|nirs|pet|beh|freesurfer[^/]*)(/|$)"),
    re.compile(r"\.(json|tsv|html|svg|txt|md|h5|gii|bval|bvec)(\.gz)?$"),
]
ROLE_COLUMNS = ("role", "group", "diagnosis")
ROLE_WORDS = {
    "patient": ("patient", "patients", "ms", "rrms", "spms", "ppms", "cis"),
    "healthy": ("healthy", "control", "controls", "hc", "healthy_control", "healthy_controls", "hv"),
}

# Path of an image and its BIDS entities by name.
Image = tuple[str, Mapping[str, str]]


@dataclass(frozen=True)
class Participant:
    """What participants.tsv says of a subject: at which line, the column of the role, its cell ("" without one), the split."""

    line: int
    role_column: str
    role: str
    split: str


def read_bids(folder: Path) -> tuple[list[Row], list[Problem], list[Problem]]:
    """The scans of the BIDS dataset `folder`, sorted by subject and session: (rows, problems, what is left out).

    Masks come from derivatives/*, role and split from participants.tsv; where that says no roles all are patients.
    """
    scans = by_session(find_images(folder, ["bids"], [*SUFFIXES.values(), *FURTHER_SCANS.values()], [*IGNORED, OUTSIDE_SUBJECTS]))
    masks = by_session(find_images(folder / "derivatives", ["bids", "derivatives"], ["mask"], IGNORED))
    participants, problems = read_participants(folder / "participants.tsv")
    rows, left_out, further = [], [], []
    for line, (subject, session) in enumerate(sorted(scans), start=1):
        row = Row(line, subject, session)
        row = replace(row, place=row.scan_id)
        images = scans[subject, session]
        found = {name: [path for path, entities in images if entities["suffix"] == suffix] for name, suffix in SUFFIXES.items()}
        missing = [SUFFIXES[name] for name, paths in found.items() if not paths]
        if missing:
            left_out.append(row.problem(f"has no {missing[0]} and is left out", ""))
            continue
        found["lesion_mask"] = mask_candidates(masks.get((subject, session), []), "lesion_mask")
        brains = mask_candidates(masks.get((subject, session), []), "brain_mask")
        found["brain_mask"] = [path for path in brains if may_belong_to(path, found["t1w"][0])]
        cells = {}
        for name, paths in found.items():
            cells[name], more = the_only(paths, row, name)
            problems += more
        row = replace(row, **cells)  # type: ignore[arg-type]
        if participants is not None:
            row, more = with_participant(row, participants.get(subject))
            problems += more
        else:
            row = replace(row, role="patient")
        rows.append(row)
        of_row = {
            name: [path for path, entities in images if entities["suffix"] == suffix] for name, suffix in FURTHER_SCANS.items()
        }
        further.append(of_row)
    rows, remarks = with_further(rows, further)
    left_out += remarks
    if not rows:
        problems.append(
            Problem(
                "has no subject with a T1w and a FLAIR of the same session; give the root of a BIDS dataset, with files such as "
                "sub-01/anat/sub-01_T1w.nii.gz and sub-01_FLAIR.nii.gz, or a samplesheet"
            )
        )
    return rows, problems, left_out


def with_further(rows: list[Row], found: list[dict[str, list[str]]]) -> tuple[list[Row], list[Problem]]:
    """The rows with the further contrasts that each of them has exactly once, and what is left out.

    `found` holds the paths of each row by column.
    """
    remarks = []
    for name, suffix in FURTHER_SCANS.items():
        paths = [of_row[name] for of_row in found]
        odd = [(row, len(own)) for row, own in zip(rows, paths, strict=True) if len(own) != 1]
        if not odd:
            rows = [replace(row, **{name: own[0]}) for row, own in zip(rows, paths, strict=True)]  # type: ignore[arg-type]
        elif any(paths):
            row, count = odd[0]
            others = f", and {len(odd) - 1} more are so" if len(odd) > 1 else ""
            text = f"has {count or 'no'} {suffix}{others}, so no {suffix} of any scan is used; give each scan one to use them"
            remarks.append(row.problem(text, ""))
    return rows, remarks


def find_images(root: Path, configs: list[str], suffixes: list[str], ignored: list[re.Pattern[str]]) -> list[Image]:
    """The NIfTI files of these suffixes under `root` that belong to a subject, by pybids; none where there is no such folder.

    The index is in memory and nothing is written; names are not validated, so that no description file is needed.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    if not root.is_dir():
        return []
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignored)
    layout = BIDSLayout(root, validate=False, derivatives=False, config=configs, indexer=indexer)
    paths = layout.get(suffix=suffixes, extension=[".nii", ".nii.gz"], return_type="filename")
    # From the path inside the dataset, because pybids would also read entities from the names of the folders above it.
    images = [(path, layout.parse_file_entities(f"/{os.path.relpath(path, root)}")) for path in paths]
    return [(path, entities) for path, entities in images if "subject" in entities]


def by_session(images: Sequence[Image]) -> dict[tuple[str, str], list[Image]]:
    """The images of each (subject, session), with "" where there is no session."""
    sessions: dict[tuple[str, str], list[Image]] = {}
    for path, entities in images:
        sessions.setdefault((entities["subject"], entities.get("session", "")), []).append((path, entities))
    return sessions


def mask_candidates(masks: Sequence[Image], column: str) -> list[str]:
    """The masks that a cell of `column` may name; a resampled one (entity res) lies on no grid of a raw scan."""
    name, spaces = MASKS[column]
    return [
        path
        for path, entities in masks
        if name in (entities.get("label"), entities.get("desc")) and entities.get("space") in spaces and "res" not in entities
    ]


def may_belong_to(mask: str, scan: str) -> bool:
    """True when both are images on the same grid, and for a link that will be refused: in a container nothing lies behind it.

    Left out here, such a link would never be named.
    """
    try:
        images = read_image(mask), read_image(scan)
    except InputError:
        return is_unsafe(os.path.realpath(mask))
    return same_grid(images[0].shape, images[0].affine, images[1].shape, images[1].affine)


def the_only(paths: list[str], row: Row, column: str) -> tuple[str | None, list[Problem]]:
    """(the path, or "" without one, no problems), or (None, the problem) where there are several."""
    if len(paths) < 2:
        return "".join(paths), []
    names = " and ".join(sorted(paths))
    return None, [row.problem(f"may be any of {names}; list the scans with the wanted files in a samplesheet", column)]


def read_participants(path: Path) -> tuple[dict[str, Participant] | None, list[Problem]]:
    """What participants.tsv says by subject label, None without such a file, and its problems."""
    if not path.is_file():
        return None, []
    try:
        lines, problems = split_cells(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        return None, [Problem("is not UTF-8 text; save it as TSV (UTF-8)", place=path.name)]
    if problems:
        return None, [replace(problem, place=f"{path.name}, row {problem.line}") for problem in problems]
    header = [name.lower() for name in lines[0][1]] if lines else []
    if "participant_id" not in header:
        return None, [Problem("has no column participant_id; add it", place=path.name)]
    role_column = next((name for name in ROLE_COLUMNS if name in header), "")
    participants: dict[str, Participant] = {}
    for line, values in lines[1:]:
        cells = {name: "" if value == "n/a" else value for name, value in zip(header, values, strict=False)}
        label = cells.get("participant_id", "").removeprefix("sub-")
        if label in participants:
            problems.append(Problem(f"sub-{label} is there twice; keep one", place=f"{path.name}, row {line}"))
        participants[label] = Participant(line, role_column, cells.get(role_column, ""), cells.get("split", ""))
    return participants, problems


def with_participant(row: Row, participant: Participant | None) -> tuple[Row, list[Problem]]:
    """A row with its subject's role and split, and the problem of the role; splits are judged with those of a sheet."""
    if participant is None:
        return replace(row, role=None), [row.problem("is not in participants.tsv; add its subject there", "role")]
    if not participant.role_column:
        return replace(row, role="patient", split=participant.split), []
    word = participant.role.lower().replace(" ", "_").replace("-", "_")
    for role, words in ROLE_WORDS.items():
        if word in words:
            return replace(row, role=role, split=participant.split), []
    text = f"{participant.role!r} in row {participant.line} of participants.tsv, column {participant.role_column}, is no role"
    remedy = "write patient or healthy in a column role"
    return replace(row, role=None, split=participant.split), [row.problem(f"{text}; {remedy}", "role")]
