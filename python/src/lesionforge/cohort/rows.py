"""Rows of a cohort, from a samplesheet or a BIDS folder, and the problems found in them."""

from __future__ import annotations

from dataclasses import dataclass

from lesionforge.images.names import FURTHER

REQUIRED_COLUMNS = ("subject", "role", "split", "t1w", "flair")
# The contrasts that all scans have, or none.
FURTHER_COLUMNS = tuple(name.lower() for name in FURTHER)
OPTIONAL_COLUMNS = ("session", *FURTHER_COLUMNS, "lesion_mask", "brain_mask")
FILE_COLUMNS = ("t1w", "flair", *FURTHER_COLUMNS, "lesion_mask", "brain_mask")
ROLES = ("patient", "healthy")
SPLITS = ("train", "validation", "test")
ARMS = ("real", "classical", "mix", "augmented", "synthetic", "published")
DEFAULT_ARMS = ("real", "augmented")
# The arms that are nothing without an annotated training scan, and those that are nothing without scans made for them.
ANNOTATED_ARMS = ("real", "classical", "mix")
MADE_ARMS = ("classical", "mix", "augmented", "synthetic")
# The arms that painted scans go into; published goes without where a run makes none.
PAINTED_ARMS = ("augmented", "synthetic", "published")
STRIPPED = "stripped"


@dataclass(frozen=True)
class Problem:
    """One fault of a cohort: what is wrong and the remedy, at a line (from 1), a column and a place, where it has them."""

    text: str
    line: int | None = None
    column: str | None = None
    place: str = ""

    def sentence(self, source: str) -> str:
        """The whole sentence: `cohort.csv, row 3, column flair: ...` or `dataset, sub-01_ses-1, flair: ...`."""
        where = [source]
        if self.place:
            where += [self.place, self.column or ""]
        else:
            where += [f"row {self.line}" if self.line is not None else "", f"column {self.column}" if self.column else ""]
        return f"{', '.join(part for part in where if part)}: {self.text}"


@dataclass(frozen=True)
class Row:
    """One scan of a cohort.

    `line` is the line of the sheet on which the row starts, from 1, or a number of its own; `place` is what to call it
    where there are no lines, in a BIDS folder. A cell is "" when empty, and None when a problem was reported about it:
    checks that follow then leave it alone instead of complaining twice. `split_drawn` says that the split was chosen by seed.
    """

    line: int
    subject: str | None = ""
    session: str | None = ""
    role: str | None = ""
    split: str | None = ""
    t1w: str | None = ""
    flair: str | None = ""
    lesion_mask: str | None = ""
    brain_mask: str | None = ""
    split_drawn: bool = False
    place: str = ""
    t2w: str | None = ""
    pdw: str | None = ""

    def problem(self, text: str, column: str) -> Problem:
        """A problem of one of its cells."""
        return Problem(text, self.line, column, self.place)

    @property
    def where(self) -> str:
        """`row 3`, or the place."""
        return self.place or f"row {self.line}"

    @property
    def scan_id(self) -> str:
        """`sub-01_ses-1`, or `sub-01` without a session."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def files(self) -> dict[str, str]:
        """Column and path of every image file the row names."""
        cells = {column: getattr(self, column) for column in FILE_COLUMNS}
        return {column: cell for column, cell in cells.items() if cell and (column, cell) != ("brain_mask", STRIPPED)}
