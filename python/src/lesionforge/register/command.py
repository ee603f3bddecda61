"""`lesionforge register`: one subject to the template, or a donor onto a canvas."""

from __future__ import annotations

from pathlib import Path

import click

from lesionforge.errors import InputError
from lesionforge.options import OwnOptionsGroup

existing_folder = click.Path(exists=True, file_okay=False, path_type=Path)
out_option = click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Output folder.")


@click.group(cls=OwnOptionsGroup, invoke_without_command=True)
@click.option("--prepared", type=existing_folder, help="Prepared folder of one scan.")
@out_option
@click.pass_context
def register(ctx: click.Context, prepared: Path | None, out: Path | None) -> None:
    """Register one prepared scan to the template (--prepared and --out are needed)."""
    if ctx.invoked_subcommand:
        return
    if prepared is None or out is None:
        raise click.UsageError("--prepared and --out are needed.")
    from lesionforge.images.interfaces import run
    from lesionforge.register.interfaces import ToTemplate

    click.echo(f"registered {run(ToTemplate, prepared=prepared, out=out)}")


@register.command()
@click.option("--donor", type=existing_folder, help="Prepared folder of the patient who gives lesions.")
@click.option(
    "--lesions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Instead of --donor: a lesion mask in template space.",
)
@click.option("--lesions-id", help="Id of that mask, lib-<label> [default: by its file's name].")
@click.option("--canvas", type=existing_folder, required=True, help="Prepared folder of the scan that receives them.")
@click.option("--donor-transforms", type=existing_folder, help="Folder that register wrote for the donor.")
@click.option("--canvas-transforms", type=existing_folder, help="Folder that register wrote for the canvas.")
@out_option
def pair(
    donor: Path | None,
    lesions: Path | None,
    lesions_id: str | None,
    canvas: Path,
    donor_transforms: Path | None,
    canvas_transforms: Path | None,
    out: Path | None,
) -> None:
    """Bring a donor's lesions onto a canvas.

    With the transforms of both, these are composed through the template; with neither, the donor is registered to the
    canvas directly. A mask in template space needs those of the canvas alone.
    """
    if out is None:
        raise click.UsageError("--out is needed.")
    if (donor is None) == (lesions is None):
        raise click.UsageError("--donor or --lesions is needed, and not both.")
    from lesionforge.images.interfaces import run
    from lesionforge.register.interfaces import LibraryPair, Pair

    if lesions is not None:
        if canvas_transforms is None or donor_transforms is not None:
            raise InputError("--lesions is a mask in template space; give --canvas-transforms with it, and no --donor-transforms")
        mask = {"lesions": lesions, "lesions_id": lesions_id}
        click.echo(f"paired {run(LibraryPair, **mask, canvas=canvas, canvas_transforms=canvas_transforms, out=out)}")
        return
    if lesions_id is not None:
        raise click.UsageError("--lesions-id belongs to --lesions.")
    if (donor_transforms is None) != (canvas_transforms is None):
        given, lacking = ("canvas", "donor") if donor_transforms is None else ("donor", "canvas")
        raise InputError(
            f"--{lacking}-transforms is missing: give it beside --{given}-transforms to compose, or neither to register directly"
        )
    made = run(Pair, donor=donor, donor_transforms=donor_transforms, canvas=canvas, canvas_transforms=canvas_transforms, out=out)
    click.echo(f"paired {made}")
