"""Laws of adaptation: what is frozen stays to the bit, what is retrained moves, and a wrong start is refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cascade.card import read_cascade_card
from lesionforge.cli import main
from lesionforge.images import read_json
from lesionforge.train.adapt import blocks_to_retrain, retrain_last, sample_count
from lesionforge.train.loading import load_cascade
from lesionforge.train.network import build_network

FULLY_CONNECTED = {"d1", "prelu_d1", "d2", "prelu_d2", "d3", "prelu_d3", "out"}


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def trained_layers(network) -> set[str]:
    return {layer.name for layer in network.layers if layer.trainable_weights}


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_blob_scan, pair) -> Path:
    """An arm of one scan, and an imported model for its voxels of 2 mm."""
    root = tmp_path_factory.mktemp("adapt")
    write_blob_scan(root / "prepare", "sub-0", seed=0)
    (root / "real.tsv").write_text("id\tsplit\tfolder\nsub-0\ttrain\tprepare/sub-0\n")
    code, said = call("import-nicmslesions", *pair, root / "model", "--voxel-mm", 2)
    assert code == 0, said
    return root


def train(root: Path, out: Path, *options: object) -> tuple[int, str]:
    """One step of each network."""
    short = ("--epochs", 1, "--steps-per-epoch", 1)
    return call("train", "--index", root / "real.tsv", *short, *options, "--out", out)


def changed(before: Path, after: Path, name: str) -> set[str]:
    """The layers whose weights differ, dropout's states aside."""
    old, new = nets.load_model(before, name), nets.load_model(after, name)
    return {
        layer.name
        for layer in new.layers
        if "dropout" not in layer.name
        and any(
            not np.array_equal(a, b) for a, b in zip(layer.get_weights(), old.get_layer(layer.name).get_weights(), strict=True)
        )
    }


def test_more_samples_retrain_more_blocks() -> None:
    assert [blocks_to_retrain(samples) for samples in (0, 9_999, 10_000, 99_999, 100_000)] == [1, 1, 2, 2, 3]


def test_samples_are_all_that_the_published_training_set_holds() -> None:
    scans = [SimpleNamespace(lesion=np.zeros((voxels, 3))) for voxels in (1_000, 3_000)]
    assert [sample_count(scans, negatives) for negatives in (1, 2)] == [8_000, 12_000]


def test_blocks_are_counted_from_the_output_which_is_always_trained() -> None:
    last = {"d3", "prelu_d3", "out"}
    for blocks, expected in ((1, last), (2, last | {"d2", "prelu_d2"}), (3, FULLY_CONNECTED)):
        network = build_network("nicmslesions")
        retrain_last(network, blocks)
        assert trained_layers(network) == expected
    network = build_network("valverde2017")
    retrain_last(network, 3)
    assert [type(layer).__name__ for layer in network.layers if layer.trainable_weights] == ["Dense", "Dense"]
    network = build_network("dense")
    retrain_last(network, 1)
    trained = [type(layer).__name__ for layer in network.layers if layer.trainable_weights]
    assert trained == ["Conv3D", "BatchNormalization", "Conv3D"]


@pytest.fixture(scope="module")
def adapted(root: Path) -> Path:
    """The imported model, adapted to the arm."""
    code, said = train(root, root / "adapted", "--init", root / "model")
    assert code == 0, said
    return root / "adapted"


def test_adaptation_moves_the_last_block_and_nothing_else(root: Path, adapted: Path) -> None:
    for name in ("cnn1", "cnn2"):
        # The balls hold a few hundred voxels: one block. Batch norm's running statistics stay, too.
        assert changed(root / "model", adapted, name) == {"d3", "prelu_d3", "out"}


