"""Training with fused batch normalisation is training with Keras' own."""

import numpy as np
import pytest

from lesionforge import nets
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.nets.devices import Device
from lesionforge.train.blocks import LESION, block_loss
from lesionforge.train.fit import _to_train
from lesionforge.train.network import build_network

keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("only TensorFlow has the operation", allow_module_level=True)

STEPS = 4


def learned(network: keras.Model) -> list[np.ndarray]:
    """The weights after a few steps on blocks that are not centred on zero."""
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(STEPS):
        blocks = rng.normal(3, 2, (2, 16, 16, 16, 2)).astype(np.float32)
        losses.append(float(network.train_on_batch(blocks, np.where(blocks[..., 0] > 4, LESION, 1).astype(np.uint8))))
    assert losses[-1] != losses[0]
    return network.get_weights()


@pytest.mark.parametrize("frozen", [0, 12])
def test_fused_normalisation_learns_what_keras_own_does(frozen: int) -> None:
    nets.set_up(1)
    network = build_network("dense")
    for layer in network.layers[:frozen]:
        layer.trainable = False
    before = network.get_weights()
    # By plain gradient descent: Adam makes steps of full size out of gradients that are zero but for rounding.
    fused = _to_train(network, CascadeConfig(), ("T1w", "FLAIR"), Device())
    fused.compile(optimizer=keras.optimizers.SGD(0.05), loss=block_loss)
    ours = learned(fused)
    assert all((one == other).all() for one, other in zip(network.get_weights(), before, strict=True)), "only the copy learns"
    network.compile(optimizer=keras.optimizers.SGD(0.05), loss=block_loss)
    theirs = learned(network)
    changed = [not np.array_equal(one, other) for one, other in zip(theirs, before, strict=True)]
    for one, other, start in zip(ours, theirs, before, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * max(1, np.abs(other).max()))
        assert np.array_equal(one, start) == np.array_equal(other, start)
    assert all(changed) == (not frozen)
    blocks = np.ones((1, 16, 16, 16, 2), np.float32)
    np.testing.assert_allclose(fused.predict_on_batch(blocks), network.predict_on_batch(blocks), atol=1e-3)
