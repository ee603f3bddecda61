"""Lesion filling: lesions replaced by noise like the white matter around them (Salem et al., IEEE Access 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

RING_DILATIONS = 2
WIDER_DILATIONS = (4, 8)
# Fewer voxels than this give no usable standard deviation; the published program leaves such components unfilled.
RING_MIN_VOXELS = 4
NOISE_FRACTION = 0.5
SMOOTHING_DILATIONS = 4
SMOOTHING_SIGMA_VOXELS = 0.6
# Axial slices are z; components and rings live in one slice.
IN_PLANE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])
IN_PLANE_8 = np.broadcast_to(np.array([False, True, False]), (3, 3, 3))


@dataclass(frozen=True)
class Filling:
    """What was filled: 2-D components, those whose ring had to be widened, and those that took slice or volume statistics."""

    components: int
    widened: int
    without_ring: int


def fill_lesions(
    images: list[np.ndarray], lesion: np.ndarray, white_matter: np.ndarray, rng: np.random.Generator
) -> tuple[list[np.ndarray], Filling]:
    """Fill every axial component of `lesion` in each image from the white matter around it.

    Images are float32 [x, y, z] on one grid, z axial; `lesion` and `white_matter` are bool. A component takes
    N(mean, 0.5 std) of its ring: the component dilated twice, minus itself, in white matter that is no lesion. A ring
    of under four voxels is widened, then replaced by the slice's and at last the volume's white matter. White matter
    within four dilations of the lesions is then smoothed in space with sigma 0.6 voxels; nothing else changes.
    Without lesions, or without any white matter to learn from, the images are returned as copies.
    """
    source = white_matter & ~lesion
    labels, count = ndimage.label(lesion, structure=IN_PLANE_8)
    if not count or not source.any():
        return [image.copy() for image in images], Filling(0, 0, 0)
    means, stds, widened, without_ring = _ring_statistics(images, labels, source)
    inside = labels[lesion] - 1
    region = ndimage.binary_dilation(lesion, IN_PLANE, SMOOTHING_DILATIONS) & (white_matter | lesion)
    filled = []
    for number, image in enumerate(images):
        noise = rng.standard_normal(inside.size)
        out = image.copy()
        out[lesion] = means[inside, number] + NOISE_FRACTION * stds[inside, number] * noise
        filled.append(_smoothed_within(out, region))
    return filled, Filling(count, widened, without_ring)


def _ring_statistics(images: list[np.ndarray], labels: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Mean and standard deviation of each component's ring in each image [components, images], and how many fell back."""
    boxes = ndimage.find_objects(labels)
    means = np.zeros((len(boxes), len(images)))
    stds = np.zeros_like(means)
    widened = without_ring = 0
    slices: dict[int, list[np.ndarray]] = {}
    for number, (box_x, box_y, box_z) in enumerate(boxes):
        z = box_z.start
        samples = None
        for dilations in (RING_DILATIONS, *WIDER_DILATIONS):
            window = (
                slice(max(box_x.start - dilations, 0), box_x.stop + dilations),
                slice(max(box_y.start - dilations, 0), box_y.stop + dilations),
                z,
            )
            component = labels[window] == number + 1
            ring = ndimage.binary_dilation(component, iterations=dilations) & source[window]
            if np.count_nonzero(ring) >= RING_MIN_VOXELS:
                samples = [image[window][ring] for image in images]
                widened += dilations > RING_DILATIONS
                break
        if samples is None:
            without_ring += 1
            if z not in slices:
                enough = np.count_nonzero(source[:, :, z]) >= RING_MIN_VOXELS
                slices[z] = [image[:, :, z][source[:, :, z]] if enough else image[source] for image in images]
            samples = slices[z]
        means[number] = [values.mean(dtype=np.float64) for values in samples]
        stds[number] = [values.std(dtype=np.float64) for values in samples]
    return means, stds, widened, without_ring


def _smoothed_within(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Gaussian smoothing of the voxels of a region from voxels of that region only; all others stay as they are."""
    weight = ndimage.gaussian_filter(region.astype(np.float32), SMOOTHING_SIGMA_VOXELS)
    smooth = ndimage.gaussian_filter(np.where(region, image, 0).astype(np.float32), SMOOTHING_SIGMA_VOXELS)
    out = image.copy()
    out[region] = smooth[region] / weight[region]
    return out
