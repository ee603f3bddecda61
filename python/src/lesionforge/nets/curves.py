"""Training curves. Colours are of the set by Okabe and Ito, which colour-blind readers can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lesionforge.images import read_tsv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TRAINING_COLOUR, VALIDATION_COLOUR = "#0072B2", "#E69F00"
DOTS_PER_INCH = 100


def write_curves(folder: Path) -> None:
    """Draw the `history.tsv` of a model folder as `history.png` beside it, the same bytes from the same numbers."""
    figure = curves_figure(loss_curves(read_tsv(folder / "history.tsv")))
    figure.savefig(folder / "history.png", dpi=DOTS_PER_INCH, metadata={"Software": None})


def curves_figure(histories: dict[str, pd.DataFrame]) -> Figure:
    """Training curves, one panel per network: columns `epoch` and any losses, as `loss_curves` gives them.

    The epoch with the lowest validation loss, whose weights are kept, has a ring.
    """
    from matplotlib.figure import Figure

    across = min(len(histories), 3)
    down = -(-len(histories) // across)
    figure = Figure(figsize=(3.4 * across, 2.5 * down), facecolor="white", layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid[len(histories) :]:
        axes.set_axis_off()
    for axes, (title, history) in zip(grid, histories.items(), strict=False):
        for name in history.columns.drop("epoch"):
            held_out = name.startswith("val")
            axes.plot(
                history["epoch"],
                history[name],
                color=VALIDATION_COLOUR if held_out else TRAINING_COLOUR,
                linestyle="--" if held_out else "-",
                marker="o" if len(history) < 15 else "",
                markersize=3,
                linewidth=1.5,
                label="validation" if held_out else "training",
            )
            if held_out and history[name].notna().any():
                best = history.sort_values(name, kind="stable").iloc[0]
                ring = {"color": VALIDATION_COLOUR, "marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": ""}
                axes.plot(best["epoch"], best[name], label=f"best: epoch {best['epoch']:.0f}", **ring)
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_xlabel("epoch", fontsize=8)
        axes.set_ylabel("loss", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
        if axes.lines:
            axes.legend(fontsize=7, frameon=False)
    return figure


def loss_curves(history: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split a history table (text cells) by its columns of words, such as `network`, into tables of `epoch` and its losses.

    Shows `loss` and `val_loss` where they are, else every column with `loss` in its name. Tables without a loss are left out.
    """
    import pandas as pd

    values = history.apply(pd.to_numeric, errors="coerce")
    words = [
        name for name in history.columns if name == "network" or (values[name].isna() & ~history[name].isin(["", "n/a"])).any()
    ]
    losses = [name for name in ("loss", "val_loss") if name in values] or [name for name in values if "loss" in str(name)]
    names = history[words].agg(" ".join, axis=1) if words else pd.Series("", index=history.index)
    out = {}
    for title in names.unique():
        index = names.index[names == title]
        part = values.loc[index, losses].dropna(axis=1, how="all")
        if part.shape[1]:
            epochs = values.loc[index, "epoch"] if "epoch" in values else pd.Series(range(1, len(index) + 1), index=index)
            out[title] = part.assign(epoch=epochs)
    return out
