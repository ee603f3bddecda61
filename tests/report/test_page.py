"""The page as a reader gets it: complete, self-contained, honest about what is missing, safe with odd dataset text."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from lesionforge.cli import main
from lesionforge.images import Prepared, write_json
from lesionforge.prepare.quality import read_limits
from lesionforge.report import words
from lesionforge.report.gather import TABLES, gather
from lesionforge.report.page import build
from lesionforge.report.pictures import segmentation
from lesionforge.report.quality import quality_of


def run(root, out, *more):
    return CliRunner().invoke(main, ["report", "--root", str(root), "--out", str(out), *more])


@pytest.fixture(scope="module")
def page(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    result = run(root, out)
    assert result.exit_code == 0, result.output
    return (out / "index.html").read_text(encoding="utf-8")


class Collector(HTMLParser):
    """The elements, addresses and visible words of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.words = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def text_of(html):
    return " ".join(" ".join(Collector(html).words).split())


def picture_of(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_the_page_needs_nothing_else(page):
    found = Collector(page)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in found.sources)
    assert "http" not in page.split("base64", 1)[0]


def test_every_figure_is_a_picture_with_something_on_it(page):
    uris = [source for source in Collector(page).sources if source.startswith("data:")]
    # Two prepared scans, one test scan, one synthetic scan, the training curves, two charts of the arms.
    assert len(uris) == 7
    for uri in uris:
        picture = picture_of(uri).convert("L")
        assert min(picture.size) > 100
        low, high = picture.getextrema()
        assert high - low > 100


def test_many_arms_fill_several_rows_none_of_them_too_small_to_judge(root):
    prepared, folder = Prepared.open(root / "prepare/sub-02"), root / "segment/real/sub-02"
    two, twenty = (picture_of(segmentation(prepared, {f"arm {number}": folder for number in range(arms)})) for arms in (2, 20))
    assert two.width == twenty.width
    assert twenty.height > 2.5 * two.height


def test_dataset_text_is_escaped(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_headline_says_what_adding_synthetic_scans_did(page):
    words = text_of(page)
    assert "raised mean Dice (+0.500) over 1 test subject" in words
    assert "cannot say which arm is better" in words
    assert "A dash means undefined, never zero" in words


def test_arms_are_compared_with_intervals_and_every_chart_says_how_to_judge_it(page):
    words = text_of(page)
    assert "augmented minus real 1 +0.500 (−0.125 to +0.250) 0.000 (−0.125 to +0.250)" in words
    assert "drawn for each interval" in words
    assert "augmented, seed 4" in words
    section = words[words.rindex("Paired differences mean paired difference") : words.rindex("Cohort")]
    assert section.index("Dice, every run") < section.index("By lesion size")
    assert section.count("Good: ") == 2


def test_patients_as_canvases_are_said(page):
    assert "The cohort has no healthy scans: lesion-filled patients (sub-01) served as canvases." in text_of(page)


def test_scans_that_stopped_are_named(page):
    assert "Stage prepare left no complete folder for 1 scan: sub-03." in text_of(page)


def test_every_quality_figure_appears_with_its_unit(page):
    words = text_of(page)
    for expected in (
        "sub-02 sub-01 brain volume (ml) 1 234 1 234 csf share (%) 0.500 2 ",
        "register dice gm 0.930 0.930",
        "sub-syn0001 sub-01 sub-01 1 2 1 3 2",
    ):
        assert expected in words


def test_each_segmented_scan_is_listed_with_its_lesions_by_place(page):
    words = text_of(page)
    assert "infratentorial periventricular juxtacortical deep sub-02 real 0 0.000 0.000 0 0 0 0 sub-02 augmented" in words
    assert "sub-02 augmented 2 0.250 180.0 0 0 0 2" in words


def test_models_and_versions_are_told(page):
    words = text_of(page)
    assert "seed 5" in words
    assert re.search(r"lesionforge \d", words)
    assert "epochs" in words


ADAPTED = {
    "kind": "cascade",
    "parameters": {"network": "nicmslesions"},
    "init": {"model": "baseline <b>", "retrained": "last", "samples": 9000},
    "licence": "GPL-3.0 & <script>alert(2)</script>",
}


def test_where_each_cascade_comes_from_is_told_in_one_line(root, tmp_path):
    (tmp_path / "cohort").symlink_to(root / "cohort", target_is_directory=True)
    write_json(ADAPTED, tmp_path / "train/augmented/model.json")
    write_json({"kind": "cascade", "parameters": {"network": "valverde2017"}}, tmp_path / "train/real/model.json")
    write_json({"kind": "generator", "licence": "none", "init": {}}, tmp_path / "synthesize/generator/model.json")
    html = build(gather(tmp_path), "experiment", [], read_limits())
    facts = html[html.index("<dl>") : html.index("</dl>")]
    assert "<script" not in html and "<b>" not in html
    assert "model real network valverde2017 model augmented" in text_of(facts)
    assert (
        "model augmented network nicmslesions; adapted from the model baseline <b> (layers trained: last); "
        "licence GPL-3.0 & <script>alert(2)</script>"
    ) in text_of(facts)
    assert "model generator" not in text_of(facts)


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ({}, ""),
        ({"parameters": 3, "init": "odd", "licence": ""}, ""),
        ({"init": {"source": "elsewhere"}}, "adapted from the model of another folder"),
        ({"licence": "CC0-1.0"}, "licence CC0-1.0"),
    ],
)
def test_a_card_that_lacks_its_origin_tells_what_it_has(card, told):
    assert words.origin(card) == told


