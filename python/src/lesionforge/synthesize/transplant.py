"""Lesions on a canvas: each where the canvas has room for it, whole if it can be, apart from all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage, signal

from lesionforge.images import most_probable
from lesionforge.synthesize.levels import ALWAYS, FLAIR, GREY_MATTER, WHITE_MATTER

FATES = ("kept", "moved", "cut", "dropped")
# How far a lesion may be moved, and what a move costs: a millimetre must save a hundredth of the lesion.
MOVE_MM = 6.0
MOVE_COST_PER_MM = 0.01
# How far around what is left of a lesion it grows again after it was cut.
GROWTH_MM = 2.0
TOUCHING = np.ones((3, 3, 3))
# What a voxel that joins two pieces counts beside the lesion's own.
JOINING = 0.01

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Lesion:
    """A lesion that is to lie on a canvas: the levels of a box, uint8 [contrast, x, y, z], all 0 outside the lesion.

    Inside it has 1..12 in the FLAIR and 0..12 in other contrasts. `corner` is the voxel of the canvas' grid where the box begins;
    the box may reach beyond the grid. `number` is that of the lesion in its donor; `touches_grey_matter` says whether it
    did so there.
    """

    number: int
    mirrored: bool
    corner: tuple[int, int, int]
    levels: np.ndarray
    touches_grey_matter: bool

    @property
    def mask(self) -> np.ndarray:
        """The lesion in its box, bool [x, y, z]."""
        return np.asarray(self.levels[FLAIR] > 0)


@dataclass(frozen=True)
class Room:
    """Where lesions may lie on a canvas, bool [x, y, z]: in white matter, and the ribbon of grey matter next to it.

    The ribbon is for lesions that touch grey matter in their donor.
    """

    white: np.ndarray
    ribbon: np.ndarray


@dataclass(frozen=True)
class LesionFate:
    """What became of one lesion: `kept` whole at its place, `moved` whole, `cut` to the room there is, or `dropped`.

    Volumes are in mm³; `moved_mm` is how far it was moved, before it was cut if need be; `cut_mm3` what was cut off, of
    which some may have grown again.
    """

    lesion: int
    mirrored: bool
    fate: str
    wanted_mm3: float
    transplanted_mm3: float
    cut_mm3: float
    moved_mm: float


@dataclass(frozen=True)
class Transplant:
    """Lesion mask (bool [x, y, z]) and levels (uint8 [contrast, x, y, z], as of `Lesion`) on the canvas grid, and all fates."""

    lesion: np.ndarray
    levels: np.ndarray
    fates: list[LesionFate]

    def summary(self) -> dict[str, Any]:
        """Counts by fate and one record per lesion, ready for JSON."""
        counts = Counter(fate.fate for fate in self.fates)
        return {"counts": {name: counts[name] for name in FATES}, "lesions": [asdict(fate) for fate in self.fates]}


def room_for_lesions(tissues: np.ndarray, lesion: np.ndarray, brain: np.ndarray) -> Room:
    """The room on a canvas [x, y, z]: white matter and its own (filled) lesions, in the brain; the ribbon around that.

    The ribbon is the first voxel of grey matter (6 neighbours).
    """
    white = ((tissues == WHITE_MATTER) | lesion) & brain
    return Room(white, ndimage.binary_dilation(white) & (tissues == GREY_MATTER) & brain & ~white)


def transplant_lesions(lesions: Sequence[Lesion], room: Room, voxel_mm: float, contrast_count: int = len(ALWAYS)) -> Transplant:
    """Place lesions, which have levels in so many contrasts, where the canvas has room, the largest first.

    A lesion without room at its place is moved by up to MOVE_MM to where most of it has room, the nearest such place.
    What has no room there either is cut off, pieces are joined again if they can be, and the lesion grows to its volume
    by up to GROWTH_MM where there is room. Lesions never touch (26 neighbours), so the mask has as many lesions as are
    not dropped. No voxel outside the room is lesion. Fates are in the order of `lesions`.
    """
    reach, growth = int(MOVE_MM / voxel_mm), int(GROWTH_MM / voxel_mm)
    # Boxes may reach beyond the grid, moves beyond boxes, and growth beyond both.
    margin = reach + growth + 1 + max((_overhang(lesion, room.white.shape) for lesion in lesions), default=0)
    white, ribbon = np.pad(room.white, margin), np.pad(room.ribbon, margin)
    levels = np.zeros((contrast_count, *white.shape), np.uint8)
    taken = np.zeros(white.shape, bool)
    fates: dict[int, LesionFate] = {}
    for index in sorted(range(len(lesions)), key=lambda index: -np.count_nonzero(lesions[index].mask)):
        lesion = lesions[index]
        wanted = np.pad(lesion.levels, [(0, 0), *[(growth, growth)] * 3])
        mask = np.pad(lesion.mask, growth)
        start = np.array(lesion.corner) + margin - growth
        around = _box(start - reach, np.array(mask.shape) + 2 * reach)
        free = (white[around] | (ribbon[around] if lesion.touches_grey_matter else False)) & ~taken[around]
        move = _best_move(mask, free, reach, voxel_mm)
        here = free[_box(move + reach, mask.shape)]
        placed = _grown_again(_cut(mask, here), mask, here, growth)
        there = _box(start + move, mask.shape)
        levels[:, *there][:, placed] = _nearest_levels(wanted, mask, placed)
        grown = _box(start + move - 1, np.array(mask.shape) + 2)
        taken[grown] |= ndimage.binary_dilation(np.pad(placed, 1), TOUCHING)
        fates[index] = _fate(lesion, mask, placed, move, voxel_mm)
    inner = _box((margin,) * 3, room.white.shape)
    return Transplant(levels[FLAIR][inner] > 0, levels[:, *inner], [fates[index] for index in range(len(lesions))])


def _overhang(lesion: Lesion, shape: tuple[int, ...]) -> int:
    """By how many voxels a lesion's box reaches beyond a grid."""
    ends = np.array(lesion.corner) + lesion.mask.shape - shape
    return int(max(0, *(-np.array(lesion.corner)), *ends))


