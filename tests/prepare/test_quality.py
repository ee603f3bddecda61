"""Quality limits: what passes, warns and fails, the user's own limits, and the sentence that a failed scan gets."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import read_json, write_json
from lesionforge.prepare.quality import in_words, judge, named_figures, read_limits, worst

LIMITS = {"brain_volume_ml": replace(read_limits()["brain_volume_ml"], warn=(1000, None), fail=(800, 2000))}


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (1500, "pass"),
        (1000, "pass"),
        (999.9, "warn"),
        (800, "warn"),
        (799.9, "fail"),
        (2000, "pass"),
        (2000.1, "fail"),
        (None, "pass"),
    ],
)
def test_a_value_is_judged_by_the_outermost_limit_it_crosses(value, level):
    (verdict,) = judge({"brain_volume_ml": value}, LIMITS)
    assert verdict.level == worst([verdict]) == level
    assert bool(verdict.sentence) == (level != "pass")


def test_the_worst_of_many_counts_and_none_passes():
    assert worst(judge({"brain_volume_ml": 1, "t1w_contrast": 1}, read_limits())) == "fail"
    assert worst([]) == "pass"


def test_packaged_limits_warn_before_they_fail():
    for name, limit in read_limits().items():
        assert limit.description and limit.remedy, name
        for warn, fail, sign in zip(limit.warn, limit.fail, (1, -1), strict=True):
            assert fail is None or (warn is not None and sign * warn >= sign * fail), name


def test_every_figure_that_prepare_writes_is_described(prepared_phantom):
    figures = read_json(prepared_phantom / "sub-p01_desc-prepare.json")
    assert set(named_figures("prepare", figures)) <= set(read_limits())
    assert worst(judge(figures, read_limits())) != "fail"


def test_own_limits_replace_only_the_ranges_they_give(tmp_path):
    path = tmp_path / "own.json"
    path.write_text('{"brain_volume_ml": {"fail": [700, null]}}')
    own, packaged = read_limits(path), read_limits()
    assert own.pop("brain_volume_ml") == replace(packaged.pop("brain_volume_ml"), fail=(700, None))
    assert own == packaged


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"brain_size": {"fail": [1, 2]}}', "'brain_size' is no quality figure"),
        ('{"brain_volume_ml": [1, 2]}', "must hold warn, fail or both"),
        ('{"brain_volume_ml": {"limit": [1, 2]}}', "must hold warn, fail or both"),
        ('{"brain_volume_ml": {"fail": [1]}}', "[1] is no pair"),
        ('{"brain_volume_ml": {"fail": ["1", 2]}}', "is no pair"),
        ('{"brain_volume_ml": {"fail": [NaN, 2]}}', "is no pair"),
        ('{"brain_volume_ml": {"warn": [3, 2]}}', "low bound 3 lies above the high bound 2"),
    ],
)
def test_a_broken_limits_file_is_named_with_what_is_wrong(tmp_path, text, said):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_limits(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def run(tmp_path, stage, figures, *options):
    path = tmp_path / f"sub-01_ses-2_desc-{stage}.json"
    write_json(figures, path)
    return CliRunner().invoke(main, ["prepare", "judge", "--figures", str(path), *options])


def test_a_scan_within_its_limits_passes_and_a_warning_is_said(tmp_path):
    result = run(tmp_path, "prepare", {"brain_volume_ml": 950, "gm_share_percent": None, "unknown": 1})
    assert result.exit_code == 0
    assert "sub-01_ses-2: brain_volume_ml is 950 (warn limit: 1000 to 1900); look at the brain mask" in result.stderr


def test_a_failed_scan_ends_in_one_sentence_with_each_figure_its_limit_and_what_to_check(tmp_path):
    result = run(tmp_path, "prepare", {"brain_volume_ml": 620.5, "field_of_view_cut_percent": 48, "wm_share_percent": 40})
    assert result.exit_code == 2
    (sentence,) = result.stderr.strip().splitlines()
    assert sentence.startswith(
        "Error: sub-01_ses-2: brain_volume_ml is 620.5 (fail limit: 850 to 2300), field_of_view_cut_percent"
    )
    assert "check that the whole brain was scanned" in sentence
    assert "wm_share_percent" not in sentence


@pytest.mark.parametrize("figures", [{"t1w_contrast": -0.4}, {"t1w_contrast": 1.1, "flair_contrast": 1.1}])
def test_exchanged_contrasts_are_said_to_be_swapped(tmp_path, figures):
    result = run(tmp_path, "prepare", figures)
    assert result.exit_code == 2
    assert "T1w and FLAIR may be swapped, or the FLAIR may be a T1w" in result.stderr


def test_the_figures_of_register_are_judged_under_their_own_names(tmp_path):
    result = run(tmp_path, "register", {"dice_gm": 0.1})
    assert result.exit_code == 2
    assert "register_dice_gm is 0.1" in result.stderr


def test_own_limits_hold_for_the_command_and_are_read_first(tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"brain_volume_ml": {"warn": [100, None], "fail": [100, None]}}))
    assert run(tmp_path, "prepare", {"brain_volume_ml": 620}, "--limits", str(own)).exit_code == 0
    own.write_text("{")
    assert "own.json: is not JSON" in run(tmp_path, "prepare", {"brain_volume_ml": 620}, "--limits", str(own)).stderr


def test_a_file_of_another_name_is_refused(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("{}")
    result = CliRunner().invoke(main, ["prepare", "judge", "--figures", str(path)])
    assert result.exit_code == 2
    assert "figures.json: is no file of quality figures" in result.stderr


def test_the_documented_limits_are_the_packaged_ones():
    rows = re.findall(
        r"^\| `.*$", (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert rows == [
        f"| `{name}` | {limit.description} | {limit.unit} | {in_words(limit.warn)} | {in_words(limit.fail)} | {limit.remedy} |"
        for name, limit in read_limits().items()
    ]
