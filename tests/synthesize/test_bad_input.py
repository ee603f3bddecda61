"""Bad input as a user meets it: one sentence, exit code 2, nothing written; what is sound among it goes on."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lesionforge.cli import main
from lesionforge.images import Prepared, Scan, read_json
from lesionforge.synthesize import stage

SHORT = ["--width", "2", "--epochs", "1", "--tiles-per-epoch", "4"]


def run(*command: str | Path) -> Result:
    return CliRunner().invoke(main, ["synthesize", *map(str, command)])


def assert_refused(result: Result, sentence: str, folder: Path) -> None:
    """The command ends with 2 and this one sentence, and leaves `folder` empty."""
    assert result.exit_code == 2, result.output
    assert result.output == f"Error: {sentence}\n"
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def patients(healthy: Scan, write_scan: Callable, cohort_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """prepare/ and levels/ of a patient with lesions (sub-01), one whose mask is empty (sub-08), one without a mask (sub-09)."""
    root = tmp_path_factory.mktemp("patients")
    (root / "prepare").mkdir()
    (root / "prepare" / "sub-01").symlink_to(cohort_root / "prepare" / "sub-01")
    for scan_id in ("sub-08", "sub-09"):
        write_scan(healthy, root / "prepare" / scan_id)
    for path in (root / "prepare" / "sub-09").glob("*label-lesion_mask*"):
        path.unlink()
    for scan_id in ("sub-01", "sub-08", "sub-09"):
        result = run("levels", "--prepared", root / "prepare" / scan_id, "--out", root / "levels")
        assert result.exit_code == 0, result.output
    return root


def both_folders(root: Path, *scan_ids: str) -> Iterable[str | Path]:
    """The options that name both folders of each patient."""
    for scan_id in scan_ids:
        yield from ("--prepared", root / "prepare" / scan_id, "--levels", root / "levels" / scan_id)


@pytest.mark.parametrize("scan_id", ["sub-08", "sub-09"])
def test_a_patient_without_hyperintensities_is_its_own_filling(patients: Path, scan_id: str) -> None:
    levels, scan = stage.Levels.open(patients / "levels" / scan_id), Prepared.open(patients / "prepare" / scan_id).read()
    for filled, image in zip(levels.read_filled(), (scan.t1w, scan.flair), strict=True):
        assert np.array_equal(filled, image)
    assert read_json(next(levels.folder.glob("*_desc-levels.json")))["filled_volume_ml"] == 0


def test_statistics_pass_over_patients_without_hyperintensities(patients: Path, tmp_path: Path) -> None:
    for name, scan_ids in {"alone": ["sub-01"], "among": ["sub-08", "sub-01", "sub-09"]}.items():
        result = run("statistics", *both_folders(patients, *scan_ids), "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    alone, among = ((tmp_path / name / "lesion_statistics.json").read_bytes() for name in ("alone", "among"))
    assert alone == among


@pytest.mark.parametrize("scan_ids", [["sub-08"], ["sub-09"], ["sub-08", "sub-09"]])
def test_statistics_of_no_lesion_are_refused(patients: Path, scan_ids: list[str], tmp_path: Path) -> None:
    result = run("statistics", *both_folders(patients, *scan_ids), "--out", tmp_path / "new" / "statistics")
    assert_refused(result, f"{patients}/prepare: no training patient has a lesion; give patients with lesions", tmp_path)


def test_the_only_patient_with_hyperintensities_trains_the_generator(patients: Path, tmp_path: Path) -> None:
    """With this seed the draw among both patients would have it validate."""
    result = run("train-generator", *both_folders(patients, "sub-01", "sub-08"), *SHORT, "--seed", "1", "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    card = read_json(tmp_path / "new" / "model.json")
    assert (card["trained_on"], card["validated_on"]) == (["sub-01", "sub-08"], [])


@pytest.mark.parametrize("seed", range(5))
def test_who_validates_has_hyperintensities_and_leaves_one_who_has(seed: int) -> None:
    splits = dict.fromkeys(["sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03"], "")
    hyperintense = {"sub-01_ses-2", "sub-03"}
    drawn = stage.validating_scans(splits, hyperintense, np.random.default_rng(seed), 0.3)
    assert drawn in ({"sub-01_ses-1", "sub-01_ses-2"}, {"sub-03"})
    assert not stage.validating_scans(splits, {"sub-03"}, np.random.default_rng(seed), 0.3)
    said = splits | {"sub-02": "validation"}
    assert stage.validating_scans(said, hyperintense, np.random.default_rng(seed), 0.3) == {"sub-02"}


@pytest.mark.parametrize("scan_ids", [["sub-08"], ["sub-08", "sub-09"]])
@pytest.mark.parametrize("generator", ["lesionforge", "salem2019"])
def test_a_generator_needs_a_hyperintensity(patients: Path, generator: str, scan_ids: list[str], tmp_path: Path) -> None:
    more = ["--generator", generator, "--checkpoint", tmp_path / "state", "--out", tmp_path / "new" / "generator"]
    result = run("train-generator", *both_folders(patients, *scan_ids), *SHORT, *more)
    said = "no training patient has a white-matter hyperintensity; give patients with lesions"
    assert_refused(result, f"{patients}/levels: {said}", tmp_path)
