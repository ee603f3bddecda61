"""What is hyperintense, and how much white matter is: what the FLAIR alone says of lesions, without a mask or a network."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lesionforge.images.lesions import label_lesions
from lesionforge.images.prepared import GM, WM

# Grey-matter FLAIR beyond these percentiles is cerebrospinal fluid, lesion or artefact that the classifier let in.
WINSOR_PERCENTILES = (5.0, 95.0)
# Bright white matter nearer to grey matter is mostly the deep rim of the cortex.
CORTEX_MM = 2.0
# Smaller pieces of grey matter lie in lesions.
CORTEX_PIECE_MM3 = 1000.0
# Standard deviations above grey matter's mean. From there on the volume of hyperintense white matter comes near a patient's load.
ABOVE_GREY_STD = 0.8


def grey_flair(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the FLAIR in grey matter, its voxels winsorised at the 5th and 95th percentile."""
    clipped = np.clip(values.astype(np.float64), *np.percentile(values, WINSOR_PERCENTILES))
    return float(clipped.mean()), float(clipped.std())


def off_cortex(tissues: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Where no grey matter lies within 2 mm, but for its small pieces; bool [x, y, z], `tissues` has voxels of `voxel_mm`."""
    pieces, _ = label_lesions(tissues == GM)
    large = np.bincount(pieces.ravel()) * voxel_mm**3 >= CORTEX_PIECE_MM3
    large[0] = False
    if not large.any():
        return np.ones(tissues.shape, bool)
    # Distances are multiples of the voxel's side, which is 1 or 2 mm only but for rounding.
    return np.asarray(ndimage.distance_transform_edt(~large[pieces]) * voxel_mm > CORTEX_MM + 0.01 * voxel_mm)


def hyperintense_off_cortex(flair: np.ndarray, tissues: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Where the brain, off the cortex, is brighter in the FLAIR than grey matter by 0.8 std of it; bool [x, y, z].

    Arrays are [x, y, z] with voxels of `voxel_mm`; nowhere when a scan has less than two voxels of grey matter.
    """
    grey = flair[tissues == GM]
    if grey.size < 2:
        return np.zeros(tissues.shape, bool)
    mean, std = grey_flair(grey)
    return np.asarray((tissues > 0) & (flair > mean + ABOVE_GREY_STD * std) & off_cortex(tissues, voxel_mm))


def hyperintense_volume_mm3(hyperintense: np.ndarray, tissues: np.ndarray, voxel_mm: float) -> float:
    """The volume of white matter in a mask of `hyperintense_off_cortex`, which comes near a patient's load; NaN without GM.

    Arrays are [x, y, z] with voxels of `voxel_mm`.
    """
    if np.count_nonzero(tissues == GM) < 2:
        return float("nan")
    return float(np.count_nonzero(hyperintense & (tissues == WM)) * voxel_mm**3)
