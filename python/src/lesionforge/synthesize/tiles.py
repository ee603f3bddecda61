"""Axial tiles for training, gathered from volumes on disk: memory does not grow with the cohort."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lesionforge.images.geometry import bounding_box
from lesionforge.synthesize.config import GeneratorConfig
from lesionforge.synthesize.levels import LEVEL_COUNT, Scale, bands, level_masks, level_middles
from lesionforge.synthesize.network import LATENT_VARIANCE

if TYPE_CHECKING:
    import keras

# Indices into the first axis but one of images.npy.
FILLED, REAL = 0, 1
# One unit of a contrast's scale for the network: such that all contrasts weigh about alike, as normalised intensities do.
NETWORK_UNITS = {"t1w": 1.0, "flair": 0.25, "t2w": 0.5, "pdw": 1.0}
# The most that a voxel counts against the mean of its tile.
LARGEST_WEIGHT = 50.0
Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray] | None]


@dataclass(frozen=True)
class StoredScan:
    """One patient's volumes in a scratch folder, cut to the brain, each at least one tile wide and slice after slice.

    `images.npy` is float32 [z, 2, contrast, x, y] (filled, for ours coarsely painted, then real), `levels.npy` uint8
    [z, contrast, x, y], both with `neighbours` empty slices added at either end; `places.npy` is int16 [n, 3], the voxels
    (x, y, z) with a level above 0. `grid` holds the corners (x, y, z) of the tiles with a brain voxel, int16 [tiles, 3]; z
    counts from the first slice of the brain.
    """

    folder: Path
    shape: tuple[int, int]
    grid: np.ndarray
    place_count: int
    checksum: int

    def open(self, name: str) -> np.ndarray:
        """One of the three arrays, memory-mapped; let go of it soon, since the pages read stay with the process until then."""
        array: np.ndarray = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array


def store_scan(
    folder: Path,
    real: Sequence[np.ndarray],
    filled: Sequence[np.ndarray],
    levels: Sequence[np.ndarray],
    brain: np.ndarray,
    config: GeneratorConfig,
) -> StoredScan:
    """Write a patient's volumes [x, y, z] into the new folder `folder`, those of each contrast in the configuration's order."""
    folder.mkdir(parents=True)
    box = bounding_box(brain)

    def cut(volume: np.ndarray) -> np.ndarray:
        part = volume[box]
        short = [max(config.tile_size - length, 0) for length in part.shape[:2]]
        padded = np.pad(part, [(0, short[0]), (0, short[1]), (config.neighbours, config.neighbours)])
        return np.ascontiguousarray(np.moveaxis(padded, 2, 0))

    images = np.stack([np.stack([cut(v) for v in volumes], axis=1) for volumes in (filled, real)], axis=1)
    stored_levels = np.stack([cut(volume).astype(np.uint8) for volume in levels], axis=1)
    slices = slice(config.neighbours, len(stored_levels) - config.neighbours)
    places = np.argwhere(stored_levels[slices].any(axis=1))[:, [1, 2, 0]].astype(np.int16)
    for name, array in (("images", images.astype(np.float32)), ("levels", stored_levels), ("places", places)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return StoredScan(
        folder=folder,
        shape=(images.shape[3], images.shape[4]),
        grid=tile_grid(np.moveaxis(cut(brain)[slices], 0, 2), config.tile_size, config.training_stride).astype(np.int16),
        place_count=len(places),
        checksum=zlib.crc32(stored_levels.data, zlib.crc32(images.data)),
    )


def network_levels(levels: Mapping[str, np.ndarray], config: GeneratorConfig) -> list[np.ndarray]:
    """The levels that the encoder of each contrast takes, in the configuration's order."""
    return [levels[name if config.own_levels else "flair"] for name in config.contrasts]


def network_images(
    images: Sequence[np.ndarray], brain: np.ndarray, scales: Mapping[str, Scale], config: GeneratorConfig
) -> list[np.ndarray]:
    """A scan's normalised images, in the configuration's order, in the units of the network; 0 outside the brain."""
    if not config.own_levels:
        return list(images)
    return [
        np.where(brain, scales[name].units(image) * NETWORK_UNITS[name], 0).astype(np.float32)
        for name, image in zip(config.contrasts, images, strict=True)
    ]


