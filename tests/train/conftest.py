"""A file of weights in the layout of nicMSlesions, made up."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

# Layer: weight: shape as stored.
LAYOUT: dict[str, dict[str, tuple[int, ...]]] = {}
for name, source, filters, side in (("1_1", 2, 32, 11), ("1_2", 32, 32, 11), ("2_1", 32, 64, 5), ("2_2", 64, 64, 5)):
    LAYOUT[f"conv{name}"] = {"kernel": (3, 3, 3, source, filters), "bias": (filters,)}
    LAYOUT[f"bn_{name}"] = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (filters,))
    LAYOUT[f"prelu_conv{name}"] = {"alpha": (filters, side, side, side)}
for name, source, units in (("d1", 512, 256), ("d2", 256, 128), ("d3", 128, 64), ("out", 64, 2)):
    LAYOUT[name] = {"kernel": (source, units), "bias": (units,)}
    if name != "out":
        LAYOUT[f"prelu_{name}"] = {"alpha": (units,)}

Weights = dict[str, dict[str, np.ndarray]]


def random_weights(seed: int) -> Weights:
    """Weights of such sizes that neither layers nor channels fade and probabilities lie between 0 and 1."""
    rng = np.random.default_rng(seed)

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = rng.normal(size=shape)
        if name == "kernel":
            values *= np.sqrt(2 / np.prod(shape[:-1]))
        elif name in ("gamma", "moving_variance"):
            values = 0.5 + np.abs(values)
        else:
            values *= 0.3
        return np.asarray(values, np.float32)

    made = {layer: {name: one(name, shape) for name, shape in shapes.items()} for layer, shapes in LAYOUT.items()}
    made["out"]["kernel"] *= np.float32(0.1)
    return made


@pytest.fixture(scope="session")
def write_weights() -> Callable[..., Path]:
    """A function that writes weights as the program does; `number` is the place of the network among those of its run."""

    def write(path: Path, weights: Weights, number: int = 1, group: str = "", backend: object = None) -> Path:
        suffix = "" if number == 1 else f"_{number - 1}"
        with h5py.File(path, "w") as file:
            top = file.create_group(group) if group else file
            if backend is not None:
                top.attrs["backend"] = backend
            for empty in ("in1", f"max_pooling3d_{2 * number}", f"flatten_{number}", "dr_d1"):
                top.create_group(empty)
            for layer, arrays in weights.items():
                for name, array in arrays.items():
                    top[f"{layer}/{layer}{suffix}/{name}:0"] = array
        return path

    return write


@pytest.fixture
def weights() -> Weights:
    """Random weights that a test may change."""
    return random_weights(1)


@pytest.fixture(scope="session")
def pair(tmp_path_factory, write_weights) -> tuple[Path, Path]:
    """Two different networks of one run."""
    folder = tmp_path_factory.mktemp("nicmslesions")
    first, second = (write_weights(folder / f"model_{n}.hdf5", random_weights(n), n) for n in (1, 2))
    return first, second
