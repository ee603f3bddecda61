"""Planning which donor's lesions go onto which canvas, and how many millilitres of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionforge.cohort.rows import Row

# More than counts of scans can differ by: a pair is taken again only when all others were taken as often.
AGAIN = 1e6


@dataclass(frozen=True)
class Donor:
    """Who gives lesions: a patient scan, or a mask of a library (`mask` is its path, else ""); their volume in ml."""

    donor_id: str
    subject: str
    load_ml: float
    mask: str = ""


@dataclass(frozen=True)
class Pair:
    """One synthetic scan: its id, its donor, the id of its canvas, the lesion load to aim at in ml."""

    synthetic_id: str
    donor: Donor
    canvas: str
    load_ml: float


@dataclass(frozen=True)
class Plan:
    """The synthetic scans to make.

    `filled` says that lesion-filled patients are the canvases, `own` that a patient is painted onto its own filled scan.
    """

    pairs: tuple[Pair, ...]
    filled: bool
    own: bool


def plan_pairs(rows: Sequence[Row], donors: Sequence[Donor], count: int, load_ml: float | None, seed: int) -> Plan:
    """Pair donors with the training canvases, `count` times; a pair comes again when every other came as often.

    Canvases are the training healthy scans, or without any, all training patient scans. A donor is never paired with
    its own subject, unless there is no other pair at all. Each scan aims at `load_ml`, or at a load drawn from those of
    the donors. The first n scans are the same whatever the count.
    """
    train = [row for row in rows if row.split == "train"]
    healthy = [row for row in train if row.role == "healthy"]
    canvases = healthy or [row for row in train if row.role == "patient"]
    allowed = np.array([[donor.subject != canvas.subject for canvas in canvases] for donor in donors], bool)
    own = allowed.size > 0 and not allowed.any()
    if own:
        allowed[:] = True
    chosen = spread_pairs(allowed, count, np.random.default_rng(seed))
    loads = draw_loads([donor.load_ml for donor in donors], len(chosen), np.random.default_rng([seed, 1]))
    return Plan(
        tuple(
            Pair(f"sub-syn{n:04d}", donors[i], canvases[j].scan_id, drawn if load_ml is None else load_ml)
            for n, ((i, j), drawn) in enumerate(zip(chosen, loads, strict=True), start=1)
        ),
        filled=not healthy,
        own=own,
    )


def draw_loads(loads_ml: Sequence[float], count: int, generator: np.random.Generator) -> list[float]:
    """Draw loads in ml, rounded to mm³, from the distribution of some: on the line between neighbours in their order."""
    if not count:
        return []
    return [round(float(load), 3) for load in np.quantile(loads_ml, generator.random(count))]


def spread_pairs(allowed: np.ndarray, count: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Choose `count` entries of a bool matrix [donor, canvas], spread evenly over rows and columns; none if none is allowed.

    Each choice takes the allowed entry that was taken least often, and of these the one whose row and column were; ties
    fall as the generator says. The first n choices are the same whatever the count.
    """
    if not allowed.any():
        return []
    # A tie-breaker below 1 never overrules the counts, which are whole.
    cost = np.where(allowed, generator.random(allowed.shape), np.inf)
    chosen: list[tuple[int, int]] = []
    for _ in range(count):
        row, column = (int(n) for n in np.unravel_index(np.argmin(cost), cost.shape))
        chosen.append((row, column))
        cost[row, :] += 1
        cost[:, column] += 1
        cost[row, column] += AGAIN
    return chosen
