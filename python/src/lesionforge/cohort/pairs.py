"""Planning which donor's lesions go onto which canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionforge.cohort.rows import Row


@dataclass(frozen=True)
class Plan:
    """The synthetic scans to make.

    `pairs` holds (synthetic id, donor's scan id, canvas' scan id); `possible` counts all pairs there could be; `filled`
    says that lesion-filled patients are the canvases, `own` that a patient is painted onto its own filled scan.
    """

    pairs: tuple[tuple[str, str, str], ...]
    possible: int
    filled: bool
    own: bool


def plan_pairs(rows: Sequence[Row], count: int, generator: np.random.Generator) -> Plan:
    """Pair the training donors (patients with a lesion mask) with the training canvases, at most `count` pairs.

    Canvases are the training healthy scans, or without any, all training patient scans. A donor is never paired with
    its own subject, unless there is no other pair at all. Only rows of split train take part.
    """
    train = [row for row in rows if row.split == "train"]
    donors = [row for row in train if row.role == "patient" and row.lesion_mask]
    healthy = [row for row in train if row.role == "healthy"]
    canvases = healthy or [row for row in train if row.role == "patient"]
    allowed = np.array([[donor.subject != canvas.subject for canvas in canvases] for donor in donors], bool)
    own = allowed.size > 0 and not allowed.any()
    if own:
        allowed[:] = True
    pairs = spread_pairs(allowed, count, generator)
    return Plan(
        tuple((f"sub-syn{n:04d}", donors[i].scan_id, canvases[j].scan_id) for n, (i, j) in enumerate(pairs, start=1)),
        possible=int(allowed.sum()),
        filled=not healthy,
        own=own,
    )


def spread_pairs(allowed: np.ndarray, count: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Choose `count` entries (or all, if fewer) of a bool matrix [donor, canvas], spread evenly over rows and columns.

    Each choice takes the allowed entry whose row and column were taken least often; ties fall as the generator says.
    The first n choices are the same whatever the count.
    """
    if allowed.size == 0:
        return []
    # A tie-breaker below 1 never overrules the counts, which are whole.
    cost = np.where(allowed, generator.random(allowed.shape), np.inf)
    chosen: list[tuple[int, int]] = []
    for _ in range(min(count, int(allowed.sum()))):
        row, column = (int(n) for n in np.unravel_index(np.argmin(cost), cost.shape))
        chosen.append((row, column))
        cost[row, :] += 1
        cost[:, column] += 1
        cost[row, column] = np.inf
    return chosen
