"""Grids: the working grid, RAS (NIfTI) against LPS (ITK), equality of grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.spaces import vox2out_vox
from scipy import ndimage

if TYPE_CHECKING:
    import ants

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
# Of an affine that is not singular.
SMALLEST_VOXEL_MM3 = 1e-9
# Of a side of a voxel: so far apart, grids are the same.
SAME_WITHIN = 0.1

Grid = tuple[tuple[int, ...], np.ndarray]  # shape and 4 x 4 RAS affine


def grid_fault(shape: tuple[int, ...], affine: np.ndarray) -> str | None:
    """What makes a grid none, as the rest of a sentence: no voxels, or an affine that is singular or not finite."""
    if 0 in shape:
        return "holds no voxels; export it again"
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < SMALLEST_VOXEL_MM3:
        return "has an affine that is singular or not finite; correct the sform or qform of its header or convert it again"
    return None


def same_grid(shape_a: tuple[int, ...], affine_a: np.ndarray, shape_b: tuple[int, ...], affine_b: np.ndarray) -> bool:
    """True when two grids have the same shape and no corner is apart by more than a tenth of the smallest side of a voxel.

    A program that places a scan by its qform, in single precision, writes a mask of it that far from the sform.
    """
    tolerance_mm = SAME_WITHIN * float(np.linalg.norm(affine_a[:3, :3], axis=0).min())
    return tuple(shape_a) == tuple(shape_b) and corners_apart(shape_a, affine_a, affine_b) <= tolerance_mm


def corners_apart(shape: tuple[int, ...], affine_a: np.ndarray, affine_b: np.ndarray) -> float:
    """The largest distance in mm, along any axis, between the corners of one grid under two affines."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    apart = nib.affines.apply_affine(affine_a, corners.T) - nib.affines.apply_affine(affine_b, corners.T)
    return float(np.abs(apart).max())


def is_sheared(affine: np.ndarray) -> bool:
    """True when the axes of a grid are not at right angles, as an affine registration leaves them in an sform."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > 1e-3)


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds a bool mask of any dimension; an empty mask gives the whole array."""
    return (ndimage.find_objects(mask.astype(np.uint8)) or [tuple(slice(0, size) for size in mask.shape)])[0]


def voxel_side_mm(affine: np.ndarray) -> float:
    """The side of a working grid's cubic voxels."""
    return float(np.linalg.norm(affine[:3, 0]))


def box_around(brain: np.ndarray, affine: np.ndarray, margin_mm: float) -> tuple[tuple[slice, ...], np.ndarray]:
    """The part of a grid that holds a brain and a margin: (slices, affine of that part); the whole grid for an empty brain.

    `brain` is bool [x, y, z].
    """
    margin = np.ceil(margin_mm / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    parts = zip(bounding_box(brain), margin, strict=True)
    box = tuple(slice(max(part.start - more, 0), part.stop + more) for part, more in parts)
    box_affine = affine.copy()
    box_affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return box, box_affine


def sub_grid(mask: np.ndarray, affine: np.ndarray, margin_mm: float, grid: Grid) -> tuple[tuple[slice, ...], Grid]:
    """The part of a grid that holds a mask [x, y, z] on another grid, and a margin: (slices, that part); at least one voxel."""
    box, box_affine = box_around(mask, affine, margin_mm)
    sizes = [len(range(*part.indices(size))) for part, size in zip(box, mask.shape, strict=True)]
    corners = np.array(np.meshgrid(*[(-0.5, size - 0.5) for size in sizes], indexing="ij")).reshape(3, -1).T
    places = nib.affines.apply_affine(np.linalg.inv(grid[1]) @ box_affine, corners)
    first = np.floor(places.min(axis=0)).astype(int).clip(0, np.array(grid[0]) - 1)
    last = np.ceil(places.max(axis=0)).astype(int).clip(first, np.array(grid[0]) - 1)
    part_affine = grid[1].copy()
    part_affine[:3, 3] += grid[1][:3, :3] @ first
    slices = tuple(slice(int(start), int(stop) + 1) for start, stop in zip(first, last, strict=True))
    return slices, (tuple(int(stop - start) + 1 for start, stop in zip(first, last, strict=True)), part_affine)


def voxel_volume_mm3(affine: np.ndarray) -> float:
    """Volume of one voxel in mm³."""
    return float(abs(np.linalg.det(affine[:3, :3])))


def working_grid(shape: tuple[int, ...], affine: np.ndarray, voxel_mm: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """The axis-aligned RAS grid of isotropic voxels that covers a scan's field of view.

    Returns (shape, affine). A scan that is already RAS at this voxel size keeps its own grid.
    """
    if nib.aff2axcodes(affine) == ("R", "A", "S") and np.allclose(affine[:3, :3], np.eye(3) * voxel_mm, atol=1e-4):
        return (int(shape[0]), int(shape[1]), int(shape[2])), affine
    grid_shape, grid_affine = vox2out_vox((tuple(shape), affine), voxel_sizes=(voxel_mm,) * 3)
    return (int(grid_shape[0]), int(grid_shape[1]), int(grid_shape[2])), np.asarray(grid_affine)


def to_ants(data: np.ndarray, affine: np.ndarray) -> ants.ANTsImage:
    """An ANTs image (float32, LPS) from an array [x, y, z] and its RAS affine without shear."""
    import ants

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = RAS_TO_LPS @ (affine[:3, :3] / spacing)
    origin = RAS_TO_LPS @ affine[:3, 3]
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32), origin=origin.tolist(), spacing=spacing.tolist(), direction=direction
    )


def from_ants(image: ants.ANTsImage) -> tuple[np.ndarray, np.ndarray]:
    """(float32 array [x, y, z], RAS affine) of an ANTs image."""
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ np.asarray(image.direction) * np.asarray(image.spacing)
    affine[:3, 3] = RAS_TO_LPS @ np.asarray(image.origin)
    return np.asarray(image.numpy(), dtype=np.float32), affine
