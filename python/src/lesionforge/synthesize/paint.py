"""Painting: the generator's lesions inside the mask, the canvas everywhere else, a soft seam between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lesionforge.images.geometry import bounding_box
from lesionforge.synthesize.config import SIZE_MULTIPLE, GeneratorConfig
from lesionforge.synthesize.levels import Scale, within_levels
from lesionforge.synthesize.tiles import (
    NETWORK_UNITS,
    coarsely_painted,
    network_images,
    network_inputs,
    network_levels,
    tile_grid,
)

if TYPE_CHECKING:
    import keras

SEAM_SIGMA_VOXELS = 1.0
SEAM_WIDTH_VOXELS = 2
SLICES_PER_BATCH = 4
# What a network with shared slopes sees around the voxels that are asked for, less than all that can reach them; but a tile of
# the training shows most of its voxels no more.
CONTEXT_VOXELS = 16


def seam_weight(lesion: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The generator's share of each voxel, float32 [x, y, z]: 1 in the lesion, falling to exactly 0 past two voxels from it.

    The fall is a Gaussian of sigma 1 voxel; outside the brain the weight is 0.
    """
    reach = ndimage.binary_dilation(lesion, iterations=SEAM_WIDTH_VOXELS) & brain
    soft = ndimage.gaussian_filter(lesion.astype(np.float32), SEAM_SIGMA_VOXELS)
    return np.where(lesion, 1, np.where(reach, soft, 0)).astype(np.float32)


def generate(
    model: keras.Model,
    config: GeneratorConfig,
    images: Sequence[np.ndarray],
    brain: np.ndarray,
    levels: Mapping[str, np.ndarray],
    scales: Mapping[str, Scale],
    wanted: np.ndarray,
) -> np.ndarray:
    """The generator's images, float32 [contrast, x, y, z], right at the `wanted` voxels; voxels it never reaches are the canvas'.

    All volumes are [x, y, z]; levels and the scales of the canvas are by contrast. Windows of the canvas, cut to the brain, go
    through the network and are averaged where they overlap. A network with shared slopes takes one window for every four
    slices, around all that is wanted in them: that equals averaged tiles but for what lies beyond their borders, and needs a
    fraction of the work.
    """
    shown = network_levels(levels, config)
    out = np.stack(coarsely_painted(network_images(images, brain, scales, config), shown, config)).astype(np.float32)
    box = bounding_box(brain)[:2]
    canvas = np.stack([_cut(image[box], config) for image in out])
    total = np.zeros_like(canvas)
    count = np.zeros(canvas.shape[1:], np.float32)
    cut_levels = np.stack([_cut(level[box], config) for level in shown])
    for places, inputs in _window_batches(canvas, cut_levels, _cut(wanted[box], config), config):
        painted = _as_list(model.predict_on_batch(list(inputs.values())))
        for number, place in enumerate(places):
            total[:, *place] += np.stack([np.asarray(image)[number, ..., 0] for image in painted])
            count[place] += 1
    mean = np.divide(total, count, out=canvas, where=count > 0)
    size_x, size_y, size_z = out[:, *box].shape[1:]
    out[:, *box] = mean[:, :size_x, :size_y, config.neighbours : config.neighbours + size_z]
    if config.own_levels:
        inside = levels["flair"] > 0
        for number, name in enumerate(config.contrasts):
            units = out[number] / NETWORK_UNITS[name]
            units[inside] = within_levels(units[inside], levels[name][inside], name)
            out[number] = np.where(wanted, scales[name].intensities(units), images[number])
    return out


def _cut(volume: np.ndarray, config: GeneratorConfig) -> np.ndarray:
    """Zeros added in plane up to one tile, or for windows up to a multiple of 8, and the neighbours of the end slices."""
    if config.inference_stride is None:
        short = [-length % SIZE_MULTIPLE for length in volume.shape[:2]]
    else:
        short = [max(config.tile_size - length, 0) for length in volume.shape[:2]]
    return np.pad(volume, [(0, short[0]), (0, short[1]), (config.neighbours, config.neighbours)])


def _window_batches(
    canvas: np.ndarray, levels: np.ndarray, wanted: np.ndarray, config: GeneratorConfig
) -> Iterator[tuple[list[tuple[slice, slice, int]], dict[str, np.ndarray]]]:
    """Places (x, y, z) of the windows with a wanted voxel, a batch at a time, and the network's inputs there.

    `canvas` and `levels` are [contrast, x, y, z]; windows without a wanted voxel change none of the averages that are asked for.
    """
    size, stride = config.tile_size, config.inference_stride
    for places in _whole_windows(wanted) if stride is None else _tile_windows(wanted, size, stride, config.batch_size):
        around = [(x, y, slice(z - config.neighbours, z + config.neighbours + 1)) for x, y, z in places]
        yield (
            places,
            network_inputs(
                np.stack([np.moveaxis(canvas[:, *part], 3, 1) for part in around], axis=1),
                np.stack([np.moveaxis(levels[:, *part], 3, 1) for part in around], axis=1),
                config,
            ),
        )


def _whole_windows(wanted: np.ndarray) -> Iterator[list[tuple[slice, slice, int]]]:
    """Batches of slices, each with the window that holds its wanted voxels and their context, sides multiples of 8."""
    slices = np.flatnonzero(wanted.any(axis=(0, 1)))
    for start in range(0, len(slices), SLICES_PER_BATCH):
        batch = slices[start : start + SLICES_PER_BATCH]
        x, y = (
            slice(
                max(side.start - CONTEXT_VOXELS, 0) // SIZE_MULTIPLE * SIZE_MULTIPLE,
                min(-(-(side.stop + CONTEXT_VOXELS) // SIZE_MULTIPLE) * SIZE_MULTIPLE, length),
            )
            for side, length in zip(bounding_box(wanted[..., batch])[:2], wanted.shape[:2], strict=True)
        )
        yield [(x, y, int(z)) for z in batch]


def _tile_windows(wanted: np.ndarray, size: int, stride: int, per_batch: int) -> Iterator[list[tuple[slice, slice, int]]]:
    """Batches of tiles of the grid with a wanted voxel."""
    corners = tile_grid(wanted, size, stride)
    for start in range(0, len(corners), per_batch):
        yield [(slice(x, x + size), slice(y, y + size), int(z)) for x, y, z in corners[start : start + per_batch]]


def _as_list(outputs: object) -> list:
    """The outputs of a network, which Keras gives bare when there is only one."""
    return outputs if isinstance(outputs, list) else [outputs]


def paint_lesions(
    model: keras.Model,
    config: GeneratorConfig,
    images: Sequence[np.ndarray],
    brain: np.ndarray,
    lesion: np.ndarray,
    levels: Mapping[str, np.ndarray],
    scales: Mapping[str, Scale],
) -> list[np.ndarray]:
    """Synthetic images, float32 [x, y, z], in the order of the configuration's contrasts: the canvas with lesions blended in.

    `images` are those of the lesion-free canvas, `scales` its own; `lesion` (bool) and `levels` (0..12, by contrast) are the
    transplant on its grid.
    Every voxel more than two voxels from a lesion keeps the canvas' value exactly; without lesions all of them do.
    """
    weight = seam_weight(lesion, brain)
    touched = weight > 0
    painted = generate(model, config, images, brain, levels, scales, touched)
    synthetic = []
    for canvas, generated in zip(images, painted, strict=True):
        out = canvas.astype(np.float32)
        out[touched] += weight[touched] * (generated[touched] - out[touched])
        synthetic.append(out)
    return synthetic
