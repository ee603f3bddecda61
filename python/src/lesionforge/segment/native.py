"""From the working grid back to the grids of the user's own scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesionforge.images import from_ants, to_ants


def resample(
    data: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target_affine: np.ndarray, inverse_of: Path | None = None
) -> np.ndarray:
    """Sample a volume [x, y, z] of the T1w space linearly on another grid, 0 outside; float32 of `shape`.

    `inverse_of` is an ITK transform file whose inverse leads there: for the FLAIR grid, from-FLAIR_to-T1w, which
    resamples FLAIR images onto T1w grids.
    """
    import ants

    target = to_ants(np.zeros(shape, np.float32), target_affine)
    moving = to_ants(data, affine)
    if inverse_of is None:
        moved = ants.resample_image_to_target(moving, target, interp_type="linear")
    else:
        moved = ants.apply_transforms(target, moving, [str(inverse_of)], interpolator="linear", whichtoinvert=[True])
    return from_ants(moved)[0]
