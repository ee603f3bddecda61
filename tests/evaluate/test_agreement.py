"""Calibration, agreement of volumes over scans, the score of ISBI 2015 and the scores of MICCAI 2008."""

import numpy as np
import pytest

from lesionforge.evaluate.agreement import AGREEMENT_DESCRIPTIONS, isbi2015_score, lin, pearson, volume_agreement
from lesionforge.evaluate.calibration import CALIBRATION_DESCRIPTIONS, PROBABILITY_BINS, measure_calibration
from lesionforge.evaluate.scores import FRACTIONS, RATED, SCORE_DESCRIPTIONS, score_against_rater

SHAPE = (12, 10, 9)


def test_a_certain_and_true_map_is_calibrated_and_a_certain_and_false_one_is_not():
    lesion = np.random.default_rng(0).random(SHAPE) < 0.3
    for probability, wanted in ((lesion, 0), (~lesion, 1)):
        got, reasons = measure_calibration(probability.astype(np.float32), lesion, None)
        assert got == {"expected_calibration_error": wanted, "brier_score": wanted, "calibration_voxels": lesion.size}
        assert not reasons


def test_the_share_of_lesion_as_a_constant_is_calibrated_without_being_sharp():
    lesion = np.zeros(SHAPE, bool)
    lesion[:3] = True
    got, _ = measure_calibration(np.full(SHAPE, 0.25), lesion, None)
    assert got["expected_calibration_error"] == pytest.approx(0, abs=1e-12)
    assert got["brier_score"] == pytest.approx(0.25 * 0.75)


def test_probabilities_that_are_drawn_from_are_calibrated():
    rng = np.random.default_rng(1)
    probability = rng.random((60, 60, 60))
    got, _ = measure_calibration(probability, rng.random(probability.shape) < probability, None)
    assert got["expected_calibration_error"] < 0.01
    assert got["brier_score"] == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_is_that_of_brute_force_inside_the_mask_alone(seed):
    rng = np.random.default_rng(seed)
    probability, lesion, inside = rng.random(SHAPE).round(2), rng.random(SHAPE) < 0.2, rng.random(SHAPE) < 0.7
    probability[~inside] = 1
    got, _ = measure_calibration(probability, lesion, inside)
    values = list(zip(probability[inside].tolist(), lesion[inside].tolist(), strict=True))
    error = 0.0
    for number in range(PROBABILITY_BINS):
        top = number == PROBABILITY_BINS - 1
        here = [(p, y) for p, y in values if number <= p * PROBABILITY_BINS < number + 1 or (top and p == 1)]
        if here:
            gap = np.mean([p for p, _ in here]) - np.mean([y for _, y in here])
            error += len(here) / len(values) * abs(gap)
    assert got["expected_calibration_error"] == pytest.approx(error)
    assert got["brier_score"] == pytest.approx(np.mean([(p - y) ** 2 for p, y in values]))


def test_calibration_in_an_empty_mask_is_undefined():
    got, reasons = measure_calibration(np.zeros(SHAPE), np.zeros(SHAPE, bool), np.zeros(SHAPE, bool))
    assert set(got) == set(CALIBRATION_DESCRIPTIONS)
    assert {name for name, value in got.items() if np.isnan(value)} == set(reasons) == set(got) - {"calibration_voxels"}


def test_bland_altman_of_three_scans_by_hand():
    got, reasons = volume_agreement(np.array([2.0, 5.0, 11.0]), np.array([1.0, 5.0, 9.0]))
    assert got["volume_bias_ml"] == 1  # of 1, 0 and 2, whose standard deviation is 1
    assert (got["volume_limit_low_ml"], got["volume_limit_high_ml"]) == (1 - 1.96, 1 + 1.96)
    assert not reasons


def test_equal_volumes_agree_perfectly_and_shifted_ones_correlate_without_concordance():
    volumes = np.array([1.0, 4.0, 2.0, 8.0])
    assert (pearson(volumes, volumes), lin(volumes, volumes)) == pytest.approx((1, 1))
    assert pearson(volumes, volumes + 10) == pytest.approx(1)
    assert lin(volumes, volumes + 10) < 0.2
    assert lin(volumes, volumes + 10) == lin(volumes + 10, volumes)


@pytest.mark.parametrize("scans", [1, 2])
def test_what_too_few_scans_cannot_tell_is_nan_with_a_reason(scans):
    got, reasons = volume_agreement(np.array([1.0, 2.0])[:scans], np.array([3.0, 5.0])[:scans])
    assert set(got) == set(AGREEMENT_DESCRIPTIONS)
    missing = {name for name, value in got.items() if np.isnan(value)}
    assert missing == set(reasons)
    # Two points always lie on a line: their correlation says nothing.
    assert missing == ({"volume_pearson"} if scans == 2 else set(got) - {"volume_bias_ml"})


def test_volumes_that_do_not_differ_have_no_correlation():
    _, reasons = volume_agreement(np.full(4, 2.0), np.full(4, 2.0))
    assert set(reasons) == {"volume_pearson", "volume_lin"}


def test_the_isbi_score_by_hand():
    scans = {
        "dice": np.array([0.5, 0.7]),
        "voxel_precision": np.array([0.6, 0.8]),
        "lesion_precision": np.array([0.4, 0.6]),
        "lesion_recall": np.array([0.2, 0.4]),
    }
    score, reason = isbi2015_score(scans, 0.9)
    assert score == pytest.approx(0.6 / 8 + 0.7 / 8 + 0.5 / 4 + 0.3 / 4 + 0.9 / 4)
    assert reason is None
    perfect, _ = isbi2015_score({name: np.ones(3) for name in scans}, 1.0)
    assert perfect == 1


def test_the_isbi_score_is_undefined_where_a_part_of_it_is():
    scans = {name: np.ones(3) for name in ("dice", "voxel_precision", "lesion_precision", "lesion_recall")}
    assert isbi2015_score(scans, float("nan"))[1] == "volume_pearson is undefined"
    scans["lesion_recall"] = np.array([1, np.nan, 1])
    score, reason = isbi2015_score(scans, 1.0)
    assert np.isnan(score) and reason == "lesion_recall is undefined in 1 of 3 scans"


RATER = {"avd_percent": 40.0, "assd_mm": 4.0, "lesion_recall": 0.6, "lesion_precision": 0.8}


def test_the_second_rater_scores_90_and_a_perfect_prediction_100():
    for measured, wanted in ((RATER, 90), (dict.fromkeys(RATED, 0.0) | dict.fromkeys(FRACTIONS, 1.0), 100)):
        got, reasons = score_against_rater(measured, RATER)
        assert got == pytest.approx(dict.fromkeys(SCORE_DESCRIPTIONS, wanted))
        assert not reasons


def test_a_score_ends_at_0():
    got, _ = score_against_rater(RATER | {"avd_percent": 4000.0}, RATER)
    assert (got["score_avd_percent"], got["score"]) == pytest.approx((0, 270 / 4))


@pytest.mark.parametrize(("own", "rater"), [(np.nan, 4.0), (4.0, None), (4.0, 0.0)])
def test_a_score_without_one_of_its_errors_is_nan_with_a_reason(own, rater):
    got, reasons = score_against_rater(RATER | {"assd_mm": own}, RATER | {"assd_mm": rater})
    assert {name for name, value in got.items() if np.isnan(value)} == {"score_assd_mm", "score"} == set(reasons)
