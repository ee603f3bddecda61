"""The arm `mix`: CarveMix, written from the paper, on arrays [x, y, z].

Source: Zhang X. et al., MICCAI 2021, doi 10.1007/978-3-030-87193-2_19, and NeuroImage 2023, doi
10.1016/j.neuroimage.2023.120041. A region around the lesions of one scan replaces the same voxels of another, labels likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class MixDraw:
    """All choices of one mixed scan: how far its region reaches, as a share of the depth of the donor's deepest lesion voxel.

    Above 0 the region is larger than the lesions, below 0 it is what lies deeper. `software` is the version of lesionforge that
    drew.
    """

    id: str
    donor: str
    canvas: str
    seed: int
    software: str
    reach: float


def draw_mix(scan_id: str, donor: str, canvas: str, seed: int, software: str, rng: np.random.Generator) -> MixDraw:
    """Draw a mixed scan. The published threshold is uniform between -1/2 and 0, or between 0 and 1, each half of the time."""
    reach = rng.uniform(0, 1) if rng.integers(2) else rng.uniform(-0.5, 0)
    return MixDraw(scan_id, donor, canvas, seed, software, float(reach))


def signed_distance_mm(lesion: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Distance of each voxel to the nearest one on the other side of a bool mask's surface, negative inside; mm [x, y, z]."""
    outside = ndimage.distance_transform_edt(~lesion, sampling=voxel_mm)
    return np.asarray(np.where(lesion, -ndimage.distance_transform_edt(lesion, sampling=voxel_mm), outside))


def carved_region(lesion: np.ndarray, allowed: np.ndarray, reach: float, voxel_mm: float) -> np.ndarray:
    """The region that is carved out of the donor, bool [x, y, z]: all that lies no farther than the threshold, where allowed.

    `lesion` has at least one voxel. The threshold is `reach` times the depth of the deepest of them, as published: where it
    is below 0, shallow lesions are not carved at all.
    """
    distance = signed_distance_mm(lesion, voxel_mm)
    region: np.ndarray = (distance <= reach * -distance.min()) & allowed
    return region


def paste(
    region: np.ndarray,
    donor: tuple[Mapping[str, np.ndarray], np.ndarray],
    recipient: tuple[Mapping[str, np.ndarray], np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images by contrast and lesion mask of the donor inside a region, those of the recipient outside; all [x, y, z]."""
    images = {name: np.where(region, donor[0][name], image) for name, image in recipient[0].items()}
    return images, np.where(region, donor[1], recipient[1])
