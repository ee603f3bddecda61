"""Charts of an experiment: arms side by side, their paired differences, and what they find by lesion size.

Colours are of the set by Okabe and Ito, which colour-blind readers can tell apart; beyond them, subjects are all grey.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from lesionforge.evaluate.arms import NOT_GIVEN, arm_order, found_by_size, mean_over_subjects
from lesionforge.evaluate.comparisons import SUBJECTS, WITHIN
from lesionforge.evaluate.detection import SIZE_BOUNDS_MM3, size_bins

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"
DOTS_PER_INCH = 100
# So few subjects make no interval worth the name: charts show what is drawn again within them.
FEW_SUBJECTS = 5
# Volume errors beyond the second are drawn on a scale that is logarithmic from the first on.
LINEAR_PERCENT, MOST_LINEAR_PERCENT = 100, 300
LARGE_PERCENT_TICKS = (-10000, -1000, -300, -100, 0, 50, 100, 300, 1000, 3000, 10000)

TITLES = {
    "dice": "Dice",
    "lesion_sensitivity": "lesion sensitivity",
    "lesion_false_discovery": "lesion false discovery",
    "avd_percent": "volume error (%)",
}
BETTER = {"dice": "higher", "lesion_sensitivity": "higher", "lesion_false_discovery": "lower", "avd_percent": "lower"}
DIFFERENCES, OTHER_DIFFERENCES, SIZES = "differences.png", "differences-others.png", "sizes.png"
CHART_TITLES = {
    **{f"arms-{measure.replace('_', '-')}.png": f"{TITLES[measure]}, every run" for measure in WITHIN},
    DIFFERENCES: "Paired differences",
    OTHER_DIFFERENCES: "Paired differences of the other arms",
    SIZES: "By lesion size",
}
# What each chart shows and how to judge it, by file name, in reading order.
CAPTIONS = {
    **{
        f"arms-{measure.replace('_', '-')}.png": f"Every run, {TITLES[measure]}: each dot is one segmented test scan of one "
        f"seed, its colour the test subject, the bar the mean over subjects. Good: {BETTER[measure]} dots. Arms differ where "
        "their dots of one colour lie apart by more than the dots of one arm do among themselves; a mean that one colour alone "
        "lifts says little."
        for measure in WITHIN
    },
    DIFFERENCES: "Paired differences, first arm minus second, on the same test scan and seed: black the mean over subjects, with "
    f"its 95 % bootstrap interval (of subjects; below {FEW_SUBJECTS} subjects of lesions, or of subjects and runs), colours each "
    "subject. Good: Dice and sensitivity right of the line, false discovery and volume error left of it, the interval clear of "
    "it and all colours on one side. With few subjects intervals say how sure it is for these subjects, not for others.",
    OTHER_DIFFERENCES: "Paired differences of every two arms without real and augmented, drawn and to be judged as theirs are.",
    SIZES: "Share of the reference lesions of each size that are found, and their mean Dice overlap with the detections that "
    "touch them (0 if missed), all test scans and runs together. Good: one line above another at every size; a gain at small "
    "sizes only matters where lesions are many. Below 10 mm³ a reference is itself uncertain.",
}


def charts_of(arms: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, Figure]:
    """The charts by file name, those of CAPTIONS that there is anything to draw in.

    `arms` is as `arms.read_rows` gives it, `comparisons` as `comparisons.compare_arms` does.
    """
    charts = {
        f"arms-{measure.replace('_', '-')}.png": arms_chart(arms, measure) for measure in WITHIN if arms[measure].notna().any()
    }
    main = main_comparisons(comparisons)
    for name, some in ((DIFFERENCES, main), (OTHER_DIFFERENCES, comparisons.drop(main.index))):
        if some["difference"].notna().any():
            charts[name] = differences_chart(some)
    if arms["lesions_reference"].any():
        charts[SIZES] = sizes_chart(arms)
    return charts


def main_comparisons(comparisons: pd.DataFrame) -> pd.DataFrame:
    """The comparisons that a reader asks for first: with `real`, and of `augmented` with the others; all if there are none."""
    main = comparisons[(comparisons["against"] == "real") | (comparisons["arm"] == "augmented")]
    return main if len(main) else comparisons


def over_subjects(rows: pd.DataFrame) -> pd.Series:
    """Of the rows of two arms and a measure, the one over all subjects whose interval is to be shown."""
    whole = rows[rows["subject"] == NOT_GIVEN]
    by_subjects = whole["resampled"] == SUBJECTS
    few = whole["subjects"].astype(int).max() < FEW_SUBJECTS
    return whole[by_subjects != few].iloc[0]


def subject_colours(subjects: pd.Series) -> dict[str, str]:
    """A colour for each subject, grey when there are more than colours."""
    names = sorted(set(subjects) - {NOT_GIVEN})
    return dict(zip(names, COLOURS, strict=False)) if len(names) <= len(COLOURS) else dict.fromkeys(names, GREY)


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")


def tidy(axes: Axes) -> None:
    """Small ticks, no frame at the top and the right."""
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def scale_percent(axes: Axes, name: Literal["x", "y"], values: np.ndarray) -> None:
    """Make the axis `name` logarithmic beyond LINEAR_PERCENT if the values ask for it."""
    if np.nanmax(np.abs(values), initial=0) > MOST_LINEAR_PERCENT:
        set_scale, set_ticks = (axes.set_xscale, axes.set_xticks) if name == "x" else (axes.set_yscale, axes.set_yticks)
        set_scale("symlog", linthresh=LINEAR_PERCENT)
        ticks = [tick for tick in LARGE_PERCENT_TICKS if tick == 0 or np.nanmin(values) <= tick <= np.nanmax(values)]
        set_ticks(ticks, [str(tick) for tick in ticks])


def subject_legend(axes: Axes, colours: dict[str, str]) -> None:
    """Which colour is which subject, right of the axes; nothing when all are grey."""
    if len(set(colours.values())) == len(colours):
        axes.legend(
            handles=[axes.scatter([], [], s=18, color=colour, label=f"sub-{name}") for name, colour in colours.items()],
            fontsize=8,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1, 1),
        )


def arms_chart(arms: pd.DataFrame, measure: str) -> Figure:
    """The runs of every arm side by side: a dot per segmented scan, in the colour of its subject, and the arm's mean."""
    names = arm_order(arms["arm"])
    colours = subject_colours(arms["subject"])
    figure = new_figure(2.6 + 0.9 * len(names), 3.2)
    axes = figure.subplots()
    for place, name in enumerate(names):
        own = arms[(arms["arm"] == name) & arms[measure].notna()]
        # Runs of one subject stand side by side, subjects too, so that no dot hides another.
        offsets = np.linspace(-0.28, 0.28, len(own)) if len(own) > 1 else [0.0]
        axes.scatter(
            place + np.asarray(offsets), own[measure], s=22, color=[colours[subject] for subject in own["subject"]], zorder=3
        )
        if len(own):
            axes.hlines(mean_over_subjects(own, measure), place - 0.36, place + 0.36, color="black", linewidth=1.6)
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.set_ylabel(f"{TITLES[measure]}, {BETTER[measure]} is better", fontsize=8)
    axes.set_xlim(-0.6, len(names) - 0.4)
    if measure == "avd_percent":
        scale_percent(axes, "y", arms[measure].to_numpy(float))
        axes.set_ylim(0, 1.15 * arms[measure].max() or 1)
    else:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    tidy(axes)
    subject_legend(axes, colours)
    return figure


