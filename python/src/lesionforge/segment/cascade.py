"""Inference: candidates, CNN1, CNN2, and from probabilities to lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images import label_lesions
from lesionforge.train.patches import candidates, inner_part, patch_volume, score

if TYPE_CHECKING:
    import keras


def lesion_probability(
    models: dict[str, keras.Model],
    images: Sequence[np.ndarray],
    brain: np.ndarray,
    config: CascadeConfig,
    region: np.ndarray | None = None,
    voxel_mm: float = 1.0,
) -> np.ndarray:
    """Lesion probabilities, float32 [x, y, z], of one scan on its working grid; `brain` and `region` are bool.

    `images` are [x, y, z] in the order of the networks' contrasts: T1w, FLAIR and what may follow; voxels have sides of
    `voxel_mm`. Zero outside the brain, or the part of it that `region` leaves, near its surface and where FLAIR is dark, if the
    configuration says so, and where CNN1 rules a lesion out; all zero when nothing is left.
    """
    probability = np.zeros(brain.shape, np.float32)
    if not brain.any():
        return probability
    volume = patch_volume(images, brain, config)
    inner = inner_part(brain, config.candidate_depth_mm, voxel_mm)
    voxels = candidates(volume, inner if region is None else inner & region, config.candidate_flair_z)
    voxels = voxels[score(models["cnn1"], volume, voxels) > config.cnn1_threshold]
    probability[tuple(voxels.T)] = score(models["cnn2"], volume, voxels)
    return probability


def scan_threshold(probability: np.ndarray, load_mm3: float, voxel_mm3: float, config: CascadeConfig) -> float:
    """The probability from which on a voxel of this scan is lesion.

    `probability` is [x, y, z]. That of the configuration, unless it has a `lowest_threshold`: then the one above which lesions
    have a volume of `load_mm3`, held between the two; with a load of NaN the higher one.
    """
    highest, lowest = config.lesion_threshold, config.lowest_threshold
    if lowest is None or lowest >= highest or np.isnan(load_mm3):
        return highest
    likely = np.sort(probability[probability >= lowest])[::-1]
    wanted = int(load_mm3 / voxel_mm3)
    return min(float(likely[wanted]), highest) if wanted < len(likely) else lowest


def lesion_mask(probability: np.ndarray, voxel_mm3: float, threshold: float, min_volume_mm3: float) -> np.ndarray:
    """Bool [x, y, z]: probability at least `threshold`, in 26-connected lesions larger than `min_volume_mm3`."""
    labels, count = label_lesions(probability >= threshold)
    sizes_mm3 = np.bincount(labels.ravel(), minlength=count + 1) * voxel_mm3
    kept = sizes_mm3 > min_volume_mm3
    kept[0] = False
    return np.asarray(kept[labels])
