"""The network, its tiles, its training and what it paints."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lesionforge import nets
from lesionforge.images import Scan
from lesionforge.synthesize.fill import fill_lesions
from lesionforge.synthesize.levels import LEVEL_COUNT, grey_matter_flair, hyperintensity_levels
from lesionforge.synthesize.network import LATENT_DISTANCE, RECONSTRUCTIONS, build_generator, compile_for_training
from lesionforge.synthesize.paint import SEAM_WIDTH_VOXELS, paint_lesions, seam_weight
from lesionforge.synthesize.tiles import (
    TILE_SIZE,
    TrainingScan,
    bounding_box,
    tile_index,
    tile_starts,
    tile_stream,
    training_scan,
)
from lesionforge.synthesize.training import draw_validation, train_generator

EPOCHS = 120


@pytest.fixture(scope="module")
def levels(patient: Scan) -> np.ndarray:
    statistics = grey_matter_flair(patient.flair, patient.tissues, patient.lesion)
    return hyperintensity_levels(patient.flair, patient.tissues, patient.lesion, statistics)


@pytest.fixture(scope="module")
def example(patient: Scan, levels: np.ndarray) -> TrainingScan:
    filled, _ = fill_lesions(
        [patient.t1w, patient.flair], (levels > 0) | patient.lesion, patient.tissues == 3, np.random.default_rng(1)
    )
    slices = np.zeros_like(patient.brain)
    slices[:, :, 23:27] = patient.brain[:, :, 23:27]
    return training_scan((patient.t1w, patient.flair), (filled[0], filled[1]), levels, slices)


def test_parameter_count_is_the_published_one() -> None:
    training, inference = build_generator(32)
    assert training.count_params() == inference.count_params() == 2_058_498


def test_any_size_divisible_by_eight() -> None:
    _, inference = build_generator(2)
    for size in ((64, 64), (40, 88)):
        inputs = [np.zeros((1, *size, 1 + LEVEL_COUNT), np.float32)] * 2
        assert [output.shape for output in inference.predict_on_batch(inputs)] == [(1, *size, 1)] * 2


def test_loss_is_six_errors_and_the_latent_variance() -> None:
    nets.set_up(1)
    training, _ = build_generator(2)
    compile_for_training(training)
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=(2, 16, 16, 9)).astype(np.float32) for name in ("t1w", "flair")}
    real = np.zeros((2, 16, 16, 1), np.float32)
    outputs = training.predict_on_batch(inputs)
    expected = sum(np.abs(outputs[name]).mean() for name in RECONSTRUCTIONS) + outputs[LATENT_DISTANCE].mean() / 4
    targets = dict.fromkeys(RECONSTRUCTIONS, real) | {LATENT_DISTANCE: np.zeros((2, 2), np.float32)}
    loss = training.evaluate(inputs, targets, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_tiles_reach_every_brain_voxel() -> None:
    brain = np.zeros((100, 70, 3), bool)
    brain[5:95, 3:66, 1] = True
    reached = np.zeros_like(brain)
    for x, y, z in tile_index(brain):
        tile = brain[x : x + TILE_SIZE, y : y + TILE_SIZE, z]
        assert tile.shape == (TILE_SIZE, TILE_SIZE)
        assert tile.any()
        reached[x : x + TILE_SIZE, y : y + TILE_SIZE, z] = True
    assert reached[brain].all()
    assert tile_starts(64, 32) == [0]
    assert tile_starts(100, 32) == [0, 32, 36]


def test_bounding_box_of_nothing_is_everything() -> None:
    assert bounding_box(np.zeros((3, 4), bool)) == (slice(0, 3), slice(0, 4))


def test_a_stream_gives_each_tile_once_and_repeats_by_seed(example: TrainingScan) -> None:
    stream = tile_stream([example, example], 2, seed=1, shuffle=True)
    inputs = np.concatenate([stream[n][0]["flair"] for n in range(len(stream))])
    assert len(inputs) == 2 * len(tile_index(example.brain))
    again = tile_stream([example, example], 2, seed=1, shuffle=True)
    assert np.array_equal(stream[0][0]["flair"], again[0][0]["flair"])
    assert len(tile_stream([example], 2, seed=1, shuffle=True, tiles_per_epoch=3)) == 1


def test_validation_is_by_subject_and_never_all() -> None:
    rng = np.random.default_rng(0)
    assert draw_validation(["a", "a"], rng) == []
    assert len(draw_validation(["a", "b"], rng)) == 1
    assert len(draw_validation([f"s{n}" for n in range(10)], rng)) == 3


@pytest.fixture(scope="module")
def trained(example: TrainingScan) -> tuple:
    nets.set_up(1)
    return train_generator([example], [], width=8, epochs=EPOCHS, seed=1)


def test_training_learns(trained: tuple) -> None:
    _, history = trained
    assert len(history) == EPOCHS
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_a_saved_generator_is_the_same_generator(trained: tuple, tmp_path: Path) -> None:
    model, _ = trained
    nets.save_models(tmp_path, {"generator": model}, {"kind": "generator"})
    nets.read_card(tmp_path, "generator")
    inputs = [np.random.default_rng(n).normal(size=(1, 32, 32, 9)).astype(np.float32) for n in (1, 2)]
    loaded = nets.load_model(tmp_path, "generator").predict_on_batch(inputs)
    for mine, theirs in zip(model.predict_on_batch(inputs), loaded, strict=True):
        assert np.array_equal(mine, theirs)


def test_seam_is_whole_inside_and_nothing_past_two_voxels(patient: Scan) -> None:
    weight = seam_weight(patient.lesion, patient.brain)
    assert (weight[patient.lesion] == 1).all()
    far = ~ndimage.binary_dilation(patient.lesion, iterations=SEAM_WIDTH_VOXELS)
    assert not weight[far | ~patient.brain].any()
    assert weight.min() >= 0


def test_painted_lesions_show_and_the_rest_is_untouched(trained: tuple, patient: Scan, healthy: Scan, levels: np.ndarray) -> None:
    model, _ = trained
    painted = np.where(patient.lesion, np.maximum(levels, 1), 0).astype(np.uint8)
    t1w, flair = paint_lesions(model, healthy.t1w, healthy.flair, healthy.brain, patient.lesion, painted)
    untouched = seam_weight(patient.lesion, healthy.brain) == 0
    assert np.array_equal(t1w[untouched], healthy.t1w[untouched])
    assert np.array_equal(flair[untouched], healthy.flair[untouched])
    assert np.isfinite(t1w).all()
    assert np.isfinite(flair).all()
    assert flair[patient.lesion].mean() > healthy.flair[patient.lesion].mean() + 0.5
    assert t1w[patient.lesion].mean() < healthy.t1w[patient.lesion].mean()


def test_a_canvas_without_lesions_stays_itself(trained: tuple, healthy: Scan) -> None:
    none = np.zeros(healthy.brain.shape, np.uint8)
    t1w, flair = paint_lesions(trained[0], healthy.t1w, healthy.flair, healthy.brain, none > 0, none)
    assert np.array_equal(t1w, healthy.t1w)
    assert np.array_equal(flair, healthy.flair)
