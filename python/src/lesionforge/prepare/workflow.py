"""The whole of `prepare` for one scan, in one process."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from lesionforge.prepare.interfaces import Align, Strip, Tissues


def prepare_scan(
    *, t1w: Path, flair: Path, scan_id: str, out: Path, lesion_mask: Path | None, brain_mask: Path | str | None, voxel_mm: float
) -> Path:
    """Strip, align, classify and normalise one scan; the path of the prepared folder `out/<scan_id>`.

    `brain_mask` is a file on the T1w grid, the word "stripped", or None. Raises InputError as the three steps do.
    """
    out.mkdir(parents=True, exist_ok=True)
    steps = Path(tempfile.mkdtemp(prefix=".prepare-", dir=out))
    optional_mask = {"brain_mask": str(brain_mask)} if brain_mask else {}
    optional_lesion = {"lesion_mask": str(lesion_mask.resolve())} if lesion_mask else {}
    files = {"t1w": str(t1w.resolve()), "flair": str(flair.resolve())}
    try:
        click.echo(f"{scan_id}: skull-stripping", err=True)
        strip = run(Strip, scan_id=scan_id, t1w=files["t1w"], voxel_mm=voxel_mm, out=str(steps / "strip"), **optional_mask)
        click.echo(f"{scan_id}: bias field and alignment", err=True)
        align = run(Align, scan_id=scan_id, **files, **optional_lesion, stripped=strip, out=str(steps / "align"))
        click.echo(f"{scan_id}: tissues and normalisation", err=True)
        return Path(run(Tissues, scan_id=scan_id, stripped=strip, aligned=align, out=str(out)))
    finally:
        shutil.rmtree(steps, ignore_errors=True)


def run(interface: type, *, out: str, **inputs: object) -> str:
    """Run one of our nipype interfaces here and now; the path of the folder it wrote."""
    Path(out).mkdir(parents=True, exist_ok=True)
    result = interface(out=str(Path(out).resolve()), **inputs).run(cwd=out)
    folder: str = result.outputs.out_folder
    return folder
