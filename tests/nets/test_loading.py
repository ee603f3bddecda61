"""A network that cannot be loaded, or that finds nothing, is one sentence with its file."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from lesionforge import nets
from lesionforge.errors import InputError
from lesionforge.train.network import build_network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    nets.save_models(tmp_path, {"cnn1": build_network()}, {"kind": "cascade"})
    return tmp_path


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_neither_saved_nor_loaded(tmp_path: Path, value: float) -> None:
    network = build_network()
    weights = network.get_weights()
    weights[0][0] = value
    network.set_weights(weights)
    with pytest.raises(InputError, match="cnn1: its training ended in weights that are NaN or infinite"):
        nets.save_models(tmp_path, {"cnn1": network}, {})
    assert not list(tmp_path.iterdir())
    network.save(tmp_path / "cnn1.keras")
    with pytest.raises(InputError, match=r"cnn1\.keras: its training ended in weights that are NaN or infinite"):
        nets.load_model(tmp_path, "cnn1")


@pytest.mark.parametrize("part", ["model.weights.h5", "config.json"])
@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"{}", b"\xff\x00"])
def test_a_damaged_part_of_a_network_is_named_by_its_file(saved: Path, part: str, content: bytes) -> None:
    path = saved / "cnn1.keras"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, held in (parts | {part: content}).items():
            archive.writestr(name, held)
    with pytest.raises(InputError, match=r"cnn1\.keras: is no network that Keras can load"):
        nets.load_model(saved, "cnn1")


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_network_that_is_cut_short_is_named_by_its_file(saved: Path, size: int) -> None:
    path = saved / "cnn1.keras"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"cnn1\.keras: is no network that Keras can load"):
        nets.load_model(saved, "cnn1")


def test_a_trained_network_is_loaded_by_keras_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    """Compiled with a loss of ours and trained a step, it is saved as it is without them, and says the same."""
    import keras

    network = build_network()
    network.compile(optimizer="sgd", loss=lambda truth, found: keras.ops.mean(found[:, 0]) + 0 * truth)
    batch = rng.normal(size=(4, *network.input_shape[1:])).astype(np.float32)
    network.fit(batch, np.zeros((4, 1), np.float32), verbose=0)
    nets.save_models(tmp_path, {"cnn1": network}, {})
    alone = keras.saving.load_model(tmp_path / "cnn1.keras")
    assert np.array_equal(alone.predict_on_batch(batch), network.predict_on_batch(batch))
    assert (tmp_path / "cnn1.keras").stat().st_size < 2 * sum(weight.nbytes for weight in network.get_weights())
