"""Axial tiles cut from volumes as training asks for them; no tile is ever stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionforge.synthesize.levels import bands
from lesionforge.synthesize.network import CONTRASTS, LATENT_DISTANCE, RECONSTRUCTIONS

if TYPE_CHECKING:
    import keras

TILE_SIZE = 64
TRAINING_STRIDE = 32
BATCH_SIZE = 32


@dataclass(frozen=True)
class TrainingScan:
    """One patient's volumes cut to the brain, each at least one tile wide: real and filled images and levels 0..8.

    `real` and `filled` are float32 [2, x, y, z] (T1w, FLAIR); `levels` is uint8 and `brain` bool [x, y, z].
    """

    real: np.ndarray
    filled: np.ndarray
    levels: np.ndarray
    brain: np.ndarray


def training_scan(
    real: tuple[np.ndarray, np.ndarray], filled: tuple[np.ndarray, np.ndarray], levels: np.ndarray, brain: np.ndarray
) -> TrainingScan:
    """Cut the volumes [x, y, z] of a patient to the bounding box of the brain, padded with zeros to one tile in plane."""
    box = bounding_box(brain)

    def cut(volume: np.ndarray) -> np.ndarray:
        part = volume[box]
        return np.pad(part, [(0, max(TILE_SIZE - part.shape[0], 0)), (0, max(TILE_SIZE - part.shape[1], 0)), (0, 0)])

    return TrainingScan(np.stack([cut(v) for v in real]), np.stack([cut(v) for v in filled]), cut(levels), cut(brain))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds a bool mask of any dimension; an empty mask gives the whole array."""
    if not mask.any():
        return tuple(slice(0, size) for size in mask.shape)
    box = []
    for axis in range(mask.ndim):
        present = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(present[0]), int(present[-1]) + 1))
    return tuple(box)


def tile_starts(length: int, stride: int) -> list[int]:
    """First indices of the tiles along one axis; the last tile ends with the axis, so that every voxel is in a tile."""
    last = length - TILE_SIZE
    return [*range(0, last, stride), last]


def tile_index(brain: np.ndarray, stride: int = TRAINING_STRIDE) -> np.ndarray:
    """Corners (x, y, z) of all axial 64 x 64 tiles with a brain voxel, int [tiles, 3]; `brain` is bool [x, y, z]."""

    def corners() -> Iterator[tuple[int, int, int]]:
        for x in tile_starts(brain.shape[0], stride):
            for y in tile_starts(brain.shape[1], stride):
                held = brain[x : x + TILE_SIZE, y : y + TILE_SIZE].any(axis=(0, 1))
                yield from ((x, y, int(z)) for z in np.flatnonzero(held))

    return np.array(list(corners()), int).reshape(-1, 3)


def network_inputs(images: np.ndarray, levels: np.ndarray) -> dict[str, np.ndarray]:
    """The generator's inputs from T1w and FLAIR slices [2, n, x, y] and their levels [n, x, y]: float32 [n, x, y, 9] each."""
    bands_of_levels = bands(levels)
    return {
        name: np.concatenate([image[..., np.newaxis], bands_of_levels], axis=-1)
        for name, image in zip(CONTRASTS, images, strict=True)
    }


def tile_batch(scans: list[TrainingScan], tiles: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of the network and real images [2, n, 64, 64] for rows (scan, x, y, z) of `tiles`."""
    filled = np.empty((2, len(tiles), TILE_SIZE, TILE_SIZE), np.float32)
    real = np.empty_like(filled)
    levels = np.empty((len(tiles), TILE_SIZE, TILE_SIZE), np.uint8)
    for number, (which, x, y, z) in enumerate(tiles):
        window = (slice(x, x + TILE_SIZE), slice(y, y + TILE_SIZE), z)
        scan = scans[which]
        filled[:, number] = scan.filled[(slice(None), *window)]
        real[:, number] = scan.real[(slice(None), *window)]
        levels[number] = scan.levels[window]
    return network_inputs(filled, levels), real


def tile_stream(
    scans: list[TrainingScan], width: int, seed: int, *, shuffle: bool, tiles_per_epoch: int | None = None
) -> keras.utils.PyDataset:
    """Batches of 32 tiles with the targets of the training model; `width` is the network's.

    With `shuffle` the tiles are drawn anew in every epoch, by seed; `tiles_per_epoch` bounds how many (else all).
    """
    import keras

    index = np.concatenate([np.column_stack([np.full(len(t), n), t]) for n, t in enumerate(tile_index(s.brain) for s in scans)])
    rng = np.random.default_rng(seed)
    count = min(len(index), tiles_per_epoch or len(index))

    class Tiles(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.order = np.linspace(0, len(index) - 1, count).astype(int)
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-count // BATCH_SIZE)

        def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
            chosen = index[self.order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]]
            inputs, real = tile_batch(scans, chosen)
            images = dict(zip(CONTRASTS, real[..., np.newaxis], strict=True))
            targets = {name: images[contrast] for name, contrast in RECONSTRUCTIONS.items()}
            return inputs, targets | {LATENT_DISTANCE: np.zeros((len(chosen), width), np.float32)}

        def on_epoch_end(self) -> None:
            if shuffle:
                self.order = rng.permutation(len(index))[:count]

    return Tiles()
