"""Laws of the measures of an arm, then examples small enough to count by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from lesionforge.evaluate.arms import MEASURES, PROTOCOL, measures_of_arm
from lesionforge.evaluate.protocols import measure_pair

SHAPE = (9, 8, 7)


def boxes(*corners: tuple[int, int, int], size: int = 2) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = True
    return mask


def noise(seed: int, density: float = 0.04) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE) < density


EMPTY = np.zeros(SHAPE, bool)


def measure(prediction: np.ndarray, reference: np.ndarray, voxel_mm3: float = 1.0) -> SimpleNamespace:
    values, reasons = measures_of_arm(measure_pair(prediction, reference, (1, 1, voxel_mm3), voxel_mm3, PROTOCOL))
    assert list(values) == list(MEASURES)
    return SimpleNamespace(**values, reasons=reasons)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_with_itself_is_perfect(seed):
    mask = noise(seed)
    got = measure(mask, mask)
    assert (got.dice, got.lesion_sensitivity, got.lesion_false_discovery) == (1, 1, 0)
    assert (got.voxel_precision, got.voxel_recall) == (1, 1)
    assert got.lesions_found == got.lesions_reference == got.lesions_predicted > 0
    assert not got.reasons


def test_disjoint_masks_share_nothing():
    got = measure(boxes((0, 0, 0)), boxes((5, 5, 4)))
    assert (got.dice, got.lesion_sensitivity, got.lesion_false_discovery) == (0, 0, 1)
    assert not got.reasons


@pytest.mark.parametrize("seed", range(5))
def test_swapping_roles_keeps_dice_and_swaps_the_rest(seed):
    prediction, reference = noise(seed, 0.05), noise(seed + 100, 0.1)
    one, other = measure(prediction, reference), measure(reference, prediction)
    assert one.dice == other.dice
    assert one.voxel_precision == other.voxel_recall
    assert one.lesion_sensitivity == pytest.approx(1 - other.lesion_false_discovery)
    assert one.lesions_reference == other.lesions_predicted
    assert one.volume_reference_ml == other.volume_predicted_ml


@pytest.mark.parametrize("seed", range(5))
def test_dice_is_the_harmonic_mean_of_precision_and_recall(seed):
    got = measure(noise(seed, 0.3), noise(seed + 1, 0.3))
    assert got.dice == pytest.approx(2 / (1 / got.voxel_precision + 1 / got.voxel_recall))


def test_a_subset_of_the_lesions_finds_that_many_and_invents_none():
    got = measure(boxes((0, 0, 0)), boxes((0, 0, 0), (5, 0, 0), (0, 5, 0), (5, 5, 5)))
    assert got.lesion_sensitivity == 1 / 4
    assert got.lesion_false_discovery == 0
    assert got.voxel_precision == 1


def test_one_shared_voxel_is_enough_to_find_a_lesion():
    touching = np.zeros(SHAPE, bool)
    touching[1, 1, 1] = True
    got = measure(touching, boxes((0, 0, 0)))
    assert got.lesions_found == 1
    assert got.dice == pytest.approx(2 * 1 / (1 + 8))


def test_lesions_that_meet_at_a_corner_are_one():
    mask = np.zeros(SHAPE, bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert measure(mask, mask).lesions_reference == 1


def test_a_prediction_that_bridges_two_lesions_finds_both():
    bridge = np.zeros(SHAPE, bool)
    bridge[1:6, 0, 0] = True
    got = measure(bridge, boxes((0, 0, 0), (5, 0, 0)))
    assert (got.lesions_found, got.lesions_reference, got.lesions_predicted) == (2, 2, 1)
    assert got.lesion_false_discovery == 0


def test_a_false_lesion_is_discovered_once_whatever_its_size():
    small = measure(boxes((0, 0, 0)) | boxes((5, 5, 4), size=1), boxes((0, 0, 0)))
    large = measure(boxes((0, 0, 0)) | boxes((5, 5, 4), size=3), boxes((0, 0, 0)))
    assert small.lesion_false_discovery == large.lesion_false_discovery == 1 / 2
    assert small.dice > large.dice


def test_volumes_scale_with_the_voxel_and_nothing_else_does():
    prediction, reference = noise(1), noise(2)
    one, eight = vars(measure(prediction, reference)), vars(measure(prediction, reference, 8))
    for name in MEASURES:
        factor = 8 if name.endswith("_ml") else 1
        assert eight[name] == pytest.approx(one[name] * factor), name
    assert one["volume_reference_ml"] == pytest.approx(reference.sum() / 1000)


@pytest.mark.parametrize(
    ("prediction", "reference", "missing"),
    [
        (boxes((0, 0, 0)), EMPTY, {"lesion_sensitivity", "voxel_recall", "avd_percent"}),
        (EMPTY, boxes((0, 0, 0)), {"lesion_false_discovery", "voxel_precision"}),
        (EMPTY, EMPTY, set(MEASURES) - {name for name in MEASURES if name.startswith(("lesions_", "volume_"))}),
    ],
    ids=["empty reference", "empty prediction", "both empty"],
)
def test_what_is_undefined_is_nan_with_a_reason_and_nothing_else_is(prediction, reference, missing):
    got = vars(measure(prediction, reference))
    assert {name for name in MEASURES if np.isnan(got[name])} == missing == set(got["reasons"])


def test_a_false_alarm_on_a_lesion_free_scan_has_dice_0():
    got = measure(boxes((0, 0, 0)), EMPTY)
    assert (got.dice, got.lesion_false_discovery) == (0, 1)
