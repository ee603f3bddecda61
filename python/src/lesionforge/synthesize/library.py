"""How bright lesions are by size and place in the training patients, for lesions that come as masks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images import label_lesions, places
from lesionforge.synthesize.levels import HYPERINTENSE_LEVEL
from lesionforge.synthesize.sampler import Profile, profile_depths, profiles_from_json, relative_depth

PROFILE_DEPTHS = 5
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
        profiles = {name: profile_of(units[name][boxes[number - 1]], mask) for name in units}
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
    wanted: Sequence[tuple[float, str]], lesions: Sequence[TrainingLesion], rng: np.random.Generator
) -> list[dict[str, Profile]]:
    """For each wanted volume (mm³) and place the profiles of one of the training lesions nearest in both, each as likely.

    Volumes are compared by the logarithm of their ratio; another place counts as a ratio of e.
    """
    sizes = np.log([lesion.volume_mm3 for lesion in lesions])
    places_of_lesions = np.array([lesion.place for lesion in lesions])
    drawn = []
    for volume_mm3, place in wanted:
        distance = np.abs(sizes - np.log(volume_mm3)) + (places_of_lesions != place)
        drawn.append(lesions[int(rng.choice(np.argsort(distance, kind="stable")[:NEAREST]))].profiles)
    return drawn


def statistics_json(lesions: Sequence[TrainingLesion]) -> list[dict[str, Any]]:
    """The lesions as JSON holds them."""
    return [asdict(lesion) for lesion in lesions]


def statistics_from_json(content: Sequence[Mapping[str, Any]]) -> list[TrainingLesion]:
    """The lesions that were saved as this JSON; raises InputError when there are none, or their contrasts differ."""
    if not content:
        raise InputError("the statistics hold no training lesion; give training patients with lesions")
    found = [TrainingLesion(**(dict(lesion) | {"profiles": profiles_from_json(lesion["profiles"])})) for lesion in content]
    if len({tuple(lesion.profiles) for lesion in found}) > 1:
        raise InputError("the statistics hold lesions of different contrasts; write them again from scans of the same contrasts")
    return found
