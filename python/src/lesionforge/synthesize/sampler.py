"""What a synthetic scan is made of: drawn once into a `Draw` that is saved as JSON, and applied as often as one likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from lesionforge.images import most_probable
from lesionforge.synthesize.levels import ALWAYS, LEVEL_COUNT, SUFFIXES, levels_of
from lesionforge.synthesize.transplant import Lesion

MIRRORED_SHARE = 0.5
# A lesion's volume is multiplied by at least the one and at most the other, evenly on the logarithm.
VOLUME_FACTORS = (0.7, 1.4)
LEVEL_SHIFTS = {-1: 0.25, 0: 0.5, 1: 0.25}
LARGEST_DEFORMATION_MM = 1.5
DEFORMATION_SIGMA_MM = 4.0
NOISE_SIGMA_MM = 1.0
# A lesion is brighter than white matter in the FLAIR, but it may look like that in other contrasts.
LOWEST_LEVEL = {name: int(name == "flair") for name in SUFFIXES}


@dataclass(frozen=True)
class Profile:
    """A lesion in one contrast, in units of its scale, from rim to core at even depths, and the spread of the residuals."""

    values: tuple[float, ...]
    spread: float


@dataclass(frozen=True)
class Candidate:
    """A donor's lesion that may be drawn: its number and volume on the canvas, and if it comes without a scan its profiles."""

    lesion: int
    volume_mm3: float
    profiles: dict[str, Profile] | None = None


@dataclass(frozen=True)
class LesionDraw:
    """The choices for one lesion, whose volume is multiplied by `volume_factor`; `level_shifts` are by contrast.

    `texture_seed` is the seed of its deformation, of up to `deformation_mm`, and of its profiles' noise.
    """

    lesion: int
    mirrored: bool
    volume_factor: float
    level_shifts: dict[str, int]
    deformation_mm: float
    texture_seed: int
    profiles: dict[str, Profile] | None


@dataclass(frozen=True)
class Draw:
    """All that is random in a synthetic scan before it is painted: with donor and canvas it gives the same voxels again.

    `load_ml` is the lesion load that was aimed at; None: all lesions of the donor, each once.
    """

    id: str
    donor: str
    canvas: str
    seed: int
    load_ml: float | None
    software_version: str
    lesions: tuple[LesionDraw, ...]

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The contrasts that every lesion has a shift for, in the order of SUFFIXES; T1w and FLAIR without lesions."""
        shifted = [set(lesion.level_shifts) for lesion in self.lesions] or [set(ALWAYS)]
        return tuple(name for name in SUFFIXES if name in set.intersection(*shifted))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Draw:
        """The draw that was saved as this JSON; raises KeyError or TypeError when it is another's."""
        lesions = [LesionDraw(**(lesion | {"profiles": profiles_from_json(lesion["profiles"])})) for lesion in content["lesions"]]
        return cls(**(dict(content) | {"lesions": tuple(lesions)}))


def profiles_from_json(content: Mapping[str, Any] | None) -> dict[str, Profile] | None:
    """Profiles by contrast as they were saved; raises KeyError when the T1w's or the FLAIR's is missing."""
    if content is None:
        return None
    names = [name for name in SUFFIXES if name in ALWAYS or name in content]
    return {name: Profile(tuple(content[name]["values"]), content[name]["spread"]) for name in names}