def coarsely_painted(images: Sequence[np.ndarray], levels: Sequence[np.ndarray], config: GeneratorConfig) -> list[np.ndarray]:
    """Filled images in the units of the network, each voxel with a level at the middle of that, which ours starts from."""
    if not config.own_levels:
        return list(images)
    middles = {name: np.pad(level_middles(name) * NETWORK_UNITS[name], (1, 0)) for name in config.contrasts}
    return [
        np.where(level > 0, middles[name][level], image)
        for name, image, level in zip(config.contrasts, images, levels, strict=True)
    ]


def tile_starts(length: int, tile_size: int, stride: int) -> list[int]:
    """First indices of the tiles along one axis; the last tile ends with the axis, so that every voxel is in a tile."""
    last = length - tile_size
    return [*range(0, last, stride), last]


def tile_grid(mask: np.ndarray, tile_size: int, stride: int) -> np.ndarray:
    """Corners (x, y, z) of all axial tiles with a voxel of a bool mask [x, y, z], int [tiles, 3]."""

    def corners() -> Iterator[tuple[int, int, int]]:
        for x in tile_starts(mask.shape[0], tile_size, stride):
            for y in tile_starts(mask.shape[1], tile_size, stride):
                held = mask[x : x + tile_size, y : y + tile_size].any(axis=(0, 1))
                yield from ((x, y, int(z)) for z in np.flatnonzero(held))

    return np.array(list(corners()), int).reshape(-1, 3)


def draw_tiles(scans: Sequence[StoredScan], config: GeneratorConfig, rng: np.random.Generator) -> np.ndarray:
    """The tiles of an epoch in random order, int32 rows (scan, x, y, z).

    Without `lesion_tiles` each tile of the grid comes once. Else that share of them is drawn around voxels with a level above
    0, the same number from each scan that has any, and the rest from the grid. `tiles_per_epoch` bounds or sets the number.
    """
    grid = np.concatenate([np.column_stack([np.full(len(scan.grid), n), scan.grid]) for n, scan in enumerate(scans)])
    grid = rng.permutation(grid.astype(np.int32))
    hyperintense = [n for n, scan in enumerate(scans) if scan.place_count]
    count = config.tiles_per_epoch or len(grid)
    near_lesions = round(config.lesion_tiles * count) if hyperintense else 0
    if not near_lesions:
        return grid[:count]
    shares = np.bincount(np.resize(rng.permutation(hyperintense), near_lesions))
    near = [_tiles_at_places(n, scans[n], shares[n], config.tile_size, rng) for n in np.flatnonzero(shares)]
    return rng.permutation(np.concatenate([*near, np.resize(grid, (count - near_lesions, 4))]).astype(np.int32))


def _tiles_at_places(number: int, scan: StoredScan, count: int, tile_size: int, rng: np.random.Generator) -> np.ndarray:
    """Tiles that hold a random voxel with a level above 0 anywhere in them, rows (scan, x, y, z)."""
    places = np.array(scan.open("places")[np.sort(rng.integers(scan.place_count, size=count))], int)
    corners = places[:, :2] - rng.integers(tile_size, size=(count, 2))
    corners = np.clip(corners, 0, np.array(scan.shape) - tile_size)
    return np.column_stack([np.full(count, number), corners, places[:, 2]])


def network_inputs(images: np.ndarray, levels: np.ndarray, config: GeneratorConfig) -> dict[str, np.ndarray]:
    """The generator's inputs from neighbouring slices of each contrast, float32 [n, x, y, slices * (1 + masks)] by contrast.

    `images` and `levels` are [contrast, n, slices, x, y], from below.
    """
    # Row k holds the channels of a voxel of level k: room for the image, then its masks.
    of_level = np.pad((level_masks if config.own_levels else bands)(np.arange(LEVEL_COUNT + 1)), [(0, 0), (1, 0)])

    def channels(image: np.ndarray, level: np.ndarray) -> np.ndarray:
        joined = np.take(of_level, np.moveaxis(level, 1, 3), axis=0)
        joined[..., 0] = np.moveaxis(image, 1, 3)
        return joined.reshape(*joined.shape[:3], -1)

    return {name: channels(*both) for name, *both in zip(config.contrasts, images, levels, strict=True)}


