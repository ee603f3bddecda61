"""Temporary files of antspyx, kept in the caller's folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
