"""Which scans belong to which arm, and the guard that keeps test subjects out of every one of them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from lesionforge.errors import InputError


@dataclass(frozen=True)
class CohortRow:
    """What the arms need to know of one scan of the cohort."""

    scan_id: str
    subject: str
    role: str
    split: str
    has_lesion_mask: bool


# The made scans that go into each arm: how their ids begin.
MADE = {"classical": "sub-cla", "mix": "sub-mix", "augmented": "sub-syn", "synthetic": "sub-syn", "published": "sub-syn"}
ORIGINS = {"sub-cla": "classical", "sub-mix": "mix", "sub-syn": "synthetic"}


@dataclass(frozen=True)
class Provenance:
    """What a made scan was made of: whose lesions, on whose brain, and the scans that its generator learned from, if it has one."""

    scan_id: str
    donor: str
    canvas: str
    generator_scans: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class ArmRow:
    """One scan of an arm: `origin` is real, synthetic, mix or classical, `split` is train or validation."""

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
    """Refuse made scans that were made of anything but training subjects, healthy scans outside the test set, and the
    masks of a library that the cohort stage let through, whose ids are `library`.

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
            if held_out.get(subject_of.get(source, "")) == "test" or source not in subject_of:
                raise InputError(
                    f"{scan.scan_id}: its generator learned from {source}, which is a test subject or not in cohort.tsv; "
                    "remove this synthetic scan, or paint it with a generator of this cohort"
                )


def arm_rows(arm: str, cohort: list[CohortRow], made: list[Provenance], library: Set[str]) -> list[ArmRow]:
    """The scans of one arm, sorted: real training scans (but in the arm synthetic), validation scans, then the made scans.

    Where no training patient has a lesion mask, the augmented arm trains on synthetic scans alone; `library` has the ids of
    donors that are masks without scans. Of `made` those of another arm's kind are passed over; the arm published is that of
    real scans where nothing was painted. Validation scans are real and the same in all arms. Raises InputError when the arm
    has nothing to train on, when an arm of made scans has none, or as `check_splits` and `check_provenance` do.
    """
    check_splits(cohort)
    check_provenance(made, cohort, library)
    splits = ("validation",) if arm == "synthetic" else ("train", "validation")
    rows = [
        ArmRow(arm, row.scan_id, row.subject, "real", row.split)
        for row in cohort
        if row.role == "patient" and row.has_lesion_mask and row.split in splits
    ]
    kind = MADE.get(arm)
    added = [scan.scan_id for scan in made if kind and scan.scan_id.startswith(kind)]
    if kind and not added and arm != "published":
        raise InputError(f"arm {arm}: there is no {ORIGINS[kind]} scan to add; run the command that makes them first")
    rows += [ArmRow(arm, scan_id, scan_id, ORIGINS[str(kind)], "train") for scan_id in added]
    if not any(row.split == "train" for row in rows):
        raise InputError(
            f"arm {arm}: the cohort has no training patient with a lesion mask; give at least one, or leave this arm out"
        )
    return sorted(rows, key=lambda row: (row.origin, row.split, row.scan_id))
