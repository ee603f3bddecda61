"""The networks of the cascade have the published layers and sizes, for one to four contrasts."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cascade.settings import CONFIGURATIONS, CascadeConfig
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.train.command import chosen_config
from lesionforge.train.fit import train_cascade
from lesionforge.train.network import build_network, is_dense
from lesionforge.train.patches import PatchVolume
from lesionforge.train.sampling import LabelledScan

CONTRASTS = ("T1w", "FLAIR", "T2w", "PDw")
SIZES = {"valverde2017": 189_058, "nicmslesions": 470_082}
# Of each contrast more or less than two: 32 kernels of 3 x 3 x 3.
PER_CONTRAST = 864


def size(weights: list) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_network_has_the_published_size_for_any_contrasts(name: str, count: int) -> None:
    network = build_network(name, CONTRASTS[:count])
    assert size(network.trainable_weights) == SIZES[name] + (count - 2) * PER_CONTRAST
    assert network.input_shape == (None, 11, 11, 11, count) and network.output_shape == (None, 2)
    np.testing.assert_allclose(network.predict_on_batch(np.ones((3, 11, 11, 11, count))).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_dense_network_judges_every_voxel_of_a_block_of_any_sides(count: int) -> None:
    network = build_network("dense", CONTRASTS[:count])
    assert is_dense(network) and not is_dense(build_network("valverde2017"))
    for sides in ((8, 24, 16), (8, 8, 8)):
        judged = network.predict_on_batch(np.ones((2, *sides, count)))
        assert judged.shape == (2, *sides, 2)
        np.testing.assert_allclose(judged.sum(axis=-1), 1, atol=1e-5)


def test_nicmslesions_stores_its_running_statistics_too() -> None:
    stored = [weight for layer in build_network("nicmslesions").layers if "dropout" not in layer.name for weight in layer.weights]
    assert size(stored) == 470_466


def test_layers_come_in_the_published_order() -> None:
    def kinds(name: str) -> list[str]:
        return [type(layer).__name__ for layer in build_network(name).layers[1:]]

    convolution = ["Conv3D", "BatchNormalization", "PReLU"]
    dense = ["Dropout", "Dense", "PReLU"]
    assert kinds("nicmslesions") == [*(convolution * 2 + ["MaxPooling3D"]) * 2, "Flatten", *dense * 3, "Dense"]
    plain = ["Conv3D", "BatchNormalization", "ReLU", "MaxPooling3D"]
    assert kinds("valverde2017") == [*plain * 2, "Flatten", "Dropout", "Dense", "Dense"]


def test_other_networks_and_numbers_of_contrasts_are_refused() -> None:
    with pytest.raises(ValueError, match="no network 'unet'"):
        build_network("unet")
    for contrasts in ((), (*CONTRASTS, "SWI")):
        with pytest.raises(ValueError, match="contrasts: a network takes 1 to 4"):
            build_network("valverde2017", contrasts)


def test_the_configured_network_is_the_one_that_is_trained(rng) -> None:
    volume = PatchVolume(rng.normal(size=(18, 18, 18, 2)).astype(np.float32), np.zeros(3, np.int64))
    voxels = np.argwhere(np.ones((8, 8, 8), bool)).astype(np.int16)
    labels = PatchVolume(np.ones((18, 18, 18), np.uint8), np.zeros(3, np.int64))
    scan = LabelledScan("sub-0", volume, voxels[:40], voxels[40:], labels, np.ones(40, np.int32))
    config = CascadeConfig(network="nicmslesions", epochs=1, steps_per_epoch=1, batch_size=16)
    nets.set_up(1)
    models, _ = train_cascade([scan], [], config, 1, lambda _: None)
    assert {size(model.trainable_weights) for model in models.values()} == {470_082}


def test_a_network_brings_its_own_settings() -> None:
    def config(configuration: str | None, network: str | None) -> CascadeConfig:
        return chosen_config(None, configuration, {"network": network})

    assert config(None, None) == config(None, "dense") == CONFIGURATIONS["lesionforge"]
    assert config(None, "valverde2017") == CONFIGURATIONS["published"]
    assert config(None, "nicmslesions") == CONFIGURATIONS["nicmslesions"]
    assert config("published", "nicmslesions") == replace(CONFIGURATIONS["published"], network="nicmslesions")


def test_a_training_takes_as_many_steps_as_the_one_it_is_compared_with() -> None:
    ours, published = CONFIGURATIONS["lesionforge"], CONFIGURATIONS["published"]
    as_many = replace(published, epochs=ours.epochs, steps_per_epoch=ours.steps_per_epoch)
    assert chosen_config(None, "published", {"network": None}, steps_of="lesionforge") == as_many
    given = {"network": None, "epochs": 7, "steps_per_epoch": None}
    assert chosen_config(None, "published", given, steps_of="lesionforge") == replace(as_many, epochs=7)


@pytest.mark.parametrize(
    ("configuration", "network", "drawn"),
    [("published", "dense", "patches"), ("nicmslesions", "dense", "patches"), ("lesionforge", "nicmslesions", "blocks")],
)
def test_a_network_for_blocks_does_not_go_with_settings_for_patches(configuration: str, network: str, drawn: str) -> None:
    with pytest.raises(InputError, match=rf"--network {network}: --configuration {configuration} draws {drawn}"):
        chosen_config(None, configuration, {"network": network})


def test_an_unknown_network_is_refused_by_the_command(tmp_path) -> None:
    result = CliRunner().invoke(main, ["train", "--index", "x.tsv", "--network", "unet", "--out", str(tmp_path / "model")])
    assert result.exit_code == 2 and "'dense', 'valverde2017', 'nicmslesions'" in result.output
