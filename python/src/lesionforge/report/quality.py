"""The quality of each scan of a cohort: the figures of prepare and register, judged against their limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionforge.images import write_tsv
from lesionforge.images.names import FURTHER
from lesionforge.prepare.quality import Limit, Verdict, in_words, judge, named_figures, worst
from lesionforge.report.gather import Results, expected_scans, readable, sidecar

STATUSES = ("fail", "missing", "warn", "pass")
FURTHER_FIGURES = tuple(f"{name.lower()}_" for name in FURTHER)
UNPREPARED = "prepare left no complete folder"
WITHOUT_FIGURES = "prepare left no quality figures"


@dataclass(frozen=True)
class ScanQuality:
    """One scan judged: `status` is one of STATUSES, `reasons` say why it is no pass, `verdicts` are keyed by figure."""

    scan_id: str
    subject: str
    session: str
    role: str
    status: str
    reasons: list[str]
    verdicts: dict[str, Verdict]


def quality_of(results: Results, mode: str, limits: dict[str, Limit]) -> list[ScanQuality]:
    """One entry for each scan that the mode works on, in the order of the cohort; without a cohort, for each prepared scan."""
    rows: list[dict[Any, str]] = [{"id": scan_id} for scan_id in results.prepared]
    if results.cohort is not None:
        rows = [row.to_dict() for _, row in expected_scans(results.cohort, mode).iterrows()]
    figures = readable(results.unreadable, lambda prepared: sidecar(prepared.folder, "desc-prepare"), results.prepared)
    return [_scan_quality(row, figures.get(row["id"], {}), results, limits) for row in rows]


def _scan_quality(row: dict[Any, str], prepared: dict[str, Any], results: Results, limits: dict[str, Limit]) -> ScanQuality:
    """A scan, a row of the cohort, judged by the figures that `prepare` wrote of it, none if there are none, and `register`."""
    scan_id = row["id"]
    figures = named_figures("prepare", prepared) | named_figures("register", results.registered.get(scan_id, {}))
    verdicts = judge(figures, limits)
    status, reasons = worst(verdicts), [verdict.sentence for verdict in verdicts if verdict.sentence]
    if not prepared or not verdicts:
        status, reasons = "missing", [WITHOUT_FIGURES if scan_id in results.prepared else UNPREPARED]
    subject, session, role = (row.get(name, "") for name in ("subject", "session", "role"))
    return ScanQuality(scan_id, subject, session, role, status, reasons, {verdict.figure: verdict for verdict in verdicts})


def worst_first(scans: list[ScanQuality]) -> list[ScanQuality]:
    """The scans by status, those that fail first; within a status in their order."""
    return sorted(scans, key=lambda scan: STATUSES.index(scan.status))


def write_quality(scans: list[ScanQuality], limits: dict[str, Limit], path: Path) -> None:
    """Write the cohort's quality table: one row per scan, a column for each figure; the dictionary beside it says the limits."""
    import pandas as pd

    columns = {
        "id": "scan id",
        "subject": "BIDS subject label",
        "session": "BIDS session label",
        "role": "patient or healthy",
        "status": "pass, warn or fail: the worst of the figures; missing: prepare left no complete folder",
        "reasons": "what is beyond its limits, separated by semicolons",
    }
    rows = [_words(scan) | _numbers(scan) for scan in scans]
    # Figures of contrasts that no scan has are not listed.
    held = {name for scan in scans for name in scan.verdicts}
    shown = {name: limit for name, limit in limits.items() if name in held or not name.startswith(FURTHER_FIGURES)}
    table = pd.DataFrame(rows, columns=[*columns, *shown])
    write_tsv(table, path, columns | {name: describe(limit) for name, limit in shown.items()})


def _numbers(scan: ScanQuality) -> dict[str, Any]:
    return {name: None if v.value is None else float(f"{v.value:.6g}") for name, v in scan.verdicts.items()}


def _words(scan: ScanQuality) -> dict[str, Any]:
    words = {
        "id": scan.scan_id,
        "subject": scan.subject,
        "session": scan.session,
        "role": scan.role,
        "status": scan.status,
        "reasons": "; ".join(scan.reasons),
    }
    return {name: text or None for name, text in words.items()}


def both_limits(limit: Limit) -> str:
    """`warn limit: 1000 to 1900; fail limit: 800 to 2300`."""
    return f"warn limit: {in_words(limit.warn)}; fail limit: {in_words(limit.fail)}"


def describe(limit: Limit) -> str:
    """A figure's meaning with its unit and limits."""
    unit = f" ({limit.unit})" if limit.unit else ""
    return f"{limit.description}{unit}; {both_limits(limit)}"
