"""Import of nicMSlesions weights: the same probabilities as a plain evaluation, and one sentence for each bad file."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.lib.stride_tricks import sliding_window_view

from lesionforge import nets
from lesionforge.cli import main
from lesionforge.images import checksum, read_json
from lesionforge.train.lean import lean
from lesionforge.train.patches import PatchVolume, score

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "nicmslesions"


def convolve(maps: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """3 x 3 x 3 with zeros around; maps [n, channel, x, y, z], kernel [x, y, z, in, out]."""
    padded = np.pad(maps, [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1)])
    windows = sliding_window_view(padded, (3, 3, 3), axis=(2, 3, 4))
    return np.moveaxis(np.tensordot(windows, kernel, axes=([5, 6, 7, 1], [0, 1, 2, 3])), -1, 1)


def halve(maps: np.ndarray) -> np.ndarray:
    """The largest of each 2 x 2 x 2; an odd rest is left out."""
    side = maps.shape[-1] // 2
    cut = maps[..., : 2 * side, : 2 * side, : 2 * side]
    return cut.reshape(*maps.shape[:2], side, 2, side, 2, side, 2).max(axis=(3, 5, 7))


def plain_evaluation(path: Path, patches: np.ndarray) -> np.ndarray:
    """Lesion probabilities [n] of patches [n, channel, x, y, z], channel-first throughout, straight from the file."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({f"{name.split('/')[0]}/{name.split('/')[-1].split(':')[0]}": item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    found = {name: array.astype(np.float64) for name, array in found.items()}

    def bend(values: np.ndarray, layer: str) -> np.ndarray:
        return np.where(values > 0, values, found[f"prelu_{layer}/alpha"] * values)

    flow = patches.astype(np.float64)
    for block in ("1", "2"):
        for part in ("1", "2"):
            name = f"{block}_{part}"
            flow = convolve(flow, found[f"conv{name}/kernel"]) + found[f"conv{name}/bias"][:, None, None, None]
            gamma, beta, mean, variance = (
                found[f"bn_{name}/{weight}"][:, None, None, None]
                for weight in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            flow = bend(gamma * (flow - mean) / np.sqrt(variance + 1e-3) + beta, f"conv{name}")
        flow = halve(flow)
    flow = flow.reshape(len(flow), -1)
    for name in ("d1", "d2", "d3"):
        flow = bend(flow @ found[f"{name}/kernel"] + found[f"{name}/bias"], name)
    flow = np.exp(flow @ found["out/kernel"] + found["out/bias"])
    return np.asarray(flow[:, 1] / flow.sum(axis=1))


def bring_in(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["import-nicmslesions", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """The one sentence that says why."""
    result = CliRunner().invoke(main, ["import-nicmslesions", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    sentence: str = result.output.strip().splitlines()[-1]
    assert sentence.startswith("Error: ") and result.output.count("Error: ") == 1
    return sentence


@pytest.fixture(scope="module")
def model(pair, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "model"
    bring_in(*pair, out)
    return out


def lesion_like_patches(count: int, rng: np.random.Generator) -> np.ndarray:
    """Soft balls in white matter [n, x, y, z, contrast]; plain noise is far from what the real weights saw."""
    away = np.sqrt(((np.indices((11, 11, 11)) - 5) ** 2).sum(axis=0))
    size, bright, dark = rng.uniform([1, 0.5, 0], [6, 3, 2], (count, 3)).T[:, :, None, None, None]
    lesion = 1 / (1 + np.exp(2 * (away - size)))
    patches = np.stack([0.8 - dark * lesion, bright * lesion], axis=-1)
    return (patches + 0.1 * rng.normal(size=patches.shape)).astype(np.float32)


def assert_same_probabilities(folder: Path, files: tuple[Path, Path], patches: np.ndarray) -> None:
    """Patches [n, x, y, z, channel] through the saved networks, as they are and lean, and through the plain evaluation."""
    for name, file in zip(("cnn1", "cnn2"), files, strict=True):
        network = nets.load_model(folder, name)
        plain = plain_evaluation(file, np.moveaxis(patches, -1, 1))
        assert plain.std() > 0.02
        for judge in (network, lean(network)):
            np.testing.assert_allclose(np.asarray(judge.predict_on_batch(patches))[:, 1], plain, atol=1e-4)


def test_probabilities_equal_a_plain_evaluation(model: Path, pair) -> None:
    assert_same_probabilities(model, pair, np.random.default_rng(3).normal(size=(6, 11, 11, 11, 2)).astype(np.float32))


def test_probabilities_of_the_real_weights_equal_a_plain_evaluation(tmp_path: Path) -> None:
    files = (REAL / "model_1.hdf5", REAL / "model_2.hdf5")
    if not all(file.is_file() for file in files):
        pytest.skip("the weights of nicMSlesions are not in ../shared/data/nicmslesions")
    bring_in(*files, tmp_path / "model")
    assert_same_probabilities(tmp_path / "model", files, lesion_like_patches(24, np.random.default_rng(4)))
    assert "35 T1w and FLAIR scans" in read_json(tmp_path / "model" / "model.json")["training"][0]


def test_imported_networks_score_voxels_like_any_other(model: Path) -> None:
    volume = PatchVolume(np.random.default_rng(5).normal(size=(14, 14, 14, 2)).astype(np.float32), np.zeros(3, np.int64))
    scores = score(nets.load_model(model, "cnn1"), volume, np.array([(0, 0, 0), (3, 2, 1)]))
    assert scores.shape == (2,) and np.all((scores > 0) & (scores < 1))


def test_whole_saved_networks_are_read_like_weights_alone(model: Path, write_weights, weights, tmp_path: Path, pair) -> None:
    whole = write_weights(tmp_path / "whole.hdf5", weights, group="model_weights")
    with h5py.File(whole, "a") as file:
        file["optimizer_weights/Adadelta/iterations:0"] = 7
    bring_in(whole, pair[1], tmp_path / "model")
    for name in ("cnn1", "cnn2"):
        for ours, theirs in zip(
            nets.load_model(tmp_path / "model", name).get_weights(), nets.load_model(model, name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_the_card_says_where_weights_come_from_and_how_they_are_used(model: Path, pair) -> None:
    card = nets.read_card(model, "cascade")
    assert card["source_checksums"] == [checksum(path) for path in pair]
    assert card["contrasts"] == ["T1w", "FLAIR"] and card["voxel_mm"] == 1.0
    used = {"network": "nicmslesions", "candidate_flair_z": 0.5, "cnn1_threshold": 0.8, "lesion_threshold": 0.5}
    assert card["parameters"].items() >= (used | {"min_volume_mm3": 10.0}).items()
    assert "z-score" in card["normalisation"] and "GPL-3.0" in card["licence"]
    # Only the weights that the program ships are said to be trained on its scans.
    assert "not known" in card["training"][0]
    assert sorted(path.name for path in model.iterdir()) == ["cnn1.keras", "cnn2.keras", "model.json"]


def turned(weights: dict) -> dict:
    """The same network as Theano stores it: the kernels of convolutions turned about their centre."""
    return {
        layer: {name: array[::-1, ::-1, ::-1] if array.ndim == 5 else array for name, array in arrays.items()}
        for layer, arrays in weights.items()
    }


@pytest.mark.parametrize("group", ["", "model_weights"])
@pytest.mark.parametrize("backend", ["tensorflow", b"tensorflow", np.bytes_("tensorflow"), "theano", b"theano"])
def test_kernels_are_read_as_the_backend_that_the_file_names_applied_them(
    backend, group: str, model: Path, weights, write_weights, pair, tmp_path: Path
) -> None:
    stored = turned(weights) if "theano" in str(backend) else weights
    named = write_weights(tmp_path / "named.hdf5", stored, group=group, backend=backend)
    bring_in(named, pair[1], tmp_path / "model")
    ours, wanted = (nets.load_model(folder, "cnn1").get_weights() for folder in (tmp_path / "model", model))
    for one, other in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_backend_of_a_whole_saved_network_may_be_named_at_the_top(
    model: Path, weights, write_weights, pair, tmp_path: Path
) -> None:
    whole = write_weights(tmp_path / "whole.hdf5", turned(weights), group="model_weights")
    with h5py.File(whole, "a") as file:
        file.attrs["backend"] = b"theano"
    bring_in(whole, pair[1], tmp_path / "model")
    kernels = [nets.load_model(folder, "cnn1").get_layer("conv1_1").kernel for folder in (tmp_path / "model", model)]
    np.testing.assert_array_equal(*map(np.asarray, kernels))


@pytest.mark.parametrize("backend", ["cntk", b"\xff", "", 7, np.arange(3), "a\nb"])
def test_a_file_of_another_backend_is_refused(backend, weights, write_weights, pair, tmp_path: Path) -> None:
    bad = write_weights(tmp_path / "bad.hdf5", weights, backend=backend)
    sentence = refused(bad, pair[1], tmp_path / "model")
    assert f"{bad}: was saved under the backend " in sentence and "not tensorflow or theano; " in sentence
    assert not (tmp_path / "model").exists()


def spoiled(weights: dict, fault: str) -> dict:
    """The weights with one fault, or a file of something else."""
    if fault == "missing layer":
        del weights["prelu_d2"]
    elif fault == "missing weight":
        del weights["conv1_2"]["bias"]
    elif fault == "another layer":
        weights["conv3_1"] = {"kernel": np.zeros((3, 3, 3, 64, 128), np.float32)}
    elif fault == "three contrasts":
        weights["conv1_1"]["kernel"] = np.zeros((3, 3, 3, 3, 32), np.float32)
    elif fault == "text":
        weights["out"]["bias"] = np.array([b"a", b"b"])
    elif fault == "NaN":
        weights["d3"]["kernel"][5, 5] = np.nan
    elif fault == "huge":
        weights["d2"]["kernel"][0, 0] = -3e8
    elif fault == "negative variance":
        weights["bn_2_1"]["moving_variance"][3] = -1
    else:
        return {"dense_1": {"kernel": np.zeros((4, 2), np.float32)}}
    return weights


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("missing layer", "lacks prelu_d2 of the layers of nicMSlesions"),
        ("missing weight", "conv1_2 holds kernel, not bias, kernel"),
        ("another layer", "holds conv3_1, which is no layer"),
        ("three contrasts", "conv1_1/kernel is float32 3 x 3 x 3 x 3 x 32, not float32 3 x 3 x 3 x 2 x 32"),
        ("text", "out/bias is |S1 2, not float32 2"),
        ("NaN", "d3/kernel holds numbers that are no weights"),
        ("huge", "d2/kernel holds 3e+08, but trained weights are of the order of 1"),
        ("negative variance", "bn_2_1/moving_variance holds numbers that are no weights"),
        ("another program", "lacks conv1_1, bn_1_1, prelu_conv1_1 and 16 more of the layers"),
    ],
)
def test_a_file_of_other_content_is_refused(fault: str, said: str, weights, write_weights, pair, tmp_path: Path) -> None:
    bad = write_weights(tmp_path / "bad.hdf5", spoiled(weights, fault))
    sentence = refused(bad, pair[1], tmp_path / "model")
    assert f"{bad}: " in sentence and said in sentence and "; " in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["bad.hdf5"]


def test_a_file_that_is_no_whole_hdf5_is_refused(pair, tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "cut.hdf5").write_bytes(pair[1].read_bytes()[:900_000])
    for name, said in (("text.hdf5", "cannot be read as HDF5"), ("cut.hdf5", "cannot be read as HDF5"), ("none", "no such file")):
        sentence = refused(pair[0], tmp_path / name, tmp_path / "model")
        assert f"{tmp_path / name}: {said}" in sentence
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("way", ["external storage", "virtual"])
def test_numbers_of_another_file_are_not_followed(way: str, weights, write_weights, pair, tmp_path: Path) -> None:
    """Such a file could read any other of the user's."""
    bias = weights["d3"]["bias"]
    bias.tofile(tmp_path / "secret")
    bad = write_weights(tmp_path / "bad.hdf5", weights)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["bias"] = bias
    with h5py.File(bad, "a") as file:
        del file["d3/d3/bias:0"]
        if way == "virtual":
            layout = h5py.VirtualLayout(bias.shape, bias.dtype)
            layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "bias", bias.shape)
            file.create_virtual_dataset("d3/d3/bias:0", layout)
        else:
            source = [(str(tmp_path / "secret"), 0, bias.nbytes)]
            file.create_dataset("d3/d3/bias:0", bias.shape, bias.dtype, external=source)
    assert "d3/bias takes its numbers from another file" in refused(bad, pair[1], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_two_files_of_one_network_or_swapped_ones_are_refused(pair, weights, write_weights, tmp_path: Path) -> None:
    same = write_weights(tmp_path / "same.hdf5", weights, number=3)
    assert "holds the same network as" in refused(pair[0], same, tmp_path / "model")
    assert "give them the other way round" in refused(pair[1], pair[0], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_of_other_files_stays_as_it_is(pair, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    assert "holds other files" in refused(*pair, tmp_path / "model")
    (tmp_path / "file").write_text("mine")
    assert "is a file where a folder is to be written" in refused(*pair, tmp_path / "file")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["thesis.txt"]


def test_weights_that_lie_in_the_folder_to_write_are_not_lost(model: Path, pair, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    own = tmp_path / "model_1.hdf5"
    own.write_bytes(pair[0].read_bytes())
    assert "is read from it; give another output folder" in refused(own, pair[1], tmp_path)
    assert own.is_file()
