"""Skull-stripping and the rough way to the template: functions on arrays [x, y, z] and ANTs images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lesionforge.images import from_ants, to_ants
from lesionforge.images.template import load_template

if TYPE_CHECKING:
    import ants

# Stripping and the rough registration run at this voxel size: 20 s instead of minutes, at the same accuracy.
COARSE_MM = 2


def brain_of_stripped(data: np.ndarray) -> np.ndarray:
    """The brain of a scan that holds only brain: all that differs from the background value, holes filled.

    The background is the most frequent value on the volume's border: zero, or any constant that a tool left there.
    An opening removes single voxels that interpolation left around the brain.
    """
    border = np.concatenate([data[side].ravel() for side in np.s_[0, -1]] + [data[:, side].ravel() for side in np.s_[0, -1]])
    values, counts = np.unique(border, return_counts=True)
    background = values[np.argmax(counts)]
    return largest_component(ndimage.binary_opening(data != background))


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected component of a bool mask, its holes filled; an empty mask stays empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest = np.argmax(np.bincount(labels.ravel())[1:]) + 1
    filled: np.ndarray = ndimage.binary_fill_holes(labels == largest)
    return filled


def coarse_without_bias(head: ants.ANTsImage) -> ants.ANTsImage:
    """The scan at COARSE_MM with outliers cut at the 1st and 99.9th percentile and its bias field removed by N4."""
    import ants

    coarse = ants.resample_image(head, (COARSE_MM,) * 3, use_voxels=False, interp_type=0)
    coarse = ants.iMath_truncate_intensity(coarse, 0.01, 0.999)
    return ants.n4_bias_field_correction(coarse - coarse.min(), shrink_factor=2)


def rough_mask(head: ants.ANTsImage) -> ants.ANTsImage:
    """A first brain mask by intensity and morphology alone; it may keep some of the neck and the eyes."""
    import ants

    return ants.get_mask(head, cleanup=4)


def template_onto(brain: ants.ANTsImage, outprefix: str) -> str:
    """Register the template to a roughly stripped T1w, affine then SyN at COARSE_MM.

    Returns the path of the template-to-scan transform.
    """
    import ants

    template = load_template(COARSE_MM)
    fixed = to_ants(template.t1w, template.affine)
    affine = ants.registration(fixed, brain, "Affine", random_seed=1, outprefix=outprefix + "affine_")
    syn = ants.registration(
        fixed,
        brain,
        "SyN",
        initial_transform=affine["fwdtransforms"][0],
        random_seed=1,
        outprefix=outprefix + "rough_",
        write_composite_transform=True,
    )
    path: str = syn["invtransforms"]
    return path


def template_mask(grid: ants.ANTsImage, template_to_scan: str) -> np.ndarray:
    """The template's brain mask on a scan's grid: linear interpolation, cut at one half."""
    import ants

    template = load_template(COARSE_MM)
    moved = ants.apply_transforms(grid, to_ants(template.brain, template.affine), [template_to_scan], interpolator="linear")
    return largest_component(from_ants(moved)[0] >= 0.5)
