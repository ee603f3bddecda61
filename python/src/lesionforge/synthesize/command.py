"""`lesionforge synthesize`: levels, train-generator, statistics, transplant, paint, or all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lesionforge.errors import InputError
from lesionforge.nets.settings import limits_of
from lesionforge.options import CHECKPOINT, DEVICE, FOLDER, OUT, SEED, FiniteRange, OwnOptionsGroup
from lesionforge.synthesize.config import CONFIGURATIONS, DEFAULT_CONFIGURATION, GeneratorConfig

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
GENERATOR = click.option(
    "--generator",
    "configuration",
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    type=click.Choice(sorted(CONFIGURATIONS)),
    help="salem2019 as published, or lesionforge's own.",
)
COUNTS = {name: click.IntRange(*limits_of(GeneratorConfig, name)) for name in ("width", "epochs", "tiles_per_epoch")}
WIDTH = click.option("--width", default=32, show_default=True, type=COUNTS["width"], help="Channels of the first level.")
EPOCHS = click.option("--epochs", default=70, show_default=True, type=COUNTS["epochs"], help="Training epochs.")
TILES = click.option(
    "--tiles-per-epoch", default=None, type=COUNTS["tiles_per_epoch"], help="Tiles drawn in an epoch [default: all there are]."
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how the generator is trained; `train` takes what they give."""
    for option in reversed((SEED, GENERATOR, WIDTH, EPOCHS, TILES, DEVICE, CHECKPOINT)):
        command = option(command)
    return command


