"""Bias field and alignment of FLAIR and other contrasts to T1w: functions on arrays [x, y, z] and ANTs images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from lesionforge.images import resample, to_ants, working_grid, world_matrix
from lesionforge.images.deform import fix_seed
from lesionforge.images.geometry import box_around, from_ants, is_sheared

if TYPE_CHECKING:
    pass

# What lies below this percentile of a scan's voxels is its background.
BACKGROUND_PERCENTILE = 0.1
# Bias fields are smooth and heads large: both are found at this voxel size.
COARSE_MM = 2
# Half of N4's usual iterations change the field by less than the noise of an estimate.
N4_ITERATIONS = {"iters": [25, 25, 25], "tol": 1e-6}
# Scans that share a grid were probably aligned before: they stay where they are, uninterpolated, unless a rigid
# registration raises their mutual information by more than this fraction.
MIN_INFORMATION_GAIN = 0.01

Volume = tuple[np.ndarray, np.ndarray]  # [x, y, z] and its 4 x 4 RAS affine


def bias_field(image: np.ndarray, brain: np.ndarray, affine: np.ndarray, shrink_factor: int) -> np.ndarray:
    """The bias field (N4) of a scan inside a mask, with a mean of one there and 1 elsewhere; float32 [x, y, z].

    Source: Tustison et al. 2010, doi 10.1109/TMI.2010.2046908. N4 takes logarithms: what is below 1 % of the brain's
    median is lifted to that.
    """
    import ants

    floor = max(0.01 * float(np.median(np.abs(image[brain]))), 1e-6)
    field, _ = from_ants(
        ants.n4_bias_field_correction(
            to_ants(np.where(brain, image.clip(floor), 0), affine),
            mask=to_ants(brain, affine),
            shrink_factor=shrink_factor,
            convergence=N4_ITERATIONS,
            return_bias_field=True,
            rescale_intensities=False,
        )
    )
    return np.where(brain, field / field[brain].mean(), 1).astype(np.float32)


def without_bias(image: np.ndarray, brain: np.ndarray, affine: np.ndarray, shrink_factor: int = 2) -> np.ndarray:
    """Divide a scan by its bias field, which is found at COARSE_MM inside the brain; float32 [x, y, z].

    N4 sees every `shrink_factor`-th voxel of that.
    """
    box, box_affine = box_around(brain, affine, 2 * COARSE_MM)
    part, inside = image[box], brain[box]
    coarse = working_grid(part.shape, box_affine, max(COARSE_MM, float(np.linalg.norm(affine[:3, 0]))))
    # A voxel in part outside the brain is seen too, so that interpolating the field back finds no step at the surface.
    seen = resample(inside, box_affine, coarse) > 0
    field = bias_field(resample(part, box_affine, coarse), seen, coarse[1], shrink_factor)
    corrected = np.array(image, np.float32)
    corrected[box] = np.where(inside, part / resample(field, coarse[1], (part.shape, box_affine)).clip(0.05), part)
    return corrected


def rigid_between(head: Volume, t1w: Volume, flair: Volume, brain: Volume, outprefix: str) -> str:
    """Register the FLAIR to the T1w rigidly, by mutual information; the path of the FLAIR-to-T1w transform.

    `head` is the T1w at COARSE_MM, `t1w` and `flair` are the scans as given, `brain` is a mask in T1w space. A first
    registration of the whole heads finds the place whatever the headers say. The second sees the brain alone, because
    scalp, jaw and eyes move, at the voxels of the FLAIR: its slices are thick, and interpolating them would blur the measure.
    """
    import ants

    fix_seed()
    t1w, flair = unsheared(t1w), unsheared(flair)
    coarse = working_grid(flair[0].shape, flair[1], COARSE_MM)
    first: str = ants.registration(
        to_ants(*head),
        to_ants(resample(*flair, coarse), coarse[1]),
        "Rigid",
        outprefix=outprefix + "heads_",
        aff_iterations=(1000, 500, 250),
        aff_shrink_factors=(6, 4, 2),
        aff_smoothing_sigmas=(3, 2, 1),
    )["fwdtransforms"][0]
    in_flair = resample(*brain, (flair[0].shape, flair[1]), np.linalg.inv(world_matrix(first))) >= 0.5
    if not in_flair.any():
        return first
    start, path = outprefix + "start.mat", outprefix + "rigid.mat"
    ants.write_transform(ants.read_transform(first).invert(), start)
    second = ants.registration(
        to_ants(*flair),
        to_ants(*t1w),
        "Rigid",
        initial_transform=start,
        mask=to_ants(in_flair, flair[1]),
        outprefix=outprefix + "brains_",
        # A first level of zero iterations would end the whole registration at its start.
        aff_iterations=(100, 20),
        aff_shrink_factors=(2, 1),
        aff_smoothing_sigmas=(1, 0),
    )["fwdtransforms"][0]
    ants.write_transform(ants.read_transform(second).invert(), path)
    return path


def unsheared(volume: Volume) -> Volume:
    """A volume as ITK can hold it: one whose affine shears is interpolated onto an axis-aligned grid of its smallest voxel."""
    data, affine = volume
    if not is_sheared(affine):
        return volume
    grid = working_grid(data.shape, affine, float(nib.affines.voxel_sizes(affine).min()))
    return resample(data, affine, grid), grid[1]


def improves_alignment(fixed: Volume, moving: Volume, transform: str) -> bool:
    """Whether a transform raises the mutual information of two images by more than MIN_INFORMATION_GAIN."""
    import ants

    grid = (fixed[0].shape, fixed[1])
    # antspyx returns the negative mutual information, for minimisation
    before, after = (
        -ants.image_mutual_information(to_ants(*fixed), to_ants(resample(*moving, grid, matrix), fixed[1]))
        for matrix in (None, world_matrix(transform))
    )
    return bool(after > before * (1 + MIN_INFORMATION_GAIN))


def write_identity(path: str) -> None:
    """Write the rigid transform that moves nothing."""
    import ants

    ants.write_transform(ants.new_ants_transform(dimension=3, transform_type="Euler3DTransform"), path)


def denoised(image: np.ndarray) -> np.ndarray:
    """A scan on its own grid without its noise (adaptive non-local means); float32 [x, y, z].

    Source: Manjon et al. 2010, doi 10.1002/jmri.22003.
    """
    import ants

    return from_ants(ants.denoise_image(to_ants(image, np.eye(4))))[0]
