"""Where in the brain a lesion lies: one rule, for the lesions that are learned from and for those that are found."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lesionforge.images.geometry import bounding_box, box_around
from lesionforge.images.lesions import lesions_touching
from lesionforge.images.prepared import CSF, GM

# In the order in which they are tried.
PLACES = ("infratentorial", "periventricular", "juxtacortical", "deep")
# CSF deeper in the brain than this share of its greatest depth is ventricle; sulci and cisterns lie further out.
VENTRICLE_DEPTH = 0.4
PERIVENTRICULAR_MM = 3.0
# Cerebellum and brainstem in shares of the brain's box, right to left, back to front, bottom to top.
INFRATENTORIAL = ((0.17, 0.83), (0.0, 0.55), (0.0, 0.35))


def places(numbers: np.ndarray, tissues: np.ndarray, brain: np.ndarray, voxel_mm: float) -> dict[int, str]:
    """The place of each lesion by its number: the first of PLACES that fits.

    Arrays are [x, y, z] on an isotropic RAS grid: `numbers` int, 0 where there is no lesion, `tissues` 0 to 3, `brain` bool.
    Infratentorial: its centre lies in the lower, hinder, middle part of the brain's box; periventricular: within 3 mm of a
    ventricle, which is CSF deep in the brain; juxtacortical: it touches grey matter (26 neighbours); deep: the rest.
    """
    box = bounding_box(brain)
    # Distances are measured in the box of brain and lesions and one voxel around it, which holds all that they end at.
    near, _ = box_around(brain | (numbers > 0), np.eye(4), 1)
    lesions, inside = numbers[near], brain[near]
    depth = ndimage.distance_transform_edt(inside)
    ventricle = (tissues[near] == CSF) & (depth > VENTRICLE_DEPTH * depth.max())
    away_mm = voxel_mm * ndimage.distance_transform_edt(~ventricle) if ventricle.any() else np.full(inside.shape, np.inf)
    touching = set(lesions_touching(lesions, tissues[near] == GM))
    found = {}
    for number, part in enumerate(ndimage.find_objects(lesions), start=1):
        if part is None:
            continue
        mask = lesions[part] == number
        corner = [side.start + beyond.start for side, beyond in zip(part, near, strict=True)]
        centre = [axis.mean() + start for axis, start in zip(np.nonzero(mask), corner, strict=True)]
        shares = [(at - side.start) / (side.stop - side.start) for at, side in zip(centre, box, strict=True)]
        if all(low <= share <= high for share, (low, high) in zip(shares, INFRATENTORIAL, strict=True)):
            found[number] = "infratentorial"
        elif away_mm[part][mask].min() <= PERIVENTRICULAR_MM:
            found[number] = "periventricular"
        else:
            found[number] = "juxtacortical" if number in touching else "deep"
    return found
