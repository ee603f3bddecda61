"""The commands, from folders to folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import Prepared, Scan, checksum, find_image, read_json, read_volume, write_json
from lesionforge.synthesize import stage
from lesionforge.synthesize.levels import LEVEL_COUNT
from lesionforge.synthesize.transplant_folder import read_statistics, write_transplant


@pytest.fixture(scope="module")
def whole_stage(cohort_root: Path) -> Path:
    out = cohort_root / "synthesize"
    options = ["--width", "2", "--epochs", "2", "--tiles-per-epoch", "64"]
    result = CliRunner().invoke(main, ["synthesize", "--root", str(cohort_root), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return out


def test_whole_stage_leaves_prepared_folders(whole_stage: Path, cohort_root: Path, healthy: Scan) -> None:
    synthetic = Prepared.open(whole_stage / "sub-syn0001").read()
    assert synthetic.lesion.any()
    assert (synthetic.tissues[synthetic.lesion] == 3).all()
    assert np.array_equal(synthetic.brain, healthy.brain)
    changed = synthetic.flair != healthy.flair
    assert changed[synthetic.lesion].all()
    assert changed.sum() < 0.2 * healthy.brain.sum()
    assert not [path.name for path in whole_stage.iterdir() if path.name.startswith(".")]


def test_a_patient_canvas_is_filled_first(whole_stage: Path) -> None:
    synthetic = Prepared.open(whole_stage / "sub-syn0002").read()
    filled = read_volume(find_image(whole_stage / "levels" / "sub-02", "desc-filled_FLAIR.nii.gz"))[0]
    assert np.mean(synthetic.flair != filled) < 0.05
    assert read_json(find_image(whole_stage / "sub-syn0002", "desc-provenance.json"))["canvas_filled"] is True


def test_provenance_says_where_a_scan_comes_from(whole_stage: Path) -> None:
    record = read_json(find_image(whole_stage / "sub-syn0001", "desc-provenance.json"))
    assert (record["id"], record["donor"], record["canvas"]) == ("sub-syn0001", "sub-01", "sub-04")
    assert record["generator_checksum"] == checksum(whole_stage / "generator" / "generator.keras")
    assert sum(record["counts"].values()) == len(record["lesions"]) > 0
    assert record["versions"]["lesionforge"]
    assert record["generator_scans"] == ["sub-01", "sub-02"]


def test_no_test_subject_reaches_the_generator(whole_stage: Path) -> None:
    card = nets.read_card(whole_stage / "generator", "generator")
    assert sorted(card["trained_on"] + card["validated_on"]) == ["sub-01", "sub-02"]
    assert len(card["validated_on"]) == 1
    assert (whole_stage / "generator" / "history.tsv").read_text().startswith("epoch\t")


def test_levels_are_the_same_bytes_again(whole_stage: Path, cohort_root: Path, tmp_path: Path) -> None:
    stage.write_levels(Prepared.open(cohort_root / "prepare" / "sub-01"), tmp_path, 1)
    for path in sorted((tmp_path / "sub-01").glob("*.nii.gz")):
        assert path.read_bytes() == (whole_stage / "levels" / "sub-01" / path.name).read_bytes()


def test_single_commands_make_the_same_scan(whole_stage: Path, cohort_root: Path, tmp_path: Path) -> None:
    canvas = str(cohort_root / "prepare" / "sub-04")
    transplant = ["transplant", "--id", "sub-syn0001", "--pair", str(cohort_root / "register" / "sub-01_to_sub-04")]
    transplant += [
        "--donor-levels",
        str(whole_stage / "levels" / "sub-01"),
        "--out",
        str(tmp_path / "transplant"),
        "--load-ml",
        "0.3",
    ]
    paint = ["paint", "--transplant", str(tmp_path / "transplant" / "sub-syn0001"), "--out", str(tmp_path)]
    paint += ["--generator", str(whole_stage / "generator")]
    for command in (transplant, paint):
        result = CliRunner().invoke(main, ["synthesize", *command, "--canvas", canvas])
        assert result.exit_code == 0, result.output
    assert "networks run on " in result.stderr
    mine, theirs = Prepared.open(tmp_path / "sub-syn0001").read(), Prepared.open(whole_stage / "sub-syn0001").read()
    assert np.array_equal(mine.flair, theirs.flair)
    assert np.array_equal(mine.lesion, theirs.lesion)


def test_folders_that_do_not_belong_together_are_refused(whole_stage: Path, cohort_root: Path, tmp_path: Path) -> None:
    pair = cohort_root / "register" / "sub-01_to_sub-04"
    canvas = Prepared.open(cohort_root / "prepare" / "sub-04")
    with pytest.raises(InputError, match="donor sub-01"):
        write_transplant("sub-syn0009", pair, canvas, stage.Levels.open(whole_stage / "levels" / "sub-02"), tmp_path, seed=1)
    with pytest.raises(InputError, match="--canvas-levels"):
        patient = Prepared.open(cohort_root / "prepare" / "sub-02")
        stage.write_painted(whole_stage / "transplant" / "sub-syn0002", patient, None, whole_stage / "generator", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bad_id_is_refused(whole_stage: Path, cohort_root: Path, tmp_path: Path) -> None:
    folder = str(cohort_root / "prepare" / "sub-04")
    options = ["--pair", folder, "--canvas", folder, "--donor-levels", folder, "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["synthesize", "transplant", "--id", "../evil", *options])
    assert result.exit_code == 2


def test_the_draw_beside_a_scan_makes_it_again(whole_stage: Path, cohort_root: Path, tmp_path: Path) -> None:
    """From donor, canvas and draw alone: neither the seed nor the load is given again."""
    draw = find_image(whole_stage / "sub-syn0001", "desc-draw.json")
    canvas = ["--canvas", str(cohort_root / "prepare" / "sub-04")]
    transplant = ["transplant", "--id", "sub-syn0001", "--pair", str(cohort_root / "register" / "sub-01_to_sub-04"), *canvas]
    transplant += ["--donor-levels", str(whole_stage / "levels" / "sub-01"), "--draw", str(draw), "--seed", "99"]
    paint = ["paint", "--transplant", str(tmp_path / "transplant" / "sub-syn0001"), *canvas]
    paint += ["--generator", str(whole_stage / "generator")]
    for command, out in ((transplant, tmp_path / "transplant"), (paint, tmp_path)):
        result = CliRunner().invoke(main, ["synthesize", *command, "--out", str(out)])
        assert result.exit_code == 0, result.output
    for folder in ("transplant/sub-syn0001", "sub-syn0001"):
        names = sorted(path.name for path in (whole_stage / folder).iterdir())
        assert names == sorted(path.name for path in (tmp_path / folder).iterdir())
        for name in names:
            assert (whole_stage / folder / name).read_bytes() == (tmp_path / folder / name).read_bytes(), name
    assert read_json(draw)["load_ml"] == 0.3


def test_a_mask_alone_takes_its_brightness_from_the_training_patients(
    whole_stage: Path, cohort_root: Path, tmp_path: Path
) -> None:
    folders = [f"{kind}/{scan}" for scan in ("sub-01", "sub-02") for kind in ("prepare", "synthesize/levels")]
    options = ["--prepared", "--levels"] * 2
    given = [word for option, name in zip(options, folders, strict=True) for word in (option, str(cohort_root / name))]
    result = CliRunner().invoke(main, ["synthesize", "statistics", *given, "--out", str(tmp_path / "statistics")])
    assert result.exit_code == 0, result.output
    assert "7 lesions of 2 patients" in result.output
    pair = tmp_path / "lib-a_to_sub-04"
    shutil.copytree(cohort_root / "register" / "sub-01_to_sub-04", pair)
    for contrast in ("T1w", "FLAIR"):
        find_image(pair, f"desc-preproc_{contrast}.nii.gz").unlink()
    record = {"donor": "lib-a", "canvas": "sub-04", "method": "library", "lesions_touching_grey_matter": []}
    write_json(record, find_image(pair, "desc-pair.json"))
    command = ["transplant", "--id", "sub-syn0007", "--pair", str(pair), "--statistics", str(tmp_path / "statistics")]
    command += ["--canvas", str(cohort_root / "prepare" / "sub-04"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["synthesize", *command])
    assert result.exit_code == 0, result.output
    made = tmp_path / "out" / "sub-syn0007"
    levels = read_volume(find_image(made, "desc-levelsFLAIR_dseg.nii.gz"))[0]
    lesion = read_volume(find_image(made, "label-lesion_mask.nii.gz"))[0] > 0
    assert levels[lesion].min() >= 1
    assert levels[lesion].mean() > 4  # lesions here are far brighter than grey matter
    # The draw holds what was learned from the training patients: donor and canvas are all it needs.
    again = [word for word in command if word not in ("--statistics", str(tmp_path / "statistics"))]
    again += ["--draw", str(find_image(made, "desc-draw.json")), "--out", str(tmp_path / "again")]
    result = CliRunner().invoke(main, ["synthesize", *again])
    assert result.exit_code == 0, result.output
    for path in made.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "sub-syn0007" / path.name).read_bytes(), path.name
    with pytest.raises(InputError, match="from a library"):
        canvas, levels_of_other = Prepared.open(cohort_root / "prepare" / "sub-04"), read_statistics(tmp_path / "statistics")
        write_transplant("sub-syn0008", cohort_root / "register" / "sub-01_to_sub-04", canvas, levels_of_other, tmp_path, seed=1)


def test_typical_levels_are_the_medians_and_gaps_take_the_nearest(cohort_root: Path, whole_stage: Path, tmp_path: Path) -> None:
    scan = Prepared.open(cohort_root / "prepare" / "sub-01").read()
    found = stage.Levels.open(whole_stage / "levels" / "sub-01")
    levels = found.read(scan)
    typical = stage.typical_levels([found])["t1w"]
    held = np.unique(levels["flair"])[1:]
    assert held.size > 0
    for level in range(1, LEVEL_COUNT + 1):
        nearest = held[np.abs(held.astype(int) - level).argmin()]
        assert typical[level] == np.quantile(levels["t1w"][levels["flair"] == nearest], 0.5, method="inverted_cdf")
    stage.write_levels(Prepared.open(cohort_root / "prepare" / "sub-04"), tmp_path, 1)
    assert stage.typical_levels([stage.Levels.open(tmp_path / "sub-04")]) == {"t1w": [0] * (LEVEL_COUNT + 1)}
