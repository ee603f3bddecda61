"""Which scans belong to which arm, and the guard that keeps test subjects out of every one of them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from lesionforge.cohort.rows import MADE_ARMS
from lesionforge.errors import InputError

# Which scans made of others an arm trains on, by the beginning of their ids, and which arms train on real scans too.
MADE_FOR = {
    "classical": "sub-cla",
    "mix": "sub-mix",
    "augmented": "sub-syn",
    "synthetic": "sub-syn",
    "published": "sub-syn",
}
WITH_REAL = ("real", "classical", "mix", "augmented", "published")
MADE_BY = {
    "sub-cla": ("assemble", "lesionforge assemble classical"),
    "sub-mix": ("assemble", "lesionforge assemble mix"),
    "sub-syn": ("synthesize", "lesionforge synthesize paint"),
}
"""By the beginning of their ids, where scans made of others lie and what makes them."""


@dataclass(frozen=True)
class CohortRow:
    """What the arms need to know of one scan of the cohort."""

    scan_id: str
    subject: str
    role: str
    split: str
    has_lesion_mask: bool


@dataclass(frozen=True)
class Provenance:
    """The two scans that a synthetic scan was made of: whose lesions, and on whose brain; for an augmented copy they are one.

    `generator_scans` are those that the generator learned from which painted it.
    """

    scan_id: str
    donor: str
    canvas: str
    generator_scans: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArmRow:
    """One scan of an arm: `origin` is real or synthetic, `split` is train or validation."""

    arm: str
    scan_id: str
    subject: str
    origin: str
    split: str


def check_splits(cohort: list[CohortRow]) -> None:
    """Raise InputError when the scans of one subject are in different splits."""
    split_of: dict[str, str] = {}
    for row in cohort:
        if split_of.setdefault(row.subject, row.split) != row.split:
            raise InputError(
                f"{row.scan_id}: is in split {row.split}, another scan of {row.subject} in {split_of[row.subject]}; "
                "give all scans of a subject one split"
            )


def check_provenance(synthetic: list[Provenance], cohort: list[CohortRow], library: Set[str]) -> None:
    """Refuse synthetic scans that were made of anything but training subjects and the masks of a library that the cohort stage
    let through, whose ids are `library`.

    Raises InputError for the first scan whose donor or canvas is of a test or validation subject, or unknown, and for one
    whose generator learned from a scan that is of a test subject, or unknown.
    """
    subject_of = {row.scan_id: row.subject for row in cohort}
    held_out = {row.subject: row.split for row in cohort if row.split in ("test", "validation")}
    for scan in synthetic:
        for part, source in (("donor", scan.donor), ("canvas", scan.canvas)):
            if part == "donor" and source in library:
                continue
            if source not in subject_of:
                raise InputError(
                    f"{scan.scan_id}: its {part} {source} is not in cohort.tsv, so nobody can tell whether it is a test "
                    "subject; remove this synthetic scan or make it again from this cohort"
                )
            if subject_of[source] in held_out:
                raise InputError(
                    f"{scan.scan_id}: its {part} {source} is a {held_out[subject_of[source]]} subject, whose scans must not "
                    "reach training; remove this synthetic scan"
                )
        for source in scan.generator_scans:
            if source not in subject_of or held_out.get(subject_of[source]) == "test":
                raise InputError(
                    f"{scan.scan_id}: its generator learned from {source}, which is a test subject or not in cohort.tsv; "
                    "remove this synthetic scan, or paint it with a generator of this cohort"
                )


def made_for(arm: str, synthetic: list[Provenance]) -> list[Provenance]:
    """Those of the scans made of others that an arm trains on, by their ids."""
    return [scan for scan in synthetic if arm in MADE_FOR and scan.scan_id.startswith(MADE_FOR[arm])]


def lacks_scans(arm: str, synthetic: list[Provenance]) -> bool:
    """Whether an arm cannot be what it is called, for want of scans made for it; `published` is then `real`."""
    return arm in MADE_ARMS and not made_for(arm, synthetic)


def arm_rows(arm: str, cohort: list[CohortRow], synthetic: list[Provenance], library: Set[str]) -> list[ArmRow]:
    """The scans of one arm, sorted: real training scans (not in the arm `synthetic`), validation scans, then those made for it.

    `classical` adds augmented copies (sub-cla), `mix` mixed scans (sub-mix), `augmented` painted ones (sub-syn); `published`
    has the scans of `augmented`, or of `real` where none was painted. Where no training patient has a lesion mask, an arm
    trains on the scans made for it alone. `synthetic` holds the scans made of others, for any arm; `library` has the ids
    of donors that are masks without scans. Validation scans are real and the same in every arm. Raises InputError when the arm
    has nothing to train on, when no scan was made for it, or as `check_splits` and `check_provenance` do.
    """
    check_splits(cohort)
    check_provenance(synthetic, cohort, library)
    if lacks_scans(arm, synthetic):
        prefix = MADE_FOR[arm]
        raise InputError(f"arm {arm}: there is no scan {prefix}*; run {MADE_BY[prefix][1]} first, or leave this arm out")
    splits = ("train", "validation") if arm in WITH_REAL else ("validation",)
    rows = [
        ArmRow(arm, row.scan_id, row.subject, "real", row.split)
        for row in cohort
        if row.role == "patient" and row.has_lesion_mask and row.split in splits
    ]
    rows += [ArmRow(arm, scan.scan_id, scan.scan_id, "synthetic", "train") for scan in made_for(arm, synthetic)]
    if not any(row.split == "train" for row in rows):
        raise InputError(
            f"arm {arm}: the cohort has no training patient with a lesion mask; give at least one, or leave this arm out"
        )
    return sorted(rows, key=lambda row: (row.origin, row.split, row.scan_id))


def stage_of(row: ArmRow) -> str:
    """The stage in whose folder a scan lies."""
    if row.origin == "real":
        return "prepare"
    return next(stage for prefix, (stage, _) in MADE_BY.items() if row.scan_id.startswith(prefix))
