"""Skull-stripping and the rough way to the template: functions on arrays [x, y, z] and ANTs images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.images import from_ants, to_ants
from lesionforge.images.deform import affine_and_syn
from lesionforge.images.template import load_template

if TYPE_CHECKING:
    import ants

# Stripping and the rough registration run at this voxel size: 20 s instead of minutes, at the same accuracy.
COARSE_MM = 2
# Half of N4's usual iterations: the field only has to be flat enough to tell brain from scalp.
STRIP_N4 = {"iters": [25, 25, 25], "tol": 1e-6}
EROSION_MM = 8
# More than was eroded: registration tolerates a rim of CSF and meninges better than a shaved cortex.
DILATION_MM = 10
CLOSING_MM = 8
UPPER_HEAD_MM = 120


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


def coarse_without_bias(head: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A head [x, y, z] without bias field (N4), cut at its 1st and 99.9th percentile; 0 and more."""
    import ants

    cut = head.clip(*np.percentile(head, (1, 99.9)))
    return from_ants(ants.n4_bias_field_correction(to_ants(cut - cut.min(), affine), shrink_factor=4, convergence=STRIP_N4))[0]


def rough_mask(head: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A first brain mask by intensity and morphology alone; bool [x, y, z], RAS, at COARSE_MM.

    What is brighter than half the median of the head's tissue is cut from the scalp by an erosion; of the pieces, the
    brain is the one with most voxels in the upper part of the head (the neck and the face may be larger). It may keep
    some of the eyes.
    """
    bright = head > 0.5 * np.median(head[head > head.mean()])
    cut = ndimage.binary_erosion(bright, iterations=EROSION_MM // COARSE_MM)
    height = nib.affines.apply_affine(affine, np.argwhere(bright))[:, 2]
    if not cut.any():
        return cut
    heights = affine[2, 3] + affine[2, 2] * np.arange(head.shape[2])
    upper = heights > np.percentile(height, 99.9) - UPPER_HEAD_MM
    labels, _ = ndimage.label(cut)
    pieces = np.bincount(labels[:, :, upper].ravel(), minlength=2)[1:]
    brain = ndimage.binary_dilation(labels == np.argmax(pieces) + 1, iterations=DILATION_MM // COARSE_MM)
    margin = CLOSING_MM // COARSE_MM
    closed = ndimage.binary_closing(np.pad(brain, margin), iterations=margin)[(slice(margin, -margin),) * 3]
    filled: np.ndarray = ndimage.binary_fill_holes(closed)
    return filled


def template_onto(brain: ants.ANTsImage, outprefix: str) -> str:
    """Register the template to a roughly stripped T1w, affine then SyN at COARSE_MM.

    Returns the path of the template-to-scan transform.
    """
    template = load_template(COARSE_MM)
    fixed = to_ants(template.t1w, template.affine)
    return affine_and_syn(fixed, brain, outprefix)[1]


def template_mask(grid: ants.ANTsImage, template_to_scan: str) -> np.ndarray:
    """The template's brain mask on a scan's grid: linear interpolation, cut at one half."""
    import ants

    template = load_template(COARSE_MM)
    moved = ants.apply_transforms(grid, to_ants(template.brain, template.affine), [template_to_scan], interpolator="linear")
    return largest_component(from_ants(moved)[0] >= 0.5)
