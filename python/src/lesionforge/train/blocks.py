"""Blocks: what the network dense is trained on and applied to. Cut from padded volumes when they are needed, never stored."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from lesionforge.train.cubes import blurred, zoomed
from lesionforge.train.network import DENSE_FACTOR

if TYPE_CHECKING:
    import keras

BLOCK = 32
# What lies nearer to the faces of a block is context only: the network sees zeros beyond them.
MARGIN = 2
# Inference: voxels that a tile is judged for along each axis, at most, and the context around them.
# A brain of 1 mm is one tile: tiles of 96 with their context take half as long again, and where they meet shows.
LARGEST_TILE = 192
HALO = 16  # a multiple of DENSE_FACTOR
OUTSIDE, HEALTHY, LESION, GREY = 0, 1, 2, 3  # GREY: healthy grey matter
# Of a scan's lesions each is drawn in proportion to its size to this power: by 1 all voxels alike, by 0 all lesions alike.
LESION_SIZE_POWER = 0.5

# Augmentation, in normalised intensities (white matter of a FLAIR lies near 0, its grey matter near 0.5, lesions above 1).
# Painted lesions look like those of few donors: what theirs differ by in other patients is drawn anew for each block.
LESION_SHIFT = {"T1w": (-1.8, 0.2), "else": (-0.4, 0.4)}
# Grey matter is nearly as bright as lesions in the FLAIR of some scanners, hardly brighter than white matter in that of others.
GREY_SHIFT = {"T1w": (-0.3, 0.3), "else": (-0.2, 0.7)}
SHIFTED_SHARE = 0.8
# Enlarged blocks have lesions as large as those of patients with a heavy load.
ZOOM = (0.8, 1.6)
ZOOMED_SHARE = 0.7
MOST_TEXTURE = 0.4
# Relations between tissues: the steps of a rising curve through these points, 0 kept, are drawn with this spread.
CURVE = np.array([-4, -2, -1, -0.5, 0, 0.4, 0.8, 1.2, 1.6, 2.2, 3, 5], np.float32)
CURVE_SPREAD = 0.2
GAIN_SPREAD, SHIFT_SPREAD, BIAS_SPREAD = 0.1, 0.1, 0.15
MOST_BLUR, MOST_NOISE = 1.0, 0.15


def cut(volume: np.ndarray, corner: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """A copy of the box of a volume [x, y, z, ...] at `corner` with these sides; zeros where it reaches beyond the volume."""
    shape = np.array(volume.shape[:3])
    low, high = np.maximum(corner, 0), np.minimum(corner + sides, shape)
    inside = np.asarray(volume[tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))])
    out = np.zeros((*sides, *volume.shape[3:]), volume.dtype)
    place = low - corner
    out[tuple(slice(a, a + n) for a, n in zip(place, inside.shape[:3], strict=True))] = inside
    return out


def training_block(
    data: np.ndarray, labels: np.ndarray, centre: np.ndarray, rng: np.random.Generator, contrasts: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A block that holds the voxel `centre` somewhere in its middle half, changed at random.

    `data` is float32 [x, y, z, contrast], `labels` uint8 [x, y, z] as `OUTSIDE`, `HEALTHY` and so on say. Returns float32
    [32, 32, 32, contrast] and uint8 [32, 32, 32].
    """
    zoom = np.exp(rng.uniform(*np.log(ZOOM))) if rng.random() < ZOOMED_SHARE else 1.0
    side = round(BLOCK / zoom)
    corner = np.asarray(centre, int) - rng.integers(side // 4, 3 * side // 4, 3)
    sides = np.full(3, side)
    # One contrast after the other in memory, [contrast, x, y, z]: most changes are made to one at a time.
    images, classes = np.moveaxis(cut(data, corner, sides), -1, 0), cut(labels, corner, sides)
    if side != BLOCK:
        images, classes = zoomed(images, BLOCK), _zoomed_classes(classes)
    for axis in range(3):
        if rng.random() < 0.5:
            images, classes = np.flip(images, axis + 1), np.flip(classes, axis)
    if rng.random() < 0.5:
        images, classes = images.swapaxes(1, 2), classes.swapaxes(0, 1)
    images, classes = np.array(images, order="C"), np.ascontiguousarray(classes)
    if rng.random() < SHIFTED_SHARE:
        _change_lesions(images, classes == LESION, contrasts, rng)
    if rng.random() < SHIFTED_SHARE:
        _change_grey_matter(images, classes == GREY, contrasts, rng)
    brain = classes != OUTSIDE
    return np.stack([_change_contrast(image, rng) * brain for image in images], axis=-1), classes


def plain_block(data: np.ndarray, labels: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The block with the voxel `centre` in its middle, unchanged, as validation sees it; arrays as of `training_block`."""
    corner, sides = np.asarray(centre, int) - BLOCK // 2, np.full(3, BLOCK)
    return cut(data, corner, sides), cut(labels, corner, sides)


def _zoomed_classes(classes: np.ndarray) -> np.ndarray:
    """The classes of a cube on the grid of a block: what fills half of a voxel or more."""
    shares = zoomed(np.stack([classes == LESION, classes == GREY, classes != OUTSIDE]), BLOCK)
    lesion, grey, brain = shares >= 0.5
    return np.where(lesion, np.uint8(LESION), np.where(grey, np.uint8(GREY), brain))


def _change_grey_matter(images: np.ndarray, grey: np.ndarray, contrasts: tuple[str, ...], rng: np.random.Generator) -> None:
    """Make the grey matter of a block [contrast, x, y, z] brighter or darker, in place."""
    if not grey.any():
        return
    soft = blurred(grey, rng.uniform(0.3, 1.0))
    for image, contrast in zip(images, contrasts, strict=True):
        image += soft * np.float32(rng.uniform(*GREY_SHIFT.get(contrast, GREY_SHIFT["else"])))


def _change_lesions(images: np.ndarray, lesion: np.ndarray, contrasts: tuple[str, ...], rng: np.random.Generator) -> None:
    """Make the lesions of a block [contrast, x, y, z] brighter or darker, and give them texture, in place."""
    if not lesion.any():
        return
    soft = blurred(lesion, rng.uniform(0.3, 1.0))
    for image, contrast in zip(images, contrasts, strict=True):
        shift = np.float32(rng.uniform(*LESION_SHIFT.get(contrast, LESION_SHIFT["else"])))
        texture = blurred(rng.standard_normal(lesion.shape, np.float32), rng.uniform(0.7, 5.0))
        texture *= np.float32(rng.uniform(0, MOST_TEXTURE) / max(float(texture.std()), 1e-6))
        image += soft * (shift + texture)


def _change_contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One contrast [x, y, z] of a block with another sharpness, relation of tissues, bias, gain and noise."""
    sigma = rng.uniform(0, MOST_BLUR)
    if sigma > 0.3 and rng.random() < 0.5:
        image = blurred(image, sigma)
    elif rng.random() < 0.3:
        image = image + np.float32(rng.uniform(0, 1)) * (image - blurred(image, 1))
    steps = np.diff(CURVE) * np.exp(rng.normal(0, CURVE_SPREAD, len(CURVE) - 1))
    curve = np.concatenate([[0], np.cumsum(steps)])
    image = np.interp(image, CURVE, curve - np.interp(0, CURVE, curve)).astype(np.float32)
    image += zoomed(rng.normal(0, BIAS_SPREAD, (2, 2, 2)), BLOCK)
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, MOST_NOISE))
    return image * np.float32(np.exp(rng.normal(0, GAIN_SPREAD))) + np.float32(rng.normal(0, SHIFT_SPREAD)) + noise