def differences_chart(comparisons: pd.DataFrame) -> Figure:
    """A forest plot: for each measure the differences of every two arms, over all subjects and in each."""
    pairs = list(dict.fromkeys(zip(comparisons["arm"], comparisons["against"], strict=True)))
    colours = subject_colours(comparisons["subject"])
    figure = new_figure(12, 1.1 + 0.42 * len(pairs))
    panels = figure.subplots(1, len(WITHIN), sharey=True)
    for axes, measure in zip(panels, WITHIN, strict=True):
        for place, (arm, against) in enumerate(pairs):
            chosen = (comparisons["arm"] == arm) & (comparisons["against"] == against) & (comparisons["measure"] == measure)
            rows = comparisons[chosen]
            whole = over_subjects(rows)
            axes.hlines(place, whole["low"], whole["high"], color="black", linewidth=1.6)
            axes.scatter(whole["difference"], place, s=26, color="black", marker="D", zorder=3)
            each = rows[rows["subject"] != NOT_GIVEN]
            shade = [colours[subject] for subject in each["subject"]]
            axes.scatter(each["difference"], np.full(len(each), place + 0.25), s=14, color=shade, zorder=3)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_title(f"{TITLES[measure]}\n{BETTER[measure]} is better", fontsize=8.5)
        if measure == "avd_percent":
            scale_percent(
                axes, "x", comparisons.loc[comparisons["measure"] == measure, ["difference", "low", "high"]].to_numpy(float)
            )
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
        tidy(axes)
    panels[0].set_yticks(range(len(pairs)), [f"{arm} − {against}" for arm, against in pairs])
    panels[0].set_ylim(len(pairs) - 0.4, -0.6)
    subject_legend(panels[-1], colours)
    return figure


def sizes_chart(arms: pd.DataFrame) -> Figure:
    """Sensitivity and mean overlap of the reference lesions of each size, one line per arm."""
    figure = new_figure(9.4, 3.2)
    panels = figure.subplots(1, 2)
    places = range(len(SIZE_BOUNDS_MM3) - 1)
    for number, (arm, sizes) in enumerate(found_by_size(arms).groupby("arm", sort=False)):
        # One marker more than colours, so that they do not come round together.
        look = {"marker": "osD^vPX*"[number % 8], "color": COLOURS[number % len(COLOURS)]}
        look["linestyle"] = "-" if number < len(COLOURS) else "--"
        for axes, name in zip(panels, ("recall", "dice"), strict=True):
            axes.plot(places, sizes[name], markersize=5, linewidth=1.3, label=arm, **look)
    scans = arms.drop_duplicates(["subject", "session"])["lesions"]
    counts = np.bincount(size_bins(np.concatenate([scan["reference_mm3"] for scan in scans])), minlength=len(places))
    bounds = pairwise(SIZE_BOUNDS_MM3)
    spans = [
        f"from {low:g}" if np.isinf(high) else f"below {high:g}" if not low else f"{low:g} to {high:g}" for low, high in bounds
    ]
    labels = [f"{span}\n(n = {count})" for span, count in zip(spans, counts, strict=True)]
    for axes, title in zip(panels, ("share of lesions found", "mean Dice of the lesions"), strict=True):
        axes.set_xticks(places, labels)
        axes.set_xlabel("volume of the reference lesion, mm³", fontsize=8)
        axes.set_ylabel(title, fontsize=8)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        tidy(axes)
    panels[-1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
