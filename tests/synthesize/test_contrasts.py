"""A further contrast goes all the way: levels, filling, generator, transplant, painting."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import Prepared, Scan, find_image, label_lesions, read_json, read_volume, write_json, write_volume, zscore
from lesionforge.synthesize import stage
from lesionforge.synthesize.config import CONFIGURATIONS
from lesionforge.synthesize.generator_folder import read_generator_card
from lesionforge.synthesize.levels import levels_of, scales_of
from lesionforge.synthesize.network import build_generator
from lesionforge.synthesize.transplant_folder import read_draw, write_statistics, write_transplant

QUICK = replace(CONFIGURATIONS["lesionforge"], width=2, epochs=1, tiles_per_epoch=8)


def with_t2w(scan: Scan, seed: int) -> Scan:
    """A scan with a T2w too: CSF and lesions bright, grey matter brighter than white matter."""
    noise = 3 * np.random.default_rng(seed).normal(size=scan.tissues.shape)
    t2w = np.array([0, 200, 90, 60])[scan.tissues] + 60 * scan.lesion + noise
    return replace(scan, further={"T2w": zscore(t2w, scan.brain)})


@pytest.fixture(scope="module")
def root(
    tmp_path_factory: pytest.TempPathFactory, patient: Scan, healthy: Scan, write_scan: Callable[[Scan, Path], Path]
) -> Path:
    """A patient and a healthy canvas of three contrasts, their pair, levels, a generator, a transplant, and the painted scan."""
    root = tmp_path_factory.mktemp("three")
    scan = with_t2w(patient, 1)
    write_scan(scan, root / "prepare" / "sub-01")
    write_scan(with_t2w(healthy, 2), root / "prepare" / "sub-04")
    write_scan(healthy, root / "two" / "sub-04")
    pair = root / "pair"
    pair.mkdir()
    write_volume(label_lesions(scan.lesion)[0].astype(np.uint16), scan.affine, pair / "sub-01_label-lesion_dseg.nii.gz")
    for name, image in scan.images().items():
        write_volume(image, scan.affine, pair / f"sub-01_desc-preproc_{name}.nii.gz")
    write_json({"donor": "sub-01", "canvas": "sub-04", "lesions_touching_grey_matter": []}, pair / "sub-01_desc-pair.json")
    prepared = [Prepared.open(root / "prepare" / name) for name in ("sub-01", "sub-04")]
    stage.write_levels(prepared[0], root / "levels", 1)
    levels = stage.Levels.open(root / "levels" / "sub-01")
    said: list[object] = []
    patients = [(prepared[0], levels, "train")]
    stage.write_generator(patients, root / "generator", QUICK, seed=1, device="cpu", checkpoint=None, on_epoch=said.append)
    write_transplant("sub-syn0001", pair, prepared[1], levels, root / "transplant", seed=1)
    stage.write_painted(root / "transplant/sub-syn0001", prepared[1], None, root / "generator", root)
    return root


def test_the_painted_scan_has_all_contrasts_and_its_lesions_the_levels_of_the_transplant(root: Path) -> None:
    painted, canvas = Prepared.open(root / "sub-syn0001"), Prepared.open(root / "prepare/sub-04")
    assert painted.contrasts == ("T1w", "FLAIR", "T2w")
    scan, before = painted.read(), canvas.read()
    assert scan.lesion.any()
    scales = scales_of(stage.images_of(before), before.tissues, before.lesion)
    for name, image in stage.images_of(scan).items():
        wanted = read_volume(find_image(root / "transplant/sub-syn0001", f"{stage.level_entity(name)}.nii.gz"))[0]
        assert np.array_equal(levels_of(scales[name].units(image), name)[scan.lesion], wanted[scan.lesion]), name
    changed = scan.further["T2w"] != before.further["T2w"]
    assert changed.any() and np.array_equal(changed, scan.flair != before.flair)
    # Lesions are bright in a T2w: nearer to what the donor has than to white matter.
    white = (before.tissues == 3) & ~scan.lesion
    assert scan.further["T2w"][scan.lesion].mean() > before.further["T2w"][white].mean() + 0.3


def test_a_further_contrast_changes_neither_levels_nor_filling_of_the_others(
    root: Path, patient: Scan, write_scan: Callable[[Scan, Path], Path], tmp_path: Path
) -> None:
    prepared = Prepared.open(write_scan(patient, tmp_path / "prepare" / "sub-01"))
    stage.write_levels(prepared, tmp_path, 1)
    for path in (tmp_path / "sub-01").glob("*.nii.gz"):
        assert path.read_bytes() == (root / "levels/sub-01" / path.name).read_bytes(), path.name
    record, three = (
        read_json(find_image(folder, "desc-levels.json")) for folder in (tmp_path / "sub-01", root / "levels/sub-01")
    )
    assert set(record["level_factors"]) == {"t1w", "flair"} and set(three["level_factors"]) == {"t1w", "flair", "t2w"}
    assert all(three["scales"][name] == scale for name, scale in record["scales"].items())


def test_the_card_says_the_contrasts_and_what_they_need(root: Path) -> None:
    card, config = read_generator_card(root / "generator", ("t1w", "flair", "t2w", "pdw"))
    assert config.contrasts == ("t1w", "flair", "t2w")
    assert set(card["typical_levels"]) == {"t1w", "t2w"}
    assert {f"t2w_from_{source}_loss" for source in ("t1w", "flair", "t2w", "fused")} <= set(
        (root / "generator/history.tsv").read_text().split("\n")[0].split("\t")
    )
    with pytest.raises(InputError, match="was trained on t1w, flair, t2w, but canvases have t1w, flair;"):
        read_generator_card(root / "generator", ("t1w", "flair"))


def test_each_contrast_adds_an_encoder_and_a_decoder_as_large_as_the_others() -> None:
    sizes = {}
    for count in (2, 3, 4):
        plain = replace(CONFIGURATIONS["salem2019"], shared_slopes=True, output_prelu=False)
        config = replace(plain, contrasts=("t1w", "flair", "t2w", "pdw")[:count])
        sizes[count] = build_generator(config)[1].count_params()
        assert len(config.reconstructions) == count * (count + 1)
    assert sizes == {count: count * 1_029_249 for count in (2, 3, 4)}


def test_a_generator_of_two_contrasts_paints_those_of_a_canvas_with_three(root: Path, inputs: Path, tmp_path: Path) -> None:
    stage.write_painted(
        root / "transplant/sub-syn0001", Prepared.open(root / "prepare/sub-04"), None, inputs / "generator", tmp_path
    )
    assert Prepared.open(tmp_path / "sub-syn0001").contrasts == ("T1w", "FLAIR")


def test_the_lesions_of_a_library_get_further_contrasts_from_the_statistics(root: Path, tmp_path: Path) -> None:
    levels = stage.Levels.open(root / "levels/sub-01")
    lesions = write_statistics([(Prepared.open(root / "prepare/sub-01"), levels)], tmp_path / "statistics")
    assert {tuple(lesion.profiles) for lesion in lesions} == {("t1w", "flair", "t2w")}
    pair = tmp_path / "pair"
    pair.mkdir()
    record = {"donor": "lib-01", "canvas": "sub-04", "method": "library", "lesions_touching_grey_matter": []}
    write_json(record, pair / "lib-01_desc-pair.json")
    (pair / "lib-01_label-lesion_dseg.nii.gz").write_bytes((root / "pair/sub-01_label-lesion_dseg.nii.gz").read_bytes())
    write_transplant("sub-syn0002", pair, Prepared.open(root / "prepare/sub-04"), lesions, tmp_path, seed=1)
    t2w = read_volume(find_image(tmp_path / "sub-syn0002", "desc-levelsT2w_dseg.nii.gz"))[0]
    assert t2w.max() > 3


def test_a_draw_is_repeated_with_its_own_contrasts(root: Path, tmp_path: Path) -> None:
    canvas, levels = Prepared.open(root / "prepare/sub-04"), stage.Levels.open(root / "levels/sub-01")
    drawn = find_image(root / "transplant/sub-syn0001", "desc-draw.json")
    write_transplant("sub-syn0001", root / "pair", canvas, levels, tmp_path, seed=5, draw=read_draw(drawn))
    for path in (tmp_path / "sub-syn0001").glob("*.nii.gz"):
        assert path.read_bytes() == (root / "transplant/sub-syn0001" / path.name).read_bytes(), path.name
    content = json.loads(drawn.read_text())
    for lesion in content["lesions"]:
        del lesion["level_shifts"]["t2w"]
    (tmp_path / "two.json").write_text(json.dumps(content))
    write_transplant("sub-syn0003", root / "pair", canvas, levels, tmp_path, seed=5, draw=read_draw(tmp_path / "two.json"))
    assert not list((tmp_path / "sub-syn0003").glob("*T2w*"))
    lesser = replace(levels, levels={name: levels.levels[name] for name in ("t1w", "flair")})
    with pytest.raises(InputError, match=r"levels/sub-01: has T1w, FLAIR but no T2w"):
        write_transplant("sub-syn0004", root / "pair", canvas, lesser, tmp_path, seed=5, draw=read_draw(drawn))


def test_patients_of_different_contrasts_train_no_generator(
    root: Path, patient: Scan, write_scan: Callable[[Scan, Path], Path], tmp_path: Path
) -> None:
    write_scan(patient, tmp_path / "prepare/sub-02")
    stage.write_levels(Prepared.open(tmp_path / "prepare/sub-02"), tmp_path / "levels", 1)
    folders = [(where / "prepare" / name, where / "levels" / name) for where, name in ((root, "sub-01"), (tmp_path, "sub-02"))]
    options = [text for both in folders for pair in zip(("--prepared", "--levels"), map(str, both), strict=True) for text in pair]
    for command in (["train-generator", "--width", "2", "--epochs", "1"], ["statistics"]):
        result = CliRunner().invoke(main, ["synthesize", *command, *options, "--out", str(tmp_path / "out")])
        assert result.exit_code == 2
        assert "levels/sub-02: has T1w, FLAIR but no T2w; prepare the scan with that too" in result.stderr
        assert not (tmp_path / "out").exists()


def test_what_is_no_t2w_is_refused(patient: Scan) -> None:
    images = stage.images_of(patient) | {"t2w": patient.t1w}
    with pytest.raises(InputError, match="grey matter is darker than white matter in the T2w; check that it is a T2w"):
        scales_of(images, patient.tissues, patient.lesion)
