"""Networks: backend set-up, devices, seeds, saving with a card and checksums."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionforge import __version__
from lesionforge.errors import InputError
from lesionforge.images import checksum, naming, read_json, write_json

if TYPE_CHECKING:
    import keras

CARD = "model.json"
BACKENDS = ("tensorflow", "jax", "torch")
# The networks of each kind of model folder.
NETWORKS_OF = {"generator": ("generator",), "cascade": ("cnn1", "cnn2")}
MODEL_FILES = (
    CARD,
    "history.tsv",
    "history.json",
    "history.png",
    *(f"{name}.keras" for names in NETWORKS_OF.values() for name in names),
)
"""All that a model folder may hold."""


def set_up(seed: int) -> None:
    """Seed Python, numpy and the Keras backend; with --reproducible also make every operation of TensorFlow deterministic.

    Must be called once, before the first network is built. GPU memory grows as needed, so that one GPU can be shared. Of jax and
    torch nothing is asked with --reproducible but what `devices.find_device` sees to, the CPU: TensorFlow alone vouches for more.
    """
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        if os.environ.get("LESIONFORGE_REPRODUCIBLE"):
            tf.config.experimental.enable_op_determinism()


def versions() -> dict[str, str]:
    """Versions of lesionforge and of the libraries that shape its results; of Keras' backends those that are installed."""
    names = ["antspyx", "keras", "nibabel", "nipype", "numpy", *(name for name in BACKENDS if find_spec(name))]
    return {"lesionforge": __version__, "python": platform.python_version()} | {name: metadata.version(name) for name in names}


def save_models(folder: Path, models: dict[str, keras.Model], card: dict[str, Any]) -> None:
    """Write each network as `<name>.keras` and the card `model.json` with their checksums into an existing folder.

    What training added to a network, its optimizer and its loss, is left out: any Keras loads the file, without our code.
    Raises InputError when a weight is NaN or infinite.
    """
    for name, model in models.items():
        refuse_infinite(model, f"{name}: its training")
        with naming(folder / f"{name}.keras"):
            bare = type(model).from_config(model.get_config())
            bare.set_weights(model.get_weights())
            bare.save(folder / f"{name}.keras")
    sums = {f"{name}.keras": checksum(folder / f"{name}.keras") for name in models}
    write_json(card | {"checksums": sums, "versions": versions()}, folder / CARD)


def read_card(folder: str | Path, kind: str) -> dict[str, Any]:
    """Read and check the card of a model folder of the given kind ("generator" or "cascade").

    Raises InputError when the card is missing, is of another kind, or a file is missing or changed since it was written.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise InputError(f"{folder}: is no model folder (no {CARD} in it); give a folder that lesionforge wrote")
    card: dict[str, Any] = read_json(folder / CARD)
    found = card.get("kind") if isinstance(card, dict) else None
    if found != kind:
        raise InputError(f"{folder}: holds a {found}, not a {kind}; give the other folder")
    checksums = card.get("checksums")
    if not isinstance(checksums, dict) or set(checksums) != {f"{name}.keras" for name in NETWORKS_OF[kind]}:
        raise InputError(f"{folder / CARD}: lacks the checksums of its networks; copy the whole model folder again")
    for name, wanted in checksums.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: is missing; copy the whole model folder again")
        if checksum(folder / name) != wanted:
            raise InputError(f"{folder / name}: was changed since the model was saved (checksum differs); copy the model again")
    return card


def load_model(folder: str | Path, name: str) -> keras.Model:
    """Load one network of a model folder; no code from the file is executed. Check the folder with `read_card` first.

    Raises InputError when it cannot be loaded, and when a weight is NaN or infinite.
    """
    import keras

    path = Path(folder) / f"{name}.keras"
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    # What is damaged in the archive decides which of many errors Keras, zipfile, json or HDF5 raises.
    except Exception as error:
        raise InputError(f"{path}: is no network that Keras can load ({type(error).__name__}); copy the model again") from error
    refuse_infinite(network, f"{path}: its training")
    return network


def is_finite(network: keras.Model) -> bool:
    """Whether no weight of a network is NaN or infinite."""
    return all(np.isfinite(weight).all() for weight in network.get_weights())


def refuse_infinite(network: keras.Model, what: str) -> None:
    """Raise InputError when a weight of a network is NaN or infinite: it finds nothing. `what` begins the sentence."""
    if not is_finite(network):
        raise InputError(f"{what} ended in weights that are NaN or infinite; train it again or give another model")
