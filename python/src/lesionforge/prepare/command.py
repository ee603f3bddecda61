"""`lesionforge prepare`: one subject, or one of its steps."""

from __future__ import annotations

import re
from pathlib import Path

import click

from lesionforge.errors import InputError
from lesionforge.options import FiniteRange, OwnOptionsGroup
from lesionforge.prepare.engines import NAMES, require_engine

existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
existing_folder = click.Path(exists=True, file_okay=False, path_type=Path)
folder = click.Path(file_okay=False, path_type=Path)

t1w_option = click.option("--t1w", type=existing_file, required=True, help="T1w scan, NIfTI.")
flair_option = click.option("--flair", type=existing_file, required=True, help="FLAIR scan, NIfTI.")
t2w_option = click.option("--t2w", type=existing_file, help="T2w scan, NIfTI, if there is one.")
pdw_option = click.option("--pdw", type=existing_file, help="PDw scan, NIfTI, if there is one.")
lesion_option = click.option("--lesion-mask", type=existing_file, help="Lesion mask on the grid of the T1w or of the FLAIR.")
brain_option = click.option(
    "--brain-mask", help="Brain mask on the T1w grid, or the word stripped for scans that hold only brain."
)
voxel_option = click.option(
    "--voxel-mm", type=FiniteRange(0.5, 4), default=1.0, show_default=True, help="Voxel size of the working grid, mm."
)
engine_option = click.option(
    "--strip-engine",
    type=click.Choice(NAMES),
    default="builtin",
    show_default=True,
    help="What finds the brain where no mask is given; all but builtin and given call a program of that name.",
)
denoise_option = click.option(
    "--denoise", is_flag=True, help="Remove noise from the scans before they come to the working grid (non-local means)."
)
out_option = click.option(
    "--out", type=folder, required=True, help="Output folder; a folder named by the scan is written into it."
)