def test_the_same_run_gives_the_same_page(root, page, tmp_path):
    run(root, tmp_path)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("stage", ["cohort", "prepare", "register", "synthesize", "assemble", "train", "segment", "evaluate"])
def test_any_stage_may_be_missing_and_the_page_says_so(root, tmp_path, stage, monkeypatch):
    # Pictures are tested above; here they only cost time.
    monkeypatch.setattr("lesionforge.report.page.MOST_FIGURES", 0)
    for folder in root.iterdir():
        if folder.name != stage:
            (tmp_path / folder.name).symlink_to(folder, target_is_directory=True)
    html = build(gather(tmp_path), "experiment", [], read_limits())
    assert re.search(rf"Nothing from [a-z, ]*{stage}", text_of(html))


def test_a_volume_that_cannot_be_read_costs_its_figure_not_the_page(root, tmp_path):
    shutil.copytree(root, tmp_path / "broken")
    volume = next((tmp_path / "broken/segment/real/sub-02").glob("*probseg.nii.gz"))
    volume.write_bytes(volume.read_bytes()[:400])
    assert run(tmp_path / "broken", tmp_path / "out").exit_code == 0
    words = text_of((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert "No figure of sub-02" in words
    assert "truncated" in words


def cut(content: bytes, ending: str) -> bytes:
    """The first part of a file: a table within its last row, text and pictures after a half."""
    return content[: content.rindex(b"\t") if ending == ".tsv" else len(content) // 2]


# One of each kind that the report reads but for what it only draws, of which the test above has one.
READ = [path for path, _ in TABLES.values()] + [
    "assemble/real.tsv",
    "train/real/history.tsv",
    "train/real/model.json",
    "synthesize/generator/history.tsv",
    "synthesize/sub-syn0001/sub-syn0001_desc-provenance.json",
    "prepare/sub-01/sub-01_desc-prepare.json",
    "prepare/sub-01/sub-01_space-T1w_res-1mm_label-lesion_mask.nii.gz",
    "register/sub-01/sub-01_desc-register.json",
    "evaluate/arms-dice.png",
]


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("damaged", [cut, lambda *_: b"[]"], ids=["cut", "other"])
def test_a_file_that_cannot_be_read_costs_its_own_figure_not_the_page(root, tmp_path, monkeypatch, path, damaged):
    for most in ("MOST_FIGURES", "MOST_SYNTHETIC_FIGURES", "MOST_CURVES"):
        monkeypatch.setattr(f"lesionforge.report.page.{most}", 0)
    shutil.copytree(root, tmp_path / "broken")
    file = tmp_path / "broken" / path
    file.write_bytes(damaged(file.read_bytes(), file.suffix))
    result = run(tmp_path / "broken", tmp_path / "out")
    assert result.exit_code == 0, result.output
    words = text_of((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert f"{file}: " in words
    assert "sub-02 " in words


def test_a_scan_whose_figures_are_damaged_does_not_pass(root, tmp_path):
    shutil.copytree(root, tmp_path / "broken")
    (tmp_path / "broken/prepare/sub-01/sub-01_desc-prepare.json").write_text("[]")
    results, limits = gather(tmp_path / "broken"), read_limits()
    assert {scan.scan_id: scan.status for scan in quality_of(results, "experiment", limits)}["sub-01"] == "missing"
    assert [sentence.split(": ")[1][:20] for sentence in results.unreadable] == ["holds no JSON object"]


def test_curves_that_are_left_out_are_said_with_where_they_are(root, monkeypatch):
    monkeypatch.setattr("lesionforge.report.page.MOST_FIGURES", 0)
    monkeypatch.setattr("lesionforge.report.page.MOST_CURVES", 3)
    words = text_of(build(gather(root), "experiment", [], read_limits()))
    assert "Curves of the first 3 of 5 networks; history.tsv in each model's folder, train/<run>/history.tsv, holds" in words


def test_scans_segmented_with_a_given_model(root, tmp_path):
    for name in ("cohort", "prepare"):
        (tmp_path / name).symlink_to(root / name, target_is_directory=True)
    (tmp_path / "segment").symlink_to(root / "segment/real", target_is_directory=True)
    assert run(tmp_path, tmp_path / "out", "--mode", "segment").exit_code == 0
    words = text_of((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert "arms given model" in words
    assert "segment (given model) left no complete folder for 1 scan: sub-01." in words
    assert "Nothing from" not in words


def test_a_root_with_nothing_in_it_is_refused(tmp_path):
    for root in (tmp_path, tmp_path / "no"):
        result = run(root, tmp_path / "out")
        assert result.exit_code == 2
        assert str(root) in result.stderr
    assert not (tmp_path / "out").exists()


def test_pairwise_only_the_canvases_of_a_librarys_masks_are_expected_in_the_template() -> None:
    pairs = pd.DataFrame({"donor": ["sub-1", "lib-a"], "canvas": ["sub-2", "sub-3"]})
    composed, pairwise = (
        SimpleNamespace(pairs=pairs, registered=dict.fromkeys(names)) for names in (["sub-1", "sub-3"], ["sub-3"])
    )
    assert words.scans_in_template(composed) == {"sub-1", "sub-2", "sub-3"}
    assert words.scans_in_template(pairwise) == {"sub-3"}
