"""Bootstrap of means (Efron 1979), on arrays: what is drawn again are subjects, runs or lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bootstrap:
    """How often is drawn, from which seed, and how much of the resampled means an interval holds."""

    resamples: int = 2000
    seed: int = 1
    level: float = 0.95

    def generator(self) -> np.random.Generator:
        """A generator at its start, so that no interval depends on which others were made before it."""
        return np.random.default_rng(self.seed)


def percentile_interval(means: np.ndarray, settings: Bootstrap) -> tuple[float, float]:
    """The percentile interval (low, high) of resampled means, float [resample]."""
    outside = 50 * (1 - settings.level)
    low, high = np.percentile(means, (outside, 100 - outside))
    return float(low), float(high)


def resampled_means(values: np.ndarray, rng: np.random.Generator, settings: Bootstrap) -> np.ndarray:
    """The means [resample] of `values`, float [unit], whose units are drawn with replacement; at least one unit."""
    from scipy import stats

    if len(values) == 1:
        return np.full(settings.resamples, values[0])
    drawn = stats.bootstrap((values,), np.mean, n_resamples=settings.resamples, method="percentile", rng=rng)
    return np.asarray(drawn.bootstrap_distribution)


def resampled_share(part: int, whole: int, rng: np.random.Generator, settings: Bootstrap) -> np.ndarray:
    """The shares [resample] that `part` of `whole` units have when the units are drawn with replacement.

    How many of a resample belong to the part is binomial, so that no unit needs to be drawn.
    """
    return rng.binomial(whole, part / whole, settings.resamples) / whole


def resampled_means_of_groups(groups: Sequence[np.ndarray], rng: np.random.Generator, settings: Bootstrap) -> np.ndarray:
    """The means [resample] over groups of their means, groups drawn with replacement and then the members of each.

    Each group is float [member], with at least one. A group that is drawn twice has its members drawn anew.
    """
    drawn = rng.integers(0, len(groups), (settings.resamples, len(groups)))
    means = np.empty(drawn.size)
    # Where each group was drawn, in one pass for all of them.
    where = np.split(
        np.argsort(drawn, axis=None, kind="stable"), np.cumsum(np.bincount(drawn.ravel(), minlength=len(groups)))[:-1]
    )
    for members, places in zip(groups, where, strict=True):
        picked = rng.integers(0, len(members), (len(places), len(members)))
        means[places] = members[picked].mean(axis=1)
    return means.reshape(drawn.shape).mean(axis=1)
