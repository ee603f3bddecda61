"""`lesionforge report`: one page about a run."""

from __future__ import annotations

from pathlib import Path

import click

MODES = ("experiment", "augment", "segment")
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option(
    "--root", required=True, type=FOLDER, help="Folder that holds cohort/, prepare/ and the other stages, each optional."
)
@click.option(
    "--mode",
    type=click.Choice(["experiment", "augment", "segment"]),
    default="experiment",
    show_default=True,
    help="What was run.",
)
@click.option(
    "--limits",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file of own quality limits; docs/quality.md shows one.",
)
@click.option("--out", required=True, type=FOLDER, help="Folder for index.html and quality.tsv.")
def report(root: Path, mode: str, limits: Path | None, out: Path) -> None:
    """Write one self-contained HTML page of tables and figures about a run, and the table of its scans' quality."""
    from lesionforge.images.files import whole_file
    from lesionforge.prepare.quality import read_limits
    from lesionforge.report.gather import gather
    from lesionforge.report.page import build
    from lesionforge.report.quality import quality_of, write_quality

    allowed = read_limits(limits)
    results = gather(root)
    quality = quality_of(results, mode, allowed)
    html = build(results, mode, quality, allowed)
    write_quality(quality, allowed, out / "quality.tsv")
    with whole_file(out / "index.html") as temporary:
        temporary.write_text(html, encoding="utf-8")
    click.echo(f"{out / 'index.html'}: {len(html.encode()) / 1e6:.1f} MB")
