"""Put the page together: tables, sentences and figures of a run, rendered into one HTML text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionforge import __version__
from lesionforge.errors import InputError
from lesionforge.evaluate.charts import CAPTIONS, CHART_TITLES
from lesionforge.images import read_record
from lesionforge.nets import CARD, versions
from lesionforge.nets.curves import curves_figure, loss_curves
from lesionforge.prepare.quality import Limit
from lesionforge.report import pictures, tables, words
from lesionforge.report.figures import data_uri
from lesionforge.report.gather import Results, read_table, readable
from lesionforge.report.quality import ScanQuality, worst_first
from lesionforge.report.tables import Table

if TYPE_CHECKING:
    import pandas as pd

MOST_FIGURES = 12
# Each model folder has its own.
MOST_CURVES = 60
MOST_SYNTHETIC_FIGURES = 4


@dataclass
class Picture:
    """A figure: the scan it shows (its heading and alternative text), its PNG data URI, how to judge it if not as the others."""

    name: str
    uri: str
    judged: str = ""


@dataclass
class Section:
    """One part of the page, in reading order: sentences, tables, then pictures under one caption."""

    anchor: str
    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[tuple[str, Table]] = field(default_factory=list)
    caption: str = ""
    pictures: list[Picture] = field(default_factory=list)
    shown: str = ""

    def __bool__(self) -> bool:
        return bool(self.sentences or self.tables or self.pictures)


def build(results: Results, mode: str, quality: list[ScanQuality], limits: dict[str, Limit]) -> str:
    """The HTML of the page about a run in the given mode (experiment, augment or segment), its scans judged by limits."""
    import jinja2

    models = {name: folder / CARD for name, folder in results.models.items() if (folder / CARD).is_file()}
    histories = {name: path for name, folder in results.models.items() if (path := folder / "history.tsv").is_file()}
    # All before the first section, which says what cannot be read.
    read = partial(readable, results.unreadable)
    cards = read(lambda card: read_record(card, "kind"), models)
    loads = read(tables.lesion_load, results.prepared | results.synthetic)
    made_of = read(partial(tables.provenance, results), {scan: scan for scan in results.synthetic})
    losses = read(read_losses, histories)
    sections = [
        evaluation(results),
        arms_compared(results),
        cohort(results, mode, loads),
        test_scans(results),
        synthetic(results, loads, made_of),
        preparation(results, worst_first(quality), limits),
        training(cards, losses),
    ]
    made_with = dict(versions())
    for card in cards.values():
        made_with |= card.get("versions", {})
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("lesionforge.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        version=__version__,
        lead=words.LEADS[mode],
        facts=words.what_was_run(results, mode, cards),
        sections=[section for section in sections if section],
        versions=sorted(made_with.items()),
    )


def read_losses(history: Path) -> dict[str, pd.DataFrame]:
    """The training curves of a model's `history.tsv`; raises InputError as `read_table` does."""
    return loss_curves(read_table(history, ("epoch", "loss")))


def optional(*titled: tuple[str, Table | None]) -> list[tuple[str, Table]]:
    """The tables that exist."""
    return [(title, table) for title, table in titled if table is not None and table.rows]


def limited(what: list[str], most: int) -> tuple[list[str], str]:
    """The first `most` names, and a sentence when there are more."""
    if len(what) <= most:
        return what, ""
    return what[:most], f"Figures show the first {most} of {len(what)}; the tables hold all."


def evaluation(results: Results) -> Section:
    """The arms side by side, then scan by scan."""
    section = Section("evaluation", "Evaluation")
    if results.summary is not None:
        section.sentences = [words.headline(results.summary, results.comparisons), words.UNDEFINED]
        section.tables.append(("Arms side by side", tables.evaluation_table(results.summary)))
    if results.arms is not None:
        section.tables += optional(("Test scans", tables.scans_table(results.arms)))
    return section


def arms_compared(results: Results) -> Section:
    """Paired differences of every two arms, and charts of all runs, each with how to judge it."""
    section = Section("comparison", "Arms compared")
    if results.comparisons is not None and len(results.comparisons):
        section.sentences = [words.PAIRED]
        section.tables = optional(("Paired differences", tables.comparisons_table(results.comparisons)))
    for name, path in results.charts.items():
        add(section, CHART_TITLES[name], pictures.file_uri, path, judged=CAPTIONS[name])
    return section


