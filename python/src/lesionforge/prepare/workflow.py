"""The whole of `prepare` for one scan, in one process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from lesionforge.errors import InputError
from lesionforge.images import ants_path, checksum, derivative, grids_of, read_mask_on, read_record, refuse_loss, scratch_folder
from lesionforge.images.check import check_mask, check_scan
from lesionforge.images.interfaces import run
from lesionforge.images.scratch import UNWRITABLE
from lesionforge.prepare.engines import require_engine
from lesionforge.prepare.interfaces import GIVEN_RECORD, PREPARED_FILES, STRIPPED, Align, Strip, Tissues
from lesionforge.prepare.quality import judge, read_figures, read_limits, remedies

# Where a tool keeps the prepared folders of its scans, in its output folder.
PREPARED = "prepare"


def prepare_scan(
    *,
    t1w: Path,
    flair: Path,
    scan_id: str,
    out: Path,
    lesion_mask: Path | None,
    brain_mask: Path | str | None,
    voxel_mm: float,
    engine: str = "builtin",
    denoise: bool = False,
    further: Mapping[str, Path] | None = None,
) -> Path:
    """Strip, align, classify and normalise one scan; the path of the prepared folder `out/<scan_id>`.

    `further` holds the contrasts besides T1w and FLAIR, by name. `brain_mask` is a file on the T1w grid, the word "stripped",
    or None. Raises InputError, before any work, for a file that cannot be prepared, for a lesion mask on another grid, where
    ANTs cannot write and where `out` has this id made of other files, and as the three steps do.
    """
    require_engine(engine)
    ants_path(out.resolve(), UNWRITABLE)
    brain_file = None if brain_mask == STRIPPED else brain_mask
    others = further or {}
    refuse_loss(out / scan_id, t1w, flair, *others.values(), lesion_mask, brain_file, own=PREPARED_FILES)
    for scan in (t1w, flair, *others.values()):
        check_scan(scan)
    for mask in (lesion_mask, brain_file):
        if mask is not None:
            check_mask(mask)
    if lesion_mask is not None:
        read_mask_on(lesion_mask, grids_of({"T1w": t1w, "FLAIR": flair}))
    files = {"T1w": t1w, "FLAIR": flair, **others, "lesion mask": lesion_mask, "brain mask": brain_file}
    given: dict[str, Any] = {name: checksum(Path(path)) for name, path in files.items() if path is not None}
    given |= {"skull stripping": engine if brain_mask is None else "given", "denoised": denoise, "voxel_mm": voxel_mm}
    refuse_others(out / scan_id, given)
    scans: dict[str, Any] = {"scan_id": scan_id, "t1w": t1w, "flair": flair}
    scans |= {name.lower(): path for name, path in others.items()}
    with scratch_folder(out / f".prepare-{scan_id}") as steps:
        click.echo(f"{scan_id}: skull-stripping", err=True)
        strip = run(Strip, **scans, brain_mask=brain_mask, engine=engine, voxel_mm=voxel_mm, out=steps / "strip")
        click.echo(f"{scan_id}: bias field and alignment", err=True)
        align = run(Align, **scans, lesion_mask=lesion_mask, stripped=strip, denoise=denoise, out=steps / "align")
        click.echo(f"{scan_id}: tissues and normalisation", err=True)
        folder = run(Tissues, scan_id=scan_id, stripped=strip, aligned=align, given=given, out=out)
    for sentence in doubts(folder):
        click.echo(f"Warning: {scan_id}: {sentence}", err=True)
    return folder


def refuse_others(folder: Path, given: dict[str, Any]) -> None:
    """Raise InputError when a prepared folder was made of other scans, masks or with other settings, or does not tell which."""
    record = folder / derivative(folder.name, GIVEN_RECORD, extension="")
    if not record.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{folder}: does not tell of which scans it was made (has no {record.name}); remove that folder, or give another "
            "--subject or --out"
        )
    before = read_record(record, "T1w", "FLAIR") if record.is_file() else given
    if other := [name for name in given | before if before.get(name) != given.get(name)]:
        raise InputError(
            f"{folder}: was made with another {', '.join(other)}; remove that folder, or give another --subject or --out"
        )


def refuse_results(out: Path, scan_id: str, *inputs: str | Path | None, own: Iterable[str]) -> None:
    """Raise InputError when the results of a tool, its `own` files in `out/<id>`, would take the place of something.

    That is as `refuse_loss` says, and of results of which no `out/prepare/<id>` tells any more of which scans they were made.
    """
    results, prepared = out / scan_id, out / PREPARED / scan_id
    refuse_loss(results, *inputs, own=own)
    if results.is_dir() and any(results.iterdir()) and not prepared.is_dir():
        raise InputError(
            f"{results}: holds results, and without {prepared} nothing tells of which scans; remove that folder, or give another "
            "--subject or --out"
        )


def doubts(folder: Path) -> list[str]:
    """A sentence for each quality figure of a prepared folder beyond a limit, those that fail first."""
    limits = read_limits()
    verdicts = judge(read_figures(folder / derivative(folder.name, "desc-prepare", extension=".json"))[1], limits)
    beyond = [verdict for level in ("fail", "warn") for verdict in verdicts if verdict.level == level]
    return [f"{verdict.sentence}; {remedies([verdict], limits)}" for verdict in beyond]