def train(
    patients: list[Any],
    out: Path,
    *,
    seed: int,
    configuration: str,
    width: int,
    epochs: int,
    tiles_per_epoch: int | None,
    device: str,
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Train the generator on matched patients into `out`; returns its card."""
    from lesionforge.synthesize import stage

    config = replace(CONFIGURATIONS[configuration], width=width, epochs=epochs, tiles_per_epoch=tiles_per_epoch)
    return stage.write_generator(
        patients, out, config, seed=seed, device=device, checkpoint=checkpoint, on_epoch=_progress(epochs)
    )


@click.group(cls=OwnOptionsGroup, invoke_without_command=True)
@click.option("--root", type=FOLDER, default=None, help="Folder with cohort/, prepare/ and register/ of the cohort.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Output folder of the whole stage.")
@training_options
@click.pass_context
def synthesize(ctx: click.Context, root: Path | None, out: Path | None, seed: int, **training: Any) -> None:
    """Train the generator and paint lesions onto canvases.

    Without a sub-command the whole stage runs on --root: levels of every patient, the generator, and each synthetic scan
    of ROOT/cohort/pairs.tsv.
    """
    if ctx.invoked_subcommand:
        return
    if root is None or out is None:
        raise click.UsageError("give --root and --out to run the whole stage, or a sub-command (see --help)")
    from lesionforge.images import Prepared, read_tsv
    from lesionforge.synthesize import stage
    from lesionforge.synthesize.transplant_folder import write_statistics, write_transplant

    table = read_tsv(root / "cohort" / "cohort.tsv")
    pairs = read_tsv(root / "cohort" / "pairs.tsv")
    if "fold" in pairs and (pairs["fold"] != "").any():
        raise InputError(f"{root}: was planned with --folds, and this command makes one generator; run the pipeline instead")
    pairs = pairs[pairs["synthetic_id"].str.startswith("sub-syn")]
    roles = dict(zip(table["id"], table["role"], strict=True))
    trained_on = table.loc[(table["role"] == "patient") & table["split"].isin(["train", "validation"]), "id"]
    donors = [donor for donor in pairs["donor"] if donor in roles]
    levels = {}
    for scan_id in sorted({*trained_on, *donors, *(name for name in pairs["canvas"] if roles.get(name) == "patient")}):
        stage.write_levels(Prepared.open(root / "prepare" / scan_id), out / "levels", seed)
        levels[scan_id] = stage.Levels.open(out / "levels" / scan_id)
        click.echo(f"levels of {scan_id}", err=True)
    patients = stage.match_patients(
        [Prepared.open(root / "prepare" / name) for name in levels], list(levels.values()), root / "cohort"
    )
    train(patients, out / "generator", seed=seed, **training)
    library = []
    if len(donors) < len(pairs):
        learned_from = [(prepared, own) for prepared, own, split in patients if split == "train"]
        library = write_statistics(learned_from, out / "statistics")
    for synthetic_id, donor, canvas_id, load_ml in pairs[["synthetic_id", "donor", "canvas", "load_ml"]].to_numpy().tolist():
        canvas = Prepared.open(root / "prepare" / canvas_id)
        pair = root / "register" / f"{donor}_to_{canvas_id}"
        write_transplant(
            synthetic_id, pair, canvas, levels.get(donor, library), out / "transplant", seed=seed, load_ml=float(load_ml)
        )
        filled = levels[canvas_id] if roles.get(canvas_id) == "patient" else None
        stage.write_painted(out / "transplant" / synthetic_id, canvas, filled, out / "generator", out)
        click.echo(f"painted {synthetic_id}", err=True)
    click.echo(f"{len(pairs)} synthetic scans in {out}")


@synthesize.command()
@click.option("--prepared", required=True, type=FOLDER, help="Folder of one prepared scan.")
@SEED
@OUT
def levels(prepared: Path, seed: int, out: Path) -> None:
    """Intensity levels of the hyperintensities, and the scan with them filled."""
    from lesionforge.images import Prepared
    from lesionforge.synthesize.stage import write_levels

    record = write_levels(Prepared.open(prepared), out, seed)
    click.echo(f"{record['id']}: {record['filled_volume_ml']:.1f} ml filled in {out / record['id']}")


@synthesize.command("train-generator")
@click.option("--root", type=FOLDER, default=None, help="Folder with prepare/<id> and levels/<id> of every patient.")
@click.option("--prepared", "prepared_folders", multiple=True, type=FOLDER, help="Prepared folder of a patient; repeat.")
@click.option("--levels", "levels_folders", multiple=True, type=FOLDER, help="Levels folder of a patient; repeat.")
@click.option("--cohort", type=FOLDER, default=None, help="Cohort folder: only its train and validation patients are used.")
@training_options
@OUT
def train_generator(
    root: Path | None,
    prepared_folders: tuple[Path, ...],
    levels_folders: tuple[Path, ...],
    cohort: Path | None,
    out: Path,
    **training: Any,
) -> None:
    """Train the generator on patients: give --root, or --prepared and --levels of each."""
    from lesionforge.images import Prepared
    from lesionforge.synthesize import stage

    if root is not None:
        prepared_folders += tuple(sorted(path for path in root.glob("prepare/*") if path.is_dir()))
        levels_folders += tuple(sorted(path for path in root.glob("levels/*") if path.is_dir()))
    patients = stage.match_patients(
        [Prepared.open(path) for path in prepared_folders], [stage.Levels.open(path) for path in levels_folders], cohort
    )
    card = train(patients, out, **training)
    click.echo(f"generator of {card['parameters']} parameters from {len(patients)} scans in {out}")


@synthesize.command()
@click.option("--prepared", "prepared_folders", multiple=True, required=True, type=FOLDER, help="Prepared folder; repeat.")
@click.option("--levels", "levels_folders", multiple=True, required=True, type=FOLDER, help="Levels folder; repeat.")
@OUT
def statistics(prepared_folders: tuple[Path, ...], levels_folders: tuple[Path, ...], out: Path) -> None:
    """Size, place, T1w and FLAIR profile of the lesions of training patients, for masks of a library."""
    from lesionforge.images import Prepared
    from lesionforge.synthesize import stage
    from lesionforge.synthesize.transplant_folder import write_statistics

    patients = stage.match_patients(
        [Prepared.open(path) for path in prepared_folders], [stage.Levels.open(path) for path in levels_folders], None
    )
    lesions = write_statistics([(prepared, levels) for prepared, levels, _ in patients], out)
    click.echo(f"{len(lesions)} lesions of {len(patients)} patients in {out}")


@synthesize.command()
@click.option("--id", "synthetic_id", required=True, help="Id of the synthetic scan, such as sub-syn0001.")
@click.option("--pair", required=True, type=FOLDER, help="Pair folder of register.")
@click.option("--canvas", required=True, type=FOLDER, help="Prepared folder of the canvas.")
@click.option("--donor-levels", type=FOLDER, default=None, help="Levels folder of the donor.")
@click.option(
    "--statistics", type=FOLDER, default=None, help="For a mask of a library without --draw: the folder that statistics wrote."
)
@click.option("--load-ml", type=FiniteRange(min=0, min_open=True), default=None, help="Lesion load [default: the donor's].")
@click.option("--draw", "draw_file", type=FILE, default=None, help="Repeat this desc-draw.json instead of drawing.")
@SEED
@OUT
def transplant(
    synthetic_id: str,
    pair: Path,
    canvas: Path,
    donor_levels: Path | None,
    statistics: Path | None,
    load_ml: float | None,
    draw_file: Path | None,
    seed: int,
    out: Path,
) -> None:
    """Draw a synthetic scan and place its lesions in the white matter of its canvas."""
    sources = [folder for folder in (donor_levels, statistics) if folder]
    if len(sources) > 1 or not (sources or draw_file):
        raise click.UsageError(
            "--donor-levels or --statistics is needed, and not both; with --draw a library's mask needs neither."
        )
    from lesionforge.images import Prepared
    from lesionforge.synthesize.stage import Levels
    from lesionforge.synthesize.transplant_folder import read_draw, read_statistics, write_transplant

    if not re.fullmatch(r"sub-[A-Za-z0-9]+", synthetic_id):
        raise InputError(f"--id {synthetic_id!r}: is no BIDS subject; use letters and digits after sub-, such as sub-syn0001")
    profiles = read_statistics(statistics) if statistics else []
    record = write_transplant(
        synthetic_id,
        pair,
        Prepared.open(canvas),
        Levels.open(donor_levels) if donor_levels else profiles,
        out,
        seed=seed,
        load_ml=load_ml,
        draw=read_draw(draw_file) if draw_file else None,
    )
    counts = ", ".join(f"{count} {fate}" for fate, count in record["counts"].items())
    click.echo(f"{synthetic_id}: {record['lesion_volume_ml']:.2f} ml of lesions ({counts}) in {out / synthetic_id}")


@synthesize.command()
@click.option("--transplant", "transplant_folder", required=True, type=FOLDER, help="Transplant folder.")
@click.option("--canvas", required=True, type=FOLDER, help="Prepared folder of the canvas.")
@click.option("--canvas-levels", type=FOLDER, default=None, help="Levels folder of the canvas, if it is a patient.")
@click.option("--generator", required=True, type=FOLDER, help="Model folder of train-generator.")
@OUT
def paint(transplant_folder: Path, canvas: Path, canvas_levels: Path | None, generator: Path, out: Path) -> None:
    """Paint transplanted lesions onto their canvas: one prepared folder."""
    from lesionforge.images import Prepared
    from lesionforge.synthesize import stage

    record = stage.write_painted(
        transplant_folder, Prepared.open(canvas), stage.Levels.open(canvas_levels) if canvas_levels else None, generator, out
    )
    click.echo(f"{record['id']}: {record['lesion_volume_ml']:.2f} ml of lesions painted in {out / record['id']}")


def _progress(epochs: int) -> Any:
    def line(row: dict[str, float]) -> None:
        validation = f", validation {row['val_loss']:.4f}" if "val_loss" in row else ""
        click.echo(f"generator epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}{validation}", err=True)

    return line