def voxel_weights(levels: np.ndarray, config: GeneratorConfig) -> np.ndarray:
    """What each voxel of tiles [n, x, y] of levels weighs in the errors, float32: more where lesions are, and in a thin rim.

    Lesions and the rest of a tile share its errors as configured, so that small lesions are learned like large ones; the
    mean weight of a tile is 1, unless its lesions are so small that they meet LARGEST_WEIGHT.
    """
    emphasised = levels > 0
    if config.rim_voxels:
        emphasised = ndimage.binary_dilation(emphasised, np.ones((1, 3, 3), bool), config.rim_voxels)
    part = emphasised.mean(axis=(1, 2), keepdims=True)
    share = np.where(part > 0, config.lesion_share or 0, 0)
    inside = np.minimum(share / np.maximum(part, 1 / levels[0].size), LARGEST_WEIGHT)
    outside = (1 - share) / np.maximum(1 - part, 1 / levels[0].size)
    return np.where(emphasised, inside, outside).astype(np.float32)


def tile_batch(scans: Sequence[StoredScan], tiles: np.ndarray, config: GeneratorConfig) -> Batch:
    """Inputs, targets and voxel weights (None where all weigh the same) of the training model for rows (scan, x, y, z)."""
    contrasts, size, depth = len(config.contrasts), config.tile_size, config.slices
    filled = np.empty((contrasts, len(tiles), depth, size, size), np.float32)
    real = np.empty((contrasts, len(tiles), size, size, 1), np.float32)
    levels = np.empty((contrasts, len(tiles), depth, size, size), np.uint8)
    opened = {which: (scans[which].open("images"), scans[which].open("levels")) for which in np.unique(tiles[:, 0])}
    for number, (which, x, y, z) in enumerate(tiles):
        images, levels_of_voxels = opened[which]
        window = (slice(x, x + size), slice(y, y + size))
        filled[:, number] = np.moveaxis(images[z : z + depth, FILLED, :, *window], 1, 0)
        real[:, number, ..., 0] = images[z + config.neighbours, REAL, :, *window]
        levels[:, number] = np.moveaxis(levels_of_voxels[z : z + depth, :, *window], 1, 0)
    targets = {name: real[config.contrasts.index(contrast)] for name, contrast in config.reconstructions.items()}
    targets[LATENT_VARIANCE] = np.zeros((len(tiles), config.width), np.float32)
    weights = None
    if config.lesion_share is not None:
        weights = dict.fromkeys(config.reconstructions, voxel_weights(levels[:, :, config.neighbours].max(axis=0), config))
        weights[LATENT_VARIANCE] = np.ones(len(tiles), np.float32)
    return network_inputs(filled, levels, config), targets, weights


def tile_stream(
    scans: Sequence[StoredScan], config: GeneratorConfig, seed: int, *, epoch: int, multiple_of: int = 1
) -> keras.utils.PyDataset:
    """Batches for the training model with the tiles of an epoch, until its `draw(epoch)` draws those of another.

    A draw depends on seed and epoch only, so that training may go on after any epoch as if it had never stopped.
    Tiles are repeated until their number is a `multiple_of`, for batches that several devices share.
    """
    import keras

    class Tiles(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.draw(epoch)

        def __len__(self) -> int:
            return -(-len(self.tiles) // config.batch_size)

        def __getitem__(self, number: int) -> tuple:
            start = number * config.batch_size
            inputs, targets, weights = tile_batch(scans, self.tiles[start : start + config.batch_size], config)
            return (inputs, targets) if weights is None else (inputs, targets, weights)

        def draw(self, epoch: int) -> None:
            tiles = draw_tiles(scans, config, np.random.default_rng([seed, epoch]))
            self.tiles = np.resize(tiles, (-(-len(tiles) // multiple_of) * multiple_of, 4))

    return Tiles()
