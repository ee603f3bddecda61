"""Weights of the nicMSlesions program: from its Keras 2 files (HDF5) into our network of that name.

A file holds one group per layer, at its top or, where the whole network was saved, in `model_weights`. Convolution kernels
are [x, y, z, in, out] as in Keras today; under Theano, which the file's attribute `backend` tells, they were convolved with
and not correlated, and are flipped along x, y and z. The program computes channel-first, so that the slopes of the
convolutions' PReLU are [channel, x, y, z], and the rows of the first dense kernel count the flattened [channel, x, y, z].
All this is brought into Keras' order of today while it is read, so that our network has no step for it and is laid out like
any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lesionforge.cascade.settings import Architecture
from lesionforge.errors import InputError
from lesionforge.images import checksum
from lesionforge.train.network import build_network

if TYPE_CHECKING:
    import h5py
    import keras

ARCHITECTURE: Architecture = "nicmslesions"
FLATTENED = (64, 2, 2, 2)
"""Channel, x, y, z of what goes into the first dense layer, d1."""
LARGEST_WEIGHT = 1e6
"""Trained weights are of the order of 1; with this much larger ones every probability is 0, 1 or NaN."""
BACKENDS = ("tensorflow", "theano")
"""Of Keras, which trained the weights: what a file may name as its `backend`. One that names none is read as the first."""
REMEDY = "give a file of weights that nicMSlesions saved for T1 and FLAIR"


@dataclass(frozen=True)
class Imported:
    """A network with the weights of a file, the file's SHA-256, and which flatten layer of its program's run it held, if told."""

    network: keras.Model
    checksum: str
    number: int | None


def import_network(path: Path) -> Imported:
    """Our network with the weights of one file of nicMSlesions; contrasts T1w, FLAIR in this order.

    Reads numbers only: neither code nor the network's own description is taken from the file. Raises InputError when it is
    missing, no HDF5, of another backend of Keras than BACKENDS, has other layers or shapes, or values that are no weights.
    """
    network = build_network(ARCHITECTURE)
    expected = {layer.name: {weight.name: _shape_in_file(weight.shape) for weight in layer.weights} for layer in network.layers}
    expected = {layer: shapes for layer, shapes in expected.items() if shapes}
    stored, number = read_layers(path, expected)
    for layer, weights in stored.items():
        ordered = [_to_channel_last(layer, weights[weight.name]) for weight in network.get_layer(layer).weights]
        network.get_layer(layer).set_weights(ordered)
    return Imported(network, checksum(path), number)


def refuse_unlike_a_pair(paths: tuple[Path, Path], pair: tuple[Imported, Imported]) -> None:
    """Raise InputError when the two files hold the same network, or tell by the numbers of their layers that they are swapped.

    Keras numbers layers without a name as they are made, and the program makes the first network of the cascade first.
    """
    if all(np.array_equal(a, b) for a, b in zip(*(one.network.get_weights() for one in pair), strict=True)):
        raise InputError(f"{paths[1]}: holds the same network as {paths[0]}; give the second network of the cascade")
    numbers = [one.number for one in pair]
    if None not in numbers and numbers[0] > numbers[1]:  # type: ignore[operator]
        raise InputError(
            f"{paths[0]}: is the second network of the cascade and {paths[1]} the first; give them the other way round"
        )


def read_layers(
    path: Path, expected: dict[str, dict[str, tuple[int, ...]]]
) -> tuple[dict[str, dict[str, np.ndarray]], int | None]:
    """(arrays by layer and weight, number of the flatten layer) of a file that holds exactly the expected layers.

    Arrays are as stored, but for kernels of Theano, which are flipped. Raises InputError as `import_network` says.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        with h5py.File(path, "r") as file:
            backend = _backend(path, file)
            found = _datasets(file)
            _refuse_other_layers(path, found, expected)
            arrays = {layer: {name: found[layer][name][()] for name in shapes} for layer, shapes in expected.items()}
            number = _flatten_number(file)
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({type(error).__name__}); {REMEDY}") from error
    for layer, weights in arrays.items():
        for name, array in weights.items():
            if not np.isfinite(array).all() or (name == "moving_variance" and array.min() < 0):
                raise InputError(f"{path}: {layer}/{name} holds numbers that are no weights, such as NaN; copy the file again")
            if np.abs(array).max(initial=0) > LARGEST_WEIGHT:
                raise InputError(
                    f"{path}: {layer}/{name} holds {np.abs(array).max():g}, but trained weights are of the order of 1, at most "
                    f"{LARGEST_WEIGHT:g}; copy the file again"
                )
    if backend == "theano":
        arrays = {layer: {name: _flipped(array) for name, array in weights.items()} for layer, weights in arrays.items()}
    return arrays, number


