"""Bias field and alignment of FLAIR to T1w: functions on arrays [x, y, z] and ANTs images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lesionforge.images import from_ants, to_ants
from lesionforge.images.deform import fix_seed

if TYPE_CHECKING:
    import ants

# Rigid registration samples the T1w at this voxel size, which is finer than clinical slices and five times faster than 1 mm.
RIGID_MM = 2
# Scans that share a grid were probably aligned before: they stay where they are, uninterpolated, unless a rigid
# registration raises their mutual information by more than this fraction.
MIN_INFORMATION_GAIN = 0.01


def without_bias(image: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Divide a scan by its bias field, estimated by N4 inside the brain; float32 [x, y, z].

    Source: Tustison et al. 2010, doi 10.1109/TMI.2010.2046908. The field is estimated on positive intensities
    (N4 takes logarithms) and scaled to a mean of one in the brain, so that intensities keep their range.
    """
    import ants

    floor = 0.01 * float(np.median(np.abs(image[brain])))
    positive = np.where(brain, image.clip(floor), 0)
    field, _ = from_ants(
        ants.n4_bias_field_correction(
            to_ants(positive, affine),
            mask=to_ants(brain, affine),
            shrink_factor=4,
            return_bias_field=True,
            rescale_intensities=False,
        )
    )
    scaled = np.where(brain, field / field[brain].mean(), 1)
    return (image / scaled).astype(np.float32)


def rigid_onto(fixed: ants.ANTsImage, moving: ants.ANTsImage, outprefix: str) -> str:
    """Register `moving` onto `fixed` rigidly by mutual information; the path of the transform."""
    import ants

    fix_seed()
    coarse = ants.resample_image(fixed, (RIGID_MM,) * 3, use_voxels=False, interp_type=0)
    path: str = ants.registration(coarse, moving, "Rigid", outprefix=outprefix + "rigid_")["fwdtransforms"][0]
    return path


def improves_alignment(fixed: ants.ANTsImage, moving: ants.ANTsImage, transform: str) -> bool:
    """Whether a transform raises the mutual information of two images by more than MIN_INFORMATION_GAIN."""
    import ants

    moved = ants.apply_transforms(fixed, moving, [transform], interpolator="linear")
    unmoved = ants.resample_image_to_target(moving, fixed, interp_type="linear")
    # antspyx returns the negative mutual information, for minimisation
    before, after = (-ants.image_mutual_information(fixed, image) for image in (unmoved, moved))
    return bool(after > before * (1 + MIN_INFORMATION_GAIN))


def write_identity(path: str) -> None:
    """Write the rigid transform that moves nothing."""
    import ants

    ants.write_transform(ants.new_ants_transform(dimension=3, transform_type="Euler3DTransform"), path)


def resample(
    data: np.ndarray,
    affine: np.ndarray,
    onto: tuple[tuple[int, ...], np.ndarray],
    transform: str | None = None,
    inverse: bool = False,
) -> np.ndarray:
    """Interpolate a volume linearly onto a grid (shape, affine), once, through an optional rigid transform file.

    Grid points outside the volume's field of view become 0.
    """
    import ants

    shape, grid_affine = onto
    grid = to_ants(np.zeros(shape, np.float32), grid_affine)
    if transform is None:
        moved = ants.resample_image_to_target(to_ants(data, affine), grid, interp_type="linear")
    else:
        moved = ants.apply_transforms(grid, to_ants(data, affine), [transform], interpolator="linear", whichtoinvert=[inverse])
    return from_ants(moved)[0]
