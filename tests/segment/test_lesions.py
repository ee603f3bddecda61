"""Laws of masks and tables: every voxel is counted once, a lesion is the same one on every grid, every scan is listed."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.images import PLACES, read_json, read_tsv, resample, write_json
from lesionforge.segment.cascade import lesion_mask
from lesionforge.segment.lesions import SCAN_COLUMNS, number_lesions, numbers_on, totals, volumes_mm3

AFFINE = np.diag([1.0, 1, 1, 1])


@pytest.fixture
def mask(rng: np.random.Generator) -> np.ndarray:
    """Lesions of many sizes, some of them a voxel apart."""
    mask = rng.random((30, 31, 32)) > 0.985
    mask[10:15, 10:15, 10:15] = mask[10:15, 10:15, 16:18] = True
    mask[9:16, 9:16, 15] = False
    return mask


def test_lesions_are_numbered_by_size(mask: np.ndarray) -> None:
    numbers = number_lesions(mask)
    sizes = np.bincount(numbers.ravel())
    assert ((numbers > 0) == mask).all()
    assert (sizes[1:] > 0).all() and (np.diff(sizes[1:]) <= 0).all()
    assert number_lesions(np.zeros((3, 3, 3), bool)).max() == 0


def test_on_its_own_grid_a_lesion_keeps_its_voxels(mask: np.ndarray) -> None:
    numbers = number_lesions(mask)
    np.testing.assert_array_equal(numbers_on(numbers, AFFINE, (mask.shape, AFFINE), np.eye(4), mask), numbers)


@pytest.mark.parametrize("voxel", [(0.7, 0.8, 0.9), (1.2, 0.9, 3.0)], ids=["fine", "thick"])
def test_every_voxel_of_a_mask_on_another_grid_belongs_to_a_lesion_near_it(mask: np.ndarray, voxel: tuple[float, ...]) -> None:
    numbers = number_lesions(mask)
    onto = (tuple(int(34 / size) for size in voxel), nib.affines.from_matvec(np.diag(voxel), [-1.3, -0.4, -1.1]))
    shift = nib.affines.from_matvec(np.eye(3), [0.4, -0.3, 0.2])
    there = resample(mask, AFFINE, onto, shift) >= 0.5
    found = numbers_on(numbers, AFFINE, onto, shift, there)
    np.testing.assert_array_equal(found > 0, there)
    volumes = volumes_mm3(found, int(numbers.max()), onto[1])
    assert volumes.sum() == pytest.approx(there.sum() * np.prod(voxel))
    for number in (1, 2):
        places = nib.affines.apply_affine(shift @ onto[1], np.argwhere(found == number))
        assert np.abs(places.mean(axis=0) - np.argwhere(numbers == number).mean(axis=0)).max() < max(voxel) / 2


def summary(folder: Path, scan_id: str, model: str, volumes: dict[str, float], **thresholds: float) -> Path:
    """A `desc-segment.json` of a scan with one lesion in each of the given places."""
    import pandas as pd

    table = pd.DataFrame(
        {"place": list(volumes), "volume_mm3": list(volumes.values()), "volume_native_t1w_mm3": list(volumes.values())}
    )
    settings = {"candidate_flair_z": 0.5, "cnn1_threshold": 0.5, "lesion_threshold": 0.8, "min_volume_mm3": 20, "voxel_mm": 1}
    sums = {"cnn2.keras": "b" * 64, "cnn1.keras": "a" * 64}
    path = folder / model / scan_id / f"{scan_id}_desc-segment.json"
    write_json(totals(table) | settings | thresholds | {"id": scan_id, "model": model, "model_checksums": sums}, path)
    return path


def test_the_table_of_the_cohort_lists_every_scan_and_those_without_a_lesion_have_zeros(tmp_path: Path) -> None:
    found = [
        summary(tmp_path, "sub-02", "augmented", {"deep": 1500.0, "juxtacortical": 500}),
        summary(tmp_path, "sub-02", "real", {"deep": 250.0}),
        summary(tmp_path, "sub-01_ses-2", "real", {}),
    ]
    result = CliRunner().invoke(main, ["segment", "tabulate", *map(str, found), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0 and "3 segmentations, 1 of them without a lesion" in result.output
    table = read_tsv(tmp_path / "out/scans.tsv")
    columns = [name for name in SCAN_COLUMNS if name not in ("volume_native_t2w_ml", "volume_native_pdw_ml")]
    assert list(table) == columns
    assert set(read_json(tmp_path / "out/scans.json")) == set(columns)
    assert list(zip(table["id"], table["model"], strict=True)) == [
        ("sub-01_ses-2", "real"),
        ("sub-02", "real"),
        ("sub-02", "augmented"),
    ]
    empty, _, last = table.to_dict("records")
    assert (empty["subject"], empty["session"], last["session"]) == ("01", "2", "n/a")
    counted = ["lesion_count", "volume_ml", "largest_lesion_mm3"]
    counted += [name for place in PLACES for name in (f"lesions_{place}", f"volume_{place}_ml")]
    assert {float(empty[name]) for name in counted} == {0}
    assert (last["lesion_count"], last["volume_ml"], last["lesions_deep"], last["volume_deep_ml"]) == ("2", "2.0", "1", "1.5")
    assert (last["largest_lesion_mm3"], last["volume_native_t1w_ml"], last["volume_native_flair_ml"]) == ("1500.0", "2.0", "n/a")
    assert last["model_checksum"] == "aaaaaaaa-bbbbbbbb"


def test_a_scan_may_be_there_once_with_each_threshold(tmp_path: Path) -> None:
    thresholds = ({}, {"lesion_threshold": 0.5}, {"min_volume_mm3": 5}, {"lesion_threshold": 0.5, "min_volume_mm3": 5})
    found = [summary(tmp_path / str(number), "sub-02", "real", {"deep": 250.0}, **pair) for number, pair in enumerate(thresholds)]
    for order, out in ((found, "one"), (found[::-1], "two")):
        result = CliRunner().invoke(main, ["segment", "tabulate", *map(str, order), "--out", str(tmp_path / out)])
        assert result.exit_code == 0, result.output
    table = read_tsv(tmp_path / "one/scans.tsv")
    pairs = [("0.5", "5"), ("0.5", "20"), ("0.8", "5"), ("0.8", "20")]
    assert list(zip(table["lesion_threshold"], table["min_volume_mm3"], strict=True)) == pairs
    assert (tmp_path / "one/scans.tsv").read_bytes() == (tmp_path / "two/scans.tsv").read_bytes()
    grown = summary(tmp_path / "grown", "sub-02", "real", {"deep": 250.0}, growth_mm=15)
    result = CliRunner().invoke(main, ["segment", "tabulate", str(found[0]), str(grown), "--out", str(tmp_path / "grown")])
    assert result.exit_code == 0 and sorted(map(float, read_tsv(tmp_path / "grown/scans.tsv")["growth_mm"])) == [0, 15]
    twice = summary(tmp_path / "again", "sub-02", "real", {}, lesion_threshold=0.8, min_volume_mm3=20.0)
    result = CliRunner().invoke(main, ["segment", "tabulate", str(found[0]), str(twice), "--out", str(tmp_path / "three")])
    assert result.exit_code == 2 and "thresholds as" in result.output


def test_the_grids_of_further_contrasts_have_columns_where_a_scan_has_them(tmp_path: Path) -> None:
    one = summary(tmp_path / "one", "sub-01", "real", {"deep": 250.0})
    more = summary(tmp_path / "more", "sub-02", "real", {"deep": 250.0}, volume_native_pdw_ml=0.3)
    result = CliRunner().invoke(main, ["segment", "tabulate", str(one), str(more), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    table = read_tsv(tmp_path / "out/scans.tsv")
    assert list(table["volume_native_pdw_ml"]) == ["n/a", "0.3"] and "volume_native_t2w_ml" not in table
    assert "volume_native_pdw_ml" in read_json(tmp_path / "out/scans.json")


def test_a_scan_given_twice_and_what_is_no_summary_are_refused(tmp_path: Path) -> None:
    once = str(summary(tmp_path, "sub-02", "real", {"deep": 250.0}))
    result = CliRunner().invoke(main, ["segment", "tabulate", once, once, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "is of the same scan, model and thresholds as" in result.output
    write_json({"id": "sub-02"}, tmp_path / "other.json")
    result = CliRunner().invoke(main, ["segment", "tabulate", str(tmp_path / "other.json"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "other.json: lacks model;" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("model_checksums", value) for value in (None, [], "x", {"cnn1.keras": 5})),
        *(("id", value) for value in (5, None, ["sub-1"])),
        ("model", {"a": 1}),
        ("lesion_count", "many"),
        ("lesion_count", 10**4000),
        ("lesion_count", True),
        ("volume_ml", "x"),
        ("volume_ml", -1),
        ("lesion_threshold", None),
        ("volume_native_t1w_ml", "much"),
    ],
)
def test_an_edited_summary_is_one_sentence_that_names_the_file(tmp_path: Path, name: str, value: object) -> None:
    path = summary(tmp_path, "sub-02", "real", {"deep": 250.0})
    path.write_text(json.dumps(read_json(path) | {name: value}))
    result = CliRunner().invoke(main, ["segment", "tabulate", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert f"{path}: {name} is " in result.output
    assert "write it again with lesionforge segment" in result.output
    path.write_text(json.dumps(read_json(path) | {name: "", "id": "../sub-02"}))
    result = CliRunner().invoke(main, ["segment", "tabulate", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and f"{path}: " in result.output
    path.write_text("[]")
    result = CliRunner().invoke(main, ["segment", "tabulate", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and f"{path}" in result.output
    assert not (tmp_path / "out").exists()


def test_small_lesions_are_dropped_by_volume() -> None:
    probability = np.zeros((10, 10, 10), np.float32)
    probability[1:3, 1:3, 1:3] = 0.8
    probability[6, 6, 6] = probability[7, 7, 7] = 0.9
    both = lesion_mask(probability, 1.0, 0.8, 0)
    assert both.sum() == 10
    assert lesion_mask(probability, 1.0, 0.8, 2).sum() == 8
    assert lesion_mask(probability, 2.0, 0.8, 2).sum() == 10
    assert not lesion_mask(probability, 1.0, 0.95, 0).any()
    rounded = 1.0000001**3  # a side of 1 mm in a header of single precision
    assert lesion_mask(probability, rounded, 0.8, 2).sum() == 8, "2 voxels of 1 mm are not more than 2 mm³"
