"""The command `lesionforge train`."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import click
import numpy as np

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.images import Prepared, new_folder, read_tsv, refuse_foreign_folder, write_tsv
from lesionforge.train.fit import train_cascade
from lesionforge.train.network import CONTRASTS, CascadeConfig
from lesionforge.train.sampling import LabelledScan, label_scan

HISTORY_COLUMNS = {
    "network": "cnn1 or cnn2",
    "epoch": "epoch, from 1",
    "loss": "mean cross-entropy over the epoch's training patches",
    "val_loss": "mean cross-entropy over the validation subjects' voxels, both classes weighing half; n/a without them",
}
DEFAULTS = CascadeConfig()


def read_scan(folder: Path, config: CascadeConfig) -> tuple[LabelledScan, float]:
    """One scan of an index and its voxel size in mm; raises InputError when it has no lesion mask or an empty brain."""
    prepared = Prepared.open(folder)
    if prepared.lesion is None:
        raise InputError(f"{folder}: holds no lesion mask; remove the scan from the index")
    scan = prepared.read()
    if not scan.brain.any():
        raise InputError(f"{prepared.brain}: is empty; prepare the scan again")
    return label_scan(prepared.scan_id, scan, config), round(float(np.linalg.norm(scan.affine[:3, 0])), 3)


def read_index(index: Path, config: CascadeConfig) -> tuple[dict[str, list[LabelledScan]], float]:
    """The labelled scans of an arm's table by split (train, validation), and their common voxel size in mm.

    Raises InputError when the table is not one of assemble's, has no training scan, or mixes voxel sizes.
    """
    table = read_tsv(index)
    missing = {"id", "split", "folder"} - set(table.columns)
    if missing:
        raise InputError(f"{index}: has no column {', '.join(sorted(missing))}; write it with lesionforge assemble")
    scans: dict[str, list[LabelledScan]] = {"train": [], "validation": []}
    sizes = {}
    for row in table.to_dict("records"):
        if row["split"] not in scans:
            raise InputError(f"{index}: {row['id']} is in split {row['split']!r}, not train or validation; remove the row")
        scan, sizes[row["id"]] = read_scan(index.parent / row["folder"], config)
        scans[row["split"]].append(scan)
    if not scans["train"]:
        raise InputError(f"{index}: has no training scan; give at least one")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{scan_id} {size:g} mm" for scan_id, size in sizes.items())
        raise InputError(f"{index}: its scans have different voxel sizes ({listed}); prepare all with one --voxel-mm")
    return scans, next(iter(sizes.values()))


@click.command(help="Train the two networks of the cascade on one arm's table.")
@click.option("--index", required=True, type=click.Path(path_type=Path), help="Table that lesionforge assemble wrote.")
@click.option("--epochs", type=click.IntRange(min=1), default=DEFAULTS.epochs, show_default=True, help="At most, a network.")
@click.option(
    "--samples-per-epoch",
    type=click.IntRange(min=2),
    default=DEFAULTS.samples_per_epoch,
    show_default=True,
    help="Patches in an epoch, half of them lesion.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
def train(index: Path, epochs: int, samples_per_epoch: int, seed: int, out: Path) -> None:
    """Read the arm, train, save the model folder."""
    import pandas as pd

    refuse_foreign_folder(out, nets.CARD)
    config = replace(DEFAULTS, epochs=epochs, samples_per_epoch=samples_per_epoch)
    scans, voxel_mm = read_index(index, config)
    nets.set_up(seed)
    models, history = train_cascade(scans["train"], scans["validation"], config, seed, partial(click.echo, err=True))
    card = {
        "kind": "cascade",
        "contrasts": list(CONTRASTS),
        "normalisation": "z-score inside the brain mask, 0 outside",
        "voxel_mm": voxel_mm,
        "arm": index.stem,
        "seed": seed,
        "parameters": asdict(config),
        "training": [scan.scan_id for scan in scans["train"]],
        "validation": [scan.scan_id for scan in scans["validation"]],
    }
    with new_folder(out) as folder:
        nets.save_models(folder, models, card)
        write_tsv(pd.DataFrame([asdict(row) for row in history]), folder / "history.tsv", HISTORY_COLUMNS)
    last = history[-1]
    click.echo(f"cascade trained on {len(scans['train'])} scans, last loss {last.loss:.4f} -> {out}")
