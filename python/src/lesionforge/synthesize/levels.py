"""Intensity levels of white-matter hyperintensities (Salem et al., IEEE Access 2019, doi 10.1109/ACCESS.2019.2900198)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionforge.errors import InputError

# thr(a) = mean + a * std of FLAIR in grey matter: the eight published values of a.
LEVEL_FACTORS = (0.5, 0.8, 1.1, 1.4, 1.7, 2.1, 2.4, 2.7)
LEVEL_COUNT = len(LEVEL_FACTORS)
GREY_MATTER = 2
WHITE_MATTER = 3
# Grey-matter FLAIR beyond these percentiles is cerebrospinal fluid, lesion or artefact that the classifier let in.
WINSOR_PERCENTILES = (5.0, 95.0)


@dataclass(frozen=True)
class GreyMatterFlair:
    """Mean and standard deviation of one scan's FLAIR in grey matter, in that scan's normalised units."""

    mean: float
    std: float

    def thresholds(self) -> np.ndarray:
        """The eight lower bounds of the levels, ascending, float64 [8]."""
        return self.mean + self.std * np.array(LEVEL_FACTORS)


def grey_matter_flair(flair: np.ndarray, tissues: np.ndarray, lesion: np.ndarray) -> GreyMatterFlair:
    """FLAIR statistics of the grey matter outside the lesion mask, winsorised at the 5th and 95th percentile.

    Arrays are [x, y, z]. Raises InputError when there is no grey matter or its FLAIR is constant or not finite.
    """
    values = flair[(tissues == GREY_MATTER) & ~lesion].astype(np.float64)
    if values.size < 2:
        raise InputError("the tissue segmentation holds no grey matter; check the brain mask and prepare the scan again")
    statistics = GreyMatterFlair(*_winsorised(values))
    if not np.isfinite(statistics.mean) or not statistics.std > 0:
        raise InputError("FLAIR is constant or not finite in grey matter; check the FLAIR and prepare the scan again")
    return statistics


def _winsorised(values: np.ndarray) -> tuple[float, float]:
    clipped = np.clip(values, *np.percentile(values, WINSOR_PERCENTILES))
    return float(clipped.mean()), float(clipped.std())


def levels_of(flair: np.ndarray, statistics: GreyMatterFlair) -> np.ndarray:
    """The level of each intensity: 0 at or below the first threshold, k above the k-th only, 8 above all; uint8, same shape.

    Level k is the published band W_k, so the bands are disjoint and M_k is `levels >= k`. NaN gives level 0.
    """
    levels = np.searchsorted(statistics.thresholds(), np.nan_to_num(flair, nan=-np.inf), side="left")
    return levels.astype(np.uint8)


def hyperintensity_levels(flair: np.ndarray, tissues: np.ndarray, lesion: np.ndarray, statistics: GreyMatterFlair) -> np.ndarray:
    """Levels 0..8 of the white-matter hyperintensities of a scan, uint8 [x, y, z].

    Our decision: bands are kept only in white matter and in the lesion mask. The published program keeps them in the
    whole volume, where half of the cortex would be filled and painted again.
    """
    domain = (tissues == WHITE_MATTER) | lesion
    return np.where(domain, levels_of(flair, statistics), 0).astype(np.uint8)


def bands(levels: np.ndarray) -> np.ndarray:
    """The eight disjoint band masks W1..W8 as channels, float32 [..., 8]."""
    return (levels[..., np.newaxis] == np.arange(1, LEVEL_COUNT + 1, dtype=levels.dtype)).astype(np.float32)
