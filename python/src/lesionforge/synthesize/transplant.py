"""A donor's lesions on a canvas: where there is room for them, and how bright they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lesionforge.images import label_lesions
from lesionforge.synthesize.levels import WHITE_MATTER, GreyMatterFlair, levels_of

MIN_PROBABILITY = 0.5
FATES = ("kept", "cut", "dropped")


@dataclass(frozen=True)
class LesionFate:
    """What became of one warped lesion: `kept` whole, `cut` to the room there is, or `dropped`; volumes in mm³."""

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
    probability: np.ndarray, flair: np.ndarray, room: np.ndarray, donor: GreyMatterFlair, voxel_mm3: float
) -> Transplant:
    """Place a donor's warped lesions where the canvas has room.

    All arrays are [x, y, z] on the canvas grid: the linearly warped lesion mask (voxels above 0.5 are lesion), the
    donor's warped FLAIR in the donor's normalised units, and `room` (bool). Levels follow the donor's grey matter,
    at least 1 inside a lesion. A voxel outside `room` is never lesion; each 26-connected lesion gets a fate.
    """
    labels, count = label_lesions(probability > MIN_PROBABILITY)
    whole = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    placed = np.bincount(labels[room], minlength=count + 1)[1:]
    fates = [
        LesionFate(
            number,
            "dropped" if not inside else "cut" if inside < size else "kept",
            float(size * voxel_mm3),
            float(inside * voxel_mm3),
        )
        for number, (size, inside) in enumerate(zip(whole, placed, strict=True), start=1)
    ]
    lesion = (labels > 0) & room
    levels = np.where(lesion, np.maximum(levels_of(flair, donor), 1), 0).astype(np.uint8)
    return Transplant(lesion, levels, fates)
