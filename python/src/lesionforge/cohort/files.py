"""What the image files of a sheet must satisfy: each is read once, whole; then the facts are judged."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from lesionforge.cohort.rows import Problem, Row
from lesionforge.errors import InputError
from lesionforge.images import read_image, read_volume, same_grid

MASK_COLUMNS = ("lesion_mask", "brain_mask")
# Masks saved with a scale factor hold 1 only nearly.
MASK_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Facts:
    """What is known of one image file after reading it: its grid, its smallest and largest voxel, and for a mask one
    value that is neither 0 nor 1 (None if there is none). `faults` are sentences without their subject; when the file
    could not be read they are all there is, and `shape` is empty.
    """

    faults: tuple[str, ...]
    shape: tuple[int, ...] = ()
    affine: np.ndarray | None = None
    minimum: float = np.nan
    maximum: float = np.nan
    odd_value: float | None = None

    @property
    def has_grid(self) -> bool:
        """True when the file has a shape and a sound affine to compare with others."""
        return bool(self.shape) and self.affine is not None


def grid_faults(shape: tuple[int, ...], affine: np.ndarray, voxel_sizes: np.ndarray) -> list[str]:
    """Faults of a grid: no voxels, a voxel size (mm, as the header has it) that is zero or not finite, a singular affine."""
    if 0 in shape:
        return ["holds no voxels; export it again"]
    if not np.isfinite(voxel_sizes).all() or (voxel_sizes == 0).any():
        sizes = " x ".join(f"{size:g}" for size in voxel_sizes)
        return [f"has the voxel size {sizes} mm in its header; correct the header or convert the scan again"]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return ["has an affine that is singular or not finite; correct the sform or qform of its header or convert it again"]
    return []


def voxel_facts(data: np.ndarray, affine: np.ndarray, is_mask: bool) -> Facts:
    """The facts of a volume [x, y, z] with at least one voxel; voxels that are NaN or infinite are a fault."""
    # NaN passes through min and max, and an infinity is one of them: two passes see all voxels.
    minimum, maximum = float(data.min()), float(data.max())
    if not (np.isfinite(minimum) and np.isfinite(maximum)):
        count = int(data.size - np.isfinite(data).sum())
        fault = f"holds NaN or infinite voxels ({count} of {data.size}); replace them by 0 or export it again"
        return Facts((fault,), data.shape, affine)
    if not is_mask and minimum == maximum:
        return Facts((f"has the value {minimum:g} in all voxels; give the scan itself",), data.shape, affine, minimum, maximum)
    odd_value = None
    if is_mask:
        odd = (np.abs(data) > MASK_TOLERANCE) & (np.abs(data - 1) > MASK_TOLERANCE)
        odd_value = float(data.flat[odd.argmax()]) if odd.any() else None
    return Facts((), data.shape, affine, minimum, maximum, odd_value)


def inspect_file(path: str, is_mask: bool) -> Facts:
    """Read one image file whole and state its facts; faults are stated, not raised."""

    def without_path(error: InputError) -> str:
        return str(error).removeprefix(f"{path}: ")

    try:
        image = read_image(path)
        with image.file_map["image"].get_prepare_fileobj("rb") as stream:
            # Unchecked, because nibabel's check turns a zero voxel size into 1 mm.
            voxel_sizes = type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]
    except InputError as error:
        return Facts((without_path(error),))
    faults = grid_faults(image.shape, image.affine, voxel_sizes)
    affine = None if faults else image.affine
    if 0 in image.shape:
        return Facts(tuple(faults))
    try:
        with np.errstate(all="ignore"):  # what overflows is found below, as infinite voxels
            data, _ = read_volume(path)
    except InputError as error:
        return Facts((*faults, without_path(error)), image.shape, affine)
    facts = voxel_facts(data, image.affine, is_mask)
    return Facts((*faults, *facts.faults), facts.shape, affine, facts.minimum, facts.maximum, facts.odd_value)


def inspect_files(rows: Iterable[Row], threads: int, progress: Callable[[int, int], None]) -> dict[tuple[str, bool], Facts]:
    """The facts of every file the rows name, by (path, is a mask); `threads` volumes are in memory at a time.

    `progress` is called with (files done, files in all) after each.
    """
    # nibabel would log the header faults that are reported here as sentences.
    nib.imageglobals.logger.setLevel(logging.CRITICAL)
    wanted = list(dict.fromkeys((path, column in MASK_COLUMNS) for row in rows for column, path in row.files.items()))
    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for done, (key, facts) in enumerate(zip(wanted, pool.map(lambda key: inspect_file(*key), wanted), strict=True), start=1):
            found[key] = facts
            progress(done, len(wanted))
    return found


def judge_files(rows: list[Row], facts: Mapping[tuple[str, bool], Facts], masks_train: bool) -> list[Problem]:
    """Problems of each file, and of the files of a row against each other.

    With `masks_train` the masks are learned from, so that a patient's mask in train or validation must hold lesions.
    """
    problems = list(shared_files(rows))
    for row in rows:
        own = {column: facts[path, column in MASK_COLUMNS] for column, path in row.files.items()}
        for column, path in row.files.items():
            faults = list(own[column].faults)
            if column in MASK_COLUMNS and own[column].odd_value is not None:
                faults.append(f"holds the value {own[column].odd_value:g}; write a mask with 0 outside and 1 inside only")
            elif column in MASK_COLUMNS and np.isfinite(own[column].maximum):
                faults += mask_meaning(row, column, own[column].maximum > 0.5, masks_train)
            if column in MASK_COLUMNS:
                faults += mask_grid(column, own)
            problems += [Problem(f"{path}: {fault}", row.line, column) for fault in faults]
    return problems


def mask_meaning(row: Row, column: str, marks_something: bool, masks_train: bool) -> list[str]:
    """Faults of a binary mask for what its row says it is."""
    if column == "brain_mask":
        return [] if marks_something else ["holds no brain; give another mask or leave the cell empty"]
    if row.role == "healthy" and marks_something:
        return ["holds lesions, but the subject is healthy; set its role to patient or leave the cell empty"]
    learned = masks_train and row.role == "patient" and row.split in ("train", "validation")
    if learned and not marks_something:
        split = f"{row.split}, chosen by seed" if row.split_drawn else row.split
        return [f"holds no lesions, but the patient is in split {split}; set its split to test or leave the mask's cell empty"]
    return []


def mask_grid(column: str, own: Mapping[str, Facts]) -> list[str]:
    """The fault of a mask that lies on another grid than the scans it may lie on; none while one of these is unsound."""
    mask = own[column]
    references = {name: own.get(name) for name in (("t1w", "flair") if column == "lesion_mask" else ("t1w",))}
    sound = {name: scan for name, scan in references.items() if scan is not None and scan.has_grid}
    if not mask.has_grid or any(same_grid(mask.shape, mask.affine, scan.shape, scan.affine) for scan in sound.values()):  # type: ignore[arg-type]
        return []
    if len(sound) < len(references):
        return []
    names = {"t1w": "T1w", "flair": "FLAIR"}
    grids = " and ".join(
        f"{size(scan.shape)} for the {names[name]}" + (" at another position" if scan.shape == mask.shape else "")
        for name, scan in sound.items()
    )
    return [
        f"lies on another grid ({size(mask.shape)} voxels, against {grids}); "
        f"resample it onto the grid of the {' or '.join(names[name] for name in sound)}"
    ]


def size(shape: tuple[int, ...]) -> str:
    """`8 x 8 x 8`."""
    return " x ".join(str(n) for n in shape)


def shared_files(rows: Iterable[Row]) -> Iterator[Problem]:
    """A problem for each cell that names a file which another cell named before, links followed."""
    seen: dict[str, tuple[int, str]] = {}
    for row in rows:
        for column, path in row.files.items():
            line, other = seen.setdefault(os.path.realpath(path), (row.line, column))
            if (line, other) != (row.line, column):
                yield Problem(f"{path} is also the {other} of row {line}; give each cell its own file", row.line, column)
