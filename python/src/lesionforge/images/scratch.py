"""What antspyx is given to write and to read: temporary files in the caller's folder, and paths that it does not take apart."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesionforge.errors import InputError
from lesionforge.images.names import shown

# ANTs splits its arguments at brackets, those with the output at commas too, and counts files with %; antspyx looks for what it
# wrote with a glob.
UNREADABLE, UNWRITABLE = "[]", ",[]%"


@contextmanager
def ants_scratch(folder: str | Path) -> Iterator[str]:
    """Give an `outprefix` for antspyx in a temporary subfolder of `folder`, and send all its temporary files there.

    antspyx litters the system's temporary folder otherwise, which is small or shared on many clusters.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=".ants-", dir=folder) as scratch:
        tempfile.tempdir = scratch
        try:
            yield f"{scratch}/xfm_"
        finally:
            tempfile.tempdir = before


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
