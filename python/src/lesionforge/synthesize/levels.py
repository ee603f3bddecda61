"""Intensity levels of white-matter hyperintensities (Salem et al., IEEE Access 2019, doi 10.1109/ACCESS.2019.2900198).

Published are levels of the FLAIR. Ours has levels of every contrast, because how dark a lesion is in the T1w does not follow from
how bright it is in the FLAIR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images.hyperintense import grey_flair, off_cortex
from lesionforge.images.prepared import GM as GREY_MATTER
from lesionforge.images.prepared import WM as WHITE_MATTER

# Lower bounds of the levels 1 to 12 of each contrast, in units of its `Scale`. FLAIR: the eight published thr(a) = mean +
# a * std of grey matter, and four of ours, since many lesions are brighter than all of those. T1w: ours, how far a voxel is on
# the way from white (0) to grey matter (1) and on to CSF (about 3).
LEVEL_FACTORS = {
    "t1w": (0.25, 0.5, 0.75, 1.0, 1.4, 1.8, 2.3, 2.8, 3.4, 4.1, 5.0, 6.0),
    "flair": (0.5, 0.8, 1.1, 1.4, 1.7, 2.1, 2.4, 2.7, 3.1, 3.6, 4.2, 5.0),
}
# T2w and PDw: as the T1w, the way from white to grey matter, which leads to the bright there.
LEVEL_FACTORS |= dict.fromkeys(("t2w", "pdw"), LEVEL_FACTORS["t1w"])
# The suffix in the names of files.
SUFFIXES = {"t1w": "T1w", "flair": "FLAIR", "t2w": "T2w", "pdw": "PDw"}
LEVEL_COUNT = 12
# The last published level holds all that is brighter.
PUBLISHED_LEVELS = 8
# The contrasts that every scan has, the first of level maps that are stacked; what else a scan has follows in the order of
# SUFFIXES. A voxel has a level of any other contrast only where it has one in the FLAIR.
ALWAYS = ("t1w", "flair")
FLAIR = ALWAYS.index("flair")
# Of a patient without a lesion mask, hyperintensities reach this level (grey matter + 1.4 std) off the cortex; paler ones are
# mostly partial volume with grey matter, and noise.
HYPERINTENSE_LEVEL = 4
# Around the lesions of a mask, or around hyperintensities, so far reach their pale rims.
RIM_VOXELS = 2
# What is held in a level keeps this far from its bounds, so that rounding cannot take it out again.
HELD_MARGIN = 0.001


@dataclass(frozen=True)
class Scale:
    """The units in which one contrast of a scan has its levels: `zero` and `unit` in the scan's normalised intensities.

    The unit is negative where levels rise towards the dark, as in the T1w.
    """

    zero: float
    unit: float

    def units(self, image: np.ndarray) -> np.ndarray:
        """Normalised intensities in these units."""
        return (image - self.zero) / self.unit

    def intensities(self, units: np.ndarray) -> np.ndarray:
        """What `units` gives, as normalised intensities again."""
        return units * self.unit + self.zero


def scales_of(images: Mapping[str, np.ndarray], tissues: np.ndarray, lesion: np.ndarray) -> dict[str, Scale]:
    """The scales of a scan's contrasts, from its tissues outside the lesion mask; arrays are [x, y, z].

    FLAIR: mean and standard deviation of grey matter, winsorised at the 5th and 95th percentile. Others: median of white
    matter, and from there to the median of grey matter. Raises InputError when a tissue is missing, when a contrast is
    constant or not finite in them, when grey matter is the brighter one in the T1w, or the darker one in T2w or PDw.
    """
    white, grey = ((tissues == label) & ~lesion for label in (WHITE_MATTER, GREY_MATTER))
    for name, mask in (("grey", grey), ("white", white)):
        if np.count_nonzero(mask) < 2:
            raise InputError(f"the tissue segmentation holds no {name} matter; check the brain mask and prepare the scan again")
    found = {}
    for name, image in images.items():
        if name == "flair":
            found[name] = Scale(*grey_flair(image[grey]))
        else:
            of_white = float(np.median(image[white]))
            found[name] = Scale(of_white, float(np.median(image[grey])) - of_white)
    for name, scale in found.items():
        if not np.isfinite([scale.zero, scale.unit]).all() or scale.unit == 0:
            label = SUFFIXES[name]
            raise InputError(f"{label} is constant or not finite in the brain; check the {label} and prepare the scan again")
    if found["t1w"].unit > 0:
        raise InputError(
            "grey matter is brighter than white matter in the T1w; check that it is a T1w and prepare the scan again"
        )
    for name, scale in found.items():
        if name not in ALWAYS and scale.unit < 0:
            label = SUFFIXES[name]
            raise InputError(
                f"grey matter is darker than white matter in the {label}; check that it is a {label} and prepare the scan again"
            )
    return found


def levels_of(units: np.ndarray, contrast: str) -> np.ndarray:
    """The level of each value: 0 at or below the first threshold, k above the k-th only, 12 above all; uint8, same shape.

    Level k of the FLAIR is the published band W_k, of which W_8 is our levels 8 to 12; so the bands are disjoint and M_k is
    `levels >= k`. NaN gives level 0.
    """
    return np.searchsorted(LEVEL_FACTORS[contrast], np.nan_to_num(units, nan=-np.inf), side="left").astype(np.uint8)


def hyperintensity_levels(
    units: Mapping[str, np.ndarray], tissues: np.ndarray, lesion: np.ndarray | None, voxel_mm: float
) -> dict[str, np.ndarray]:
    """Levels 0..12 of the white-matter hyperintensities of a scan in each contrast, uint8 [x, y, z].

    `units` are the scan's contrasts in units of their scales. Our decisions: hyperintensities are the lesions of the mask,
    all of whose voxels have at least level 1 in the FLAIR, or without a mask white matter of level 4 and above that is
    `off_cortex`; and their rims, white matter of level 1 and above within two voxels. The published program takes all of the
    volume, where half of the cortex would be filled and painted again.
    """
    white = tissues == WHITE_MATTER
    flair = levels_of(units["flair"], "flair")
    # Filled away, the bright rim of the cortex would be in no synthetic scan, and networks would take it for lesion.
    core = white & (flair >= HYPERINTENSE_LEVEL) & off_cortex(tissues, voxel_mm) if lesion is None else lesion
    flair = np.where(white & ndimage.binary_dilation(core, iterations=RIM_VOXELS), flair, 0)
    if lesion is not None:
        flair = np.where(lesion, np.maximum(levels_of(units["flair"], "flair"), 1), flair)
    return {
        name: flair.astype(np.uint8) if name == "flair" else np.where(flair > 0, levels_of(units[name], name), 0).astype(np.uint8)
        for name in units
    }


def within_levels(units: np.ndarray, levels: np.ndarray, contrast: str) -> np.ndarray:
    """Values in units of the contrast's scale, brought into the range of each voxel's level (0..12), float32; same shape."""
    factors = np.array(LEVEL_FACTORS[contrast], np.float32)
    lowest = np.concatenate([[-np.inf], factors + HELD_MARGIN]).astype(np.float32)
    highest = np.concatenate([factors - HELD_MARGIN, [np.inf]]).astype(np.float32)
    return np.clip(units, lowest[levels], highest[levels]).astype(np.float32)


def level_middles(contrast: str) -> np.ndarray:
    """The middle of each level 1..12 in units of the contrast's scale, float32 [12]; level 12 is taken as wide as level 11."""
    factors = LEVEL_FACTORS[contrast]
    edges = np.array([*factors, 2 * factors[-1] - factors[-2]], np.float32)
    return (edges[:-1] + edges[1:]) / 2


def bands(levels: np.ndarray) -> np.ndarray:
    """The eight disjoint published band masks W1..W8 as channels, float32 [..., 8]."""
    numbers = np.arange(1, PUBLISHED_LEVELS + 1)
    return (np.minimum(levels, PUBLISHED_LEVELS)[..., np.newaxis] == numbers).astype(np.float32)


def level_masks(levels: np.ndarray) -> np.ndarray:
    """The masks M1..M12, each of its level and above, as channels, float32 [..., 12]."""
    return (levels[..., np.newaxis] >= np.arange(1, LEVEL_COUNT + 1)).astype(np.float32)
