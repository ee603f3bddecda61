"""How bright lesions are by size and place in the training patients, for lesions that come as masks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images import label_lesions, lesions_touching
from lesionforge.images.geometry import bounding_box
from lesionforge.synthesize.levels import CONTRASTS, GREY_MATTER, HYPERINTENSE_LEVEL
from lesionforge.synthesize.sampler import Profile, profile_depths, profiles_from_json, relative_depth

CSF = 1
PROFILE_DEPTHS = 5
# CSF deeper in the brain than this share of its greatest depth is ventricle; sulci and cisterns lie further out.
VENTRICLE_DEPTH = 0.4
PERIVENTRICULAR_MM = 3.0
# Cerebellum and brainstem in shares of the brain's box, right to left, back to front, bottom to top.
INFRATENTORIAL = ((0.17, 0.83), (0.0, 0.55), (0.0, 0.35))
# Of a patient without a lesion mask, hyperintensities from this volume on are taken; smaller ones are mostly noise.
SMALLEST_HYPERINTENSITY_MM3 = 10.0
# A library lesion takes the profile of one of so many training lesions; another place counts like e times the volume.
NEAREST = 5


@dataclass(frozen=True)
class TrainingLesion:
    """A lesion of a training patient: its volume in mm³, its place (`places`), its contrasts by depth."""

    scan_id: str
    lesion: int
    volume_mm3: float
    place: str
    profiles: dict[str, Profile]


def places(numbers: np.ndarray, tissues: np.ndarray, brain: np.ndarray, voxel_mm: float) -> dict[int, str]:
    """The place of each lesion by its number: the first that fits of infratentorial, periventricular, juxtacortical, deep.

    Arrays are [x, y, z] on an isotropic RAS grid. Infratentorial: its centre lies in the lower, hinder, middle part of the
    brain's box; periventricular: within 3 mm of a ventricle, which is CSF deep in the brain; juxtacortical: it touches
    grey matter (26 neighbours).
    """
    depth = ndimage.distance_transform_edt(brain)
    ventricle = (tissues == CSF) & (depth > VENTRICLE_DEPTH * depth.max())
    away_mm = voxel_mm * ndimage.distance_transform_edt(~ventricle) if ventricle.any() else np.full(brain.shape, np.inf)
    touching = lesions_touching(numbers, tissues == GREY_MATTER)
    box = bounding_box(brain)
    found = {}
    for number, part in enumerate(ndimage.find_objects(numbers), start=1):
        if part is None:
            continue
        mask = numbers[part] == number
        centre = [axis.mean() + side.start for axis, side in zip(np.nonzero(mask), part, strict=True)]
        shares = [(at - side.start) / (side.stop - side.start) for at, side in zip(centre, box, strict=True)]
        if all(low <= share <= high for share, (low, high) in zip(shares, INFRATENTORIAL, strict=True)):
            found[number] = "infratentorial"
        elif away_mm[part][mask].min() <= PERIVENTRICULAR_MM:
            found[number] = "periventricular"
        else:
            found[number] = "juxtacortical" if number in touching else "deep"
    return found


def lesion_statistics(
    scan_id: str,
    units: Mapping[str, np.ndarray],
    lesion: np.ndarray,
    tissues: np.ndarray,
    brain: np.ndarray,
    voxel_mm: float,
) -> list[TrainingLesion]:
    """Volume, place and profile of every lesion of a bool mask; `units` are its contrasts in units of their scales.

    Arrays are [x, y, z] on an isotropic RAS grid.
    """
    numbers, _ = label_lesions(lesion)
    where = places(numbers, tissues, brain, voxel_mm)
    boxes = ndimage.find_objects(numbers)
    found = []
    for number, place in where.items():
        mask = numbers[boxes[number - 1]] == number
        profiles = {name: profile_of(units[name][boxes[number - 1]], mask) for name in CONTRASTS}
        found.append(TrainingLesion(scan_id, number, float(np.count_nonzero(mask) * voxel_mm**3), place, profiles))
    return found


def hyperintensities(levels: np.ndarray, voxel_mm: float) -> np.ndarray:
    """The hyperintensities of a patient without a mask, bool [x, y, z]: level 4 and above in the FLAIR, at least 10 mm³."""
    numbers, count = label_lesions(levels >= HYPERINTENSE_LEVEL)
    large = np.bincount(numbers.ravel(), minlength=count + 1) * voxel_mm**3 >= SMALLEST_HYPERINTENSITY_MM3
    large[0] = False
    kept: np.ndarray = large[numbers]
    return kept


def profile_of(image: np.ndarray, mask: np.ndarray) -> Profile:
    """The mean intensity of a lesion (bool [x, y, z], not empty) in five equal parts of its relative depth, and its spread.

    A part without a voxel, in a small lesion, lies on the line between its neighbours.
    """
    values, depth = image[mask].astype(np.float64), relative_depth(mask)[mask]
    part = np.minimum((depth * PROFILE_DEPTHS).astype(int), PROFILE_DEPTHS - 1)
    count = np.bincount(part, minlength=PROFILE_DEPTHS)
    mean = np.bincount(part, values, PROFILE_DEPTHS)[count > 0] / count[count > 0]
    depths = profile_depths(PROFILE_DEPTHS)
    means = np.interp(depths, depths[count > 0], mean)
    return Profile(tuple(float(one) for one in means), float(np.std(values - means[part])))


def draw_profiles(
    volume_mm3: float, place: str, lesions: Sequence[TrainingLesion], rng: np.random.Generator
) -> dict[str, Profile]:
    """The profiles of one of the training lesions nearest in size (ratio of volumes) and place, each as likely."""
    distance = [abs(np.log(lesion.volume_mm3 / volume_mm3)) + (lesion.place != place) for lesion in lesions]
    nearest = np.argsort(distance, kind="stable")[:NEAREST]
    return lesions[int(rng.choice(nearest))].profiles


def statistics_json(lesions: Sequence[TrainingLesion]) -> list[dict[str, Any]]:
    """The lesions as JSON holds them."""
    return [asdict(lesion) for lesion in lesions]


def statistics_from_json(content: Sequence[Mapping[str, Any]]) -> list[TrainingLesion]:
    """The lesions that were saved as this JSON; raises InputError when there are none."""
    if not content:
        raise InputError("the statistics hold no training lesion; give training patients with lesions")
    return [TrainingLesion(**(dict(lesion) | {"profiles": profiles_from_json(lesion["profiles"])})) for lesion in content]
