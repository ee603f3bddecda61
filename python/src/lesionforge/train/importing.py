"""The command `lesionforge import-nicmslesions`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import CONFIGURATIONS, NETWORKS
from lesionforge.images import new_folder, refuse_loss
from lesionforge.options import FiniteRange
from lesionforge.train.nicmslesions import ARCHITECTURE, import_network, refuse_unlike_a_pair

# Those of the program. It trains CNN2 on what CNN1 finds above 0.5, and segments what it finds above 0.8: here the weights are
# there already, and segmenting decides.
SETTINGS = replace(CONFIGURATIONS[ARCHITECTURE], cnn1_threshold=0.8)

# SHA-256 of the two files of the two-channel baseline that the program ships.
BASELINE = (
    "f4fb53f1a48c842b59ca0cda18c456aad9a0586740aa99bc07f8dc3a1e099528",
    "14250fae1121ed963882cab7fa7145b14dcfe35f2443d7cffe74f89e9054e13e",
)
SOURCE = "nicMSlesions, Valverde et al., NeuroImage: Clinical 2019;21:101638, doi 10.1016/j.nicl.2018.101638"


def provenance(checksums: tuple[str, str]) -> dict[str, object]:
    """What a card says of imported weights: where they come from, their licence, what they were trained on."""
    if checksums == BASELINE:
        licence = "GPL-3.0, that of the weights"
        training = ["the baseline of nicMSlesions: 35 T1w and FLAIR scans of MICCAI2008 and MICCAI2016, 1 mm"]
    else:
        licence = "GPL-3.0, where the weights were made from those that nicMSlesions ships"
        training = ["not known: these are not the weights of the baseline of nicMSlesions"]
    return {"source": SOURCE, "source_checksums": list(checksums), "licence": licence, "training": training}


@click.command(help="Turn your own copy of the nicMSlesions weights for T1 and FLAIR into the model folder OUT.")
@click.argument("model_1", metavar="MODEL_1.hdf5", type=click.Path(path_type=Path))
@click.argument("model_2", metavar="MODEL_2.hdf5", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--voxel-mm",
    type=FiniteRange(0.5, 4),
    default=1.0,
    show_default=True,
    help="Voxel size of the scans that the weights were trained on.",
)
def import_nicmslesions(model_1: Path, model_2: Path, out: Path, voxel_mm: float) -> None:
    """Read both files, check that they are a pair, save the model folder."""
    refuse_loss(out, model_1, model_2, own=nets.MODEL_FILES)
    nets.set_up(seed=0)
    paths = (model_1, model_2)
    pair = (import_network(model_1), import_network(model_2))
    refuse_unlike_a_pair(paths, pair)
    models = {name: one.network for name, one in zip(NETWORKS, pair, strict=True)}
    card = cascade_entries(SETTINGS, voxel_mm) | provenance((pair[0].checksum, pair[1].checksum))
    with new_folder(out, own=nets.MODEL_FILES) as folder:
        nets.save_models(folder, models, card)
    click.echo(f"both networks of nicMSlesions imported (weights under {card['licence']}) -> {out}")
