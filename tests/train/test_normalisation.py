"""Training with fused batch normalisation is training with Keras' own."""

import numpy as np
import pytest

from lesionforge import nets
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.nets.devices import Device
from lesionforge.train.blocks import LESION, block_loss
from lesionforge.train.fit import _to_train
from lesionforge.train.network import build_network, is_dense

keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("only TensorFlow has the operation", allow_module_level=True)


def learned(network: keras.Model) -> list[np.ndarray]:
    """The weights after a step on a batch that is not centred on zero, by plain gradient descent.

    Adam and its like make steps of full size out of gradients that are zero but for rounding, and what differs by rounding after
    one step differs by more after several where no layer before is normalised.
    """
    dense = is_dense(network)
    network.compile(keras.optimizers.SGD(0.05), block_loss if dense else "sparse_categorical_crossentropy")
    rng, side = np.random.default_rng(0), 16 if dense else 11
    inputs = rng.normal(3, 2, (4, side, side, side, 2)).astype(np.float32)
    targets = np.where(inputs[..., 0] > 4, LESION, 1) if dense else np.arange(4) % 2
    network.train_on_batch(inputs, targets.astype(np.uint8))
    return network.get_weights()


def kinds(network: keras.Model) -> set[str]:
    return {type(layer).__name__ for layer in network.layers}


@pytest.mark.parametrize(("name", "frozen"), [("dense", 0), ("dense", 12), ("valverde2017", 0), ("nicmslesions", 5)])
def test_fused_normalisation_learns_what_keras_own_does(name: str, frozen: int) -> None:
    nets.set_up(1)
    network = build_network(name)
    for number, layer in enumerate(network.layers):
        layer.trainable = number >= frozen
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    before = network.get_weights()
    fused = _to_train(network, CascadeConfig(network=name), ("T1w", "FLAIR"), Device())
    assert "FusedBatchNormalization" in kinds(fused) and "FusedBatchNormalization" not in kinds(network)
    ours = learned(fused)
    assert all((one == other).all() for one, other in zip(network.get_weights(), before, strict=True)), "only the copy learns"
    theirs = learned(network)
    for one, other, start in zip(ours, theirs, before, strict=True):
        assert np.linalg.norm(one - other) <= 0.02 * np.linalg.norm(other - start) + 1e-5
        assert np.array_equal(one, start) == np.array_equal(other, start)
    unchanged = sum(np.array_equal(one, start) for one, start in zip(theirs, before, strict=True))
    assert bool(unchanged) == bool(frozen)
