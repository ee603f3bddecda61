"""The commands: JSON on stdout, one row per scan, two tables; faults end with code 2 and one sentence."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lesionforge.cli import main
from lesionforge.evaluate.charts import CAPTIONS
from lesionforge.images import read_json, read_tsv, write_json, write_mask, write_volume

AFFINE = np.diag([2.0, 1.0, 1.0, 1.0])
SHAPE = (6, 5, 4)


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def mask_of(*voxels):
    mask = np.zeros(SHAPE, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def save(path, *voxels, affine=AFFINE):
    write_mask(mask_of(*voxels), affine, path, "test")
    return path


def prepare(folder, *voxels, lesion=True):
    """A prepared folder with just enough in it."""
    start = folder / f"{folder.name}_space-T1w_res-1mm"
    for ending in ("desc-preproc_T1w", "desc-preproc_FLAIR", "dseg"):
        write_volume(np.zeros(SHAPE, np.float32), AFFINE, f"{start}_{ending}.nii.gz")
    write_mask(np.ones(SHAPE, bool), AFFINE, f"{start}_desc-brain_mask.nii.gz", "brain")
    if lesion:
        save(folder / f"{start.name}_label-lesion_mask.nii.gz", *voxels)
    return folder


def segmented(folder, *voxels):
    save(folder / f"{folder.name}_space-T1w_res-1mm_label-lesion_mask.nii.gz", *voxels)
    return folder


def test_prints_json_of_two_masks(tmp_path):
    result = run(
        "--prediction", save(tmp_path / "p é.nii.gz", (1, 1, 1)), "--reference", save(tmp_path / "r.nii.gz", (1, 1, 1), (1, 1, 2))
    )
    assert result.exit_code == 0
    got = json.loads(result.stdout)
    assert got["dice"] == pytest.approx(2 / 3)
    assert got["volume_reference_ml"] == pytest.approx(0.004)
    assert got["reasons"] == {}


def test_undefined_is_null_with_a_reason(tmp_path):
    result = run("--prediction", save(tmp_path / "p.nii.gz"), "--reference", save(tmp_path / "r.nii.gz"))
    got = json.loads(result.stdout)
    assert got["dice"] is None
    assert got["lesion_recall"] is None
    assert set(got["reasons"]) >= {"dice", "lesion_recall", "lesion_precision"}


def refused(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_a_missing_file_is_refused(tmp_path):
    refused(run("--prediction", tmp_path / "no.nii.gz", "--reference", save(tmp_path / "r.nii.gz")), "no.nii.gz", "no such file")


def test_only_one_mask_is_refused(tmp_path):
    refused(run("--prediction", tmp_path / "p.nii.gz"), "--reference")


@pytest.mark.parametrize("value", [2.0, 0.4, -1.0, np.nan, np.inf])
def test_a_mask_with_other_values_is_refused(tmp_path, value):
    data = np.zeros(SHAPE, np.float32)
    data[2, 2, 2] = value
    write_volume(data, AFFINE, tmp_path / "p.nii.gz")
    refused(run("--prediction", tmp_path / "p.nii.gz", "--reference", save(tmp_path / "r.nii.gz")), "p.nii.gz", "0 and 1")


def test_a_moved_or_flipped_grid_is_refused(tmp_path):
    reference = save(tmp_path / "r.nii.gz", (1, 1, 1))
    moved = AFFINE.copy()
    moved[0, 3] = 1
    for name, affine in {"moved": moved, "flipped": AFFINE @ np.diag([-1, 1, 1, 1])}.items():
        refused(run("--prediction", save(tmp_path / f"{name}.nii.gz", (1, 1, 1), affine=affine), "--reference", reference), name)
    write_mask(np.zeros((3, 3, 3), bool), AFFINE, tmp_path / "small.nii.gz", "test")
    refused(run("--prediction", tmp_path / "small.nii.gz", "--reference", reference), "small", "(3, 3, 3)")


def test_scan_writes_the_row_of_an_arm(tmp_path):
    prepared = prepare(tmp_path / "prepare/sub-01_ses-2", (1, 1, 1))
    prediction = segmented(tmp_path / "segment/sub-01_ses-2", (1, 1, 1), (4, 4, 3))
    result = run("scan", "--arm", "real", "--prediction", prediction, "--prepared", prepared, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    row = read_json(tmp_path / "out/real_sub-01_ses-2.json")
    assert (row["arm"], row["subject"], row["session"]) == ("real", "01", "2")
    assert (row["lesion_sensitivity"], row["lesion_false_discovery"]) == (1, 0.5)
    assert (row["fold"], row["seed"]) == ("n/a", "n/a")
    assert row["lesions"] == {
        "reference_mm3": [2], "found": [1], "dice": [1], "predicted_mm3": [2, 2], "false": [0, 1],
    }  # fmt: skip


def test_scan_of_a_fold_and_seed_has_both_in_the_row_and_its_name(tmp_path):
    prepared = prepare(tmp_path / "prepare/sub-01", (1, 1, 1))
    prediction = segmented(tmp_path / "segment/sub-01", (1, 1, 1))
    scan = ("--prediction", prediction, "--prepared", prepared, "--out", tmp_path)
    assert run("scan", "--arm", "baseline_adapted", "--fold", "cs07", "--seed", 3, *scan).exit_code == 0
    row = read_json(tmp_path / "baseline_adapted_fold-cs07_seed-3_sub-01.json")
    assert (row["fold"], row["seed"]) == ("cs07", 3)
    refused(run("scan", "--arm", "mix", "--fold", "a b", *scan), "--fold 'a b'", "rename the fold")


def test_scan_of_a_folder_that_is_named_by_no_scan_is_refused(tmp_path):
    prepared = prepare(tmp_path / "prepare/lib-cs01", (1, 1, 1))
    prediction = segmented(tmp_path / "segment/lib-cs01", (1, 1, 1))
    out = ("--arm", "real", "--out", tmp_path / "out")
    refused(run("scan", "--prediction", prediction, "--prepared", prepared, *out), "lib-cs01: is no scan id")
    assert not (tmp_path / "out").exists()


def test_scan_gives_the_measures_of_the_protocol_under_the_names_of_the_arms(tmp_path):
    found, truth = [(1, 1, 1), (4, 4, 3), (4, 0, 0)], [(1, 1, 1), (1, 3, 3)]
    prepared, prediction = prepare(tmp_path / "prepare/sub-01", *truth), segmented(tmp_path / "segment/sub-01", *found)
    masks = [next(folder.glob("*label-lesion_mask.nii.gz")) for folder in (prediction, prepared)]
    one = json.loads(run("--prediction", masks[0], "--reference", masks[1]).stdout)
    assert not {"lesion_sensitivity", "lesion_false_discovery"} & set(one)
    run("scan", "--arm", "real", "--prediction", prediction, "--prepared", prepared, "--out", tmp_path)
    row = read_json(tmp_path / "real_sub-01.json")
    assert (row["lesion_sensitivity"], row["lesion_false_discovery"]) == (one["lesion_recall"], 1 - one["lesion_precision"])
    assert not {"lesion_recall", "lesion_precision"} & set(row)
    for name in set(one) & set(row) - {"reasons"}:
        assert row[name] == one[name], name


def test_scan_without_reference_or_prediction_is_refused(tmp_path):
    bare = prepare(tmp_path / "a/sub-01", lesion=False)
    full = prepare(tmp_path / "b/sub-01", (1, 1, 1))
    out = ("--arm", "real", "--out", tmp_path / "out")
    refused(run("scan", "--prediction", segmented(tmp_path / "c/sub-01"), "--prepared", bare, *out), "no lesion mask")
    refused(run("scan", "--prediction", tmp_path / "d", "--prepared", full, *out), "no such file")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def rows(tmp_path):
    """Two test scans in both arms; the second has no lesions, so its sensitivity is undefined. A third only in real."""
    paths = []
    for name, truth, real, augmented in (
        ("sub-02", [(1, 1, 1), (1, 1, 2)], [(1, 1, 1)], [(1, 1, 1), (1, 1, 2)]),
        ("sub-01", [], [(1, 1, 1)], []),
        ("sub-03", [(1, 1, 1)], [], None),
    ):
        prepared = prepare(tmp_path / "prepare" / name, *truth)
        for arm, found in (("real", real), ("augmented", augmented)):
            if found is not None:
                folder = segmented(tmp_path / arm / name, *found)
                assert run("scan", "--arm", arm, "--prediction", folder, "--prepared", prepared, "--out", tmp_path).exit_code == 0
                paths.append(tmp_path / f"{arm}_{name}.json")
    return paths


def test_compare_writes_scans_in_one_order_and_the_paired_difference(tmp_path, rows):
    assert run("compare", *rows, "--out", tmp_path / "one").exit_code == 0
    assert run("compare", *reversed(rows), "--out", tmp_path / "two").exit_code == 0
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"arms.tsv", "summary.tsv", "comparisons.tsv", "sizes.tsv"} < names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    arms = read_tsv(tmp_path / "one/arms.tsv")
    assert list(arms)[:8] == [
        "arm", "subject", "session", "dice", "lesion_sensitivity", "lesion_false_discovery",
        "volume_reference_ml", "volume_predicted_ml",
    ]  # fmt: skip
    assert list(zip(arms["subject"], arms["arm"], strict=True)) == [
        ("01", "real"), ("01", "augmented"), ("02", "real"), ("02", "augmented"), ("03", "real"),
    ]  # fmt: skip
    assert arms["dice"][1] == "n/a"
    assert "dice: neither" in arms["undefined"][1]
    assert set(read_json(tmp_path / "one/arms.json")) == set(arms)

    sizes = read_tsv(tmp_path / "one/sizes.tsv")
    for arm, scans in arms.groupby("arm"):
        own = sizes[sizes["arm"] == arm]
        for counted, name in (("lesions", "lesions_reference"), ("found", "lesions_found")):
            assert own[counted].astype(int).sum() == scans[name].astype(int).sum() > 0
        empty = own["lesions"] == "0"
        assert empty.any() and (own.loc[empty, "recall"] == "n/a").all()
        share = own.loc[~empty, "found"].astype(int) / own.loc[~empty, "lesions"].astype(int)
        assert list(own.loc[~empty, "recall"].astype(float)) == pytest.approx(list(share))

    summary = read_tsv(tmp_path / "one/summary.tsv")
    assert set(read_json(tmp_path / "one/summary.json")) == set(summary)
    lacking = summary[(summary["arm"] == "augmented") & (summary["subject"] == "01")].iloc[0]
    assert lacking["dice"] == "n/a" and "dice: neither" in lacking["undefined"]
    summary = summary[summary["subject"] == "n/a"].set_index("arm")
    assert set(summary["undefined"]) == {"n/a"}
    assert list(summary.index) == ["real", "augmented"]
    assert list(summary["n"]) == ["3", "2"]
    assert list(summary["dice_n"]) == ["3", "1"]
    assert float(summary["dice"]["real"]) == pytest.approx((0 + 2 / 3 + 0) / 3)
    comparisons = read_tsv(tmp_path / "one/comparisons.tsv")
    assert set(read_json(tmp_path / "one/comparisons.json")) == set(comparisons)
    assert float(comparisons["difference"][0]) == pytest.approx(1 - 2 / 3)
    assert list(comparisons.loc[0, ["arm", "against", "measure", "subject", "pairs", "undefined"]]) == [
        "augmented", "real", "dice", "n/a", "1", "1",
    ]  # fmt: skip


def test_compare_draws_every_chart_that_the_report_explains(tmp_path, rows):
    others = [tmp_path / "classical.json", tmp_path / "mix.json"]
    for path in others:
        write_json(read_json(rows[0]) | {"arm": path.stem}, path)
    assert run("compare", *rows, *others, "--out", tmp_path / "o").exit_code == 0
    assert {path.name for path in (tmp_path / "o").glob("*.png")} == set(CAPTIONS)
    for name in CAPTIONS:
        with Image.open(tmp_path / "o" / name) as picture:
            low, high = picture.convert("L").getextrema()
            assert min(picture.size) > 100 and high - low > 100


def test_compare_refuses_a_file_that_is_no_row_and_a_row_given_twice(tmp_path, rows):
    refused(run("compare", *rows, rows[0], "--out", tmp_path / "o"), "same arm, fold, seed and scan")
    write_json({"arm": "real"}, tmp_path / "odd.json")
    refused(run("compare", tmp_path / "odd.json", "--out", tmp_path / "o"), "odd.json", "subject")
    whole = read_json(rows[0])
    write_json(whole | {"lesions": whole["lesions"] | {"found": [1, 0]}}, tmp_path / "odd.json")
    refused(run("compare", tmp_path / "odd.json", "--out", tmp_path / "o"), "odd.json", "found of its lesions", "evaluate scan")
    write_json(whole | {"dice": "good"}, tmp_path / "odd.json")
    refused(run("compare", tmp_path / "odd.json", "--out", tmp_path / "o"), "odd.json", "dice is no number", "evaluate scan")
    write_json(whole | {"reasons": ["why"]}, tmp_path / "odd.json")
    refused(run("compare", tmp_path / "odd.json", "--out", tmp_path / "o"), "odd.json", "reasons are no sentences")
    other = whole | {"seed": 7, "lesions": whole["lesions"] | {"reference_mm3": [9]}}
    write_json(other, tmp_path / "odd.json")
    refused(run("compare", rows[0], tmp_path / "odd.json", "--out", tmp_path / "o"), "odd.json", "against the same mask")
    assert not (tmp_path / "o").exists()


def test_compare_of_one_arm_has_no_difference(tmp_path, rows):
    run("compare", rows[0], "--out", tmp_path / "o")
    assert list(read_tsv(tmp_path / "o/summary.tsv")["arm"]) == ["real", "real"]
    assert len(read_tsv(tmp_path / "o/comparisons.tsv")) == 0
    assert not (tmp_path / "o/differences.png").exists()


def test_a_comparison_leaves_no_chart_of_another_one(tmp_path, rows):
    run("compare", *rows, "--out", tmp_path / "o")
    run("compare", rows[0], "--out", tmp_path / "o")
    assert (tmp_path / "o/arms-dice.png").exists()
    assert not (tmp_path / "o/differences.png").exists()
