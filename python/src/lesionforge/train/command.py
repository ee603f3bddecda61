"""The command `lesionforge train`."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries, contrasts_of
from lesionforge.cascade.settings import CONFIGURATIONS, CascadeConfig
from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    find_images,
    new_folder,
    read_record,
    read_tsv,
    refuse_loss,
    scan_labels,
    scratch_folder,
    write_tsv,
)
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.images.names import subjects_of
from lesionforge.nets.checkpoint import refuse_inside
from lesionforge.nets.curves import write_curves
from lesionforge.nets.devices import find_device, on_one_device
from lesionforge.nets.settings import fits, limits_of
from lesionforge.options import CHECKPOINT, DEVICE, FiniteRange
from lesionforge.train.adapt import RETRAIN, Initial, sample_count
from lesionforge.train.fit import train_cascade
from lesionforge.train.network import ARCHITECTURES
from lesionforge.train.sampling import LabelledScan, label_scan, stored_scan

HISTORY_COLUMNS = {
    "network": "cnn1 or cnn2",
    "epoch": "epoch, from 1",
    "loss": "mean over the steps of the epoch: cross-entropy, of the network dense plus one minus the soft Dice of its blocks",
    "val_loss": "the same of the validation subjects' voxels, both classes weighing half, or blocks; n/a without them",
}
DEFAULT = "lesionforge"

EPOCHS, STEPS, WEIGHT = (limits_of(CascadeConfig, name) for name in ("epochs", "steps_per_epoch", "synthetic_weight"))


def read_scan(folder: Path, config: CascadeConfig, contrasts: Sequence[str], weight: float) -> tuple[LabelledScan, float]:
    """One scan of an index and its voxel size in mm; raises InputError when it has no lesion mask or an empty brain."""
    prepared = Prepared.open(folder)
    if prepared.lesion is None:
        raise InputError(f"{folder}: holds no lesion mask; remove the scan from the index")
    prepared.refuse_lacking(contrasts)
    scan = prepared.read()
    if not scan.brain.any():
        raise InputError(f"{prepared.brain}: is empty; prepare the scan again")
    labelled = label_scan(prepared.scan_id, scan, config, contrasts, weight)
    return labelled, round(voxel_side_mm(scan.affine), 3)


def sources_of(folder: Path) -> list[str]:
    """The scans that a synthetic scan is made of: donor, canvas and what its generator learned from; none for a real scan.

    Raises InputError when its provenance does not name them.
    """
    paths = find_images(folder, "desc-provenance.json")
    if not paths:
        return []
    record = read_record(paths[0], "donor", "canvas")
    learned_from = record.get("generator_scans", [])
    if not fits([record["donor"], record["canvas"]], tuple[str]) or not fits(learned_from, tuple[str]):
        raise InputError(f"{paths[0]}: names no scans as donor and canvas; make the scan again with lesionforge synthesize paint")
    return [record["donor"], record["canvas"], *learned_from]


def made_of(folder: Path, row: dict[str, str], held_out: Set[str]) -> list[str]:
    """`sources_of` the scan of an index's row.

    Raises InputError when a made scan names none, or a training scan has a donor or canvas of the validation subjects `held_out`
    (labels in lower case), a mask of a library among them.
    """
    sources = sources_of(folder)
    if row["origin"] != "real" and not sources:
        raise InputError(f"{folder}: is not of a real scan, but has no *_desc-provenance.json; make the scan again")
    seen = [scan for scan in sources[:2] if held_out & set(subjects_of(scan))]
    if seen and row["split"] == "train":
        raise InputError(f"{folder}: is made of {seen[0]}, a scan of a validation subject; take its row out of the index")
    return sources


@dataclass(frozen=True)
class Arm:
    """What an index names: labelled scans by split (train, validation), their contrasts and voxel size in mm.

    `sources` are the ids, sorted, of what its synthetic scans were made of.
    """

    scans: dict[str, list[LabelledScan]]
    contrasts: tuple[str, ...]
    voxel_mm: float
    sources: list[str]


def read_rows(index: Path) -> list[dict[str, str]]:
    """The rows of an arm's table, of real scans where it has no column origin.

    Raises InputError when it is not one of assemble's or has no training scan.
    """
    table = read_tsv(index)
    missing = {"id", "split", "folder"} - set(table.columns)
    if missing:
        raise InputError(f"{index}: has no column {', '.join(sorted(missing))}; write it with lesionforge assemble")
    rows = [{"origin": "real"} | {str(name): str(cell) for name, cell in row.items()} for row in table.to_dict("records")]
    split_of: dict[str, str] = {}
    ids: set[str] = set()
    for row in rows:
        subject, _ = scan_labels(row["id"])
        if row["id"] in ids:
            raise InputError(f"{index}: holds {row['id']} twice; remove one of the rows")
        ids.add(row["id"])
        if row["split"] not in ("train", "validation"):
            raise InputError(f"{index}: {row['id']} is in split {row['split']!r}, not train or validation; remove the row")
        if split_of.setdefault(subject, row["split"]) != row["split"]:
            raise InputError(f"{index}: sub-{subject} is in train and in validation; put all scans of a subject into one split")
    if not any(row["split"] == "train" for row in rows):
        raise InputError(f"{index}: has no training scan; give at least one")
    return rows


def read_arm(index: Path, config: CascadeConfig, initial: Initial | None, scratch: Path) -> Arm:
    """The arm of a table, its scans in files of the folder `scratch`, one read at a time.

    Contrasts are those of the model to start from, without one those of the first scan. Raises InputError when the table is not
    one of assemble's, has no training scan, or mixes voxel sizes, when a scan has other voxels than that model, and when
    a scan lacks a contrast or has other faults that `read_scan` finds.
    """
    rows = read_rows(index)
    contrasts = contrasts_of(initial.card) if initial else Prepared.open(index.parent / rows[0]["folder"]).contrasts
    scans: dict[str, list[LabelledScan]] = {"train": [], "validation": []}
    sizes = {}
    sources: set[str] = set()
    held_out = {scan_labels(row["id"])[0].lower() for row in rows if row["split"] == "validation" and row["origin"] == "real"}
    for row in rows:
        folder = index.parent / row["folder"]
        weight = config.synthetic_weight if row["origin"] != "real" else 1.0
        scan, sizes[row["id"]] = read_scan(folder, config, contrasts, weight)
        if initial and abs(initial.voxel_mm - sizes[row["id"]]) > 0.01:
            raise InputError(
                f"{index}: its scans have voxels of {sizes[row['id']]:g} mm, but {initial.folder} is for "
                f"{initial.voxel_mm:g} mm; prepare them with --voxel-mm {initial.voxel_mm:g}"
            )
        scans[row["split"]].append(stored_scan(scan, scratch / row["id"]))
        sources.update(made_of(folder, row, held_out))
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{scan_id} {size:g} mm" for scan_id, size in sizes.items())
        raise InputError(f"{index}: its scans have different voxel sizes ({listed}); prepare all with one --voxel-mm")
    return Arm(scans, contrasts, next(iter(sizes.values())), sorted(sources))


def initial_model(init: Path | None, retrain: str | None, network: str | None) -> Initial | None:
    """The model to start from, if one is given; raises InputError for options that do not go with it."""
    if init is None:
        if retrain:
            raise InputError(f"--retrain {retrain}: belongs to --init; give the model folder to start from, or leave it out")
        return None
    initial = Initial.open(init, retrain or RETRAIN[0])
    if network and network != initial.config.network:
        raise InputError(f"--network {network}: {init} holds networks {initial.config.network}; leave --network out")
    return initial


def chosen_config(
    initial: Initial | None, configuration: str | None, changes: dict[str, Any], steps_of: str | None = None
) -> CascadeConfig:
    """The settings of a training: those of the model to start from or of the named configuration, with what is not None changed.

    A network named alone brings the settings of its own configuration; epochs and steps per epoch are those of `steps_of` where
    that names another one. Raises InputError for a configuration together with a model to start from, or with a network that does
    not work on what it draws, blocks or patches, and for more steps than an epoch has samples.
    """
    if initial and configuration:
        raise InputError(f"--configuration {configuration}: {initial.folder} has settings of its own; leave --configuration out")
    network = changes["network"]
    fitting = {config.network: name for name, config in CONFIGURATIONS.items()}
    config = initial.config if initial else CONFIGURATIONS[configuration or fitting.get(network, DEFAULT)]
    if network and (network == "dense") != config.in_blocks:
        drawn = "blocks" if config.in_blocks else "patches"
        raise InputError(
            f"--network {network}: --configuration {configuration} draws {drawn}, which it does not take; leave one out"
        )
    pace = CONFIGURATIONS[steps_of] if steps_of else config
    steps = {"epochs": pace.epochs, "steps_per_epoch": pace.steps_per_epoch}
    try:
        return replace(config, **steps | {name: value for name, value in changes.items() if value is not None})
    except ValueError as error:
        raise InputError(f"--steps-per-epoch {changes['steps_per_epoch']}: {error}; give another number") from error


@click.command(help="Train the two networks of the cascade on one arm's table.")
@click.option("--index", required=True, type=click.Path(path_type=Path), help="Table that lesionforge assemble wrote.")
@click.option(
    "--configuration",
    type=click.Choice(list(CONFIGURATIONS)),
    help="Network, sampling, thresholds and optimiser: ours, or as Valverde et al. published them in 2017 or in their program "
    f"nicMSlesions [default: {DEFAULT}].",
)
@click.option(
    "--network",
    type=click.Choice(list(ARCHITECTURES)),
    help="The layers of both networks [default: that of the configuration or of --init].",
)
@click.option("--init", type=click.Path(path_type=Path), help="Model folder whose networks and settings are the start.")
@click.option("--retrain", type=click.Choice(RETRAIN), help="Of --init: its last layers, or all [default: last].")
@click.option(
    "--steps-of",
    type=click.Choice(list(CONFIGURATIONS)),
    help="As many epochs and steps as in this configuration, to be compared with it [default: the own].",
)
@click.option("--epochs", type=click.IntRange(*EPOCHS), help="At most, a network [default: as configured].")
@click.option("--steps-per-epoch", type=click.IntRange(*STEPS), help="Of the optimiser [default: as configured].")
@click.option(
    "--synthetic-weight",
    type=FiniteRange(*WEIGHT, min_open=True),
    help="How often made scans are drawn, against 1 for real ones: of blocks the scans, of patches their voxels [default: 1].",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True)
@DEVICE
@CHECKPOINT
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
def train(
    index: Path,
    configuration: str | None,
    init: Path | None,
    retrain: str | None,
    steps_of: str | None,
    seed: int,
    device: str,
    checkpoint: Path | None,
    out: Path,
    **changes: Any,
) -> None:
    """Read the arm, train, save the model folder."""
    import pandas as pd

    refuse_loss(out, index, init, own=nets.MODEL_FILES)
    initial = initial_model(init, retrain, changes["network"])
    config = chosen_config(initial, configuration, changes, steps_of)
    refuse_inside(checkpoint, out)
    say = partial(click.echo, err=True)
    nets.set_up(seed)
    found = find_device(device).sharing(config.batch_size)
    with scratch_folder(out.absolute().with_name(f".{out.name}.scans")) as scratch:
        arm = read_arm(index, config, initial, scratch)
        training = arm.scans["train"]
        card = cascade_entries(config, arm.voxel_mm, arm.contrasts)
        found.say(training=True)
        begin = start = None
        if initial:
            samples = sample_count(training, config.negatives_per_lesion)
            with on_one_device(found):
                begin = initial.networks(samples).__getitem__
            card |= initial.card_entries(samples)
            start = {"checksums": initial.card["checksums"], "retrain": initial.retrain}
        models, history = train_cascade(
            training,
            arm.scans["validation"],
            config,
            seed,
            say,
            begin,
            arm.contrasts,
            device=found,
            checkpoint=checkpoint,
            start=start,
        )
    card |= {
        "arm": index.stem,
        "seed": seed,
        "training": [scan.scan_id for scan in training],
        "validation": [scan.scan_id for scan in arm.scans["validation"]],
        "derived_from": arm.sources,
    }
    with new_folder(out, own=nets.MODEL_FILES) as folder:
        nets.save_models(folder, models, card)
        write_tsv(pd.DataFrame([asdict(row) for row in history]), folder / "history.tsv", HISTORY_COLUMNS)
        write_curves(folder)
    last = history[-1]
    click.echo(f"cascade trained on {len(training)} scans, last loss {last.loss:.4f} -> {out}")
