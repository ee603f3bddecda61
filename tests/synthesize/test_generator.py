"""The network, its training and what it paints."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy import ndimage

from lesionforge import nets
from lesionforge.images import Scan
from lesionforge.synthesize import paint
from lesionforge.synthesize.config import CONFIGURATIONS
from lesionforge.synthesize.levels import ALWAYS, Scale, levels_of
from lesionforge.synthesize.network import LATENT_VARIANCE, build_generator, compile_for_training
from lesionforge.synthesize.paint import SEAM_WIDTH_VOXELS, generate, paint_lesions, seam_weight
from lesionforge.synthesize.tiles import StoredScan
from lesionforge.synthesize.training import draw_validation, train_generator

SALEM, OURS = CONFIGURATIONS["salem2019"], CONFIGURATIONS["lesionforge"]
QUICK = replace(OURS, width=8, epochs=45, patience=None)


def test_the_published_network_has_the_published_parameters() -> None:
    training, inference = build_generator(SALEM)
    assert training.count_params() == inference.count_params() == 4_587_458
    # The published count with shared slopes is without a slope for each of the two outputs.
    assert build_generator(replace(SALEM, shared_slopes=True, output_prelu=False))[0].count_params() == 2_058_498


def test_the_published_network_has_the_published_layers() -> None:
    _, inference = build_generator(SALEM)
    t1w, flair = (decoder for decoder in inference.layers if decoder.name.endswith("_decoder"))

    def kernels(layers: list) -> list[tuple[str, int, int, int]]:
        """Kind, kernel side, channels in and out of every convolution."""
        found = [layer for layer in layers if layer.__class__.__name__.startswith("Conv")]
        return [
            (layer.__class__.__name__, layer.kernel_size[0], layer.input.shape[-1], layer.output.shape[-1]) for layer in found
        ]

    def block(channels_in: int, channels: int) -> list[tuple[str, int, int, int]]:
        return [("Conv2D", 3, channels_in, channels), ("Conv2D", 1, channels_in, channels)]

    def up(channels_in: int, channels: int) -> list[tuple[str, int, int, int]]:
        return [("Conv2DTranspose", 2, channels_in, channels)]

    down = block(9, 32) + block(32, 64) + block(64, 128) + block(128, 256)
    rise = up(256, 128) + block(128, 128) * 2 + up(128, 64) + block(64, 64) + up(64, 32) + [("Conv2D", 1, 32, 32)]
    assert sorted(kernels(inference.layers)) == sorted(2 * (down + rise))
    for decoder in (t1w, flair):
        assert kernels(decoder.layers) == [*block(32, 32) * 2, *block(64, 32), *block(32, 32), ("Conv2D", 1, 96, 1)]
        assert decoder.layers[-1].__class__.__name__ == "PReLU"
        assert decoder.layers[-1].alpha.shape == (64, 64, 1)
    assert [layer.name for layer in inference.layers if layer.__class__.__name__ == "Maximum"]
    assert not [layer for layer in inference.layers if "Normalization" in layer.__class__.__name__]


def test_shared_slopes_take_any_size_divisible_by_eight() -> None:
    _, inference = build_generator(replace(OURS, width=2))
    for size in ((64, 64), (40, 88)):
        inputs = [np.zeros((1, *size, 3 * OURS.slice_channels), np.float32)] * 2
        assert [output.shape for output in inference.predict_on_batch(inputs)] == [(1, *size, 1)] * 2


@pytest.mark.parametrize("contrasts", [("flair",), ("t1w", "flair"), ("t1w", "t2w", "flair")])
def test_any_contrasts_by_the_same_design(contrasts: tuple[str, ...]) -> None:
    config = replace(SALEM, width=2, contrasts=contrasts)
    training, inference = build_generator(config)
    assert len(inference.inputs) == len(inference.outputs) == len(contrasts)
    assert len(training.outputs) == len(contrasts) * (len(contrasts) + 1) + 1


def test_loss_is_six_errors_and_the_latent_variance() -> None:
    nets.set_up(1)
    training, _ = build_generator(replace(SALEM, width=2))
    compile_for_training(training, SALEM)
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=(2, 64, 64, 9)).astype(np.float32) for name in ("t1w", "flair")}
    real = np.zeros((2, 64, 64, 1), np.float32)
    outputs = training.predict_on_batch(inputs)
    assert len(SALEM.reconstructions) == 6
    expected = sum(np.abs(outputs[name]).mean() for name in SALEM.reconstructions) + outputs[LATENT_VARIANCE].mean()
    targets = dict.fromkeys(SALEM.reconstructions, real) | {LATENT_VARIANCE: np.zeros((2, 2), np.float32)}
    loss = training.evaluate(inputs, targets, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_weighted_voxels_weigh_more_in_the_errors_and_not_in_the_variance() -> None:
    nets.set_up(1)
    config = replace(OURS, width=2)
    training, _ = build_generator(config)
    compile_for_training(training, config)
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=(2, 64, 64, 3 * OURS.slice_channels)).astype(np.float32) for name in ("t1w", "flair")}
    outputs = training.predict_on_batch(inputs)
    weight = rng.uniform(1, 9, size=(2, 64, 64)).astype(np.float32)
    expected = outputs[LATENT_VARIANCE].mean()
    expected += sum(np.average(np.abs(outputs[name][..., 0]), weights=weight) for name in config.reconstructions)
    targets = dict.fromkeys(config.reconstructions, np.zeros((2, 64, 64, 1), np.float32))
    targets[LATENT_VARIANCE] = np.zeros((2, 2), np.float32)
    weights = dict.fromkeys(config.reconstructions, weight) | {LATENT_VARIANCE: np.ones(2, np.float32)}
    loss = training.test_on_batch(inputs, targets, weights, return_dict=True)["loss"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_validation_is_by_subject_and_never_all() -> None:
    rng = np.random.default_rng(0)
    assert draw_validation(["a", "a"], rng, 0.3) == []
    assert len(draw_validation(["a", "b"], rng, 0.3)) == 1
    assert len(draw_validation([f"s{n}" for n in range(10)], rng, 0.3)) == 3


@pytest.fixture(scope="module")
def trained(example: StoredScan) -> tuple:
    nets.set_up(1)
    return train_generator([example], [], QUICK, seed=1)


def test_training_learns(trained: tuple) -> None:
    _, history = trained
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends trace differently")
def test_a_step_is_traced_once(example: StoredScan, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    real = keras.Model.train_step

    def counted(self: keras.Model, data: object) -> object:
        called.append(1)
        return real(self, data)

    monkeypatch.setattr(keras.Model, "train_step", counted)
    nets.set_up(1)
    train_generator([example], [], replace(QUICK, epochs=1), seed=1)
    assert len(called) == 1


def test_a_saved_generator_is_the_same_generator(trained: tuple, tmp_path: Path) -> None:
    model, _ = trained
    nets.save_models(tmp_path, {"generator": model}, {"kind": "generator"})
    nets.read_card(tmp_path, "generator")
    inputs = [np.random.default_rng(n).normal(size=(1, 32, 32, 3 * OURS.slice_channels)).astype(np.float32) for n in (1, 2)]
    loaded = nets.load_model(tmp_path, "generator").predict_on_batch(inputs)
    for mine, theirs in zip(model.predict_on_batch(inputs), loaded, strict=True):
        assert np.array_equal(mine, theirs)


def test_seam_is_whole_inside_and_nothing_past_two_voxels(patient: Scan) -> None:
    weight = seam_weight(patient.lesion, patient.brain)
    assert (weight[patient.lesion] == 1).all()
    far = ~ndimage.binary_dilation(patient.lesion, iterations=SEAM_WIDTH_VOXELS)
    assert not weight[far | ~patient.brain].any()
    assert weight.min() >= 0


def test_painted_lesions_show_in_their_levels_and_the_rest_is_untouched(
    trained: tuple, patient: Scan, healthy: Scan, healthy_scales: dict[str, Scale], levels: dict[str, np.ndarray]
) -> None:
    painted = {name: level * patient.lesion for name, level in levels.items()}
    scales = healthy_scales
    canvas = [healthy.t1w, healthy.flair]
    t1w, flair = paint_lesions(trained[0], QUICK, canvas, healthy.brain, patient.lesion, painted, scales)
    untouched = seam_weight(patient.lesion, healthy.brain) == 0
    assert np.array_equal(t1w[untouched], healthy.t1w[untouched])
    assert np.array_equal(flair[untouched], healthy.flair[untouched])
    for name, image in (("t1w", t1w), ("flair", flair)):
        assert np.isfinite(image).all()
        inside = patient.lesion
        assert np.array_equal(levels_of(scales[name].units(image[inside]), name), painted[name][inside])
    assert (flair != healthy.flair)[patient.lesion].all()


def test_ours_adds_to_the_coarse_painting_of_the_slice_in_the_middle() -> None:
    training, inference = build_generator(replace(OURS, width=2))
    for layer in training.layers:
        if layer.name.endswith("_decoder"):
            for weight in layer.layers[-1].weights:
                weight.assign(np.zeros(weight.shape))
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(1, 16, 16, 3 * OURS.slice_channels)).astype(np.float32) for _ in ALWAYS]
    for given, made in zip(inputs, inference.predict_on_batch(inputs), strict=True):
        assert np.array_equal(made[..., 0], given[..., OURS.slice_channels])


def test_a_canvas_without_lesions_stays_itself(trained: tuple, healthy: Scan, healthy_scales: dict[str, Scale]) -> None:
    none = np.zeros(healthy.brain.shape, np.uint8)
    canvas, scales = [healthy.t1w, healthy.flair], healthy_scales
    painted = paint_lesions(trained[0], QUICK, canvas, healthy.brain, none > 0, dict.fromkeys(ALWAYS, none), scales)
    for before, after in zip(canvas, painted, strict=True):
        assert np.array_equal(after, before)


def test_the_published_network_paints_nothing_past_the_seam(
    patient: Scan, healthy: Scan, healthy_scales: dict[str, Scale], levels: dict[str, np.ndarray]
) -> None:
    config = replace(SALEM, width=2)
    canvas, scales = [healthy.t1w, healthy.flair], healthy_scales
    painted = paint_lesions(build_generator(config)[1], config, canvas, healthy.brain, patient.lesion, levels, scales)
    weight = seam_weight(patient.lesion, healthy.brain)
    for before, after in zip(canvas, painted, strict=True):
        assert np.isfinite(after).all()
        assert np.array_equal(after[weight == 0], before[weight == 0])
        assert (after != before)[patient.lesion].mean() > 0.9


PLAIN = dict.fromkeys(ALWAYS, Scale(0.0, 1.0))


class EchoOfPlace:
    """A network that gives back the FLAIR it gets plus the mean of its window, so that averaging shows."""

    def predict_on_batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [image[..., :1] + image[..., :1].mean(axis=(1, 2), keepdims=True) for image in inputs]


def test_overlapping_tiles_are_averaged_and_what_none_reaches_keeps_the_canvas() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(100, 80, 3)).astype(np.float32)
    brain = np.zeros(image.shape, bool)
    brain[5:95, 4:74, 1] = True
    wanted = np.zeros_like(brain)
    wanted[40, 40, 1] = wanted[6, 5, 1] = True
    out = generate(EchoOfPlace(), SALEM, [image, image], brain, {"flair": np.zeros(image.shape, np.uint8)}, PLAIN, wanted)
    cut = image[5:95, 4:74, 1]
    for x, y in ((40, 40), (6, 5)):
        means = [
            cut[left : left + 64, low : low + 64].mean()
            for left in (0, 16, 26)
            for low in (0, 6)
            if left <= x - 5 < left + 64 and low <= y - 4 < low + 64
        ]
        assert out[0, x, y, 1] == pytest.approx(image[x, y, 1] + np.mean(means), rel=1e-5)
    assert np.array_equal(out[1][~brain], image[~brain])
    assert np.isfinite(out).all()


def test_what_is_painted_hardly_depends_on_how_much_of_the_slice_the_network_sees(
    trained: tuple, patient: Scan, patient_scales: dict[str, Scale], levels: dict[str, np.ndarray], monkeypatch
) -> None:
    lesion = np.zeros_like(patient.lesion)
    lesion[18:24, 18:24, 18:24] = True
    where = {name: np.where(lesion, np.maximum(level, 3), 0).astype(np.uint8) for name, level in levels.items()}
    canvas = [patient.t1w, patient.flair]

    def painted(context: int) -> np.ndarray:
        monkeypatch.setattr(paint, "CONTEXT_VOXELS", context)
        return np.stack(paint_lesions(trained[0], QUICK, canvas, patient.brain, lesion, where, patient_scales))

    narrow, wide = painted(paint.CONTEXT_VOXELS), painted(1000)
    assert np.abs(narrow - wide)[:, lesion].mean() < 0.02
    assert np.array_equal(narrow == np.stack(canvas), wide == np.stack(canvas))


def test_neighbouring_slices_reach_the_network_in_order() -> None:
    seen = []

    class Recorder:
        def predict_on_batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            seen.append(inputs[1])
            return [image[..., :1] for image in inputs]

    config = replace(SALEM, shared_slopes=True, inference_stride=None, neighbours=1)
    flair = np.broadcast_to(np.arange(1, 6, dtype=np.float32), (8, 8, 5))
    levels = np.zeros(flair.shape, np.uint8)
    levels[3, 3] = np.arange(5)
    wanted = np.zeros(flair.shape, bool)
    wanted[0, 0, [0, 3]] = True
    generate(Recorder(), config, [flair, flair], np.ones(flair.shape, bool), {"flair": levels}, PLAIN, wanted)
    (inputs,) = seen
    size = config.slice_channels
    assert inputs.shape == (2, 8, 8, 3 * size)
    # Below the first slice there is nothing; below and above the fourth, its neighbours.
    assert inputs[:, 0, 0, [0, size, 2 * size]].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [np.flatnonzero(inputs[1, 3, 3, start + 1 : start + size]).tolist() for start in (0, size, 2 * size)] == [
        [1],
        [2],
        [3],
    ]
