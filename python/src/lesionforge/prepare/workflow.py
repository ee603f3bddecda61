"""The whole of `prepare` for one scan, in one process."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from lesionforge.images.interfaces import run
from lesionforge.prepare.interfaces import Align, Strip, Tissues


def prepare_scan(
    *, t1w: Path, flair: Path, scan_id: str, out: Path, lesion_mask: Path | None, brain_mask: Path | str | None, voxel_mm: float
) -> Path:
    """Strip, align, classify and normalise one scan; the path of the prepared folder `out/<scan_id>`.

    `brain_mask` is a file on the T1w grid, the word "stripped", or None. Raises InputError as the three steps do.
    """
    out.mkdir(parents=True, exist_ok=True)
    steps = Path(tempfile.mkdtemp(prefix=".prepare-", dir=out))
    try:
        click.echo(f"{scan_id}: skull-stripping", err=True)
        strip = run(Strip, scan_id=scan_id, t1w=t1w, brain_mask=brain_mask, voxel_mm=voxel_mm, out=steps / "strip")
        click.echo(f"{scan_id}: bias field and alignment", err=True)
        align = run(Align, scan_id=scan_id, t1w=t1w, flair=flair, lesion_mask=lesion_mask, stripped=strip, out=steps / "align")
        click.echo(f"{scan_id}: tissues and normalisation", err=True)
        return run(Tissues, scan_id=scan_id, stripped=strip, aligned=align, out=out)
    finally:
        shutil.rmtree(steps, ignore_errors=True)
