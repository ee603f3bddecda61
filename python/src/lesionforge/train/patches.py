"""Patches: cut from padded volumes when they are needed, never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lesionforge.images import zscore
from lesionforge.train import exact
from lesionforge.train.network import PATCH

if TYPE_CHECKING:
    import keras

HALF = PATCH // 2
INFERENCE_BATCH = 4096


@dataclass(frozen=True)
class PatchVolume:
    """Both contrasts of one scan, cut to the box of its brain and padded with zeros so that every patch lies inside.

    `data` is float32 [x, y, z, contrast]; `start` is the voxel of the scan's grid that lies at `data[5, 5, 5]`.
    """

    data: np.ndarray
    start: np.ndarray

    def flair_at(self, centres: np.ndarray) -> np.ndarray:
        """FLAIR z-scores [n] at voxels [n, 3] of the scan's grid."""
        x, y, z = (np.asarray(centres, np.int64) - self.start + HALF).T
        return np.asarray(self.data[x, y, z, 1])


def patch_volume(t1w: np.ndarray, flair: np.ndarray, brain: np.ndarray) -> PatchVolume:
    """z-score both volumes [x, y, z] inside the brain (bool, at least one voxel), cut and pad them."""
    inside = np.argwhere(brain)
    start, stop = inside.min(axis=0), inside.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    data = np.zeros((*(stop - start + 2 * HALF), 2), np.float32)
    for contrast, image in enumerate((t1w, flair)):
        data[HALF:-HALF, HALF:-HALF, HALF:-HALF, contrast] = zscore(image[box], brain[box])
    return PatchVolume(data, start)


def gather(volume: PatchVolume, centres: np.ndarray) -> np.ndarray:
    """The patches [n, 11, 11, 11, contrast] around voxels [n, 3] of the scan's grid (inside the brain's box)."""
    # A view [x, y, z, contrast, 11, 11, 11] on every patch there is; only the chosen ones are copied.
    windows = sliding_window_view(volume.data, (PATCH,) * 3, axis=(0, 1, 2))  # type: ignore[call-overload]
    corners = np.asarray(centres, np.int64) - volume.start
    return np.ascontiguousarray(np.moveaxis(windows, 3, -1)[tuple(corners.T)])


def candidates(volume: PatchVolume, brain: np.ndarray, flair_z: float) -> np.ndarray:
    """Voxels int16 [n, 3] of the scan's grid inside the brain (bool [x, y, z]) with a FLAIR z-score above `flair_z`."""
    inside = np.argwhere(brain).astype(np.int16)
    return inside[volume.flair_at(inside) > flair_z]


def score(network: keras.Model, volume: PatchVolume, centres: np.ndarray) -> np.ndarray:
    """Lesion probabilities float32 [n] of voxels [n, 3], in batches of bounded memory; none for no voxel."""
    found = np.empty(len(centres), np.float32)
    corners = np.asarray(centres, np.int64) - volume.start
    shared = exact.crowded(corners) if exact.can_share(network) else np.zeros(len(centres), bool)
    if shared.any():
        found[shared] = exact.score_shared(network, volume.data, corners[shared])
    alone = np.flatnonzero(~shared)
    for i in range(0, len(alone), INFERENCE_BATCH):
        batch = alone[i : i + INFERENCE_BATCH]
        found[batch] = np.asarray(network.predict_on_batch(gather(volume, centres[batch])))[:, 1]
    return found


def turn_half(patches: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flip, or turn by 180 degrees in the axial plane, a random half of the patches [n, x, y, z, contrast]; a copy."""
    turned = patches.copy()
    chosen = rng.permutation(len(patches))[: len(patches) // 2]
    ways: tuple[tuple[int, ...], ...] = ((1,), (2,), (1, 2))
    way_of = rng.integers(len(ways), size=len(chosen))
    for way, axes in enumerate(ways):
        turned[chosen[way_of == way]] = np.flip(patches[chosen[way_of == way]], axes)
    return turned
