"""Intensities inside the brain."""

from __future__ import annotations

import numpy as np


def zscore(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over the brain's voxels, 0 outside; float32 [x, y, z].

    Statistics never see the background (a defect of the published cascade code). A brain of
    constant intensity, or none, gives zeros.
    """
    out = np.zeros(image.shape, np.float32)
    values = image[brain].astype(np.float64)
    if values.size and values.std() > 0:
        out[brain] = (values - values.mean()) / values.std()
    return out