def draw_lesions(
    candidates: Sequence[Candidate], load_ml: float | None, rng: np.random.Generator, contrasts: Sequence[str] = ALWAYS
) -> tuple[LesionDraw, ...]:
    """Draw which of a donor's lesions a scan of these contrasts gets, and how each is changed.

    Each lesion lies in its own half or, with probability one half, mirrored in the other. With a load, lesions are gone
    through in random order, then once more on the other side, and each is taken that fits into what `load_ml` leaves; at
    last one more, if the load comes nearer with it. At least one is taken.
    """
    mirrored = rng.random(len(candidates)) < MIRRORED_SHARE
    first, again = (
        [
            _draw_change(candidates[index], bool(mirrored[index]) != other_side, rng, contrasts)
            for index in rng.permutation(len(candidates))
        ]
        for other_side in (False, True)
    )
    if load_ml is None:
        return tuple(first)
    volumes = {candidate.lesion: candidate.volume_mm3 for candidate in candidates}
    left_mm3 = load_ml * 1000
    chosen: list[LesionDraw] = []
    others: list[tuple[float, LesionDraw]] = []
    for lesion in [*first, *again]:
        volume_mm3 = volumes[lesion.lesion] * lesion.volume_factor
        if volume_mm3 <= left_mm3:
            chosen.append(lesion)
            left_mm3 -= volume_mm3
        else:
            others.append((volume_mm3, lesion))
    # One more may come nearer from above: the smallest, since all others are larger than what is left.
    smallest_mm3, smallest = min(others, key=lambda other: other[0], default=(np.inf, None))
    if smallest is not None and (smallest_mm3 - left_mm3 < left_mm3 or not chosen):
        chosen.append(smallest)
    return tuple(chosen)


def _draw_change(candidate: Candidate, mirrored: bool, rng: np.random.Generator, contrasts: Sequence[str]) -> LesionDraw:
    return LesionDraw(
        lesion=candidate.lesion,
        mirrored=mirrored,
        volume_factor=float(np.exp(rng.uniform(*np.log(VOLUME_FACTORS)))),
        level_shifts={name: int(rng.choice(list(LEVEL_SHIFTS), p=list(LEVEL_SHIFTS.values()))) for name in contrasts},
        deformation_mm=float(rng.uniform(0, LARGEST_DEFORMATION_MM)),
        texture_seed=int(rng.integers(2**31)),
        profiles=candidate.profiles,
    )


def apply_draw(
    lesions: Sequence[LesionDraw],
    numbers: np.ndarray,
    donor: Mapping[str, np.ndarray] | None,
    touching: frozenset[int],
    reflection: np.ndarray,
    voxel_mm: float,
    contrasts: Sequence[str] = ALWAYS,
) -> list[Lesion]:
    """The drawn lesions, changed as drawn, ready to be transplanted, with levels in these contrasts.

    All arrays are [x, y, z] on the canvas' isotropic grid: `numbers` the donor's warped lesions (0 elsewhere), `donor`
    its warped contrasts in units of their scales, not needed where every lesion has profiles. `touching` are the lesions
    that touch grey matter in the donor, `reflection` (4 x 4, voxels) the mirror image about the midsagittal plane.
    A lesion that the grid does not hold is left out.
    """
    boxes = ndimage.find_objects(numbers)
    drawn = []
    for lesion in lesions:
        if lesion.lesion > len(boxes) or boxes[lesion.lesion - 1] is None:
            continue
        box = boxes[lesion.lesion - 1]
        mask = numbers[box] == lesion.lesion
        scan = None if donor is None else {name: donor[name][box] for name in contrasts}
        corner, changed, units = _changed(lesion, mask, scan, box, reflection, voxel_mm, contrasts)
        levels = np.stack([_shifted(levels_of(units[name], name), lesion.level_shifts[name], name) for name in contrasts])
        drawn.append(Lesion(lesion.lesion, lesion.mirrored, corner, levels * changed, lesion.lesion in touching))
    return drawn


def _shifted(levels: np.ndarray, shift: int, contrast: str) -> np.ndarray:
    return (levels.astype(int) + shift).clip(LOWEST_LEVEL[contrast], LEVEL_COUNT).astype(np.uint8)


