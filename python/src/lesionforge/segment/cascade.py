"""Inference: candidates, CNN1, CNN2, and from probabilities to lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images import Scan, label_lesions, least_voxels_above, voxel_volume_mm3
from lesionforge.images.geometry import bounding_box, voxel_side_mm
from lesionforge.images.hyperintense import hyperintense_off_cortex, hyperintense_volume_mm3
from lesionforge.train.patches import PatchVolume, candidates, inner_part, patch_volume, score

if TYPE_CHECKING:
    import keras


def lesion_probability(
    models: dict[str, keras.Model],
    images: Sequence[np.ndarray],
    brain: np.ndarray,
    config: CascadeConfig,
    voxel_mm: float,
    region: np.ndarray | None = None,
) -> np.ndarray:
    """Lesion probabilities, float32 [x, y, z], of one scan on its working grid; `brain` and `region` are bool.

    `images` are [x, y, z] in the order of the networks' contrasts: T1w, FLAIR and what may follow; voxels have sides of
    `voxel_mm`. Zero outside the brain, or the part of it that `region` leaves, near its surface and where FLAIR is dark, if the
    configuration says so, and where CNN1 rules a lesion out; all zero when nothing is left. With `mirrored`, the mean of those of
    the scan and of the scan with left and right changed.
    """
    probability = np.zeros(brain.shape, np.float32)
    if not brain.any():
        return probability
    volume = patch_volume(images, brain, config)
    inner = inner_part(brain, config.candidate_depth_mm, voxel_mm)
    voxels = candidates(volume, inner if region is None else inner & region, config.candidate_flair_z)
    found = _cascade_probability(models, volume, voxels, config)
    if config.mirrored:
        found = (found + _cascade_probability(models, *volume.mirrored(voxels), config)) / 2
    probability[tuple(voxels.T)] = found
    return probability


def _cascade_probability(
    models: dict[str, keras.Model], volume: PatchVolume, voxels: np.ndarray, config: CascadeConfig
) -> np.ndarray:
    """What CNN2 says of voxels [n, 3], float32 [n]; 0 where CNN1 rules a lesion out."""
    found = np.zeros(len(voxels), np.float32)
    likely = score(models["cnn1"], volume, voxels) > config.cnn1_threshold
    found[likely] = score(models["cnn2"], volume, voxels[likely])
    return found


def threshold_of_load(probability: np.ndarray, load_mm3: float, voxel_mm3: float, lowest: float, highest: float) -> float:
    """The probability from which on lesions have a volume of `load_mm3`, held within limits; the highest for no load or NaN.

    `probability` is [x, y, z].
    """
    wanted = 0 if np.isnan(load_mm3) else round(load_mm3 / voxel_mm3)
    if not wanted:
        return highest
    likely = np.sort(probability[probability >= lowest])[::-1]
    return min(float(likely[wanted - 1]), highest) if wanted <= len(likely) else lowest


def found_lesions(probability: np.ndarray, scan: Scan, config: CascadeConfig) -> tuple[np.ndarray, float]:
    """What a scan's probabilities [x, y, z] say is lesion, bool [x, y, z], and the probability from which on a voxel is.

    That is the `lesion_threshold` of the configuration, or if it has a `lowest_threshold` the one that gives the scan a share of
    the volume of its hyperintense white matter. Lesions then grow by `growth_mm` at most into what is hyperintense, of whatever
    tissue, as those of Schmidt et al., NeuroImage 2012, do. The scan is one read without its lesion mask.
    """
    voxel_mm, voxel_mm3 = voxel_side_mm(scan.affine), voxel_volume_mm3(scan.affine)
    threshold = config.lesion_threshold
    if config.lowest_threshold is None and not config.growth_mm:
        return lesion_mask(probability, voxel_mm3, threshold, config.min_volume_mm3), threshold
    bright = hyperintense_off_cortex(scan.flair, scan.tissues, voxel_mm)
    if config.lowest_threshold is not None:
        wanted_mm3 = config.load_share * hyperintense_volume_mm3(bright, scan.tissues, voxel_mm)
        threshold = threshold_of_load(probability, wanted_mm3, voxel_mm3, config.lowest_threshold, threshold)
    mask = lesion_mask(probability, voxel_mm3, threshold, config.min_volume_mm3)
    # Voxels have a side of 1 or 2 mm only but for rounding.
    return grow(mask, bright, int(config.growth_mm / voxel_mm + 0.01)), threshold


def grow(mask: np.ndarray, into: np.ndarray, steps: int) -> np.ndarray:
    """A mask and what lies in `into` at most so many steps from it, each through a face to a voxel of `into`; bool [x, y, z]."""
    if not steps or not mask.any():
        return mask
    box = bounding_box(mask | into)
    grown = mask.copy()
    grown[box] = ndimage.binary_dilation(mask[box], iterations=steps, mask=into[box] | mask[box])
    return grown


def lesion_mask(probability: np.ndarray, voxel_mm3: float, threshold: float, min_volume_mm3: float) -> np.ndarray:
    """Bool [x, y, z]: probability at least `threshold`, in 26-connected lesions larger than `min_volume_mm3`."""
    mask = probability >= threshold
    labels, count = label_lesions(mask)
    kept = np.bincount(labels[mask], minlength=count + 1) >= least_voxels_above(min_volume_mm3, voxel_mm3)
    kept[0] = False
    return np.asarray(kept[labels])
