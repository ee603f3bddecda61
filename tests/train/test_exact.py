"""Laws of exact inference: sharing convolutions, or leaving out what is dropped, changes no probability."""

import random

import keras
import numpy as np
import pytest

from lesionforge.train import exact
from lesionforge.train.lean import lean
from lesionforge.train.network import PATCH, build_network
from lesionforge.train.patches import INFERENCE_BATCH, PatchVolume, gather, score

HALF = PATCH // 2
SHAPE = (40, 36, 34)
CONTRASTS = ("T1w", "FLAIR", "T2w")
# Rounding, enlarged by logits that are spread more than the network's own.
AGREED, PROMISED = 5e-5, 1e-4


def strange_network(contrasts: int, seed: int, name: str = "valverde2017") -> keras.Model:
    """A network with statistics of batch normalisation as no training leaves them, slopes of either sign, and probabilities that
    vary."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    network = build_network(name, CONTRASTS[:contrasts])
    for layer in network.layers:
        if isinstance(layer, keras.layers.PReLU):
            layer.set_weights([rng.uniform(-1, 1, layer.weights[0].shape)])
        if isinstance(layer, keras.layers.Conv3D) and layer.use_bias:
            layer.set_weights([layer.get_weights()[0], rng.normal(size=layer.filters)])
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, *_ = layer.get_weights()
            # Some scales are negative: then the largest value is not the one of the largest convolution.
            gamma, beta, mean = rng.normal(size=(3, len(gamma)))
            layer.set_weights([gamma, beta, mean, rng.uniform(0.1, 2, len(gamma))])
    healthy, lesion = np.asarray(network.predict_on_batch(rng.normal(size=(100, *(PATCH,) * 3, contrasts)))).T
    logits = np.log(lesion / healthy)
    kernel, _ = network.layers[-1].get_weights()
    network.layers[-1].set_weights([2 * kernel / logits.std(), np.array([0, -2 * logits.mean() / logits.std()])])
    return network


def random_volume(contrasts: int, seed: int) -> PatchVolume:
    """A scan padded as any, noise up to its border; the first voxel of its box is (3, 0, 7)."""
    data = np.zeros((*(side + 2 * HALF for side in SHAPE), contrasts), np.float32)
    data[HALF:-HALF, HALF:-HALF, HALF:-HALF] = np.random.default_rng(seed).normal(size=(*SHAPE, contrasts))
    return PatchVolume(data, np.array((3, 0, 7)))


def patch_by_patch(network: keras.Model, volume: PatchVolume, centres: np.ndarray) -> np.ndarray:
    parts = (centres[i : i + INFERENCE_BATCH] for i in range(0, len(centres), INFERENCE_BATCH))
    return np.concatenate([np.asarray(network.predict_on_batch(gather(volume, part)))[:, 1] for part in parts])


def some_voxels(count: int) -> np.ndarray:
    """Voxels of the box in no order, its corners among them."""
    rng = np.random.default_rng(count)
    inside = np.argwhere(np.ones(SHAPE, bool)).astype(np.int16)
    corners = np.argwhere(np.ones((2, 2, 2), bool)) * (np.array(SHAPE) - 1)
    chosen = np.concatenate([corners, inside[rng.choice(len(inside), count, replace=False)]])
    return rng.permutation(chosen).astype(np.int16) + np.array((3, 0, 7), np.int16)


@pytest.mark.parametrize("contrasts", [1, 2, 3])
def test_probabilities_are_those_of_patches(contrasts) -> None:
    network, volume, voxels = strange_network(contrasts, seed=contrasts), random_volume(contrasts, seed=1), some_voxels(1500)
    expected = patch_by_patch(network, volume, voxels)
    assert np.quantile(expected, 0.9) - np.quantile(expected, 0.1) > 0.2
    np.testing.assert_allclose(exact.score_shared(network, volume.data, voxels - volume.start), expected, rtol=0, atol=AGREED)


def test_a_single_voxel_and_none() -> None:
    network, volume = strange_network(2, seed=4), random_volume(2, seed=2)
    voxel = np.array([(36, 1, 40)], np.int16)
    expected = patch_by_patch(network, volume, voxel)
    np.testing.assert_allclose(exact.score_shared(network, volume.data, voxel - volume.start), expected, rtol=0, atol=AGREED)
    assert exact.score_shared(network, volume.data, np.zeros((0, 3), np.int64)).shape == (0,)


@pytest.fixture
def shared_voxels(monkeypatch) -> list[int]:
    """How many voxels each call shared."""
    counts = []
    share = exact.score_shared

    def count(network: keras.Model, data: np.ndarray, corners: np.ndarray) -> np.ndarray:
        counts.append(len(corners))
        return share(network, data, corners)

    monkeypatch.setattr(exact, "score_shared", count)
    return counts


def test_crowded_voxels_are_shared_and_others_are_not(monkeypatch, shared_voxels) -> None:
    monkeypatch.setattr(exact, "ENOUGH", 1000)
    network, volume, voxels = strange_network(2, seed=5), random_volume(2, seed=3), some_voxels(3000)
    found = score(network, volume, voxels)
    assert 1000 <= shared_voxels[0] < len(voxels)
    np.testing.assert_allclose(found, patch_by_patch(network, volume, voxels), rtol=0, atol=AGREED)
    few = voxels[:500]
    np.testing.assert_array_equal(score(network, volume, few), patch_by_patch(network, volume, few))
    assert len(shared_voxels) == 1


@pytest.mark.parametrize("contrasts", [1, 2, 3])
def test_nicmslesions_without_what_pooling_drops_gives_the_same_and_draws_nothing(contrasts) -> None:
    network = strange_network(contrasts, contrasts, "nicmslesions")
    volume, voxels = random_volume(contrasts, seed=6), some_voxels(300)
    before = random.getstate()
    found = patch_by_patch(lean(network), volume, voxels)
    assert random.getstate() == before
    expected = patch_by_patch(network, volume, voxels)
    assert np.quantile(expected, 0.9) - np.quantile(expected, 0.1) > 0.2
    # With torch on an AMD EPYC either is up to 4e-5 from the same network in float64, by rounding, and so 5.2e-5 from the other.
    np.testing.assert_allclose(found, expected, rtol=0, atol=PROMISED if keras.backend.backend() == "torch" else AGREED)


def test_other_networks_are_scored_patch_by_patch(monkeypatch, shared_voxels) -> None:
    monkeypatch.setattr(exact, "ENOUGH", 1)
    assert exact.can_share(build_network("valverde2017", CONTRASTS))
    network, volume, voxels = build_network("nicmslesions"), random_volume(2, seed=4), some_voxels(20)
    np.testing.assert_array_equal(score(network, volume, voxels), patch_by_patch(network, volume, voxels))
    assert not shared_voxels
