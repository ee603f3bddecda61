"""The command `lesionforge train`."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import click
import numpy as np

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import Architecture, CascadeConfig
from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    find_images,
    new_folder,
    read_record,
    read_tsv,
    refuse_loss,
    write_tsv,
)
from lesionforge.nets.settings import fits, limits_of
from lesionforge.train.adapt import RETRAIN, Initial, sample_count
from lesionforge.train.fit import train_cascade
from lesionforge.train.network import ARCHITECTURES
from lesionforge.train.sampling import LabelledScan, label_scan

HISTORY_COLUMNS = {
    "network": "cnn1 or cnn2",
    "epoch": "epoch, from 1",
    "loss": "mean cross-entropy over the epoch's training patches",
    "val_loss": "mean cross-entropy over the validation subjects' voxels, both classes weighing half; n/a without them",
}
DEFAULTS = CascadeConfig()


EPOCHS, SAMPLES = (limits_of(CascadeConfig, name) for name in ("epochs", "samples_per_epoch"))


def read_scan(folder: Path, config: CascadeConfig) -> tuple[LabelledScan, float]:
    """One scan of an index and its voxel size in mm; raises InputError when it has no lesion mask or an empty brain."""
    prepared = Prepared.open(folder)
    if prepared.lesion is None:
        raise InputError(f"{folder}: holds no lesion mask; remove the scan from the index")
    scan = prepared.read()
    if not scan.brain.any():
        raise InputError(f"{prepared.brain}: is empty; prepare the scan again")
    return label_scan(prepared.scan_id, scan, config), round(float(np.linalg.norm(scan.affine[:3, 0])), 3)


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


def read_index(index: Path, config: CascadeConfig) -> tuple[dict[str, list[LabelledScan]], float, list[str]]:
    """The labelled scans of an arm's table by split (train, validation), their voxel size in mm, and what they were made of.

    The last are the ids of `sources_of`, sorted. Raises InputError when the table is not one of assemble's, has no training
    scan, or mixes voxel sizes.
    """
    table = read_tsv(index)
    missing = {"id", "split", "folder"} - set(table.columns)
    if missing:
        raise InputError(f"{index}: has no column {', '.join(sorted(missing))}; write it with lesionforge assemble")
    scans: dict[str, list[LabelledScan]] = {"train": [], "validation": []}
    sizes = {}
    sources: set[str] = set()
    for row in table.to_dict("records"):
        if row["split"] not in scans:
            raise InputError(f"{index}: {row['id']} is in split {row['split']!r}, not train or validation; remove the row")
        scan, sizes[row["id"]] = read_scan(index.parent / row["folder"], config)
        scans[row["split"]].append(scan)
        sources.update(sources_of(index.parent / row["folder"]))
    if not scans["train"]:
        raise InputError(f"{index}: has no training scan; give at least one")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{scan_id} {size:g} mm" for scan_id, size in sizes.items())
        raise InputError(f"{index}: its scans have different voxel sizes ({listed}); prepare all with one --voxel-mm")
    return scans, next(iter(sizes.values())), sorted(sources)


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


@click.command(help="Train the two networks of the cascade on one arm's table.")
@click.option("--index", required=True, type=click.Path(path_type=Path), help="Table that lesionforge assemble wrote.")
@click.option(
    "--network",
    type=click.Choice(list(ARCHITECTURES)),
    help=f"The layers of both networks [default: {DEFAULTS.network}, or those of --init].",
)
@click.option("--init", type=click.Path(path_type=Path), help="Model folder whose networks and settings are the start.")
@click.option("--retrain", type=click.Choice(RETRAIN), help="Of --init: its last fully connected layers, or all [default: last].")
@click.option("--epochs", type=click.IntRange(*EPOCHS), default=DEFAULTS.epochs, show_default=True, help="At most, a network.")
@click.option(
    "--samples-per-epoch",
    type=click.IntRange(*SAMPLES),
    default=DEFAULTS.samples_per_epoch,
    show_default=True,
    help="Patches in an epoch, half of them lesion.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
def train(
    index: Path,
    network: Architecture | None,
    init: Path | None,
    retrain: str | None,
    epochs: int,
    samples_per_epoch: int,
    seed: int,
    out: Path,
) -> None:
    """Read the arm, train, save the model folder."""
    import pandas as pd

    refuse_loss(out, index, init, own=nets.MODEL_FILES)
    initial = initial_model(init, retrain, network)
    config = initial.config if initial else replace(DEFAULTS, network=network or DEFAULTS.network)
    config = replace(config, epochs=epochs, samples_per_epoch=samples_per_epoch)
    scans, voxel_mm, sources = read_index(index, config)
    card = cascade_entries(config, voxel_mm)
    nets.set_up(seed)
    begin = None
    if initial:
        if abs(initial.voxel_mm - voxel_mm) > 0.01:
            raise InputError(
                f"{index}: its scans have voxels of {voxel_mm:g} mm, but {init} is for {initial.voxel_mm:g} mm; "
                f"prepare them with --voxel-mm {initial.voxel_mm:g}"
            )
        samples = sample_count(scans["train"])
        begin = initial.networks(samples).__getitem__
        card |= initial.card_entries(samples)
    models, history = train_cascade(scans["train"], scans["validation"], config, seed, partial(click.echo, err=True), begin)
    card |= {
        "arm": index.stem,
        "seed": seed,
        "training": [scan.scan_id for scan in scans["train"]],
        "validation": [scan.scan_id for scan in scans["validation"]],
        "derived_from": sources,
    }
    with new_folder(out, own=nets.MODEL_FILES) as folder:
        nets.save_models(folder, models, card)
        write_tsv(pd.DataFrame([asdict(row) for row in history]), folder / "history.tsv", HISTORY_COLUMNS)
    last = history[-1]
    click.echo(f"cascade trained on {len(scans['train'])} scans, last loss {last.loss:.4f} -> {out}")
