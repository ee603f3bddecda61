"""Patches: cut from padded volumes when they are needed, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images import naming, zscore
from lesionforge.images.geometry import bounding_box
from lesionforge.train import exact
from lesionforge.train.blocks import score_densely
from lesionforge.train.network import PATCH, is_dense

if TYPE_CHECKING:
    import keras

HALF = PATCH // 2
INFERENCE_BATCH = 1024
# Sulci narrower than twice this do not count as the brain's surface.
CLOSED_MM = 5.0


@dataclass(frozen=True)
class PatchVolume:
    """The contrasts of one scan, cut to the box of its brain and padded with zeros so that every patch lies inside.

    `source` is float32 [x, y, z, contrast], or the file that holds it (`stored_volume`); `start` is the voxel of the scan's grid
    that lies at `data[5, 5, 5]`.
    """

    source: np.ndarray | Path
    start: np.ndarray

    @property
    def data(self) -> np.ndarray:
        """The array; of a file it is mapped anew each time, so that the pages read do not stay with the process."""
        return self.source if isinstance(self.source, np.ndarray) else np.load(self.source, mmap_mode="r", allow_pickle=False)

    def mapped(self) -> PatchVolume:
        """The same volume; of a file, mapped once, whose pages stay with the process as long as what is returned."""
        return PatchVolume(self.data, self.start)

    def places(self, centres: np.ndarray) -> np.ndarray:
        """Where voxels [n, 3] of the scan's grid lie in the array."""
        return np.asarray(centres, np.int64) - self.start + HALF

    def mirrored(self, centres: np.ndarray) -> tuple[PatchVolume, np.ndarray]:
        """The volume with left and right changed, a view, and where voxels [n, 3] of the scan's grid lie on the grid of it."""
        data, there = self.data, np.array(centres)
        there[:, 0] = 2 * self.start[0] + len(data) - PATCH - there[:, 0]
        return PatchVolume(data[::-1], self.start), there

    def flair_at(self, centres: np.ndarray) -> np.ndarray:
        """FLAIR z-scores [n] at voxels [n, 3] of the scan's grid."""
        x, y, z = self.places(centres).T
        return np.asarray(self.data[x, y, z, 1])


def patch_volume(images: Sequence[np.ndarray], brain: np.ndarray, config: CascadeConfig) -> PatchVolume:
    """Normalise a scan's volumes [x, y, z], FLAIR second, as configured; cut them to its brain (bool, not empty), pad them."""
    box = bounding_box(brain)
    start = np.array([side.start for side in box])
    data = np.zeros((*(np.array(brain[box].shape) + 2 * HALF), len(images)), np.float32)
    for contrast, image in enumerate(images):
        normalised = zscore(image[box], brain[box]) if config.normalisation == "zscore" else np.where(brain[box], image[box], 0)
        data[HALF:-HALF, HALF:-HALF, HALF:-HALF, contrast] = normalised
    return PatchVolume(data, start)


def stored_volume(volume: PatchVolume, path: Path) -> PatchVolume:
    """The same volume, held by the new file `path` instead of memory."""
    with naming(path):
        np.save(path, volume.data, allow_pickle=False)
    return PatchVolume(path, volume.start)


def gather(volume: PatchVolume, centres: np.ndarray) -> np.ndarray:
    """The patches [n, 11, 11, 11, contrast] around voxels [n, 3] of the scan's grid (inside the brain's box)."""
    # A view [x, y, z, contrast, 11, 11, 11] on every patch there is; only the chosen ones are copied.
    windows = sliding_window_view(volume.data, (PATCH,) * 3, axis=(0, 1, 2))  # type: ignore[call-overload]
    corners = np.asarray(centres, np.int64) - volume.start
    return np.ascontiguousarray(np.moveaxis(windows, 3, -1)[tuple(corners.T)])


def inner_part(brain: np.ndarray, depth_mm: float, voxel_mm: float) -> np.ndarray:
    """The part of a brain (bool [x, y, z], voxels of `voxel_mm`) farther than `depth_mm` from its surface; all of it for 0.

    Ventricles and sulci that a mask leaves out are not outside.
    """
    if not depth_mm:
        return brain
    box = bounding_box(brain)
    # Distances are taken on a grid of about 2 mm: eight times faster at 1 mm.
    factor = max(1, round(2 / voxel_mm))
    pad = factor * (int(np.ceil(CLOSED_MM / (factor * voxel_mm))) + 1)
    whole = np.pad(brain[box], [(pad, pad + -size % factor) for size in brain[box].shape])
    whole = whole.reshape([part for size in whole.shape for part in (size // factor, factor)]).mean(axis=(1, 3, 5)) >= 0.5
    side = factor * voxel_mm
    whole = ndimage.distance_transform_edt(~whole) <= CLOSED_MM / side
    whole = ndimage.binary_fill_holes(ndimage.distance_transform_edt(whole) > CLOSED_MM / side)
    deep = ndimage.distance_transform_edt(whole) > depth_mm / side
    for axis in range(3):
        deep = deep.repeat(factor, axis)
    inner = np.zeros_like(brain)
    inner[box] = deep[tuple(slice(pad, pad + size) for size in brain[box].shape)] & brain[box]
    return inner


def candidates(volume: PatchVolume, brain: np.ndarray, flair_z: float) -> np.ndarray:
    """Voxels int16 [n, 3] of the scan's grid in `brain` (bool [x, y, z], in the volume) with a FLAIR z-score above `flair_z`."""
    flair = volume.data[HALF:-HALF, HALF:-HALF, HALF:-HALF, 1]
    box = tuple(slice(first, first + size) for first, size in zip(volume.start, flair.shape, strict=True))
    return np.argwhere(brain[box] & (flair > flair_z)).astype(np.int16) + volume.start.astype(np.int16)


def score(network: keras.Model, volume: PatchVolume, centres: np.ndarray) -> np.ndarray:
    """Lesion probabilities float32 [n] of voxels [n, 3], in batches of bounded memory; none for no voxel."""
    if is_dense(network):
        return score_densely(network, volume.data, volume.places(centres))
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


def turn_half(patches: np.ndarray, rng: np.random.Generator) -> None:
    """Flip, or turn by 180 degrees in the axial plane, a random half of the patches [n, x, y, z, contrast], in place."""
    chosen = rng.permutation(len(patches))[: len(patches) // 2]
    ways: tuple[tuple[int, ...], ...] = ((1,), (2,), (1, 2))
    way_of = rng.integers(len(ways), size=len(chosen))
    for way, axes in enumerate(ways):
        turned = chosen[way_of == way]
        patches[turned] = np.flip(patches[turned], axes)
