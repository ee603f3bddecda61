"""Planning which donor's lesions go onto which canvas, and how many millilitres of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lesionforge.cohort.folds import Fold
from lesionforge.cohort.rows import Problem, Row

# More than counts of scans can differ by: a pair is taken again only when all others of such a canvas were taken as often.
AGAIN = 1e6
# All lesions of a donor in both halves make about so many times its load.
LARGEST_SHARE = 2.0


@dataclass(frozen=True)
class Donor:
    """Who gives lesions: a patient scan, or a mask of a library (`mask` is its path, else ""); their volume in ml.

    `subjects` are the labels, in lower case, of whom they may be, `barred` the folds that may not use them.
    """

    donor_id: str
    subjects: frozenset[str]
    load_ml: float
    mask: str = ""
    barred: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pair:
    """One scan to make: its id, its donor, the id of its canvas, the lesion load to aim at in ml, the label of its fold.

    `kind` is syn (lesions are painted), mix (they are pasted with the donor's intensities) or cla (donor and canvas are one
    scan, which is changed as a whole).
    """

    synthetic_id: str
    donor: Donor
    canvas: str
    load_ml: float
    fold: str = ""
    kind: str = "syn"


@dataclass(frozen=True)
class Plan:
    """The scans to make.

    `filled` says that lesion-filled patients are the canvases, `own` that a patient is painted onto its own filled scan.
    """

    pairs: tuple[Pair, ...]
    filled: bool
    own: bool


def plan_pairs(rows: Sequence[Row], donors: Sequence[Donor], count: int, load_ml: float | None, seed: int) -> Plan:
    """Pair donors with the training canvases, `count` times; a pair comes again when every other of such canvases came as often.

    Canvases are the training healthy scans, or without any, all training patient scans, and of these the annotated ones, which
    show what is to be segmented, about as often as all others together. A donor is never paired with its own subject, unless
    there is no other pair at all. Each scan aims at `load_ml`, or at a load that `draw_loads`
    gives it. The first n scans are the same whatever the count.
    """
    canvases = canvases_of(rows)
    allowed = np.array([[str(canvas.subject).lower() not in donor.subjects for canvas in canvases] for donor in donors], bool)
    own = allowed.size > 0 and not allowed.any()
    if own:
        allowed[:] = True
    # Loads are drawn for as many scans as there are donors at a time, so that the last such round must be whole as well.
    whole_rounds = -(-count // max(len(donors), 1)) * len(donors)
    chosen = spread_pairs(allowed, whole_rounds, np.random.default_rng(seed), canvas_costs(canvases))
    loads = draw_loads([donor.load_ml for donor in donors], [i for i, _ in chosen], np.random.default_rng([seed, 1]))
    return Plan(
        tuple(
            Pair(f"sub-syn{n:04d}", donors[i], canvases[j].scan_id, drawn if load_ml is None else load_ml)
            for n, ((i, j), drawn) in enumerate(zip(chosen[:count], loads[:count], strict=True), start=1)
        ),
        filled=not any(canvas.role == "healthy" for canvas in canvases),
        own=own,
    )


def canvases_of(rows: Sequence[Row]) -> list[Row]:
    """The training healthy scans or, without any, all training patient scans."""
    train = [row for row in rows if row.split == "train"]
    return [row for row in train if row.role == "healthy"] or [row for row in train if row.role == "patient"]


def canvas_costs(canvases: Sequence[Row]) -> np.ndarray:
    """What taking each canvas costs against 1 for an annotated one: so much that these are taken as often as all others together.

    A network that saw only canvases of other scanners took grey matter of the annotated patient's for lesions (open_ms).
    """
    annotated = np.array([bool(canvas.lesion_mask) and canvas.role == "patient" for canvas in canvases], bool)
    ratio = (~annotated).sum() / max(annotated.sum(), 1) if annotated.any() else 1.0
    return np.where(annotated, 1.0, max(ratio, 1.0))


def plan_folds(
    folds: Sequence[Fold],
    loads_ml: Mapping[str, float],
    library: Sequence[Donor],
    kinds: Sequence[str],
    count: int,
    load_ml: float | None,
    seed: int,
) -> Plan:
    """`count` scans of each kind for each fold, of what the fold may use.

    `loads_ml` has the volume of each mask of a patient by its path. The donors of kind mix are patients alone, since a mask of
    a library has no intensities. Ids are numbered across the folds in turn, so that the first n scans of each fold are the
    same whatever the count.
    """
    made, filled, own = [], False, False
    for place, fold in enumerate(folds):
        patients = training_donors(fold.rows, loads_ml)
        donors = {"syn": [*patients, *(donor for donor in library if fold.label not in donor.barred)], "mix": patients}
        for kind in kinds:
            if kind == "cla":
                pairs = plan_copies(patients, count, seed)
            else:
                plan = plan_pairs(fold.rows, donors[kind], count, load_ml, seed)
                pairs, filled, own = plan.pairs, filled or plan.filled, own or plan.own
            for n, pair in enumerate(pairs):
                number = n * len(folds) + place + 1
                made.append(replace(pair, synthetic_id=f"sub-{kind}{number:04d}", fold=fold.label, kind=kind))
    return Plan(tuple(made), filled, own)


def judge_mix(folds: Sequence[Fold]) -> list[Problem]:
    """The problem of the arm mix when a fold has an annotated training patient, but no scan of another subject to mix it with."""
    for fold in folds:
        masked = training_donors(fold.rows, defaultdict(float))
        others = {str(row.subject).lower() for row in canvases_of(fold.rows)}
        if masked and not any(others - donor.subjects for donor in masked):
            where = f"fold {fold.label}" if fold.label else "the split train"
            only = masked[0].donor_id.split("_")[0]
            text = f"the arm mix needs scans of two training subjects, but {where} has only those of {only}"
            return [Problem(f"{text}; add a scan, or leave the arm mix out")]
    return []


def plan_copies(donors: Sequence[Donor], count: int, seed: int) -> tuple[Pair, ...]:
    """`count` pairs of a donor with itself, the donors in turn, in an order that the seed draws."""
    order = np.random.default_rng([seed, 2]).permutation(len(donors))
    chosen = [donors[order[n % len(order)]] for n in range(count if donors else 0)]
    return tuple(Pair(f"sub-cla{n:04d}", donor, donor.donor_id, donor.load_ml) for n, donor in enumerate(chosen, start=1))


def training_donors(rows: Sequence[Row], loads_ml: Mapping[str, float]) -> list[Donor]:
    """The training patients with a lesion mask; `loads_ml` has the volume of each mask by its path."""
    return [
        Donor(row.scan_id, frozenset({str(row.subject).lower()}), loads_ml[row.lesion_mask])
        for row in rows
        if row.split == "train" and row.role == "patient" and row.lesion_mask
    ]


def draw_loads(loads_ml: Sequence[float], chosen: Sequence[int], generator: np.random.Generator) -> list[float]:
    """A load in ml, rounded to mm³, for each scan; `chosen` is the donor of each, `loads_ml` the loads of the donors.

    Every round of as many scans as there are donors is drawn from the whole distribution of the donors' loads, on the
    line between neighbours in their order. Within a round the largest load goes first, to any scan whose donor can reach
    it with its lesions in both halves, or to the one that comes nearest.
    """
    size = len(loads_ml)
    drawn: list[float] = []
    for start in range(0, len(chosen), size or 1):
        reach_ml = {n: LARGEST_SHARE * loads_ml[donor] for n, donor in enumerate(chosen[start : start + size])}
        shares = (np.arange(len(reach_ml)) + generator.random(len(reach_ml))) / len(reach_ml)
        found = {}
        for load_ml in sorted(np.quantile(loads_ml, shares), reverse=True):
            able = [n for n in reach_ml if reach_ml[n] >= load_ml] or [max(reach_ml, key=lambda n: reach_ml[n])]
            scan = able[int(generator.integers(len(able)))]
            # No load is none: TRANSPLANT takes only more.
            found[scan] = max(round(float(load_ml), 3), 0.001)
            del reach_ml[scan]
        drawn += [found[n] for n in sorted(found)]
    return drawn


def spread_pairs(
    allowed: np.ndarray, count: int, generator: np.random.Generator, column_costs: np.ndarray
) -> list[tuple[int, int]]:
    """Choose `count` entries of a bool matrix [donor, canvas], spread evenly over rows and columns; none if none is allowed.

    A column of `column_costs` [canvas], each at least 1, is taken so many times less often than one of 1. Each choice takes the
    allowed entry that was taken least often by this measure, and of these the one whose row and column were; ties fall as the
    generator says. Every allowed entry is taken once before one is taken again.
    The first n choices are the same whatever the count.
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
        cost[:, column] += column_costs[column]
        # A column with fewer allowed entries has each of them again sooner.
        cost[row, column] += AGAIN * column_costs[column] * allowed[:, column].sum()
    return chosen
