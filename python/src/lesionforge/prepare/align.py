"""Bias field and alignment of FLAIR to T1w: functions on arrays [x, y, z] and ANTs images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lesionforge.images import from_ants, to_ants

if TYPE_CHECKING:
    import ants

# A rigid registration that raises the mutual information by less than this leaves the FLAIR where it lies:
# scans that were aligned before are not interpolated for nothing.
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
    """The path of a rigid transform that brings `moving` onto `fixed`.

    It is the identity where that is no worse (see MIN_INFORMATION_GAIN).
    """
    import ants

    def information(image: ants.ANTsImage) -> float:
        # antspyx returns the negative mutual information, for minimisation
        return -float(ants.image_mutual_information(fixed, image))

    found = ants.registration(fixed, moving, "Rigid", random_seed=1, outprefix=outprefix + "rigid_")
    unmoved = information(ants.resample_image_to_target(moving, fixed, interp_type="linear"))
    if information(found["warpedmovout"]) > unmoved * (1 + MIN_INFORMATION_GAIN):
        path: str = found["fwdtransforms"][0]
        return path
    path = outprefix + "identity.mat"
    ants.write_transform(ants.new_ants_transform(dimension=3, transform_type="Euler3DTransform"), path)
    return path


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
