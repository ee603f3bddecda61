"""Arms against each other: paired differences of their runs on the same test scans, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge.evaluate.arms import NOT_GIVEN, arm_order
from lesionforge.evaluate.bootstrap import (
    Bootstrap,
    percentile_interval,
    resampled_means,
    resampled_means_of_groups,
    resampled_share,
)

if TYPE_CHECKING:
    import pandas as pd

REFERENCE, PREDICTED = "reference lesions", "predicted lesions"
SUBJECTS, RUNS = "subjects", "runs"
# What the interval of one subject is drawn from, for each measure that is compared.
WITHIN = {"dice": RUNS, "lesion_sensitivity": REFERENCE, "lesion_false_discovery": PREDICTED, "avd_percent": RUNS}

COMPARISON_COLUMNS = {
    "arm": "arm that is compared",
    "against": "arm that it is compared with",
    "measure": "measure of arms.tsv",
    "subject": "test subject; n/a: all, each subject with the same weight",
    "difference": "mean paired difference, arm minus against, on the same test scan with the same fold and seed; an arm with "
    "one seed is paired with all seeds of the other",
    "low": f"lower bound of its {100 * Bootstrap.level:g} % percentile bootstrap interval",
    "high": "upper bound of that interval",
    "resampled": f"what was drawn with replacement for the interval: {SUBJECTS}; {SUBJECTS} and {RUNS} (subjects, then the pairs "
    f"of runs of each); {RUNS} (pairs of them); {REFERENCE} (of each scan, the same for both arms) or {PREDICTED} (of each run)",
    "reason": "why the difference or its interval is undefined",
    "arm_mean": "mean of the measure in the arm, over the same pairs",
    "against_mean": "mean of the measure in the other arm, over the same pairs",
    "subjects": "number of test subjects with a pair where the measure is defined in both arms",
    "seeds": "number of seeds, or of pairs of seeds, among these; 1 without seeds",
    "pairs": "number of pairs of runs among these",
    "undefined": "number of pairs left out, since the measure is undefined in one or both arms",
    "lesions": f"number of {REFERENCE} or {PREDICTED} (of both arms and all runs) that were drawn from; n/a for other draws",
}


def pairs_of_arms(arms: list[str]) -> list[tuple[str, str]]:
    """Every two arms once: each arm against `real`, then `augmented` against each other arm, then the rest."""
    first = [(arm, "real") for arm in arms if arm != "real" and "real" in arms]
    first += [("augmented", arm) for arm in arms if arm not in ("real", "augmented") and "augmented" in arms]
    return first + [pair for pair in combinations(arms, 2) if not {pair, pair[::-1]} & set(first)]


def pair_runs(arms: pd.DataFrame, arm: str, against: str) -> pd.DataFrame:
    """The runs of two arms on the same test scan, one pair a row: subject, session, and the rows of `arms`, `one` and `other`.

    Folds and seeds must be the same, but an arm with a single one is paired with all of the other arm.
    """
    one, other = (arms[arms["arm"] == name] for name in (arm, against))
    runs = [name for name in ("fold", "seed") if one[name].nunique() > 1 and other[name].nunique() > 1]
    keys = ["subject", "session", *runs]
    left = one[[*keys]].assign(one=one.index, seed_one=one["seed"])
    return left.merge(other[[*keys]].assign(other=other.index, seed_other=other["seed"]), on=keys)


@dataclass(frozen=True)
class Pairs:
    """The pairs of runs of two arms where a measure is defined in both.

    `table` is that of `pair_runs`, with `difference`; `arms` the table of rows that it points to.
    """

    arms: pd.DataFrame
    table: pd.DataFrame
    measure: str

    @property
    def by_subject(self) -> list[np.ndarray]:
        """The differences of each subject, float [pair]."""
        return [pairs["difference"].to_numpy(float) for _, pairs in self.table.groupby("subject")]

    def lesions(self, kind: str) -> int:
        """How many lesions of a kind the pairs have: REFERENCE of each scan once, PREDICTED of each run once."""
        if kind == REFERENCE:
            scans = self.table.drop_duplicates(["subject", "session"])
            return int(self.arms.loc[scans["one"], "lesions_reference"].sum())
        runs = np.unique(self.table[["one", "other"]].to_numpy())
        return int(self.arms.loc[runs, "lesions_predicted"].sum())

    def resampled(self, resampled: str, settings: Bootstrap) -> np.ndarray:
        """The mean differences [resample] over subjects when what `resampled` says is drawn with replacement."""
        rng = settings.generator()
        if resampled == SUBJECTS:
            return resampled_means(np.array([values.mean() for values in self.by_subject]), rng, settings)
        if resampled == f"{SUBJECTS} and {RUNS}":
            return resampled_means_of_groups(self.by_subject, rng, settings)
        if resampled == RUNS:
            return np.mean([resampled_means(values, rng, settings) for values in self.by_subject], axis=0)
        draw = self.of_reference_lesions if resampled == REFERENCE else self.of_predicted_lesions
        return draw(rng, settings)

    def of_reference_lesions(self, rng: np.random.Generator, settings: Bootstrap) -> np.ndarray:
        """The same for the reference lesions of each scan: those drawn count in both arms and in all runs."""
        lesions = self.arms["lesions"]
        subjects = []
        for _, pairs in self.table.groupby("subject"):
            means = np.zeros(settings.resamples)
            for _, scan in pairs.groupby("session"):
                found = [
                    np.subtract(lesions[a]["found"], lesions[b]["found"], dtype=float)
                    for a, b in zip(scan["one"], scan["other"], strict=True)
                ]
                means += resampled_means(np.mean(found, axis=0), rng, settings) * len(scan) / len(pairs)
            subjects.append(means)
        return np.mean(subjects, axis=0)

    def of_predicted_lesions(self, rng: np.random.Generator, settings: Bootstrap) -> np.ndarray:
        """The same for the predicted lesions of each run, drawn once for all pairs that the run is in."""
        shares = {}
        for run in np.unique(self.table[["one", "other"]].to_numpy()):
            false = self.arms["lesions"][run]["false"]
            shares[run] = resampled_share(int(np.sum(false)), len(false), rng, settings)
        subjects = [
            np.mean([shares[a] - shares[b] for a, b in zip(pairs["one"], pairs["other"], strict=True)], axis=0)
            for _, pairs in self.table.groupby("subject")
        ]
        return np.mean(subjects, axis=0)


def why_no_interval(pairs: Pairs, resampled: str) -> str | None:
    """Why these pairs have no interval, if they have none."""
    if resampled.startswith(SUBJECTS):
        return "one subject only" if len(pairs.by_subject) < 2 else None
    if resampled == RUNS:
        return "one pair of runs only" if len(pairs.table) < 2 else None
    return f"fewer than two {resampled}" if pairs.lesions(resampled) < 2 else None


def compare_pairs(pairs: Pairs, resampled: str, settings: Bootstrap) -> dict[str, Any]:
    """The columns of COMPARISON_COLUMNS that pairs of runs, at least one, give."""
    reason = why_no_interval(pairs, resampled)
    low, high = (np.nan, np.nan) if reason else percentile_interval(pairs.resampled(resampled, settings), settings)
    sides = {}
    for name, side in (("arm_mean", "one"), ("against_mean", "other")):
        values = pairs.table.assign(value=pairs.arms.loc[pairs.table[side], pairs.measure].to_numpy())
        sides[name] = values.groupby("subject")["value"].mean().mean()
    return {
        "difference": float(np.mean([values.mean() for values in pairs.by_subject])),
        "low": low,
        "high": high,
        "resampled": resampled,
        "reason": reason or NOT_GIVEN,
        **sides,
        "subjects": len(pairs.by_subject),
        "seeds": len(pairs.table[["seed_one", "seed_other"]].drop_duplicates()),
        "pairs": len(pairs.table),
        "lesions": str(pairs.lesions(resampled)) if resampled in (REFERENCE, PREDICTED) else NOT_GIVEN,
    }


def compare_two(arms: pd.DataFrame, arm: str, against: str, settings: Bootstrap) -> list[dict[str, Any]]:
    """The rows of two arms: for each measure all subjects, by what is drawn, then each subject."""
    runs = pair_runs(arms, arm, against)
    rows = []
    for measure, within in WITHIN.items():
        difference = arms.loc[runs["one"], measure].to_numpy() - arms.loc[runs["other"], measure].to_numpy()
        known = runs.assign(difference=difference)
        beyond = f"{SUBJECTS} and {RUNS}" if within == RUNS else within
        draws = [(NOT_GIVEN, SUBJECTS), (NOT_GIVEN, beyond), *((subject, within) for subject in sorted(set(runs["subject"])))]
        for subject, resampled in draws:
            chosen = known if subject == NOT_GIVEN else known[known["subject"] == subject]
            defined = chosen[chosen["difference"].notna()]
            labels = {"arm": arm, "against": against, "measure": measure, "subject": subject}
            labels["undefined"] = len(chosen) - len(defined)
            if len(defined):
                rows.append(labels | compare_pairs(Pairs(arms, defined, measure), resampled, settings))
            else:
                reason = "undefined in every pair" if len(chosen) else "no test scan in common"
                counts = {"subjects": 0, "seeds": 0, "pairs": 0, "lesions": NOT_GIVEN}
                rows.append(labels | {"resampled": resampled, "reason": reason} | counts)
    return rows


def compare_arms(arms: pd.DataFrame, settings: Bootstrap | None = None) -> pd.DataFrame:
    """Every two arms against each other, with COMPARISON_COLUMNS; `arms` is as `arms.read_rows` gives it.

    Empty when there is one arm. What is undefined is NaN, with its reason.
    """
    import pandas as pd

    settings = settings or Bootstrap()
    pairs = pairs_of_arms(arm_order(arms["arm"]))
    rows = [row for arm, against in pairs for row in compare_two(arms, arm, against, settings)]
    return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