def block_loss(classes: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    """Mean cross-entropy plus one minus soft Dice of lesion, over the voxels of a batch that lie in the brain and off the margin.

    `classes` is [n, x, y, z] of OUTSIDE, HEALTHY, GREY and LESION, `probabilities` [n, x, y, z, 2].
    """
    from keras import ops

    inner = (slice(None), *(slice(MARGIN, -MARGIN),) * 3)
    classes, found = classes[inner], ops.clip(probabilities[inner][..., 1], 1e-6, 1 - 1e-6)
    counted = ops.cast(classes != OUTSIDE, found.dtype)
    lesion = ops.cast(classes == LESION, found.dtype)
    entropy = -counted * (lesion * ops.log(found) + (1 - lesion) * ops.log(1 - found))
    overlap = ops.sum(found * lesion)
    # Some voxels more on both sides: blocks without lesions are no failure.
    dice = (2 * overlap + 10) / (ops.sum(found * counted) + ops.sum(lesion) + 10)
    return ops.sum(entropy) / (ops.sum(counted) + 1) + 1 - dice


def score_densely(network: keras.Model, data: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Lesion probabilities float32 [n] by the network dense at voxels [n, 3] of a volume [x, y, z, contrast].

    The part of the volume that holds the voxels is judged in tiles of nearly equal sides, those without such a voxel left out.
    """
    found = np.zeros(len(points), np.float32)
    if not len(points):
        return found
    # The network halves a tile three times: tiles that begin at a multiple of its factor agree with one tile of the whole, but
    # for what lies beyond the halo.
    low, high = points.min(axis=0) // DENSE_FACTOR * DENSE_FACTOR, points.max(axis=0) + 1
    counts = -(-(high - low) // LARGEST_TILE)
    sides = -(-(high - low) // (counts * DENSE_FACTOR)) * DENSE_FACTOR
    tile_of = (points - low) // sides
    for tile in product(*(range(count) for count in counts)):
        chosen = np.flatnonzero((tile_of == tile).all(axis=1))
        if len(chosen):
            corner = low + np.array(tile) * sides - HALO
            block = cut(data, corner, sides + 2 * HALO)[None]
            judged = np.asarray(network.predict_on_batch(block))[0, ..., 1]
            found[chosen] = judged[tuple((points[chosen] - corner).T)]
    return found