def cohort(results: Results, mode: str, loads: dict[str, tuple[int, float] | None]) -> Section:
    """Who is in the cohort, who was the canvas, and what stopped where."""
    section = Section("cohort", "Cohort")
    note = words.canvases(results)
    section.sentences = ([note] if note else []) + words.stops(results, mode)
    if results.cohort is not None:
        section.tables = optional(
            ("Scans", tables.cohort_table(results.cohort, loads)), ("Scans of each arm", tables.arms_table(results))
        )
    return section


def test_scans(results: Results) -> Section:
    """What was found in each scan, and the segmentations laid over their scans."""
    section = Section("segmentation", "Segmentation")
    if results.lesions is not None:
        section.tables = optional(("Lesions found", tables.lesions_table(results.lesions)))
    wanted = sorted({scan for found in results.segmented.values() for scan in found if scan in results.prepared})
    chosen, section.shown = limited(wanted, MOST_FIGURES)
    section.caption = pictures.SEGMENTATION_CAPTION
    for scan in chosen:
        folders = {arm: found[scan] for arm, found in results.segmented.items() if scan in found}
        add(section, scan, pictures.segmentation, results.prepared[scan], folders)
    return section


def synthetic(results: Results, loads: dict[str, tuple[int, float] | None], made_of: dict[str, dict[str, Any]]) -> Section:
    """Each synthetic scan beside the canvas it was painted on."""
    section = Section("synthesis", "Synthetic scans")
    if made_of:
        section.tables = optional(("What each was made of", tables.synthetic_table(made_of, loads)))
    painted = [scan for scan, origin in made_of.items() if origin.get("canvas") in results.prepared]
    chosen, section.shown = limited(painted, MOST_SYNTHETIC_FIGURES)
    section.caption = pictures.SYNTHETIC_CAPTION
    for scan in chosen:
        origin = made_of[scan]
        levels = results.levels.get(origin["canvas"]) if origin.get("canvas_filled") else None
        add(section, scan, pictures.synthetic, results.synthetic[scan], results.prepared[origin["canvas"]], levels)
    return section


def preparation(results: Results, quality: list[ScanQuality], limits: dict[str, Limit]) -> Section:
    """What to look at first: the quality of each scan, worst first, then brain mask, tissues and alignment."""
    section = Section("preparation", "Preparation and registration")
    if not results.prepared:
        return section
    section.sentences = [words.quality(quality), words.HOW_TO_JUDGE]
    section.tables = optional(
        ("Scans to look at", tables.doubtful_table(quality)), ("Quality figures", tables.quality_table(quality, limits))
    )
    ranked = [scan.scan_id for scan in quality if scan.scan_id in results.prepared]
    chosen, section.shown = limited(ranked, MOST_FIGURES)
    section.caption = pictures.PREPARATION_CAPTION
    for scan in chosen:
        add(section, scan, pictures.preparation, results.prepared[scan])
    return section


def add(section: Section, name: str, draw: Callable[..., str], *what: object, judged: str = "") -> None:
    """Draw one picture into a section; a file that cannot be read becomes a sentence, not the end of the report."""
    try:
        section.pictures.append(Picture(name, draw(*what), judged))
    except InputError as error:
        section.sentences.append(f"No figure of {name}: {error}.")


def training(cards: dict[str, dict], losses: dict[str, dict[str, pd.DataFrame]]) -> Section:
    """Model cards, and the training curves of each model's networks."""
    section = Section("training", "Training")
    section.tables = optional(("Models", tables.models_table(cards)))
    curves = {f"{name} {part}".strip(): history for name, parts in losses.items() for part, history in parts.items()}
    chosen = list(curves)[:MOST_CURVES]
    if len(chosen) < len(curves):
        section.shown = (
            f"Curves of the first {len(chosen)} of {len(curves)} networks; history.tsv in each model's folder, "
            "train/<run>/history.tsv, holds the others."
        )
    if chosen:
        section.caption = (
            "Loss at each epoch. Both lines should fall and level out; a validation line that turns up while training still "
            "falls means over-fitting, one that never falls means that nothing general was learnt."
            " The ring is the epoch whose weights are kept."
        )
        section.pictures = [Picture("Training curves", data_uri(curves_figure({name: curves[name] for name in chosen})))]
    return section
