"""Bad input as a user meets it: one sentence, exit code 2, nothing written; what is sound among it goes on."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lesionforge.cli import main
from lesionforge.images import Prepared, Scan, checksum, find_image, read_json, read_volume, write_json, write_volume
from lesionforge.synthesize import stage
from lesionforge.synthesize.config import CARD_VERSION

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
    for filled, image in zip(levels.read_filled(scan).values(), (scan.t1w, scan.flair), strict=True):
        assert np.array_equal(filled, image)
    assert read_json(next(levels.folder.glob("*_desc-levels.json")))["filled_volume_ml"] == 0


def test_levels_of_another_version_are_refused(patients: Path, tmp_path: Path) -> None:
    """The previous version had eight: level 8, its highest, would be taken for a middle one."""
    folder = Path(shutil.copytree(patients / "levels" / "sub-01", tmp_path / "sub-01"))
    path = next(folder.glob("*_desc-levels.json"))
    record = read_json(path)
    for factors in (record["level_factors"]["flair"][:8], {"flair": record["level_factors"]["flair"]}, None):
        write_json(record | {"level_factors": factors}, path)
        result = run("statistics", "--prepared", patients / "prepare" / "sub-01", "--levels", folder, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert result.output == f"Error: {path}: has other levels than this version; run lesionforge synthesize levels again\n"


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


@pytest.fixture
def transplant(inputs: Path, cohort_root: Path, tmp_path: Path) -> Callable[..., Result]:
    """Runs transplant on a pair and a canvas, by default sound ones."""
    sound = {"pair": cohort_root / "register" / "sub-01_to_sub-04", "canvas": cohort_root / "prepare" / "sub-04"}

    def transplanted(**folders: Path) -> Result:
        given = [word for name, folder in (sound | folders).items() for word in (f"--{name}", folder)]
        more = ["--donor-levels", inputs / "levels" / "sub-01", "--out", tmp_path / "new" / "transplant"]
        return run("transplant", "--id", "sub-syn0001", *given, *more)

    return transplanted


@pytest.fixture
def copy_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Copies a folder, to be changed."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path_factory.mktemp("changed") / folder.name))


def test_a_canvas_without_white_matter_is_refused(
    transplant: Callable, healthy: Scan, write_scan: Callable, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    grey = replace(healthy, tissues=np.minimum(healthy.tissues, 2))
    canvas = write_scan(grey, tmp_path_factory.mktemp("canvas") / "sub-04")
    said = f"{canvas}/sub-04_space-T1w_res-1mm_dseg.nii.gz: holds no white matter in the brain"
    assert_refused(transplant(canvas=canvas), f"{said}; check the brain mask and prepare the scan again", tmp_path)


def test_a_pair_without_lesions_is_refused(transplant: Callable, cohort_root: Path, copy_of: Callable, tmp_path: Path) -> None:
    pair = copy_of(cohort_root / "register" / "sub-01_to_sub-04")
    path = find_image(pair, "label-lesion_dseg.nii.gz")
    numbers, affine = read_volume(path)
    write_volume(np.zeros_like(numbers, np.uint16), affine, path)
    said = f"{pair}: none of the donor's lesions lies in the brain of sub-04; give another donor"
    assert_refused(transplant(pair=pair), said, tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"donor": "sub-01", "canvas": "sub-04"}'])
def test_a_pair_of_another_making_is_refused(
    transplant: Callable, cohort_root: Path, copy_of: Callable, tmp_path: Path, content: str
) -> None:
    pair = copy_of(cohort_root / "register" / "sub-01_to_sub-04")
    path = find_image(pair, "desc-pair.json")
    path.write_text(content)
    lacking = "donor, canvas, lesions_touching_grey_matter" if content == "[]" else "lesions_touching_grey_matter"
    assert_refused(transplant(pair=pair), f"{path}: lacks {lacking}; write it again with the command that made it", tmp_path)


@pytest.fixture
def paint(inputs: Path, cohort_root: Path, tmp_path: Path) -> Callable[..., Result]:
    """Runs paint with a transplant and a generator, by default sound ones."""
    sound = {"transplant": inputs / "transplant" / "sub-syn0001", "generator": inputs / "generator"}

    def painted(**folders: Path) -> Result:
        given = [word for name, folder in (sound | folders).items() for word in (f"--{name}", folder)]
        return run("paint", *given, "--canvas", cohort_root / "prepare" / "sub-04", "--out", tmp_path / "new" / "painted")

    return painted


def test_a_transplant_of_another_making_is_refused(paint: Callable, inputs: Path, copy_of: Callable, tmp_path: Path) -> None:
    folder = copy_of(inputs / "transplant" / "sub-syn0001")
    path = find_image(folder, "desc-transplant.json")
    path.write_text('{"canvas": "sub-04"}')
    said = f"{path}: lacks id, donor; write it again with the command that made it"
    assert_refused(paint(transplant=folder), said, tmp_path)


def cut(generator: Path) -> None:
    network = generator / "generator.keras"
    network.write_bytes(network.read_bytes()[:-100])


def cut_before_its_card_was_written(generator: Path) -> None:
    cut(generator)
    change_card(generator, checksums={"generator.keras": checksum(generator / "generator.keras")})


def flip(generator: Path) -> None:
    content = bytearray((generator / "generator.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (generator / "generator.keras").write_bytes(content)


def change_card(generator: Path, **changes: Any) -> None:
    write_json(read_json(generator / "model.json") | changes, generator / "model.json")


def other_contrasts(generator: Path) -> None:
    change_card(generator, config=read_json(generator / "model.json")["config"] | {"contrasts": ["t1w", "t2w"]})


CHANGED = "{}/generator.keras: was changed since the model was saved (checksum differs); copy the model again"
BROKEN_GENERATORS = {
    "another version": (
        lambda folder: change_card(folder, card_version=CARD_VERSION - 1),
        f"{{}}: its card is of version {CARD_VERSION - 1}, not {CARD_VERSION} as this lesionforge writes; "
        "train the generator again",
    ),
    "other contrasts": (
        other_contrasts,
        "{}: was trained on t1w, t2w, but canvases have t1w, flair; give a generator of these contrasts",
    ),
    "cut short": (cut, CHANGED),
    "a flipped bit": (flip, CHANGED),
    "cut short with its checksum": (
        cut_before_its_card_was_written,
        "{}/generator.keras: is no network that Keras can load (ValueError); copy the model again",
    ),
}


@pytest.mark.parametrize("fault", BROKEN_GENERATORS)
def test_a_broken_generator_is_refused(paint: Callable, inputs: Path, copy_of: Callable, tmp_path: Path, fault: str) -> None:
    change, sentence = BROKEN_GENERATORS[fault]
    generator = copy_of(inputs / "generator")
    change(generator)
    assert_refused(paint(generator=generator), sentence.format(generator), tmp_path)


def change_config(generator: Path, **changes: Any) -> None:
    change_card(generator, config=read_json(generator / "model.json")["config"] | changes)


HAND_EDITED_CONFIGS = {
    "width": ("wide", -3, None),
    "contrasts": ("t1w", [1, 2], None),
    "own_levels": ("yes", 1),
    "neighbours": (-1, 0.5, float("nan")),
    "tile_size": (60, 0),
    "inference_stride": (0, "16"),
    "learning_rate": (float("nan"), -1),
    "validation_fraction": (1.5,),
}
HAND_EDITED_CARDS = {
    "seed": (None, "1", -1, 1.5),
    "typical_levels": (None, [], {}, {"flair": [0] * 9}, {"t1w": [0] * 8}, {"t1w": [9] * 9}, {"t1w": "0"}, {"t2w": [0] * 9}),
}
HAND_EDITED = [(change_config, name, value) for name, values in HAND_EDITED_CONFIGS.items() for value in values]
HAND_EDITED += [(change_card, name, value) for name, values in HAND_EDITED_CARDS.items() for value in values]


@pytest.mark.parametrize("command", ["synthesize paint", "paint"])
@pytest.mark.parametrize(("change", "name", "value"), HAND_EDITED)
def test_a_hand_edited_card_is_one_sentence(
    paint: Callable,
    inputs: Path,
    copy_of: Callable,
    cohort_root: Path,
    tmp_path: Path,
    command: str,
    change: Any,
    name: str,
    value: Any,
) -> None:
    generator = copy_of(inputs / "generator")
    change(generator, **{name: value})
    if command == "paint":
        canvas = Prepared.open(cohort_root / "prepare" / "sub-01")
        scans = ["--t1w", canvas.t1w, "--flair", canvas.flair, "--mask", canvas.lesion, "--generator", generator]
        result = CliRunner().invoke(main, ["paint", *map(str, scans), "--out", str(tmp_path / "new")])
    else:
        result = paint(generator=generator)
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    assert result.output.startswith(f"Error: {generator}/model.json: ") and name in result.output
    assert not list(tmp_path.iterdir())


def test_a_card_of_another_network_is_refused(paint: Callable, inputs: Path, copy_of: Callable, tmp_path: Path) -> None:
    generator = copy_of(inputs / "generator")
    change_config(generator, neighbours=3)
    said = f"{generator}/model.json: its config is not that of its network; copy the whole model folder again"
    assert_refused(paint(generator=generator), said, tmp_path)
