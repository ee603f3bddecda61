"""Resampling between grids, through linear transforms: every grid that NIfTI can describe, sheared ones too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images.geometry import RAS_TO_LPS


def world_matrix(path: str | Path) -> np.ndarray:
    """The 4 x 4 matrix, RAS mm, of a linear ITK transform file: from points of the fixed image to points of the moving one.

    For `from-FLAIR_to-T1w`, which resamples FLAIR images onto T1w grids, it leads from T1w points to FLAIR points. Raises
    InputError when the file cannot be read.
    """
    import ants

    try:
        transform = ants.read_transform(str(path))
    except Exception as error:  # ITK raises what it likes
        raise InputError(f"{path}: cannot be read as a linear transform; prepare the scan again") from error
    corners = np.vstack([np.zeros(3), np.eye(3)])
    origin, *ends = (np.array(transform.apply_to_point(corner.tolist())) for corner in corners)
    matrix = np.eye(4)
    matrix[:3, :3] = RAS_TO_LPS @ np.stack([end - origin for end in ends], axis=1) @ RAS_TO_LPS
    matrix[:3, 3] = RAS_TO_LPS @ origin
    return matrix


def resample(
    data: np.ndarray,
    affine: np.ndarray,
    onto: tuple[tuple[int, ...], np.ndarray],
    to_source: np.ndarray | None = None,
    nearest: bool = False,
) -> np.ndarray:
    """Interpolate a volume [x, y, z] once, linearly or by nearest neighbour, onto a grid (shape, affine); float32.

    `to_source` is the 4 x 4 RAS matrix from points of the new grid to points of the volume, where they differ. A voxel
    reaches half its size around its centre; beyond that, outside the volume's field of view, the result is 0.
    """
    shape, grid_affine = onto
    matrix = np.linalg.inv(affine) @ (np.eye(4) if to_source is None else to_source) @ grid_affine
    order = 0 if nearest else 1
    moved: np.ndarray = ndimage.affine_transform(
        np.asarray(data, np.float32), matrix[:3, :3], matrix[:3, 3], output_shape=tuple(shape), order=order, mode="nearest"
    )
    moved[~covered(data.shape, matrix, shape)] = 0
    return moved


def covered(source_shape: tuple[int, ...], to_voxel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which voxels of a grid lie in the field of view of a volume; `to_voxel` leads from grid voxels to the volume's voxels."""
    steps = np.ogrid[tuple(slice(0, n) for n in shape)]
    inside = np.ones(shape, bool)
    for row, size in zip(to_voxel[:3].astype(np.float32), source_shape, strict=True):
        place = row[3] + sum(coefficient * step for coefficient, step in zip(row, steps, strict=False))
        inside &= (place >= -0.501) & (place <= size - 0.499)
    return inside
