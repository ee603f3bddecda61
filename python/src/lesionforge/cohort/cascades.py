"""What the cascades given with a cohort must satisfy: that of --model, and that of --init, which may not know who is tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesionforge import nets
from lesionforge.cascade.card import Lineage, contrasts_of, lineages, read_cascade_card, refuse_missing_contrasts
from lesionforge.cohort.rows import Problem, Row
from lesionforge.errors import InputError
from lesionforge.images.names import ALWAYS, subjects_of


@dataclass(frozen=True)
class Cascades:
    """The options of `lesionforge cohort` about cascades: model folders, or None, and what they must fit.

    `contrasts` are those of the scans.
    """

    mode: str
    model: Path | None = None
    init: Path | None = None
    network: str | None = None
    voxel_mm: float = 1.0
    baseline: Path | None = None
    contrasts: tuple[str, ...] = ALWAYS

    def model_problems(self) -> list[Problem]:
        """The problem of --model for the mode, if there is one."""
        if self.mode != "segment":
            text = f"--model belongs to --mode segment, not {self.mode}; leave it out or change the mode"
            return [Problem(text)] if self.model else []
        if self.model is None:
            return [Problem("--mode segment needs --model; give the folder of a trained cascade")]
        try:
            self._read_card(self.model, None)
        except InputError as error:
            return [Problem(str(error))]
        return []

    def seen_by_model(self, rows: Sequence[Row]) -> tuple[list[Row], list[Problem]]:
        """(the rows, remarks on --model): without the masks of subjects that it has seen, which would flatter it."""
        if self.mode != "segment" or self.model is None:
            return list(rows), []
        card, _, _ = read_cascade_card(self.model)
        scan_of = scans_seen(lineages(card, str(self.model / nets.CARD)))
        seen = [row.lesion_mask and (row.subject or "").lower() in scan_of for row in rows]
        remarks = [
            row.problem(
                f"is segmented but not measured against its mask: {self.model} has seen {scan_of[str(row.subject).lower()]} "
                "when it was trained, which would flatter it",
                "subject",
            )
            for row, known in zip(rows, seen, strict=True)
            if known
        ] + self._unused_contrasts("--model", self.model, card)
        return [replace(row, lesion_mask="") if known else row for row, known in zip(rows, seen, strict=True)], remarks

    def init_problems(self, rows: Sequence[Row]) -> tuple[list[Problem], list[Problem]]:
        """(problems, remarks) of --init, --network and --baseline: for mode and scans, and what they have seen of test subjects.

        `rows` are those of the cohort with their splits.
        """
        problems, remarks = self._start_problems("--init", self.init, self.network, rows)
        if self.baseline:
            more, more_remarks = self._start_problems("--baseline", self.baseline, None, rows)
            problems, remarks = problems + more, remarks + more_remarks
        return problems, remarks

    def _unused_contrasts(self, option: str, folder: Path, card: dict[str, Any]) -> list[Problem]:
        """The remark that the cascade of an option takes fewer contrasts than the scans have, if it does."""
        taken = contrasts_of(card)
        left = " and ".join(name for name in self.contrasts if name not in taken)
        others = "" if option == "--model" else "; what is trained from random weights takes it, so the two are not alike"
        text = f"{folder} of {option} takes {', '.join(taken)} and leaves the scans' {left} alone{others}"
        return [Problem(text)] if left else []

    def _start_problems(
        self, option: str, folder: Path | None, network: str | None, rows: Sequence[Row]
    ) -> tuple[list[Problem], list[Problem]]:
        """(problems, remarks) of the cascade of one option, and of the network that it must hold, if one is said."""
        if folder is None:
            text = "--network belongs to --init, the model folder to start from; give it, or leave --network out"
            return ([Problem(text)] if network else []), []
        if self.mode != "experiment":
            text = f"{option} belongs to --mode experiment, not {self.mode}; leave it out or change the mode"
            return [Problem(text)], []
        try:
            card = self._read_card(folder, network)
            seen = lineages(card, str(folder / nets.CARD))
        except InputError as error:
            return [Problem(str(error))], []
        remarks = self._unused_contrasts(option, folder, card)
        if not all(lineage.is_complete for lineage in seen):
            text = "was trained on synthetic scans, and its card does not say of whom; see to it that none is a test subject"
            remarks.append(Problem(f"{folder}: {text}"))
        return leaks(option, folder, seen, rows), remarks

    def _read_card(self, folder: Path, network: str | None) -> dict[str, Any]:
        """The checked card of a cascade for the scans as they will be prepared, for what is to be trained."""
        card, config, voxel_mm = read_cascade_card(folder)
        refuse_missing_contrasts(folder, contrasts_of(card), self.contrasts)
        if abs(voxel_mm - self.voxel_mm) > 0.01:
            raise InputError(
                f"{folder}: is for voxels of {voxel_mm:g} mm, but the scans will have {self.voxel_mm:g} mm; "
                f"give --voxel_mm {voxel_mm:g}, or another model"
            )
        if network and network != config.network:
            raise InputError(f"{folder}: holds networks {config.network}, not {network}; leave --train_network out")
        return card


def leaks(option: str, model: Path, seen: Sequence[Lineage], rows: Sequence[Row]) -> list[Problem]:
    """A problem for each subject of split test that a cascade, or one that it goes back to, has seen."""
    scan_of = scans_seen(seen)
    tested = {row.subject: row for row in reversed(rows) if row.split == "test" and row.subject}
    return [
        row.problem(
            f"is test, but {model} of {option} has seen {scan_of[subject.lower()]} when it was trained, so that the test would "
            "flatter it; put the subject into train, start from another model, or relabel the subject if it is another person",
            "split",
        )
        for subject, row in reversed(tested.items())
        if subject.lower() in scan_of
    ]


def scans_seen(seen: Sequence[Lineage]) -> dict[str, str]:
    """The first scan that a cascade, or one that it goes back to, has seen of each subject, by the label in lower case."""
    scan_of: dict[str, str] = {}
    for lineage in seen:
        for scan in (*lineage.training, *lineage.validation, *(lineage.derived_from or ())):
            for subject in subjects_of(scan):
                scan_of.setdefault(subject, scan)
    return scan_of
