"""What one image file must satisfy by itself before anything is computed from it; each file is read once, whole."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from lesionforge.errors import InputError
from lesionforge.images.files import read_image, voxels_of
from lesionforge.images.geometry import corners_apart, grid_fault, voxel_volume_mm3

# Masks saved with a scale factor hold 1 only nearly.
MASK_TOLERANCE = 1e-3
LARGEST_VOXEL_MM = 12
# Less than this is no head: localizers have a few slices, slabs cover a part.
FEWEST_VOXELS = 8
SMALLEST_EXTENT_MM = 60
SFORM_QFORM_TOLERANCE_MM = 1


@dataclass(frozen=True)
class Facts:
    """What is known of one image file after reading it: its grid, its smallest and largest voxel, and the volume in ml of its
    voxels above 0.5, which is that of a mask (NaN where the voxels have a fault). `faults` and `warnings` are sentences
    without their subject; when the file could not be read the faults are all there is, and `shape` is empty.
    """

    faults: tuple[str, ...]
    shape: tuple[int, ...] = ()
    affine: np.ndarray | None = None
    minimum: float = np.nan
    maximum: float = np.nan
    inside_ml: float = np.nan
    warnings: tuple[str, ...] = ()

    @property
    def has_grid(self) -> bool:
        """True when the file has a shape and a sound affine to compare with others."""
        return bool(self.shape) and self.affine is not None


def check_scan(path: str | Path) -> None:
    """Raise InputError with the first fault of a scan: unreadable, no head in its field of view, no contrast, NaN voxels."""
    refuse_faults(path, is_mask=False)


def check_mask(path: str | Path) -> None:
    """Raise InputError with the first fault of a mask: unreadable, unsound grid, values besides 0 and 1. It may be empty."""
    refuse_faults(path, is_mask=True)


def refuse_faults(path: str | Path, is_mask: bool) -> None:
    """Raise InputError with the first fault of a file, if it has one."""
    for fault in inspect_file(str(path), is_mask).faults:
        raise InputError(f"{path}: {fault}")


def inspect_file(path: str, is_mask: bool) -> Facts:
    """Read one image file whole and state its facts; faults are stated, not raised."""

    def without_path(error: InputError) -> str:
        return str(error).removeprefix(f"{path}: ")

    # nibabel would log the header faults that are stated here.
    nib.imageglobals.logger.setLevel(logging.CRITICAL)
    try:
        image = read_image(path)
        with image.file_map["image"].get_prepare_fileobj("rb") as stream:
            # Unchecked, because nibabel's check turns a zero voxel size into 1 mm.
            voxel_sizes = type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]
    except InputError as error:
        return Facts((without_path(error),))
    faults = grid_faults(image.shape, image.affine, voxel_sizes)
    if 0 in image.shape:
        return Facts(tuple(faults))
    affine = None if faults else image.affine
    warnings = () if faults else form_warnings(image)
    try:
        with np.errstate(all="ignore"):  # what overflows is found below, as infinite voxels
            data = voxels_of(image, path)
    except InputError as error:
        return Facts((*faults, without_path(error)), image.shape, affine)
    minimum, maximum, voxel_faults = judge_voxels(data, is_mask)
    faults += voxel_faults
    if not is_mask and affine is not None:
        faults += coverage_faults(image.shape, affine)
    inside_ml = np.nan if faults else np.count_nonzero(data > 0.5) * voxel_volume_mm3(image.affine) / 1000
    return Facts(tuple(faults), image.shape, affine, minimum, maximum, inside_ml, warnings)


def grid_faults(shape: tuple[int, ...], affine: np.ndarray, voxel_sizes: np.ndarray) -> list[str]:
    """Faults of a grid: no voxels, a voxel size (mm, as the header has it) zero, not finite or huge, a singular affine."""
    if 0 not in shape and (not np.isfinite(voxel_sizes).all() or (voxel_sizes == 0).any()):
        return [f"has the voxel size {times(voxel_sizes)} mm in its header; correct the header or convert the scan again"]
    if fault := grid_fault(shape, affine):
        return [fault]
    # Rounded, as a header's single precision turns 12 mm into a little more where the axes are oblique.
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0).round(3)
    if sizes_mm.max() > LARGEST_VOXEL_MM:
        return [f"has voxels of {times(sizes_mm)} mm, beyond {LARGEST_VOXEL_MM} mm; give a finer scan or correct its header"]
    return []


def coverage_faults(shape: tuple[int, ...], affine: np.ndarray) -> list[str]:
    """The fault of a scan whose field of view holds no head."""
    extent_mm = np.array(shape) * np.linalg.norm(affine[:3, :3], axis=0)
    if min(shape) >= FEWEST_VOXELS and extent_mm.min() >= SMALLEST_EXTENT_MM:
        return []
    covered = f"has {times(shape)} voxels over {times(extent_mm.round())} mm"
    return [f"{covered} and looks like a localizer; give the scan of the whole head"]


def times(sizes: Iterable[float]) -> str:
    """`8 x 8 x 2`."""
    return " x ".join(f"{size:g}" for size in sizes)


def form_disagreement_mm(image: nib.Nifti1Image) -> float:
    """Largest distance between a corner of the image as its sform and its qform place it.

    0 where one of them is not set, NaN where the qform is no rotation.
    """
    if not (image.header["sform_code"] > 0 and image.header["qform_code"] > 0):
        return 0.0
    try:
        return corners_apart(image.shape, image.header.get_sform(), image.header.get_qform())
    except (ValueError, nib.spatialimages.HeaderDataError):
        return float("nan")


def form_warnings(image: nib.Nifti1Image) -> tuple[str, ...]:
    """The warning of an image that has neither sform nor qform, or both, which put its corners at different places."""
    if not (image.header["sform_code"] > 0 or image.header["qform_code"] > 0):
        return ("has neither an sform nor a qform, so that its left and right are a guess; convert it again",)
    apart_mm = form_disagreement_mm(image)
    if np.isnan(apart_mm):
        return ("has a qform that is no rotation; its sform is used",)
    if apart_mm <= SFORM_QFORM_TOLERANCE_MM:
        return ()
    return (f"has an sform and a qform that disagree (by up to {apart_mm:.1f} mm); its sform is used",)


def judge_voxels(data: np.ndarray, is_mask: bool) -> tuple[float, float, list[str]]:
    """(smallest, largest, faults) of a volume [x, y, z] with at least one voxel; with a fault, smallest and largest are NaN."""
    # NaN passes through min and max, and an infinity is one of them: two passes see all voxels.
    minimum, maximum = float(data.min()), float(data.max())
    fault = None
    if not (np.isfinite(minimum) and np.isfinite(maximum)):
        count = int(data.size - np.isfinite(data).sum())
        fault = f"holds NaN or infinite voxels ({count} of {data.size}); replace them by 0 or export it again"
    elif is_mask:
        odd = (np.abs(data) > MASK_TOLERANCE) & (np.abs(data - 1) > MASK_TOLERANCE)
        if odd.any():
            fault = f"holds the value {data.flat[odd.argmax()]:g}; write a mask with 0 outside and 1 inside only"
    elif minimum == maximum:
        fault = f"has the value {minimum:g} in all voxels; give the scan itself"
    return (np.nan, np.nan, [fault]) if fault else (minimum, maximum, [])
