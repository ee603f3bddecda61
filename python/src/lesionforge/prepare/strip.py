"""Skull-stripping and the rough way to the template: functions on arrays [x, y, z], RAS, and ANTs images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.images import Grid, from_ants, to_ants
from lesionforge.images.deform import affine_and_syn
from lesionforge.images.geometry import box_around
from lesionforge.images.template import load_template
from lesionforge.prepare.align import COARSE_MM, N4_ITERATIONS

if TYPE_CHECKING:
    import ants

# Distances of the rough mask.
EROSION_MM = 8
# More than was eroded: registration tolerates a rim of CSF and meninges better than a shaved cortex.
DILATION_MM = 10
CLOSING_MM = 8
UPPER_HEAD_MM = 120

# The refinement at the voxel size of the working grid. Intensities are fractions of the median of the brain's core.
CORE_MM = 4
T1W_RANGE = (0.6, 1.25)
FLAIR_RANGE = (0.65, 2.5)
# What is thinner than twice this is dura, veins or partial volume, not cortex.
OPENING_MM = 2.0
# Marrow of the skull looks like brain; it is not reached by growing this far from the template's mask.
INSIDE_MM = 2
GROWTH_MM = 5
SULCI_MM = 4.0
# The rim of CSF that stays in the mask.
RIM_MM = 1.5
SMOOTH_MM = 3
# How far from the prior the refinement may look.
REACH_MM = GROWTH_MM + SULCI_MM + SMOOTH_MM


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
    return from_ants(ants.n4_bias_field_correction(to_ants(cut - cut.min(), affine), shrink_factor=4, convergence=N4_ITERATIONS))[
        0
    ]


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


def template_on(grid: Grid, template_to_scan: str, *names: str) -> list[np.ndarray]:
    """Volumes of the template (`brain`, `csf`, `gm`, `wm`), 0 to 1, on a grid in a scan's space; float32 [x, y, z] each."""
    import ants

    template = load_template(COARSE_MM)
    onto = to_ants(np.zeros(grid[0], np.float32), grid[1])
    volumes = (to_ants(getattr(template, name), template.affine) for name in names)
    return [from_ants(ants.apply_transforms(onto, volume, [template_to_scan], interpolator="linear"))[0] for volume in volumes]


def eroded(mask: np.ndarray, mm: float, voxel_mm: float) -> np.ndarray:
    """The voxels of a mask that lie deeper in it than `mm`."""
    return ndimage.distance_transform_edt(mask, sampling=voxel_mm) > mm


def dilated(mask: np.ndarray, mm: float, voxel_mm: float) -> np.ndarray:
    """The voxels within `mm` of a mask."""
    return ndimage.distance_transform_edt(~mask, sampling=voxel_mm) <= mm


def refined(t1w: np.ndarray, flair: np.ndarray, prior: np.ndarray, voxel_mm: float) -> np.ndarray:
    """The brain mask by both contrasts, from a prior mask that is right to within a few millimetres; bool [x, y, z].

    `t1w` and `flair` are without bias field, on the grid of `prior` with isotropic voxels. Tissue that is as bright as
    brain in both contrasts, thicker than OPENING_MM and reached from the prior's inside within GROWTH_MM is brain; its
    sulci are closed, RIM_MM of the CSF around it is kept and the surface is smoothed. A prior too small to have a core
    is returned as it is.
    """
    box, _ = box_around(prior, np.diag([voxel_mm] * 3 + [1.0]), REACH_MM)
    t1w, flair = t1w[box], flair[box]
    depth_mm = ndimage.distance_transform_edt(prior[box], sampling=voxel_mm)
    core, inside = depth_mm > CORE_MM, depth_mm > INSIDE_MM
    if not core.any():
        return prior
    tissue = np.ones(core.shape, bool)
    for image, limits in ((t1w, T1W_RANGE), (flair, FLAIR_RANGE)):
        middle = float(np.median(image[core]))
        tissue &= (image > limits[0] * middle) & (image < limits[1] * middle)
    tissue |= core
    tissue &= dilated(eroded(tissue, OPENING_MM, voxel_mm), OPENING_MM, voxel_mm)
    tissue |= core
    steps = round((GROWTH_MM + INSIDE_MM) / voxel_mm)
    grown = ndimage.binary_dilation(core | (inside & tissue), mask=tissue, iterations=steps)
    closed = ndimage.binary_fill_holes(dilated(grown, SULCI_MM, voxel_mm))
    brain = eroded(closed, SULCI_MM - RIM_MM, voxel_mm) | inside
    smooth = ndimage.gaussian_filter(brain.astype(np.float32), SMOOTH_MM / voxel_mm) > 0.5
    result = np.zeros(prior.shape, bool)
    result[box] = largest_component(smooth)
    return result
