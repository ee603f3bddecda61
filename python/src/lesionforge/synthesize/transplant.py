"""A donor's lesions on a canvas: where there is room for them, and how bright they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lesionforge.synthesize.levels import WHITE_MATTER, GreyMatterFlair, levels_of

FATES = ("kept", "cut", "dropped")


@dataclass(frozen=True)
class LesionFate:
    """What became of one warped lesion, by its number in the donor: `kept` whole, `cut` to the room there is, or `dropped`.

    Volumes are in mm³.
    """

    lesion: int
    fate: str
    warped_mm3: float
    transplanted_mm3: float


@dataclass(frozen=True)
class Transplant:
    """Lesion mask (bool) and levels (uint8, 0 outside the mask, 1..8 inside) on the canvas grid [x, y, z], and all fates."""

    lesion: np.ndarray
    levels: np.ndarray
    fates: list[LesionFate]

    def summary(self) -> dict[str, Any]:
        """Counts by fate and one record per lesion, ready for JSON."""
        counts = Counter(fate.fate for fate in self.fates)
        return {"counts": {name: counts[name] for name in FATES}, "lesions": [asdict(fate) for fate in self.fates]}


def white_matter_room(tissues: np.ndarray, lesion: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Where lesions may lie on a canvas, bool [x, y, z]: white matter and the canvas' own (filled) lesions, in the brain."""
    return ((tissues == WHITE_MATTER) | lesion) & brain


def transplant_lesions(
    numbers: np.ndarray, flair: np.ndarray, room: np.ndarray, donor: GreyMatterFlair, voxel_mm3: float
) -> Transplant:
    """Place a donor's warped lesions where the canvas has room.

    All arrays are [x, y, z] on the canvas grid: the warped lesions as integers (each its number in the donor, 0 elsewhere),
    the donor's warped FLAIR in the donor's normalised units, and `room` (bool). Levels follow the donor's grey matter,
    at least 1 inside a lesion. A voxel outside `room` is never lesion; each lesion gets a fate.
    """
    whole = np.bincount(numbers.ravel())
    placed = np.bincount(numbers[room], minlength=whole.size)
    fates = [
        LesionFate(
            int(number),
            "dropped" if not placed[number] else "cut" if placed[number] < whole[number] else "kept",
            float(whole[number] * voxel_mm3),
            float(placed[number] * voxel_mm3),
        )
        for number in np.flatnonzero(whole)
        if number
    ]
    lesion = (numbers > 0) & room
    levels = np.where(lesion, np.maximum(levels_of(flair, donor), 1), 0).astype(np.uint8)
    return Transplant(lesion, levels, fates)