def test_the_card_says_what_it_was_adapted_from_and_keeps_settings_and_licence(root: Path, adapted: Path) -> None:
    card, source = nets.read_card(adapted, "cascade"), nets.read_card(root / "model", "cascade")
    assert card["derived_from"] == []
    assert card["init"]["checksums"] == source["checksums"] and card["init"]["training"] == source["training"]
    assert (card["init"]["model"], card["init"]["retrained"]) == ("model", "last")
    assert card["licence"] == source["licence"] and card["training"] == ["sub-0"]
    assert card["parameters"] == source["parameters"] | {"epochs": 1, "steps_per_epoch": 1}


def test_an_adapted_model_can_be_retrained_whole(root: Path, adapted: Path, tmp_path: Path) -> None:
    code, said = train(root, tmp_path / "whole", "--init", adapted, "--retrain", "all")
    assert code == 0, said
    names = {layer.name for layer in build_network("nicmslesions").layers if layer.weights and "dropout" not in layer.name}
    assert changed(adapted, tmp_path / "whole", "cnn1") == names


def edited(root: Path, folder: Path, **entries: object) -> Path:
    """A copy of the model with other entries in its card."""
    folder.mkdir()
    for name in ("cnn1.keras", "cnn2.keras"):
        (folder / name).write_bytes((root / "model" / name).read_bytes())
    nets.write_json(read_json(root / "model" / "model.json") | entries, folder / "model.json")
    return folder


def test_a_start_that_does_not_fit_is_refused_in_a_sentence(root: Path, tmp_path: Path) -> None:
    other = edited(root, tmp_path / "other", contrasts=["T1w", "FLAIR", "T2w"])
    coarse = edited(root, tmp_path / "coarse", voxel_mm=1.0)
    changed = edited(root, tmp_path / "changed")
    (changed / "cnn2.keras").write_bytes(b"else")
    for options, said in (
        (("--init", other), "has T1w, FLAIR but no T2w"),
        (("--init", coarse), "its scans have voxels of 2 mm, but"),
        (("--init", changed), "checksum differs"),
        (("--init", tmp_path / "none"), "is no model folder"),
        (("--init", root / "model", "--network", "valverde2017"), "holds networks nicmslesions"),
        (("--retrain", "all"), "belongs to --init"),
    ):
        code, output = train(root, tmp_path / "out", *options)
        assert code == 2 and said in output and output.count("Error: ") == 1
    code, output = train(root, other, "--init", other)
    assert code == 2 and "is read from it" in output
    assert not (tmp_path / "out").exists()


def test_networks_unlike_the_card_are_refused_in_a_sentence(root: Path, adapted: Path, tmp_path: Path) -> None:
    """Of another name than the layers, and of other contrasts: only the second network, whose turn comes last."""
    card = read_json(root / "model" / "model.json")
    named = edited(root, tmp_path / "named", parameters=card["parameters"] | {"network": "valverde2017"})
    fed = tmp_path / "fed"
    fed.mkdir()
    networks = {"cnn1": nets.load_model(root / "model", "cnn1"), "cnn2": build_network("nicmslesions", ("T1w",))}
    nets.save_models(fed, networks, card)
    for model, said in (
        (named, "cnn1.keras: is not the network valverde2017 of T1w, FLAIR that model.json names"),
        (fed, "cnn2.keras: is not the network nicmslesions of T1w, FLAIR that model.json names"),
    ):
        scan = ("--prepared", root / "prepare/sub-0", "--model", model, "--out", tmp_path / "out")
        for code, output in (train(root, tmp_path / "out", "--init", model), call("segment", *scan)):
            assert code == 2 and said in output and output.count("Error: ") == 1
    assert not (tmp_path / "out").exists()
    assert set(load_cascade(adapted, read_cascade_card(adapted)[1], ("T1w", "FLAIR"))) == {"cnn1", "cnn2"}


def test_a_model_of_other_contrasts_segments_nothing(root: Path, tmp_path: Path) -> None:
    other = edited(root, tmp_path / "other", contrasts=["FLAIR"])
    code, output = call("segment", "--prepared", root / "prepare/sub-0", "--model", other, "--out", tmp_path / "out")
    assert code == 2 and "takes FLAIR, but scans are prepared as T1w, FLAIR" in output