def _box(start: Sequence[int] | np.ndarray, size: Sequence[int] | np.ndarray) -> Box:
    x, y, z = (slice(int(first), int(first) + int(length)) for first, length in zip(start, size, strict=True))
    return x, y, z


def _best_move(mask: np.ndarray, free: np.ndarray, reach: int, voxel_mm: float) -> np.ndarray:
    """The move in voxels, int [3], that gives a mask most room at the least cost; `free` is its box and `reach` around it."""
    if not mask.any() or free[_box((reach,) * 3, mask.shape)][mask].all():
        return np.zeros(3, int)
    room = signal.fftconvolve(free.astype(np.float32), mask[::-1, ::-1, ::-1].astype(np.float32), mode="valid")
    steps = np.indices(room.shape) - reach
    away_mm = voxel_mm * np.sqrt((steps**2).sum(axis=0))
    gain = room.round() / np.count_nonzero(mask) - MOVE_COST_PER_MM * away_mm
    gain[(away_mm > MOVE_MM) | (room.round() == 0)] = -np.inf
    best = np.unravel_index(gain.argmax(), gain.shape)
    return steps[:, *best] if np.isfinite(gain[best]) else np.zeros(3, int)


def _cut(mask: np.ndarray, free: np.ndarray) -> np.ndarray:
    """What of a mask is free, its pieces joined through free voxels of the same box where that is possible."""
    left = mask & free
    if left.sum() == mask.sum():
        return left
    return most_probable(np.where(free, np.where(mask, 1.0, JOINING), 0), int(left.sum()))


def _grown_again(left: np.ndarray, mask: np.ndarray, free: np.ndarray, steps: int) -> np.ndarray:
    """What is left of a mask, grown to the mask's volume by some steps through free voxels, those near the mask first."""
    away = ndimage.distance_transform_edt(~mask)
    grown = left.copy()
    for _ in range(steps):
        missing = np.count_nonzero(mask) - np.count_nonzero(grown)
        if missing <= 0 or not grown.any():
            break
        ring = np.flatnonzero(ndimage.binary_dilation(grown, TOUCHING) & free & ~grown)
        grown.flat[ring[np.argsort(away.flat[ring], kind="stable")[:missing]]] = True
    return grown


def _nearest_levels(levels: np.ndarray, mask: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """The levels [contrast, voxels] of what was placed: their own in the lesion's mask, outside it those of its nearest voxel."""
    if mask[placed].all():
        return levels[:, placed]
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return levels[:, *nearest][:, placed]


def _fate(lesion: Lesion, mask: np.ndarray, placed: np.ndarray, move: np.ndarray, voxel_mm: float) -> LesionFate:
    moved_mm = float(voxel_mm * np.linalg.norm(move)) if placed.any() else 0.0
    whole = "moved" if moved_mm else "kept"
    fate = "dropped" if not placed.any() else whole if np.array_equal(placed, mask) else "cut"
    wanted_mm3, placed_mm3, cut_mm3 = (float(np.count_nonzero(part) * voxel_mm**3) for part in (mask, placed, mask & ~placed))
    return LesionFate(lesion.number, lesion.mirrored, fate, wanted_mm3, placed_mm3, cut_mm3, moved_mm)
