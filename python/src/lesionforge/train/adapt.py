"""One-shot adaptation: training goes on from a model folder, in its last fully connected layers or in all.

Valverde et al., NeuroImage: Clinical 2019;21:101638.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionforge.cascade.card import contrasts_of, read_cascade_card
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.train.loading import load_cascade
from lesionforge.train.network import is_dense
from lesionforge.train.sampling import LabelledScan

if TYPE_CHECKING:
    import keras

# Published: below this many samples so many fully connected blocks are retrained, else all three.
BLOCKS_BELOW = {10_000: 1, 100_000: 2}
ALL_BLOCKS = 3
RETRAIN = ("last", "all")
# What the card of an adapted model keeps of the one it comes from.
KEPT_OF_CARD = ("arm", "checksums", "derived_from", "init", "source", "source_checksums", "training", "validation")


@dataclass(frozen=True)
class Initial:
    """A model folder to start from: its checked card, settings and voxel size, and what is retrained ("last" or "all")."""

    folder: Path
    card: dict[str, Any]
    config: CascadeConfig
    voxel_mm: float
    retrain: str

    @classmethod
    def open(cls, folder: Path, retrain: str) -> Initial:
        """Raises InputError as `read_cascade_card` does."""
        return cls(folder, *read_cascade_card(folder), retrain)

    def networks(self, samples: int) -> dict[str, keras.Model]:
        """Its networks by name, ready to be compiled, with what is not retrained frozen; raises InputError as `load_cascade`."""
        networks = load_cascade(self.folder, self.config, contrasts_of(self.card))
        for network in networks.values():
            retrain_last(network, blocks_to_retrain(samples) if self.retrain == "last" else None)
        return networks

    def card_entries(self, samples: int) -> dict[str, Any]:
        """What the card of the adapted model says of where it comes from; a licence is handed on."""
        init = {name: self.card[name] for name in KEPT_OF_CARD if name in self.card}
        init |= {"model": self.folder.resolve().name, "retrained": self.retrain, "samples": samples}
        licence = {"licence": self.card["licence"]} if "licence" in self.card else {}
        return {"init": init, **licence}


def sample_count(scans: list[LabelledScan], negatives_per_lesion: int) -> int:
    """Samples of the published training set of these scans: all lesion voxels, and so many others for each."""
    return (1 + negatives_per_lesion) * sum(len(scan.lesion) for scan in scans)


def blocks_to_retrain(samples: int) -> int:
    """The published rule: 1 block of fully connected layers below 10,000 samples, 2 below 100,000, else 3."""
    return next((blocks for below, blocks in BLOCKS_BELOW.items() if samples < below), ALL_BLOCKS)


def retrain_last(network: keras.Model, blocks: int | None) -> None:
    """Freeze all layers before the last `blocks` fully connected blocks, or none; call it before the network is compiled.

    A block is a dense layer before the output and what follows it up to the next; the output layer is always trained
    along. A network with fewer blocks is trained in all of them. Frozen batch normalisation stays as in inference.
    """
    from keras import layers

    first = 0
    if blocks:
        # The network dense has no fully connected layers: its last resolution, after the last addition, stands in for them.
        kind = layers.Add if is_dense(network) else layers.Dense
        ends = [place for place, layer in enumerate(network.layers) if isinstance(layer, kind)]
        first = ends[-1] if is_dense(network) else ends[:-1][-blocks:][0]
    # One by one: of a network that was loaded, Keras hands the setting of the whole on to none.
    for place, layer in enumerate(network.layers):
        layer.trainable = place >= first
