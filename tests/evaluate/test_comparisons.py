"""Paired differences: exact where the answer is known, intervals as scipy makes them, what is undefined left out and said."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lesionforge.evaluate.arms import read_rows, summarise
from lesionforge.evaluate.bootstrap import (
    Bootstrap,
    percentile_interval,
    resampled_means,
    resampled_means_of_groups,
    resampled_share,
)
from lesionforge.evaluate.charts import sizes_chart
from lesionforge.evaluate.comparisons import COMPARISON_COLUMNS, WITHIN, compare_arms, pairs_of_arms
from lesionforge.images import write_json

SETTINGS = Bootstrap()


def interval(means: np.ndarray) -> tuple[float, float]:
    return percentile_interval(means, SETTINGS)


@pytest.fixture
def table(tmp_path):
    def build(*rows) -> pd.DataFrame:
        paths = []
        for number, content in enumerate(rows):
            paths.append(tmp_path / f"{number}.json")
            write_json(content, paths[-1])
        return read_rows(paths)

    return build


def pick(comparisons: pd.DataFrame, **wanted: str) -> pd.Series:
    """The only row with these cells."""
    chosen = comparisons[np.logical_and.reduce([comparisons[name] == value for name, value in wanted.items()])]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_resampling_is_that_of_scipy():
    values = np.random.default_rng(3).gamma(2, size=40)
    wanted = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1))
    assert interval(resampled_means(values, SETTINGS.generator(), SETTINGS)) == pytest.approx(tuple(wanted.confidence_interval))


def test_a_share_is_resampled_as_its_units_are():
    rng, values = SETTINGS.generator(), np.repeat([1.0, 0.0], [30, 70])
    wanted = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=rng).confidence_interval
    assert interval(resampled_share(30, 100, rng, SETTINGS)) == pytest.approx(tuple(wanted), abs=0.011)
    assert resampled_share(0, 5, rng, SETTINGS).max() == 0
    assert resampled_share(5, 5, rng, SETTINGS).min() == 1


def test_groups_of_one_member_are_plain_units_and_members_only_widen():
    values = np.random.default_rng(4).normal(size=12)
    plain = resampled_means(values, SETTINGS.generator(), SETTINGS)
    single = resampled_means_of_groups([values[[number]] for number in range(12)], SETTINGS.generator(), SETTINGS)
    assert interval(single) == pytest.approx(interval(plain), abs=0.1)
    spread = resampled_means_of_groups([value + np.array([-3, 3.0]) for value in values], SETTINGS.generator(), SETTINGS)
    assert spread.var() == pytest.approx(values.var() / 12 + 9 / 2 / 12, rel=0.15)


def test_each_arm_meets_real_then_augmented_meets_the_rest_and_every_two_arms_once():
    arms = ["real", "augmented", "classical", "mix"]
    pairs = pairs_of_arms(arms)
    assert pairs[:3] == [("augmented", "real"), ("classical", "real"), ("mix", "real")]
    assert pairs[3:] == [("augmented", "classical"), ("augmented", "mix"), ("classical", "mix")]
    assert pairs_of_arms(["a", "b"]) == [("a", "b")]
    assert pairs_of_arms(["real"]) == []


def test_a_constant_difference_is_that_mean_with_an_interval_of_no_width(table, row):
    """Each subject and seed has a level of its own, which pairing takes away."""
    levels = {("1", 1): 0.1, ("1", 2): 0.4, ("2", 1): 0.2, ("2", 2): 0.3}
    rows = [
        row(arm, subject, seed=seed, fold=f"f{subject}", dice=level + gain, found=(arm == "augmented",) * 5, false=(0, 0))
        for (subject, seed), level in levels.items()
        for arm, gain in (("real", 0), ("augmented", 0.25))
    ]
    got = compare_arms(table(*rows))
    assert list(got) == list(COMPARISON_COLUMNS)
    assert set(got["measure"]) == set(WITHIN)
    for measure, wanted in (("dice", 0.25), ("lesion_sensitivity", 1), ("lesion_false_discovery", 0), ("avd_percent", 0)):
        rows = got[got["measure"] == measure]
        assert list(rows["subject"]) == ["n/a", "n/a", "1", "2"]
        for bound in ("difference", "low", "high"):
            assert list(rows[bound]) == pytest.approx([wanted] * 4), (measure, bound)
    whole = pick(got, measure="dice", resampled="subjects")
    assert (whole["subjects"], whole["seeds"], whole["pairs"], whole["undefined"], whole["lesions"]) == (2, 2, 4, 0, "n/a")
    assert (whole["arm_mean"], whole["against_mean"]) == pytest.approx((0.5, 0.25))
    assert pick(got, measure="lesion_sensitivity", subject="n/a", resampled="reference lesions")["lesions"] == "10"
    assert pick(got, measure="lesion_false_discovery", subject="2")["lesions"] == "8"


def test_an_arm_with_one_run_is_paired_with_every_seed(table, row):
    rows = [
        row("baseline", "1", dice=0.5),
        *(row("augmented", "1", seed=seed, fold="a", dice=0.5 + seed / 10) for seed in (1, 2, 3)),
    ]
    got = compare_arms(table(*rows))
    whole = pick(got, measure="dice", resampled="subjects")
    assert whole["difference"] == pytest.approx(0.2)
    assert (whole["pairs"], whole["seeds"]) == (3, 3)
    assert whole["reason"] == "one subject only" and np.isnan(whole["low"])
    runs = pick(got, measure="dice", resampled="runs")
    assert (runs["low"], runs["high"]) == pytest.approx((0.1, 0.3))
    # Its two predicted lesions count once, the six of the others too.
    assert pick(got, measure="lesion_false_discovery", subject="1")["lesions"] == "8"


def test_seeds_and_folds_without_partner_are_left_out(table, row):
    rows = [row("real", "1", seed=seed, fold=fold) for seed, fold in product((1, 2), "ab")]
    rows += [row("augmented", "1", seed=seed, fold=fold, dice=0.7) for seed, fold in ((2, "b"), (2, "c"), (3, "a"))]
    assert pick(compare_arms(table(*rows)), measure="dice", subject="1")["pairs"] == 1


def test_arms_without_a_scan_in_common_have_no_difference(table, row):
    got = compare_arms(table(row("real", "1"), row("augmented", "2")))
    assert set(got["reason"]) == {"no test scan in common"}
    assert got["difference"].isna().all()


def test_undefined_measures_are_left_out_and_counted(table, row):
    rows = [row("real", subject, false=false) for subject, false in (("1", (0, 1)), ("2", ()), ("3", (1, 1)))]
    rows += [row("augmented", subject, false=(0, 0), dice=None if subject == "1" else 0.5) for subject in "123"]
    got = compare_arms(table(*rows))
    whole = pick(got, measure="lesion_false_discovery", resampled="subjects")
    assert (whole["difference"], whole["subjects"], whole["undefined"]) == (-0.75, 2, 1)
    lost = pick(got, measure="lesion_false_discovery", subject="2")
    assert np.isnan(lost["difference"])
    assert (lost["reason"], lost["undefined"], lost["pairs"]) == ("undefined in every pair", 1, 0)
    assert pick(got, measure="dice", resampled="subjects")["undefined"] == 1


def test_subjects_weigh_the_same_whatever_their_number_of_runs(table, row):
    rows = [row(arm, "1", seed=seed, dice=0.2 if arm == "real" else 0.4) for arm in ("real", "augmented") for seed in (1, 2, 3)]
    rows += [row(arm, "2", seed=1, dice=0.2 if arm == "real" else 1.0) for arm in ("real", "augmented")]
    arms = table(*rows)
    assert pick(compare_arms(arms), measure="dice", resampled="subjects")["difference"] == pytest.approx(0.5)
    summary = summarise(arms)
    assert pick(summary, arm="augmented", subject="n/a")["dice"] == pytest.approx(0.7)


def test_reference_lesions_are_resampled_in_both_arms_and_all_runs_at_once(table, row):
    """The seeds find the same lesions, so that more of them make the interval no narrower."""
    real, augmented = [1, 0, 0, 0] * 10, [1, 1, 0, 0] * 10
    rows = [
        row(arm, "1", seed=seed, found=found) for arm, found in (("real", real), ("augmented", augmented)) for seed in (1, 2, 3)
    ]
    got = pick(compare_arms(table(*rows)), measure="lesion_sensitivity", subject="1")
    difference = np.subtract(augmented, real)
    wanted = stats.bootstrap((difference,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1))
    assert (got["low"], got["high"]) == pytest.approx(tuple(wanted.confidence_interval))


def test_predicted_lesions_are_resampled_run_by_run(table, row):
    rows = [row(arm, "1", false=[1] * false + [0] * (50 - false)) for arm, false in (("real", 10), ("augmented", 25))]
    got = pick(compare_arms(table(*rows)), measure="lesion_false_discovery", subject="1")
    error = np.sqrt(0.2 * 0.8 / 50 + 0.5 * 0.5 / 50)
    assert got["difference"] == pytest.approx(0.3)
    assert (got["low"], got["high"]) == pytest.approx((0.3 - 1.96 * error, 0.3 + 1.96 * error), abs=0.02)


def test_no_interval_depends_on_the_other_arms(table, row):
    rows = [row(arm, subject, dice=dice) for arm, values in (("real", (0.1, 0.3)), ("augmented", (0.6, 0.4)))
            for subject, dice in zip("12", values, strict=True)]  # fmt: skip
    few, more = compare_arms(table(*rows)), compare_arms(table(*rows, row("a", "1"), row("a", "2")))
    same = more[(more["arm"] == "augmented") & (more["against"] == "real")].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, same, check_dtype=False)


def test_the_summary_has_each_subject_and_the_spread_over_seeds(table, row):
    rows = [row("real", subject, seed=seed, dice=0.2 * seed + (subject == "2") * 0.1) for subject in "12" for seed in (1, 2, 3)]
    rows.append(row("baseline", "1", dice=0.5))
    got = summarise(table(*rows))
    assert list(zip(got["arm"], got["subject"], strict=True)) == [
        ("real", "n/a"), ("real", "1"), ("real", "2"), ("baseline", "n/a"), ("baseline", "1"),
    ]  # fmt: skip
    assert list(got["n"]) == [6, 3, 3, 1, 1]
    assert list(got["scans"]) == [2, 1, 1, 1, 1]
    assert list(got["dice"]) == pytest.approx([0.45, 0.4, 0.5, 0.5, 0.5])
    assert list(got["dice_seed_sd"][:3]) == pytest.approx([0.2] * 3)
    assert got["dice_seed_sd"][3:].isna().all()


def test_arms_can_be_told_apart_in_the_figure_of_sizes(table, row):
    arms = table(*(row(f"arm{number}", "01") for number in range(12)))
    for axes in sizes_chart(arms).axes:
        looks = [(line.get_marker(), line.get_color(), line.get_linestyle()) for line in axes.get_lines()]
        assert len({look[:2] for look in looks}) == len(looks) == 12