def _backend(path: Path, file: h5py.File) -> str:
    """What of BACKENDS trained the weights; raises InputError when the file names something else."""
    named = file.get("model_weights", file).attrs.get("backend", file.attrs.get("backend", BACKENDS[0]))
    backend = named.decode(errors="replace") if isinstance(named, bytes) else str(named)
    if backend not in BACKENDS:
        raise InputError(f"{path}: was saved under the backend {backend!r} of Keras, not {' or '.join(BACKENDS)}; {REMEDY}")
    return backend


def _datasets(file: h5py.File) -> dict[str, dict[str, h5py.Dataset]]:
    """The arrays of a file by layer and weight; links to elsewhere are not followed."""
    import h5py

    found: dict[str, dict[str, h5py.Dataset]] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        *groups, weight = name.removeprefix("model_weights/").split("/")
        if isinstance(item, h5py.Dataset) and groups and groups[0] != "optimizer_weights":
            found.setdefault(groups[0], {})[weight.removesuffix(":0")] = item

    file.visititems(visit)
    return found


def _refuse_other_layers(
    path: Path, found: dict[str, dict[str, h5py.Dataset]], expected: dict[str, dict[str, tuple[int, ...]]]
) -> None:
    if lacking := [layer for layer in expected if layer not in found]:
        raise InputError(f"{path}: lacks {_listed(lacking)} of the layers of nicMSlesions; {REMEDY}")
    if foreign := [layer for layer in found if layer not in expected]:
        raise InputError(f"{path}: holds {_listed(foreign)}, which is no layer of nicMSlesions; {REMEDY}")
    for layer, shapes in expected.items():
        if set(found[layer]) != set(shapes):
            raise InputError(f"{path}: {layer} holds {_listed(sorted(found[layer]))}, not {_listed(sorted(shapes))}; {REMEDY}")
        for name, shape in shapes.items():
            stored = found[layer][name]
            if stored.is_virtual or stored.external:
                raise InputError(f"{path}: {layer}/{name} takes its numbers from another file; {REMEDY}")
            if stored.shape != shape or stored.dtype.kind != "f":
                raise InputError(
                    f"{path}: {layer}/{name} is {stored.dtype} {_by(stored.shape or ())}, not float32 {_by(shape)}; {REMEDY}"
                )


def _flatten_number(file: h5py.File) -> int | None:
    layers = file.get("model_weights", file)
    numbers = [int(found[1]) for name in layers if (found := re.fullmatch(r"flatten_(\d{1,9})", name))]
    return numbers[0] if len(numbers) == 1 else None


def _shape_in_file(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stored shape of a weight: only the PReLU slopes of convolutions have four axes, and they are channel-first."""
    return (shape[-1], *shape[:-1]) if len(shape) == 4 else tuple(shape)


def _flipped(array: np.ndarray) -> np.ndarray:
    """A convolution kernel [x, y, z, in, out] turned about its centre; whatever else has other axes stays as it is."""
    return array[::-1, ::-1, ::-1] if array.ndim == 5 else array


def _to_channel_last(layer: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return np.moveaxis(array, 0, -1)
    if layer == "d1" and array.ndim == 2:
        return np.moveaxis(array.reshape(*FLATTENED, -1), 0, 3).reshape(array.shape)
    return array


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
