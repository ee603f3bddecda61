"""Files in and out: every output appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import nibabel as nib
import numpy as np

from lesionforge.errors import InputError
from lesionforge.images.geometry import Grid, corners_apart, grid_fault, same_grid
from lesionforge.images.names import grid_of_name, shown

if TYPE_CHECKING:
    import pandas as pd

DERIVATIVES = tuple(f"{kind}-*_{entity}-*" for kind in ("sub", "lib") for entity in ("space", "desc", "label", "from"))
"""What the files are called in the folder of a scan, real or synthetic, or of a pair."""


def files_of_a_tool(*endings: str) -> tuple[str, ...]:
    """What one tool's files in the folder of a scan are called: `own` of `new_folder`, so that those of another are not lost."""
    return tuple(f"sub-*_{ending}" for ending in endings)


def read_image(path: str | Path) -> nib.Nifti1Image:
    """Open a 3-D NIfTI image without reading its voxels.

    Raises InputError when the file is missing, is no NIfTI image or is not three-dimensional
    (trailing axes of length one are dropped).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        image = nib.load(path)
    except Exception as error:
        raise InputError(f"{path}: cannot be read as NIfTI ({type(error).__name__}); convert it to .nii.gz") from error
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(f"{path}: is {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    if image.get_data_dtype().kind not in "iuf":
        kind = image.get_data_dtype()
        raise InputError(f"{path}: has voxels of type {kind}, not one number each; convert it to a grey-scale image")
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        # A reshaped proxy: the voxels stay on disk, so that a truncated file is found where its voxels are read.
        volume = nib.arrayproxy.reshape_dataobj(image.dataobj, image.shape[:3])
        image = type(image)(volume, image.affine, image.header, file_map=image.file_map)
    if len(image.shape) != 3:
        raise InputError(f"{path}: has {len(image.shape)} dimensions, not 3; give one volume")
    return image


def read_volume(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3-D NIfTI image as (float32 array [x, y, z], 4 x 4 RAS affine).

    Raises InputError as `read_image` does, when the grid has no voxels or no place, and when the voxel data are cut short.
    NaN and infinite voxels are returned as they are.
    """
    image = read_image(path)
    if fault := grid_fault(image.shape, image.affine):
        raise InputError(f"{path}: {fault}")
    return voxels_of(image, path), image.affine


def voxels_of(image: nib.Nifti1Image, path: str | Path) -> np.ndarray:
    """The voxels [x, y, z] of an image that `read_image` opened, float32.

    Raises InputError when they are cut short, and when the header claims more than memory holds.
    """
    try:
        return np.asanyarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"{path}: its voxels cannot be read ({type(error).__name__}); the file may be truncated, copy it again"
        ) from error
    except (MemoryError, OverflowError) as error:
        claimed = " x ".join(str(size) for size in image.shape)
        raise InputError(
            f"{path}: has {claimed} voxels by its header, more than memory holds; correct the header or convert it again"
        ) from error


