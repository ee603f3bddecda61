"""Pictures of scans, and any figure, as PNG data URIs; everything is drawn off screen.

Colours are of the set by Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE_COLOUR = "#56B4E9"
PREDICTION_COLOUR = "#E69F00"
TISSUE_COLOURS = {1: "#0072B2", 2: "#D55E00", 3: "#F0E442"}
DOTS_PER_INCH = 100
WIDTH_INCHES = 9.4
GAP_INCHES = 0.08
TITLE_INCHES = 0.24
BAR_INCHES = 0.6
TEXT_COLOUR = "#e8e8e8"
# Grey levels and colours kept in a picture: half the file size, no visible loss.
PALETTE_SIZE = 256
LOWEST_PROBABILITY_SHOWN = 0.05


@dataclass
class Panel:
    """One picture: `grey` [row, column] in 0..1, and what lies on it, each [row, column] of the same shape.

    `outlines` are (mask, colour); `tissues` holds labels 0..3; `probability` is 0..1.
    """

    title: str
    grey: np.ndarray
    outlines: list[tuple[np.ndarray, str]] = field(default_factory=list)
    tissues: np.ndarray | None = None
    probability: np.ndarray | None = None
    sides: tuple[str, str] = ("R", "L")


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw one panel into black axes."""
    from matplotlib.colors import to_rgba

    axes.imshow(panel.grey, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="bilinear")
    if panel.tissues is not None:
        paint = np.zeros((*panel.tissues.shape, 4))
        for label, colour in TISSUE_COLOURS.items():
            paint[panel.tissues == label] = to_rgba(colour, 0.5)
        axes.imshow(paint, origin="lower", interpolation="nearest")
    if panel.probability is not None:
        shown = np.ma.masked_less(panel.probability, LOWEST_PROBABILITY_SHOWN)
        axes.imshow(shown, cmap="viridis", vmin=0, vmax=1, origin="lower", interpolation="nearest", alpha=0.85)
    for thickness, (mask, colour) in zip((1.8, 1.0), panel.outlines, strict=False):
        if mask.any():
            axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=thickness)
    # Dataset text is never read as a formula.
    axes.set_title(panel.title, color=TEXT_COLOUR, fontsize=8.5, pad=3, parse_math=False)
    for position, letter in zip((0.02, 0.98), panel.sides, strict=True):
        axes.text(position, 0.5, letter, transform=axes.transAxes, color="#9a9a9a", fontsize=7, ha="center", va="center")
    axes.set_axis_off()


def scan_figure(rows: list[list[Panel]]) -> str:
    """A grid of panels on black, as a PNG data URI; with a colour bar at the right when a panel shows probabilities.

    Rows may be of different lengths.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    has_probability = any(panel.probability is not None for row in rows for panel in row)
    # Columns are as wide, and rows as high, as their pictures ask: placed by hand, since layout engines cost seconds.
    widths = [max(panel.grey.shape[1] for panel in column if panel) for column in zip_longest(*rows)]
    heights = [max(panel.grey.shape[0] for panel in row) for row in rows]
    wide = WIDTH_INCHES
    inches = (wide - GAP_INCHES * len(widths) - BAR_INCHES * has_probability) / sum(widths)
    tall = sum(heights) * inches + TITLE_INCHES * len(rows)
    figure = Figure(figsize=(wide, tall), facecolor="black")
    bottom = tall
    for height, row in zip(heights, rows, strict=True):
        bottom -= height * inches + TITLE_INCHES
        left = GAP_INCHES / 2
        for width, panel in zip(widths, row, strict=False):
            axes = figure.add_axes((left / wide, bottom / tall, width * inches / wide, height * inches / tall))
            axes.set_anchor("N")
            draw_panel(axes, panel)
            left += width * inches + GAP_INCHES
    if has_probability:
        place = ((wide - BAR_INCHES * 0.85) / wide, 0.3 / tall, 0.1 / wide, (heights[-1] * inches - 0.6) / tall)
        bar = figure.colorbar(ScalarMappable(cmap="viridis"), cax=figure.add_axes(place))
        bar.ax.tick_params(colors=TEXT_COLOUR, labelsize=7, length=2)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("lesion probability", color=TEXT_COLOUR, fontsize=7.5)
    return data_uri(figure)


def data_uri(figure: Figure) -> str:
    """A figure as `data:image/png;base64,...`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture = picture.quantize(PALETTE_SIZE, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