def checked_scan_id(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The scan id as it is given; raises InputError where it is none, since it names files."""
    from lesionforge.images import scan_labels

    try:
        scan_labels(value)
    except InputError as error:
        raise InputError(f"--id {error}") from error
    return value


id_option = click.option("--id", "scan_id", required=True, callback=checked_scan_id, help="Scan id, such as sub-01_ses-1.")


def further_scans(t2w: Path | None, pdw: Path | None) -> dict[str, Path]:
    """The contrasts besides T1w and FLAIR that are there, by name."""
    return {name: path for name, path in (("T2w", t2w), ("PDw", pdw)) if path is not None}


def scan_id_of(subject: str, session: str | None) -> str:
    """`sub-01` or `sub-01_ses-1` from BIDS labels, with or without their prefixes; raises InputError for other characters."""
    parts = {"sub": subject.removeprefix("sub-")} | ({"ses": session.removeprefix("ses-")} if session else {})
    for key, label in parts.items():
        if not re.fullmatch(r"[A-Za-z0-9]+", label):
            raise InputError(f"{key} label {label!r}: only letters and digits are allowed; rename it")
    return "_".join(f"{key}-{label}" for key, label in parts.items())


def brain_mask_of(value: str | None) -> str | None:
    """The absolute path of a brain mask, the word `stripped`, or None; raises InputError for a missing file."""
    if value is None or value == "stripped":
        return value
    if not Path(value).is_file():
        raise InputError(f"{value}: no such brain mask; give a file or the word stripped")
    return str(Path(value).absolute())


@click.group(cls=OwnOptionsGroup, invoke_without_command=True)
@click.option("--t1w", type=existing_file, help="T1w scan, NIfTI.")
@click.option("--flair", type=existing_file, help="FLAIR scan, NIfTI.")
@t2w_option
@pdw_option
@click.option("--subject", help="BIDS subject label.")
@click.option("--session", help="BIDS session label.")
@lesion_option
@brain_option
@engine_option
@denoise_option
@voxel_option
@click.option("--out", type=folder, help="Output folder; a folder named by the scan is written into it.")
@click.pass_context
def prepare(
    ctx: click.Context,
    t1w: Path | None,
    flair: Path | None,
    t2w: Path | None,
    pdw: Path | None,
    subject: str | None,
    session: str | None,
    lesion_mask: Path | None,
    brain_mask: str | None,
    strip_engine: str,
    denoise: bool,
    voxel_mm: float,
    out: Path | None,
) -> None:
    """Skull-strip, align, classify and normalise one subject (--t1w, --flair, --subject and --out are needed).

    The sub-commands are the three steps of it, one after the other.
    """
    if ctx.invoked_subcommand:
        return
    if t1w is None or flair is None or subject is None or out is None:
        raise click.UsageError("--t1w, --flair, --subject and --out are needed.")
    from lesionforge.prepare.workflow import prepare_scan

    made = prepare_scan(
        t1w=t1w,
        flair=flair,
        further=further_scans(t2w, pdw),
        scan_id=scan_id_of(subject, session),
        out=out,
        lesion_mask=lesion_mask,
        brain_mask=brain_mask_of(brain_mask),
        engine=strip_engine,
        denoise=denoise,
        voxel_mm=voxel_mm,
    )
    click.echo(f"prepared {made}")


@prepare.command()
@id_option
@t1w_option
@flair_option
@t2w_option
@pdw_option
@brain_option
@engine_option
@voxel_option
@out_option
def strip(scan_id: str, brain_mask: str | None, strip_engine: str, voxel_mm: float, out: Path, **scans: Path | None) -> None:
    """Brain mask, rough template transform and the transforms of FLAIR, T2w and PDw to the T1w."""
    require_engine(strip_engine)
    from lesionforge.images.interfaces import run
    from lesionforge.prepare.interfaces import Strip

    mask = brain_mask_of(brain_mask)
    made = run(Strip, scan_id=scan_id, **scans, brain_mask=mask, engine=strip_engine, voxel_mm=voxel_mm, out=out)
    click.echo(f"stripped {made}")


@prepare.command()
@id_option
@t1w_option
@flair_option
@t2w_option
@pdw_option
@lesion_option
@denoise_option
@click.option("--stripped", type=existing_folder, required=True, help="Folder that strip wrote.")
@out_option
def align(scan_id: str, lesion_mask: Path | None, denoise: bool, stripped: Path, out: Path, **scans: Path | None) -> None:
    """All contrasts and the lesion mask onto the T1w's working grid, without bias field."""
    from lesionforge.images.interfaces import run
    from lesionforge.prepare.interfaces import Align

    made = run(Align, scan_id=scan_id, **scans, lesion_mask=lesion_mask, stripped=stripped, denoise=denoise, out=out)
    click.echo(f"aligned {made}")


@prepare.command(name="tissues")
@id_option
@click.option("--stripped", type=existing_folder, required=True, help="Folder that strip wrote.")
@click.option("--aligned", type=existing_folder, required=True, help="Folder that align wrote.")
@out_option
def classify_tissues(scan_id: str, stripped: Path, aligned: Path, out: Path) -> None:
    """Tissues and normalised intensities: the prepared folder."""
    from lesionforge.images.interfaces import run
    from lesionforge.prepare.interfaces import Tissues

    made = run(Tissues, scan_id=scan_id, stripped=stripped, aligned=aligned, out=out)
    click.echo(f"prepared {made}")


@prepare.command(name="judge")
@click.option("--figures", type=existing_file, required=True, help="ID_desc-prepare.json or ID_desc-register.json of a scan.")
@click.option("--limits", type=existing_file, help="JSON file of own limits; docs/quality.md shows one.")
def judge_figures(figures: Path, limits: Path | None) -> None:
    """Hold a scan's quality figures against their limits: say what warns, end with an error when one fails."""
    from lesionforge.prepare.quality import judge, read_figures, read_limits, remedies, worst

    allowed = read_limits(limits)
    scan_id, found = read_figures(figures)
    verdicts = judge(found, allowed)
    for verdict in verdicts:
        if verdict.level == "warn":
            click.echo(f"Warning: {scan_id}: {verdict.sentence}; {remedies([verdict], allowed)}", err=True)
    failed = [verdict for verdict in verdicts if verdict.level == "fail"]
    if failed:
        wrong = ", ".join(verdict.sentence for verdict in failed)
        raise InputError(f"{scan_id}: {wrong}; {remedies(failed, allowed)}; docs/quality.md explains the limits")
    click.echo(f"judged {scan_id}: {worst(verdicts)}")
