"""Painting: the generator's lesions inside the mask, the canvas everywhere else, a soft seam between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lesionforge.synthesize.network import SIZE_MULTIPLE
from lesionforge.synthesize.tiles import bounding_box, network_inputs

if TYPE_CHECKING:
    import keras

SEAM_SIGMA_VOXELS = 1.0
SEAM_WIDTH_VOXELS = 2
SLICES_PER_BATCH = 8


def seam_weight(lesion: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The generator's share of each voxel, float32 [x, y, z]: 1 in the lesion, falling to exactly 0 past two voxels from it.

    The fall is a Gaussian of sigma 1 voxel; outside the brain the weight is 0.
    """
    reach = ndimage.binary_dilation(lesion, iterations=SEAM_WIDTH_VOXELS) & brain
    soft = ndimage.gaussian_filter(lesion.astype(np.float32), SEAM_SIGMA_VOXELS)
    return np.where(lesion, 1, np.where(reach, soft, 0)).astype(np.float32)


def generate(
    model: keras.Model, t1w: np.ndarray, flair: np.ndarray, brain: np.ndarray, levels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The generator's T1w and FLAIR, float32 [2, x, y, z], of the axial slices that hold `wanted` voxels; zero elsewhere.

    Slices go whole through the network, cut to the brain and padded with zeros to a multiple of 8: it is fully
    convolutional, so this equals the published averaging of 64 x 64 tiles but for their zero-padded borders, has no
    voxel that no tile reaches, and needs a sixteenth of the work.
    """
    out = np.zeros((2, *t1w.shape), np.float32)
    slices = np.flatnonzero(wanted.any(axis=(0, 1)))
    box_x, box_y = bounding_box(brain)[:2]
    size = (box_x.stop - box_x.start, box_y.stop - box_y.start)
    padding = [(0, 0), *((0, -length % SIZE_MULTIPLE) for length in size)]

    def cut(volume: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.pad(np.moveaxis(volume[box_x, box_y][:, :, chosen], 2, 0), padding)

    for start in range(0, slices.size, SLICES_PER_BATCH):
        chosen = slices[start : start + SLICES_PER_BATCH]
        inputs = network_inputs(np.stack([cut(t1w, chosen), cut(flair, chosen)]), cut(levels, chosen))
        for contrast, painted in enumerate(model.predict_on_batch(list(inputs.values()))):
            for z, image in zip(chosen, np.asarray(painted), strict=True):
                out[contrast, box_x, box_y, z] = image[: size[0], : size[1], 0]
    return out


def paint_lesions(
    model: keras.Model, t1w: np.ndarray, flair: np.ndarray, brain: np.ndarray, lesion: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic T1w and FLAIR, float32 [x, y, z]: the canvas with the generator's lesions blended in.

    `t1w` and `flair` are the lesion-free canvas, `lesion` (bool) and `levels` (0..8) the transplant on its grid.
    Every voxel more than two voxels from a lesion keeps the canvas' value exactly; without lesions all of them do.
    """
    weight = seam_weight(lesion, brain)
    touched = weight > 0
    painted = generate(model, t1w, flair, brain, levels, touched)
    synthetic = []
    for canvas, generated in zip((t1w, flair), painted, strict=True):
        out = canvas.astype(np.float32)
        out[touched] += weight[touched] * (generated[touched] - out[touched])
        synthetic.append(out)
    return synthetic[0], synthetic[1]
