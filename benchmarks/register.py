#!/usr/bin/env python3
"""Composed against pairwise registration on prepared scans: tissue overlap, folding, time, and what 20 x 20 subjects would cost.

    .venv/bin/python benchmarks/register.py --prepared DIR DIR DIR ... [--pairs N]

Prints Markdown tables. Time is processor time (all threads), so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lesionforge.images import Prepared, read_json
from lesionforge.images.interfaces import run
from lesionforge.register.interfaces import Pair, ToTemplate

FIGURES = ("dice_csf", "dice_gm", "dice_wm", "folding_fraction", "seconds")
TISSUES = FIGURES[:3]
SUBJECTS = 20
MIN_PAIRS = 6


def timed(interface: type, ending: str, **inputs: Path) -> dict[str, Any]:
    """Run one of our interfaces; its figures (the JSON it writes) with the processor seconds and the folder."""
    begin = time.process_time()
    folder = run(interface, **inputs)
    return read_json(next(folder.glob(f"*_{ending}.json"))) | {"seconds": time.process_time() - begin, "folder": folder}


def mean(rows: list[dict[str, Any]], name: str) -> float:
    """Mean of one figure over rows."""
    return float(np.mean([row[name] for row in rows]))


def cells(figures: dict[str, float]) -> list[str]:
    """The figures of one method as table cells: Dice, folding in percent, seconds."""
    return [
        *(f"{figures[name]:.3f}" for name in TISSUES),
        f"{100 * figures['folding_fraction']:.4f}",
        f"{figures['seconds']:.0f}",
    ]


def line(*texts: object) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(str(text) for text in texts)} |"


def pair_header() -> str:
    """The first two lines of the table of pairs; composed on the left, pairwise on the right."""
    head = ["CSF", "GM", "WM", "folding %", "s"]
    names = ["donor", "canvas", *(f"{method} {name}" for method in ("composed", "pairwise") for name in head)]
    return f"{line(*names)}\n{line(*['---'] * len(names))}"


def summary_table(
    templates: list[dict[str, Any]], composed: list[dict[str, Any]], direct: list[dict[str, Any]], pairs: int
) -> list[str]:
    """What was lost in overlap, how often was registered, and the cost of SUBJECTS donors and canvases."""
    lost = {name: mean(direct, name) - mean(composed, name) for name in TISSUES}
    to_template, compose, register = mean(templates, "seconds"), mean(composed, "seconds"), mean(direct, "seconds")
    all_pairs = SUBJECTS * SUBJECTS
    hours_composed = (2 * SUBJECTS * to_template + all_pairs * compose) / 3600
    hours_direct = all_pairs * register / 3600
    folding = max(row["folding_fraction"] for row in composed + direct)
    changes = ", ".join(f"{name.removeprefix('dice_').upper()} {-loss:+.3f}" for name, loss in lost.items())
    return [
        line("figure", "composed", "pairwise"),
        line("---", "---", "---"),
        line("processor seconds to register once", f"{to_template:.0f}", f"{register:.0f}"),
        line("processor seconds to compose and warp a pair", f"{compose:.0f}", "within the above"),
        line(f"registrations for these {pairs} pairs", len(templates), pairs),
        line(f"registrations for {SUBJECTS} x {SUBJECTS} subjects", 2 * SUBJECTS, all_pairs),
        line(
            f"processor hours for {SUBJECTS} x {SUBJECTS} subjects, extrapolated", f"{hours_composed:.1f}", f"{hours_direct:.1f}"
        ),
        line("mean tissue Dice against pairwise", f"{-np.mean(list(lost.values())):+.3f} ({changes})", "0"),
        line("most folding, % of brain voxels, of any pair", f"{100 * folding:.4f}", ""),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", nargs="+", required=True, type=Path, metavar="DIR", help="prepared folders, 3 or more")
    parser.add_argument("--pairs", type=int, help="so many of the ordered pairs, 6 or more (default: all)")
    options = parser.parse_args()
    scans = {Prepared.open(folder).scan_id: folder.resolve() for folder in options.prepared}
    wanted = options.pairs or MIN_PAIRS
    chosen = list(itertools.permutations(scans, 2))[: options.pairs]
    if not MIN_PAIRS <= wanted <= len(chosen):
        parser.error(
            f"{len(scans)} scans make {len(scans) * (len(scans) - 1)} ordered pairs; between {MIN_PAIRS} and all are measured"
        )
    names = list(dict.fromkeys(itertools.chain(*chosen)))
    composed, direct = [], []
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        templates = {name: timed(ToTemplate, "desc-register", prepared=scans[name], out=out / "register") for name in names}
        print(pair_header(), flush=True)
        for donor, canvas in chosen:
            both = {"donor": scans[donor], "canvas": scans[canvas]}
            transforms = {
                f"{role}_transforms": templates[name]["folder"] for role, name in (("donor", donor), ("canvas", canvas))
            }
            composed.append(timed(Pair, "desc-pair", **both, **transforms, out=out / "composed"))
            direct.append(timed(Pair, "desc-pair", **both, out=out / "pairwise"))
            print(line(donor, canvas, *cells(composed[-1]), *cells(direct[-1])), flush=True)
    means = ({name: mean(rows, name) for name in FIGURES} for rows in (composed, direct))
    print(line("mean", "", *itertools.chain(*(cells(figures) for figures in means))))
    print("\n".join(["", *summary_table(list(templates.values()), composed, direct, len(chosen))]))


if __name__ == "__main__":
    main()
