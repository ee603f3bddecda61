"""The cohort's quality table, and how the page shows it."""

import re

import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.images import read_json, read_tsv
from lesionforge.prepare.quality import in_words, read_limits
from lesionforge.report.gather import gather
from lesionforge.report.page import build
from lesionforge.report.quality import quality_of


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    # They are tested elsewhere; here they only cost time.
    monkeypatch.setattr("lesionforge.report.page.MOST_FIGURES", 0)
    monkeypatch.setattr("lesionforge.report.page.MOST_SYNTHETIC_FIGURES", 0)


def ranges(figure):
    """The limits of a figure as table and page say them."""
    limit = read_limits()[figure]
    return f"warn limit: {in_words(limit.warn)}; fail limit: {in_words(limit.fail)}"


def report(root, out, *more):
    result = CliRunner().invoke(main, ["report", "--root", str(root), "--out", str(out), *more])
    assert result.exit_code == 0, result.output
    return read_tsv(out / "quality.tsv").set_index("id")


def test_each_scan_of_the_cohort_has_a_row_with_status_reasons_and_figures(root, tmp_path):
    table = report(root, tmp_path)
    assert dict(table["status"]) == {"sub-01": "warn", "sub-02": "fail", "sub-03": "missing"}
    assert table["reasons"]["sub-01"] == "csf_share_percent is 2 (warn limit: 3 to 35)"
    assert table["reasons"]["sub-02"] == "csf_share_percent is 0.5 (fail limit: 1 to 50)"
    assert table["reasons"]["sub-03"] == "prepare left no complete folder"
    assert list(table["register_dice_gm"]) == ["0.93", "0.93", "n/a"]
    assert table["lesion_outside_brain_percent"]["sub-01"] == "n/a"
    assert table["session"]["sub-01"] == "n/a"
    dictionary = read_json(tmp_path / "quality.json")
    assert list(dictionary) != [] and set(dictionary) == {"id", *table.columns}
    assert dictionary["brain_volume_ml"]["Description"].endswith(f"(ml); {ranges('brain_volume_ml')}")


def test_own_limits_change_the_status(root, tmp_path):
    own = tmp_path / "own.json"
    own.write_text('{"csf_share_percent": {"warn": [null, null], "fail": [1, null]}}')
    assert list(report(root, tmp_path, "--limits", str(own))["status"]) == ["pass", "fail", "missing"]


def test_the_page_names_doubtful_scans_worst_first_and_colours_figures(root):
    results, limits = gather(root), read_limits()
    html = build(results, "experiment", quality_of(results, "experiment", limits), limits)
    assert "Quality of 3 scans: 1 warn, 1 missing, 1 fail." in html
    table = html.split("Scans to look at")[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', table) == ["sub-02", "sub-03", "sub-01"]
    marked = re.findall(r'<td class="(\w+)" title="warn limit: 3 to 35; fail limit: 1 to 50; look at[^"]*">(.*?)</td>', html)
    assert marked == [("fail", "0.500"), ("warn", "2")]
    assert f'<td class="pass" title="{ranges("brain_volume_ml")}">1\u2009234' in html


def test_healthy_scans_are_not_missed_where_only_patients_are_prepared(root):
    results = gather(root)
    results.cohort.loc[results.cohort["id"] == "sub-03", "role"] = "healthy"
    assert [scan.scan_id for scan in quality_of(results, "segment", read_limits())] == ["sub-01", "sub-02"]


def test_without_a_cohort_table_the_prepared_scans_are_judged(root, tmp_path):
    (tmp_path / "prepare").symlink_to(root / "prepare", target_is_directory=True)
    table = report(tmp_path, tmp_path / "out")
    assert dict(table["status"]) == {"sub-01": "warn", "sub-02": "fail"}