def read_mask(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3-D NIfTI mask as (bool array [x, y, z], affine): voxels above 0.5."""
    data, affine = read_volume(path)
    return data > 0.5, affine


def grids_of(scans: Mapping[str, str | Path]) -> dict[str, Grid]:
    """The grids of scans by name, without reading their voxels; raises InputError as `read_image` does."""
    images = {name: read_image(path) for name, path in scans.items()}
    return {name: (image.shape, image.affine) for name, image in images.items()}


def read_mask_on(path: str | Path, given: dict[str, Grid]) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """Read a mask that lies on the grid of one of a subject's scans: (mask and affine as `read_mask`, the name of the scan).

    `given` holds the grids of the scans by name, such as T1w and FLAIR; the nearest of those that fit is taken, of equally near
    ones the first. Raises InputError where none fits.
    """
    mask, affine = read_mask(path)
    away_mm = {
        name: corners_apart(mask.shape, affine, grid[1]) for name, grid in given.items() if same_grid(mask.shape, affine, *grid)
    }
    if away_mm:
        return (mask, affine), min(away_mm, key=lambda name: away_mm[name])
    raise InputError(f"{path}: lies neither on the grid of the {' nor of the '.join(given)}; resample it to one of them")


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError of the block name `path` where it names no file, as that of a full disk, or where it names `temporary`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            # numpy says how much it wrote, but not why, which is a full disk.
            number = error.errno or errno.ENOSPC
            raise OSError(number, error.strerror or f"was not written whole ({error})", str(path)) from error
        for name in ("filename", "filename2") if temporary else ():
            if (named := getattr(error, name)) is not None:
                setattr(error, name, str(named).replace(str(temporary), str(path)))
        raise


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make a folder and its parents for the block; if that fails, those that were made go again unless they hold something."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for the block. Its name is fixed, so that the next run clears what a killed one left.

    Raises InputError where another run works in it.
    """
    with made_folder(folder.parent):
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            _hold(lock, folder)
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _hold(lock: int, folder: Path) -> None:
    """Take the lock of an open folder, which ends with it; some network file systems have none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder}: another run works there; wait until it has ended, or give another output folder") from None
    except OSError:
        pass


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well, else delete it."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with made_folder(path.parent), naming(path, temporary):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Give a temporary folder for files that belong together; all of them move into `folder` if the block ends well, else none.

    Raises InputError when one cannot, because a folder has its name.
    """
    with made_folder(folder):
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        try:
            with naming(folder, temporary):
                yield temporary
            made = sorted(temporary.iterdir())
            for path in made:
                if (folder / path.name).is_dir():
                    raise InputError(
                        f"{folder / path.name}: is a folder where a file is to be written; give another output folder"
                    )
            for path in made:
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_folder(path: str | Path, *inputs: str | Path | None, own: Iterable[str] = DERIVATIVES) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; it replaces `path` if the block ends well, else it is deleted.

    Of a link, what it leads to is replaced. Raises InputError, before the block, as `refuse_loss` does.
    """
    path = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    refuse_loss(path, *inputs, own=own)
    with made_folder(path.parent):
        # Not by mkdtemp, which keeps a folder from all others whatever the umask says.
        temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        temporary.mkdir()
        try:
            with naming(path, temporary):
                yield temporary
            _swap(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Rename a folder to `path`; what was there goes only then, as deleting may stop half-way."""
    if not path.exists():
        new.replace(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        path.replace(old)
        new.replace(path)
    except OSError:
        if path.exists():
            # The first of the two failed.
            old.rmdir()
        else:
            old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def refuse_overwritten_input(outputs: Iterable[Path], *inputs: str | Path | None) -> None:
    """Raise InputError when an input file is one of the files to be written, through links too."""
    written = {path.resolve() for path in outputs}
    for path in inputs:
        if path is not None and Path(path).resolve() in written:
            raise InputError(f"{path}: would be replaced by the output of this name; give another --out")


def refuse_loss(path: str | Path, *inputs: str | Path | None, own: Iterable[str] = DERIVATIVES) -> None:
    """Raise InputError when writing `path` as a new folder would lose something.

    That is when it is a file, holds the current folder or one of the `inputs` (files or folders that are read), or holds
    anything but files whose names match one of the patterns `own`, those that such a folder of ours has.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file where a folder is to be written; give another output folder")
    if Path.cwd().is_relative_to(path.resolve()):
        raise InputError(f"{path}: holds the current folder and cannot be replaced; give a new output folder")
    for given in inputs:
        if given is not None and Path(given).resolve().is_relative_to(path.resolve()):
            raise InputError(f"{path}: would be replaced, but {given} is read from it; give another output folder")
    for held in sorted(path.iterdir()) if path.is_dir() else ():
        if not held.is_file() or not any(fnmatchcase(held.name, pattern) for pattern in own):
            raise InputError(
                f"{path}: holds other files, such as {shown(held.name)}, which would be lost; give a new or empty output folder"
            )


def write_volume(
    data: np.ndarray,
    affine: np.ndarray,
    path: str | Path,
    like: nib.Nifti1Image | None = None,
    sidecar: dict[str, Any] | None = None,
) -> None:
    """Write an array [x, y, z] as NIfTI with its own dtype (float64 becomes float32).

    With `like`, the header of that image is carried on: sform, qform, their codes and units. A `sidecar` is written as
    JSON beside it, with the space and the grid that the name says.
    """
    path = Path(path)
    if data.dtype == np.float64:
        data = data.astype(np.float32)
    header = None
    if like is not None:
        header = like.header.copy()
        header.set_data_dtype(data.dtype)
        header.set_slope_inter(1, 0)
        header["cal_max"] = header["cal_min"] = 0
    image = nib.Nifti1Image(data, None if like is not None else affine, header)
    if like is None:
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
    with whole_file(path) as temporary:
        nib.save(image, temporary)
    if sidecar is not None:
        write_json(sidecar | grid_of_name(path.name), Path(str(path).removesuffix(".nii.gz") + ".json"))


def write_mask(
    mask: np.ndarray, affine: np.ndarray, path: str | Path, description: str, like: nib.Nifti1Image | None = None
) -> None:
    """Write a bool array [x, y, z] as 0/1 uint8 NIfTI with a JSON sidecar that says what it is."""
    write_volume(mask.astype(np.uint8), affine, path, like, {"Type": "ROI", "Description": description})


def read_json(path: str | Path) -> Any:
    """Read a JSON file; raises InputError when it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); write it again with the command that made it") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deep; write it again with the command that made it") from error


def read_record(path: str | Path, *fields: str) -> dict[str, Any]:
    """Read a JSON object of ours; raises InputError as `read_json` does, and when it lacks one of the fields."""
    content = read_json(path)
    lacking = [name for name in fields if not isinstance(content, dict) or name not in content]
    if lacking:
        raise InputError(f"{path}: lacks {', '.join(lacking)}; write it again with the command that made it")
    record: dict[str, Any] = content
    return record


def write_json(content: Any, path: str | Path) -> None:
    """Write JSON with sorted keys; NaN becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, np.generic):
            return plain(value.item())
        if isinstance(value, float) and not np.isfinite(value):
            return None
        return str(value) if isinstance(value, Path) else value

    with whole_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_tsv(path: str | Path) -> pd.DataFrame:
    """Read one of our tables: all columns as text, empty cells as ''; raises InputError when it is missing."""
    import pandas as pd

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except ValueError as error:
        raise InputError(
            f"{path}: is no table of ours ({type(error).__name__}); write it again with the command that made it"
        ) from error


def write_tsv(table: pd.DataFrame, path: str | Path, columns: dict[str, str]) -> None:
    """Write a table as TSV (NaN as 'n/a') with a JSON data dictionary beside it.

    `columns` maps each column to its one-line description; only and all of these are written, in this order.
    """
    path = Path(path)
    with whole_file(path) as temporary:
        table.reindex(columns=list(columns)).to_csv(temporary, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    write_json({name: {"Description": text} for name, text in columns.items()}, path.with_suffix(".json"))
