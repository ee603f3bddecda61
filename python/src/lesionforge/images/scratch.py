"""What antspyx is given to write and to read: temporary files in the caller's folder, and paths that it does not take apart."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesionforge.errors import InputError
from lesionforge.images.names import shown

# ANTs splits its arguments at brackets, those with the output at commas too, and counts files with %; antspyx looks for what it
# wrote with a glob.
UNREADABLE, UNWRITABLE = "[]", ",[]%"
# Bytes, less than an image has: ANTs does not say that a disk is full.
NEXT_TO_NOTHING = 1_000_000


@contextmanager
def ants_scratch(folder: str | Path, scan_id: str) -> Iterator[str]:
    """Give an `outprefix` for antspyx in a temporary subfolder of `folder`, and send all its temporary files there.

    antspyx litters the system's temporary folder otherwise, which is small or shared on many clusters. Raises InputError,
    which names the scan, where ANTs fails in the block.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=".ants-", dir=folder) as scratch:
        tempfile.tempdir = scratch
        try:
            yield f"{scratch}/xfm_"
        except (InputError, OSError):
            raise
        except Exception as error:  # RuntimeError, MemoryError, ValueError and Exception itself
            if not _is_of_ants(error):
                raise
            if shutil.disk_usage(scratch).free < NEXT_TO_NOTHING:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
            said = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(
                f"{scan_id}: ANTs failed ({said}); check the free space and memory, and that its scans show a whole head"
            ) from error
        finally:
            tempfile.tempdir = before


def _is_of_ants(error: Exception) -> bool:
    """Whether an error comes from a call of antspyx: only such are the user's to mend."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").partition(".")[0] == "ants" for frame, _ in frames)


def ants_path(path: str | Path, unfit: str = UNREADABLE) -> str:
    """The absolute path of a transform for antspyx, or with UNWRITABLE of a folder to work in; raises InputError for others."""
    path = Path(path).absolute()
    for part in (path, *path.parents):
        if set(part.name) & set(unfit):
            raise InputError(
                f"{shown(part)}: has one of the characters {' '.join(unfit)} in its name, which ANTs cannot have in a path; "
                "rename it or work in another folder"
            )
    return str(path)
