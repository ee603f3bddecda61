"""The command `lesionforge predict`: from one subject's raw scans to its lesion mask."""

from __future__ import annotations

from pathlib import Path

import click

from lesionforge import nets
from lesionforge.cascade.card import refuse_missing_contrasts
from lesionforge.prepare.command import (
    brain_mask_of,
    denoise_option,
    engine_option,
    further_scans,
    pdw_option,
    scan_id_of,
    t2w_option,
)
from lesionforge.segment.command import MODEL_HELP, model_path, threshold_options
from lesionforge.segment.workflow import SEGMENT_FILES, Cascade, in_words, segment_scan

existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(help="From one subject's raw scans to its lesion mask: prepare, then segment.")
@click.option("--t1w", required=True, type=existing_file, help="T1w scan, NIfTI.")
@click.option("--flair", required=True, type=existing_file, help="FLAIR scan, NIfTI.")
@t2w_option
@pdw_option
@click.option("--brain-mask", help="Brain mask on the T1w grid, or the word stripped for scans that hold only brain.")
@engine_option
@denoise_option
@click.option("--subject", default="01", show_default=True, help="BIDS subject label, for the names of the results.")
@click.option("--model", required=True, type=model_path, help=MODEL_HELP)
@threshold_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for <id>/ and prepare/<id>/.")
def predict(
    t1w: Path,
    flair: Path,
    t2w: Path | None,
    pdw: Path | None,
    brain_mask: str | None,
    strip_engine: str,
    denoise: bool,
    subject: str,
    model: Path,
    lesion_threshold: float | None,
    min_volume_mm3: float | None,
    out: Path,
) -> None:
    """Check the model first, prepare at its voxel size, segment."""
    from lesionforge.prepare.workflow import PREPARED, prepare_scan, refuse_results

    scan_id = scan_id_of(subject, session=None)
    further = further_scans(t2w, pdw)
    refuse_results(out, scan_id, t1w, flair, *further.values(), model, own=SEGMENT_FILES)
    cascade = Cascade.open(model, lesion_threshold, min_volume_mm3)
    refuse_missing_contrasts(model, cascade.contrasts, ("T1w", "FLAIR", *further))
    nets.set_up(seed=0)
    prepared = prepare_scan(
        t1w=t1w,
        flair=flair,
        further=further,
        scan_id=scan_id,
        out=out / PREPARED,
        lesion_mask=None,
        brain_mask=brain_mask_of(brain_mask),
        voxel_mm=cascade.voxel_mm,
        engine=strip_engine,
        denoise=denoise,
    )
    click.echo(f"{scan_id}: segmenting", err=True)
    click.echo(in_words(segment_scan(prepared, cascade, out)) + f" -> {out}")
