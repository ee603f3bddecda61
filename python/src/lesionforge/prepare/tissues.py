"""Tissue classes and normalised intensities: functions on arrays [x, y, z]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lesionforge.images import from_ants, to_ants
from lesionforge.images.geometry import box_around
from lesionforge.images.prepared import CSF, GM, WM

# Weight of the template's priors in Atropos; 0 would let three classes collapse onto outliers.
PRIOR_WEIGHT = 0.25
# Hyperintense: this many standard deviations of grey matter above its median, in the FLAIR.
HYPERINTENSE_STD = 1.4
NEIGHBOURHOOD_MM = 3
NEIGHBOURHOOD_SHARE = 0.35
# The interquartile range of a normal distribution, in standard deviations.
NORMAL_QUARTILES = 1.349
# Skull remnants and vessels beyond these percentiles of the brain would stretch its statistics.
WINSOR_PERCENTILES = (0.1, 99.95)
# Shares of CSF, grey and white matter in an adult's brain mask.
STANDARD_SHARES = (0.16, 0.46, 0.38)


@dataclass(frozen=True)
class StandardUnits:
    """How the intensities of one scan become those of a standard brain: cut to `low` and `high`, minus `centre`, over `scale`."""

    low: float
    high: float
    centre: float
    scale: float

    def normalise(self, image: np.ndarray, brain: np.ndarray) -> np.ndarray:
        """The image [x, y, z] in these units, float32, 0 outside the brain; all 0 where the scan has no spread."""
        if self.scale == 0:
            return np.zeros(image.shape, np.float32)
        return np.where(brain, (image.clip(self.low, self.high) - self.centre) / self.scale, 0).astype(np.float32)


def standard_units(image: np.ndarray, brain: np.ndarray, tissues: np.ndarray) -> StandardUnits:
    """The units in which a scan has mean 0 and standard deviation 1 if its tissues had STANDARD_SHARES.

    `image` [x, y, z] is winsorised; the units follow the median and the spread of the scan's own `tissues` (1 CSF, 2 GM,
    3 WM). So neither atrophy, nor lesions, nor how much CSF the mask took in move the white matter of one session against
    another's, as they do where the brain's plain mean and deviation are taken. A brain that lacks a tissue or its spread
    gets these instead; without a brain the scale is 0.
    """
    if not brain.any():
        return StandardUnits(0, 0, 0, 0)
    low, high = (float(limit) for limit in np.percentile(image[brain], WINSOR_PERCENTILES))
    cut = image.clip(low, high)
    parts = [cut[brain & (tissues == label)] for label in (CSF, GM, WM)]
    if min(part.size for part in parts):
        quartiles = np.array([np.percentile(part, (25, 50, 75)) for part in parts], dtype=np.float64)
        shares, medians = np.array(STANDARD_SHARES), quartiles[:, 1]
        spreads = (quartiles[:, 2] - quartiles[:, 0]) / NORMAL_QUARTILES
        centre = float(shares @ medians)
        scale = float(np.sqrt(shares @ (spreads**2 + (medians - centre) ** 2)))
        if scale:
            return StandardUnits(low, high, centre, scale)
    inside = cut[brain].astype(np.float64)
    return StandardUnits(low, high, float(inside.mean()), float(inside.std()))


def classify(t1w: np.ndarray, brain: np.ndarray, priors: Sequence[np.ndarray], affine: np.ndarray) -> np.ndarray:
    """Three tissues from a T1w by Atropos with template priors (CSF, GM, WM); uint8 [x, y, z], 0 outside the brain.

    Source: Avants et al. 2011, doi 10.1007/s12021-011-9109-y.
    """
    import ants

    box, affine = box_around(brain, affine, 0)
    inside, cut = brain[box], t1w[box].clip(*np.percentile(t1w[brain], (1, 99.5)))
    total = np.maximum(sum(prior[box] for prior in priors), 1e-6)
    # Priors are kept off zero, so that the intensities can overrule the template anywhere in the brain.
    images = [to_ants((0.01 + 0.97 * prior[box] / total) * inside, affine) for prior in priors]
    found = ants.atropos(
        a=to_ants(cut, affine),
        x=to_ants(inside, affine),
        i=images,
        m="[0.1,1x1x1]",
        c="[5,0]",
        # A fixed seed; Atropos draws from the clock otherwise.
        r=0,
        priorweight=PRIOR_WEIGHT,
    )
    classes = np.zeros(brain.shape, np.uint8)
    classes[box] = from_ants(found["segmentation"])[0].round().astype(np.uint8) * inside
    return classes


def hyperintense_to_white_matter(tissues: np.ndarray, flair: np.ndarray, wm_prior: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Give lesions back to white matter: hyperintense voxels where white matter is to be expected.

    A lesion mask has no say: what a cascade finds in a scan must not depend on whether the scan is annotated.

    A T1w shows lesions as dark as grey matter, black holes as dark as CSF. What exceeds grey matter's median in the
    FLAIR by HYPERINTENSE_STD robust standard deviations is neither, if the template expects white matter there or white
    matter surrounds it (its share, weighted by a Gaussian of NEIGHBOURHOOD_MM, exceeds NEIGHBOURHOOD_SHARE). `flair`
    may have any scale. Without grey matter nothing changes. Returns a new uint8 array.
    """
    corrected = tissues.copy()
    grey = flair[tissues == GM]
    if grey.size:
        low, middle, high = np.percentile(grey, (25, 50, 75))
        bright = flair > middle + HYPERINTENSE_STD * (high - low) / NORMAL_QUARTILES
        share = ndimage.gaussian_filter((tissues == WM).astype(np.float32), NEIGHBOURHOOD_MM / voxel_mm)
        expected = (wm_prior > 0.5) | (share > NEIGHBOURHOOD_SHARE)
        corrected[(tissues > 0) & bright & expected] = WM
    return corrected