def _changed(
    lesion: LesionDraw,
    mask: np.ndarray,
    donor: Mapping[str, np.ndarray] | None,
    box: tuple[slice, ...],
    reflection: np.ndarray,
    voxel_mm: float,
    contrasts: Sequence[str],
) -> tuple[tuple[int, int, int], np.ndarray, dict[str, np.ndarray]]:
    """(corner of the new box, the lesion's mask in it, contrasts there in units of their scales) of one lesion's box."""
    rng = np.random.default_rng(lesion.texture_seed)
    # Room for growth (on each side a third of the volume's root is plenty) and for the deformation.
    margin = 2 + int(np.ceil(lesion.deformation_mm / voxel_mm + max(0.0, np.cbrt(lesion.volume_factor) - 1) * max(mask.shape)))
    inside = np.pad(mask, margin)
    start = np.array([part.start for part in box]) - margin
    corner, here = _mirrored_box(start, inside.shape, reflection) if lesion.mirrored else (start, inside.shape)
    place = np.indices(here, dtype=np.float64)
    if lesion.mirrored:
        world = place + corner.reshape(3, 1, 1, 1)
        place = np.tensordot(reflection[:3, :3], world, axes=1) + (reflection[:3, 3] - start).reshape(3, 1, 1, 1)
    place = place + _smooth_displacement(here, lesion.deformation_mm, voxel_mm, rng)
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    moved = ndimage.map_coordinates(distance, place, order=1, mode="nearest")
    size = max(1, round(np.count_nonzero(mask) * lesion.volume_factor))
    # Probabilities that rise with depth, so that the deepest voxels are taken and pieces are joined through shallow ones.
    changed = most_probable(1 / (1 + np.exp(-moved)), size)
    if lesion.profiles is not None:
        units = {name: profile_intensities(changed, lesion.profiles[name], voxel_mm, rng) for name in contrasts}
    elif donor is not None:
        nearest = tuple(ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True))
        units = {
            name: ndimage.map_coordinates(np.pad(donor[name], margin)[nearest], place, order=1, mode="nearest")
            for name in contrasts
        }
    else:
        raise ValueError(f"lesion {lesion.lesion} has neither a scan nor profiles")
    x, y, z = corner
    return (int(x), int(y), int(z)), changed, units


def _mirrored_box(start: np.ndarray, shape: tuple[int, ...], reflection: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """(first voxel, shape) of the box that holds the mirror image of a box."""
    ends = np.stack([start, start + shape - 1])
    corners = np.array(np.meshgrid(*ends.T, indexing="ij")).reshape(3, -1)
    mirrored = reflection[:3, :3] @ corners + reflection[:3, 3:]
    first, last = np.floor(mirrored.min(axis=1)).astype(int), np.ceil(mirrored.max(axis=1)).astype(int)
    return first, tuple(int(n) for n in last - first + 1)


def _smooth_displacement(shape: tuple[int, ...], largest_mm: float, voxel_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random displacement in voxels, float64 [3, x, y, z], nowhere longer than `largest_mm`."""
    noise = rng.standard_normal((3, *shape))
    sigma = (0, *(DEFORMATION_SIGMA_MM / voxel_mm,) * 3)
    smooth: np.ndarray = ndimage.gaussian_filter(noise, sigma, mode="reflect")
    return smooth * (largest_mm / voxel_mm / np.linalg.norm(smooth, axis=0).max())


def relative_depth(mask: np.ndarray) -> np.ndarray:
    """How deep each voxel of a lesion (bool [x, y, z]) lies, float64 0..1: near 0 at its rim, 1 at its core, 0 outside."""
    # A voxel at the rim lies half a voxel deep.
    depth: np.ndarray = np.maximum(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1] - 0.5, 0)
    return depth / max(depth.max(), 0.5)


def profile_depths(count: int) -> np.ndarray:
    """The relative depths at which a profile of `count` values has them: the middles of as many equal parts of 0..1."""
    return (np.arange(count) + 0.5) / count


def profile_intensities(mask: np.ndarray, profile: Profile, voxel_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Intensities in units of the scale, float64 [x, y, z], of a lesion with this profile: by depth, and smooth noise."""
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), NOISE_SIGMA_MM / voxel_mm)
    by_depth = np.interp(relative_depth(mask), profile_depths(len(profile.values)), profile.values)
    return by_depth + profile.spread * noise / max(float(noise.std()), 1e-6)
