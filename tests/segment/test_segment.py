"""Laws of segmentation: nothing outside the brain, nothing lost on the way, every file even when nothing is found."""

import shutil
from dataclasses import replace
from pathlib import Path

import ants
import keras
import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import (
    PLACES,
    Prepared,
    Scan,
    checksum,
    derivative,
    label_lesions,
    read_image,
    read_json,
    read_mask,
    read_tsv,
    read_volume,
    voxel_volume_mm3,
    write_json,
    write_mask,
    write_volume,
)
from lesionforge.images.deform import write_displacement
from lesionforge.images.names import ALWAYS
from lesionforge.images.prepared import GM, ROUGH_TEMPLATE_TO_T1W, WM
from lesionforge.segment.cascade import found_lesions, grow, lesion_probability, threshold_of_load
from lesionforge.segment.lesions import lesion_columns
from lesionforge.segment.workflow import Cascade, segment_scan
from lesionforge.train.loading import load_cascade

TRAIN_OPTIONS = ["--configuration", "published", "--epochs", "2", "--steps-per-epoch", "10"]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_blob_scan) -> Path:
    """A trained model, a test scan with native grids, and a scan without any bright voxel."""
    root = tmp_path_factory.mktemp("segment")
    for number in range(2):
        write_blob_scan(root / "prepare", f"sub-{number}", seed=number)
    (root / "real.tsv").write_text("id\tsplit\tfolder\nsub-0\ttrain\tprepare/sub-0\nsub-1\ttrain\tprepare/sub-1\n")
    run("train", "--index", root / "real.tsv", *TRAIN_OPTIONS, "--out", root / "model")

    test = write_blob_scan(root / "prepare", "sub-9", seed=9)
    scan = Prepared.open(test).read()
    write_volume(1 - 2 * scan.t1w, scan.affine, test / derivative("sub-9", Prepared.open(test).grid, "desc-preproc_T2w"))
    thick = nib.affines.from_matvec(np.array([[0, 0, -4.0], [1.5, 0, 0], [0, 1.5, 0]]), [38, -39, -39])
    grids = {"T1w": ((80, 80, 80), np.diag([1.0, 1, 1, 1])), "FLAIR": ((54, 52, 20), thick), "T2w": ((54, 52, 20), thick)}
    for space, (shape, affine) in grids.items():
        if space == "T1w":
            affine[:3, 3] = -40
        like = nib.Nifti1Image(np.zeros(shape, np.uint8), affine)
        like.set_sform(affine, code=2)
        like.set_qform(affine, code=1)
        like.header["descrip"] = b"scanner"
        name = derivative("sub-9", f"space-{space}_res-native_desc-brain_mask")
        write_mask(np.ones(shape, bool), affine, test / name, "brain", like)
    shift = ants.create_ants_transform("Euler3DTransform", translation=(0.0, 0.0, 4.0))
    for space in ("FLAIR", "T2w"):
        ants.write_transform(shift, str(test / f"sub-9_from-{space}_to-T1w_mode-image_xfm.mat"))

    way = np.tile(np.float32([1, -2, 3]), (20, 20, 20, 1))
    grid = nib.affines.from_matvec(np.diag([4.0, 4, 4]), [-40, -40, -40])
    write_displacement(way, grid, test / derivative("sub-9", ROUGH_TEMPLATE_TO_T1W, extension=""))

    write_blob_scan(root / "prepare", "sub-dark", seed=5, with_lesions=False, with_mask=False)
    dark = Prepared.open(root / "prepare/sub-dark")
    flair, affine = read_volume(dark.flair)
    nib.save(nib.Nifti1Image(np.zeros_like(flair), affine), dark.flair)
    run("segment", "--prepared", test, "--model", root / "model", "--lesion-threshold", 0.5, "--out", root / "segment")
    return root


def read(root: Path, scan_id: str, space: str, kind: str) -> np.ndarray:
    return read_volume(root / "segment" / scan_id / f"{scan_id}_space-T1w_res-{space}_label-lesion_{kind}.nii.gz")[0]


def test_obvious_lesions_are_found(root: Path) -> None:
    mask, _ = read_mask(root / "segment/sub-9/sub-9_space-T1w_res-2mm_label-lesion_mask.nii.gz")
    truth = Prepared.open(root / "prepare/sub-9").read().lesion
    assert dice(mask, truth) > 0.6


def test_probability_is_zero_outside_brain_and_candidates(root: Path) -> None:
    scan = Prepared.open(root / "prepare/sub-9").read()
    probability = read(root, "sub-9", "2mm", "probseg")
    assert not probability[~scan.brain].any()
    assert 0 < probability.max() <= 1
    assert (probability > 0).sum() < 0.5 * scan.brain.sum()


def test_table_and_summary_agree_with_the_mask(root: Path) -> None:
    mask = read(root, "sub-9", "2mm", "mask")
    table = read_tsv(root / "segment/sub-9/sub-9_desc-lesions.tsv")
    summary = read_json(root / "segment/sub-9/sub-9_desc-segment.json")
    assert summary["lesion_count"] == len(table) > 0
    assert summary["volume_ml"] == pytest.approx(mask.sum() * 8 / 1000)
    assert table["volume_mm3"].astype(float).sum() == pytest.approx(mask.sum() * 8)
    assert summary["lesion_threshold"] == 0.5
    assert (summary["candidate_depth_mm"], summary["lowest_threshold"], summary["load_share"]) == (0, None, 1)
    assert table["place"].isin(PLACES).all()
    assert sum(summary[f"lesions_{place}"] for place in PLACES) == len(table)


def test_a_lesion_has_the_number_of_its_row_on_every_grid(root: Path) -> None:
    table = read_tsv(root / "segment/sub-9/sub-9_desc-lesions.tsv").drop(columns="place").astype(float)
    summary = read_json(root / "segment/sub-9/sub-9_desc-segment.json")
    columns = {"T1w_res-2mm": ""} | {f"{space}_res-native": f"_native_{space.lower()}" for space in ("T1w", "FLAIR", "T2w")}
    for grid, column in columns.items():
        start = root / f"segment/sub-9/sub-9_space-{grid}_label-lesion"
        numbers, affine = read_volume(f"{start}_dseg.nii.gz")
        np.testing.assert_array_equal(numbers > 0, read_mask(f"{start}_mask.nii.gz")[0])
        volumes = np.bincount(numbers.astype(int).ravel(), minlength=len(table) + 1)[1:] * voxel_volume_mm3(affine)
        np.testing.assert_allclose(table[f"volume{column}_mm3"], volumes, atol=1e-3)
        assert summary[f"volume{column}_ml"] == pytest.approx(volumes.sum() / 1000)
        largest = nib.affines.apply_affine(affine, np.argwhere(numbers == 1)).mean(axis=0)
        # The transforms map T1w points to FLAIR and T2w points 4 mm higher.
        expected = table.loc[0, ["x_mm", "y_mm", "z_mm"]] + [0, 0, 4 * (column in ("_native_flair", "_native_t2w"))]
        np.testing.assert_allclose(largest, expected, atol=1.5)


def test_what_is_found_does_not_depend_on_a_lesion_mask(root: Path, tmp_path: Path) -> None:
    """Annotated lesions were white matter in the tissues, so that the places and intensities of a test scan knew them."""
    found = []
    for name in ("with", "without"):
        shutil.copytree(root / "prepare/sub-9", tmp_path / name / "sub-9")
        mask = next((tmp_path / name / "sub-9").glob("*res-2mm_label-lesion_mask.nii.gz"))
        if name == "without":
            mask.unlink()
        else:
            brain, affine = read_mask(next((tmp_path / name / "sub-9").glob("*res-2mm_desc-brain_mask.nii.gz")))
            write_mask(brain, affine, mask, "all of the brain")
        run("segment", "--prepared", tmp_path / name / "sub-9", "--model", root / "model", "--out", tmp_path / name / "out")
        table = (tmp_path / name / "out/sub-9/sub-9_desc-lesions.tsv").read_text()
        found.append((table, read_json(tmp_path / name / "out/sub-9/sub-9_desc-segment.json")))
    assert found[0] == found[1] and found[0][1]["lesion_count"]


def test_lesions_have_the_volume_that_the_load_says_within_the_limits() -> None:
    probability = np.linspace(0, 0.95, 1000, dtype=np.float32).reshape(10, 10, 10)
    for load_mm3 in (120, 400, 640):
        threshold = threshold_of_load(probability, load_mm3, 1.0, 0.3, 0.9)
        assert np.count_nonzero(probability >= threshold) == load_mm3
        assert threshold_of_load(probability, 8 * load_mm3, 8.0, 0.3, 0.9) == threshold
    assert threshold_of_load(probability, 5000, 1.0, 0.3, 0.9) == 0.3
    assert threshold_of_load(probability, 10, 1.0, 0.3, 0.9) == 0.9
    # Nothing bright, or nothing known: what is unlikely is no lesion, though it be the most likely of the scan.
    for load_mm3 in (0.0, 0.4, float("nan")):
        assert threshold_of_load(np.minimum(probability, 0.41), load_mm3, 1.0, 0.3, 0.9) == 0.9
    assert threshold_of_load(np.zeros((2, 2, 2), np.float32), 1.0, 1.0, 0.3, 0.9) == 0.3


def test_lesions_grow_step_by_step_into_what_is_connected_with_them() -> None:
    into = np.zeros((30, 9, 9), bool)
    into[2:25, 4, 4] = True
    into[2:25, 8, 8] = True
    mask = np.zeros_like(into)
    mask[5:8, 4, 4] = mask[5, 3, 4] = True
    for steps, last in ((0, 7), (1, 8), (6, 13), (100, 24)):
        expected = mask.copy()
        expected[max(2, 5 - steps) : last + 1, 4, 4] = True
        np.testing.assert_array_equal(grow(mask, into, steps), expected)
    # Around a bend the way counts, not the distance: 17 steps to its end, 4 along the bend, 9 back.
    into[24, 4:9, 4] = into[10:25, 8, 4] = True
    assert grow(mask, into, 30)[15, 8, 4] and not grow(mask, into, 29)[15, 8, 4]
    assert not grow(np.zeros_like(into), into, 5).any()


def test_found_lesions_grow_as_far_as_configured_and_small_ones_not_at_all(write_blob_scan, tmp_path: Path) -> None:
    scan = Prepared.open(write_blob_scan(tmp_path, "sub-a", 1)).read()
    tissues = np.full(scan.tissues.shape, WM, np.uint8) * scan.brain
    tissues[:, :, :8] = GM * scan.brain[:, :, :8]
    flair = np.where(tissues == GM, 0.5, 0.0).astype(np.float32) + scan.lesion * 3
    scan = replace(scan, tissues=tissues, flair=flair)
    probability = np.zeros(flair.shape, np.float32)
    numbers, _ = label_lesions(scan.lesion)
    probability[tuple(np.argwhere(numbers == 1)[0])] = 0.8  # one voxel of 8 mm³
    whole, threshold = found_lesions(probability, scan, CascadeConfig(min_volume_mm3=0, growth_mm=30))
    np.testing.assert_array_equal(whole, numbers == 1)
    assert threshold == CascadeConfig().lesion_threshold
    probability[tuple(np.argwhere(numbers == 2)[0])] = 0.79
    none, _ = found_lesions(probability, scan, CascadeConfig(min_volume_mm3=8, growth_mm=30))
    assert not none.any()
    one, _ = found_lesions(probability, scan, CascadeConfig(min_volume_mm3=0))
    assert np.count_nonzero(one) == 1


@pytest.mark.parametrize(("growth_mm", "voxels"), [(0, 1), (3, 2), (4, 3), (15, 8)])
def test_lesions_grow_by_no_more_millimetres_than_configured(growth_mm: float, voxels: int) -> None:
    tissues = np.full((30, 30, 30), WM, np.uint8)
    tissues[:, :, :8] = GM
    flair = np.where(tissues == GM, 0.5, 0.0).astype(np.float32)
    flair[5:25, 15, 20] = 3
    probability = np.zeros(flair.shape, np.float32)
    probability[5, 15, 20] = 1
    # Affines that were written and read say 2 mm but for rounding.
    for side in (2, 2.00001, 1.99999):
        scan = Scan(flair, flair, tissues > 0, tissues, np.zeros(flair.shape, bool), np.diag([side, side, side, 1]))
        found, _ = found_lesions(probability, scan, CascadeConfig(min_volume_mm3=0, growth_mm=growth_mm))
        np.testing.assert_array_equal(np.argwhere(found)[:, 0], range(5, 5 + voxels))


def test_a_model_with_two_thresholds_gives_each_scan_its_own(root: Path, tmp_path: Path, monkeypatch) -> None:
    probability, _ = read_volume(root / "segment/sub-9/sub-9_space-T1w_res-2mm_label-lesion_probseg.nii.gz")
    wanted = np.count_nonzero(probability > 0.01) // 2
    assert wanted > 20
    monkeypatch.setattr("lesionforge.segment.cascade.hyperintense_volume_mm3", lambda *_: 16.0 * wanted)
    model = Cascade.open(root / "model")
    both = replace(
        model, config=replace(model.config, lesion_threshold=1.0, lowest_threshold=0.01, load_share=0.5, min_volume_mm3=0)
    )
    summary = segment_scan(root / "prepare/sub-9", both, tmp_path / "own")
    assert summary["mirrored"] is False
    assert summary["volume_ml"] * 1000 == pytest.approx(8 * wanted, abs=16)
    assert summary["lesion_threshold"] == threshold_of_load(probability, 8.0 * wanted, 8.0, 0.01, 1.0)
    mask, _ = read_mask(tmp_path / "own/sub-9/sub-9_space-T1w_res-2mm_label-lesion_mask.nii.gz")
    np.testing.assert_array_equal(mask, probability >= summary["lesion_threshold"])


def test_a_threshold_that_is_given_replaces_both_of_the_model(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "model", tmp_path / "model")
    card = read_json(tmp_path / "model/model.json")
    card["parameters"] |= {"lowest_threshold": 0.01, "lesion_threshold": 0.9, "growth_mm": 15}
    write_json(card, tmp_path / "model/model.json")
    assert Cascade.open(tmp_path / "model").config.lowest_threshold == 0.01
    given = Cascade.open(tmp_path / "model", 0.5).config
    assert (given.lesion_threshold, given.lowest_threshold, given.growth_mm) == (0.5, None, 0)
    card["parameters"]["lowest_threshold"] = 0.95
    write_json(card, tmp_path / "model/model.json")
    with pytest.raises(InputError, match=r"lowest_threshold 0.95 is above lesion_threshold 0.9"):
        Cascade.open(tmp_path / "model")


def test_centroids_are_in_template_space_where_the_prepared_folder_knows_the_way(root: Path, tmp_path: Path) -> None:
    table = read_tsv(root / "segment/sub-9/sub-9_desc-lesions.tsv")
    here, there = (table[[f"{axis}_{unit}" for axis in "xyz"]].to_numpy(float) for unit in ("mm", "mni152_mm"))
    np.testing.assert_allclose(there - here, np.tile([1, -2, 3], (len(table), 1)), atol=2e-3)

    shutil.copytree(root / "prepare/sub-9", tmp_path / "sub-9")
    next((tmp_path / "sub-9").glob("*_desc-rough_xfm.nii.gz")).unlink()
    run("segment", "--prepared", tmp_path / "sub-9", "--model", root / "model", "--out", tmp_path / "out")
    unknown = read_tsv(tmp_path / "out/sub-9/sub-9_desc-lesions.tsv")
    assert len(unknown) and (unknown["x_mni152_mm"] == "n/a").all()


@pytest.mark.parametrize(
    ("ending", "left", "said"), [("rough_xfm.nii.gz", -20, "displacement"), ("to-T1w*xfm.mat", 20, "linear transform")]
)
def test_a_transform_that_cannot_be_read_is_named_before_networks_run(
    root: Path, tmp_path: Path, monkeypatch, ending: str, left: int, said: str
) -> None:
    shutil.copytree(root / "prepare/sub-9", tmp_path / "sub-9")
    damaged = next((tmp_path / "sub-9").glob(f"*{ending}"))
    damaged.write_bytes(damaged.read_bytes()[:left])
    monkeypatch.setattr("lesionforge.segment.workflow.lesion_probability", None)
    call = ["segment", "--prepared", tmp_path / "sub-9", "--model", root / "model", "--out", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(word) for word in call])
    assert result.exit_code == 2 and f"{damaged}: cannot be read as a {said}" in result.output


@pytest.mark.parametrize("space", ["T1w", "FLAIR", "T2w"])
def test_native_results_keep_the_users_header(root: Path, space: str) -> None:
    like = read_image(root / f"prepare/sub-9/sub-9_space-{space}_res-native_desc-brain_mask.nii.gz")
    for kind in ("mask", "probseg"):
        image = read_image(root / f"segment/sub-9/sub-9_space-{space}_res-native_label-lesion_{kind}.nii.gz")
        assert image.shape == like.shape
        np.testing.assert_array_equal(image.affine, like.affine)
        assert int(image.header["sform_code"]) == 2 and image.header["descrip"] == like.header["descrip"]
        sidecar = read_json(root / f"segment/sub-9/sub-9_space-{space}_res-native_label-lesion_{kind}.json")
        assert sidecar["SpatialReference"] == f"space of the {space} scan"


def centre_mm(path: Path) -> np.ndarray:
    mask, affine = read_mask(path)
    return nib.affines.apply_affine(affine, np.argwhere(mask)).mean(axis=0)


def test_lesions_lie_at_their_place_on_the_native_grids(root: Path) -> None:
    folder = root / "segment/sub-9"
    working = centre_mm(folder / "sub-9_space-T1w_res-2mm_label-lesion_mask.nii.gz")
    np.testing.assert_allclose(centre_mm(folder / "sub-9_space-T1w_res-native_label-lesion_mask.nii.gz"), working, atol=0.5)
    # The transform maps T1w points to FLAIR points 4 mm higher.
    flair = centre_mm(folder / "sub-9_space-FLAIR_res-native_label-lesion_mask.nii.gz")
    np.testing.assert_allclose(flair - working, [0, 0, 4], atol=1)


def test_scan_without_candidates_gets_empty_files(root: Path) -> None:
    said = run("segment", "--prepared", root / "prepare/sub-dark", "--model", root / "model", "--out", root / "segment")
    assert "no lesion found, the mask is empty" in said
    assert not read(root, "sub-dark", "2mm", "mask").any() and not read(root, "sub-dark", "2mm", "probseg").any()
    assert not read(root, "sub-dark", "2mm", "dseg").any()
    table = read_tsv(root / "segment/sub-dark/sub-dark_desc-lesions.tsv")
    assert len(table) == 0 and list(table) == list(lesion_columns(ALWAYS))


def test_empty_brain_gives_an_empty_map() -> None:
    empty = np.zeros((4, 4, 4), bool)
    assert not lesion_probability({}, [empty * 1.0, empty * 1.0], empty, CascadeConfig(), 1).any()


def test_no_lesion_is_looked_for_near_the_surface_of_the_brain(monkeypatch) -> None:
    brain = np.zeros((40, 40, 40), bool)
    brain[4:36, 4:36, 4:36] = True
    images = [np.ones(brain.shape, np.float32)] * 2
    monkeypatch.setattr("lesionforge.segment.cascade.score", lambda _network, _volume, centres: np.ones(len(centres), np.float32))
    config = replace(CascadeConfig(), normalisation="prepared")
    networks = {"cnn1": None, "cnn2": None}
    np.testing.assert_array_equal(lesion_probability(networks, images, brain, config, 1) > 0, brain)
    found = lesion_probability(networks, images, brain, replace(config, candidate_depth_mm=6), 1) > 0
    assert found[12:28, 12:28, 12:28].all() and not found[:9].any() and not found[:, :, 31:].any()


def test_model_faults_are_told_before_any_work(root: Path, tmp_path: Path) -> None:
    call = ["segment", "--prepared", str(root / "prepare/sub-9"), "--model", str(tmp_path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 2 and "is no model folder" in result.output
    scan = root / "prepare/sub-9/sub-9_space-T1w_res-2mm_desc-preproc_T1w.nii.gz"
    result = CliRunner().invoke(
        main, ["predict", "--t1w", str(scan), "--flair", str(scan), "--model", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2 and "is no model folder" in result.output
    assert not (tmp_path / "out").exists()


def refused(root: Path, tmp_path: Path, model: Path) -> str:
    """What `segment` says of a model that it refuses, in one sentence and before it writes anything."""
    call = ["segment", "--prepared", root / "prepare/sub-9", "--model", model, "--out", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(word) for word in call])
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()
    return result.output


def test_a_network_that_is_missing_or_was_changed_is_refused(root: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(root / "model", tmp_path / "model"))
    network = model / "cnn2.keras"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    assert refused(root, tmp_path, model).startswith(
        f"Error: {network}: was changed since the model was saved (checksum differs)"
    )
    network.unlink()
    assert refused(root, tmp_path, model) == f"Error: {network}: is missing; copy the whole model folder again\n"


def test_code_in_a_network_is_refused_and_not_run(root: Path, tmp_path: Path) -> None:
    """A layer Lambda holds Python code, which Keras runs when it builds the network, unless it is told not to."""
    model, ran = Path(shutil.copytree(root / "model", tmp_path / "model")), tmp_path / "ran"
    place = str(ran)
    network = model / "cnn1.keras"
    given = keras.Input((2, 11, 11, 11))
    code = keras.layers.Lambda(lambda values: (__import__("pathlib").Path(place).touch(), values)[1])
    keras.Model(given, code(given)).save(network)
    assert ran.exists()
    card = read_json(model / "model.json")
    write_json(card | {"checksums": card["checksums"] | {network.name: checksum(network)}}, model / "model.json")
    ran.unlink()
    assert refused(root, tmp_path, model).startswith(f"Error: {network}: is no network that Keras can load")
    assert not ran.exists()
    keras.saving.load_model(network, compile=False, safe_mode=False)
    assert ran.exists()


HAND_EDITED = [
    {"voxel_mm": "2"},
    {"voxel_mm": float("nan")},
    {"voxel_mm": 0},
    {"parameters": None},
    {"parameters": {"lesion_threshold": "high"}},
    {"parameters": {"lesion_threshold": float("nan")}},
    {"parameters": {"batch_size": -1}},
    {"parameters": {"min_volume_mm3": -20}},
    {"parameters": {"optimizer": "sgd"}},
]


@pytest.mark.parametrize("command", ["segment", "predict"])
@pytest.mark.parametrize("changes", HAND_EDITED, ids=str)
def test_a_hand_edited_card_is_one_sentence(root: Path, tmp_path: Path, command: str, changes: dict) -> None:
    model = Path(shutil.copytree(root / "model", tmp_path / "model"))
    write_json(read_json(model / "model.json") | changes, model / "model.json")
    scan = root / "prepare/sub-9/sub-9_space-T1w_res-2mm_desc-preproc_T1w.nii.gz"
    given = {"segment": ["--prepared", root / "prepare/sub-9"], "predict": ["--t1w", scan, "--flair", scan]}[command]
    result = CliRunner().invoke(main, [command, *map(str, given), "--model", str(model), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    assert result.output.startswith(f"Error: {model}/model.json: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["segment", "predict"])
def test_scans_without_a_contrast_of_the_model_are_refused(root: Path, tmp_path: Path, command: str) -> None:
    model = Path(shutil.copytree(root / "model", tmp_path / "model"))
    write_json(read_json(model / "model.json") | {"contrasts": ["T1w", "FLAIR", "PDw"]}, model / "model.json")
    folder = root / "prepare/sub-9"
    scan = folder / "sub-9_space-T1w_res-2mm_desc-preproc_T1w.nii.gz"
    given = {"segment": ["--prepared", folder], "predict": ["--t1w", scan, "--flair", scan, "--t2w", scan]}[command]
    result = CliRunner().invoke(main, [command, *map(str, given), "--model", str(model), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    said = {"segment": f"{folder}: has T1w, FLAIR, T2w but no PDw; ", "predict": f"{model}: takes T1w, FLAIR, PDw, but "}
    assert result.output.startswith(f"Error: {said[command]}") and result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_card_without_a_voxel_size_is_one_sentence(root: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(root / "model", tmp_path / "model"))
    card = read_json(model / "model.json")
    del card["voxel_mm"]
    write_json(card, model / "model.json")
    with pytest.raises(InputError, match=r"model\.json: lacks voxel_mm; copy the whole model folder again"):
        Cascade.open(model)


def test_other_voxel_size_is_refused(root: Path, tmp_path: Path) -> None:
    models = {name: nets.load_model(root / "model", name) for name in ("cnn1", "cnn2")}
    card = read_json(root / "model/model.json")
    nets.save_models(tmp_path, models, card | {"voxel_mm": 1.0})
    call = ["segment", "--prepared", root / "prepare/sub-9", "--model", tmp_path, "--out", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(part) for part in call])
    assert result.exit_code == 2 and "prepare it with --voxel-mm 1" in result.output


def test_predict_prepares_at_the_models_voxel_size(root: Path, tmp_path: Path, monkeypatch) -> None:
    asked = {}

    def prepared_already(**inputs: object) -> Path:
        asked.update(inputs)
        return root / "prepare/sub-9"

    monkeypatch.setattr("lesionforge.prepare.workflow.prepare_scan", prepared_already)
    scan = root / "prepare/sub-9/sub-9_space-T1w_res-2mm_desc-preproc_T1w.nii.gz"
    options = ["--brain-mask", "stripped", "--subject", "9", "--lesion-threshold", 0.5]
    said = run("predict", "--t1w", scan, "--flair", scan, "--model", root / "model", *options, "--out", tmp_path)
    assert "networks run on " in said
    assert "sub-9: " in said and " lesions, " in said
    assert (asked["voxel_mm"], asked["brain_mask"], asked["out"]) == (2.0, "stripped", tmp_path / "prepare")
    ours, theirs = (
        read_mask(folder / "sub-9/sub-9_space-T1w_res-2mm_label-lesion_mask.nii.gz")[0] for folder in (tmp_path, root / "segment")
    )
    np.testing.assert_array_equal(ours, theirs)
    tables = [(folder / "sub-9/sub-9_desc-lesions.tsv").read_text() for folder in (tmp_path, root / "segment")]
    assert tables[0] == tables[1]


def test_results_call_the_model_as_they_are_told_to(root: Path, tmp_path: Path) -> None:
    options = ("--prepared", root / "prepare/sub-9", "--model", root / "model", "--out", tmp_path)
    for words, name in (((), "model"), (("--name", "baseline_fold-9"), "baseline_fold-9")):
        run("segment", *options, *words)
        assert read_json(tmp_path / "sub-9" / "sub-9_desc-segment.json")["model"] == name


def test_a_third_contrast_reaches_the_networks_in_training_and_inference_alike(tmp_path: Path, write_blob_scan) -> None:
    for number in range(2):
        folder = write_blob_scan(tmp_path / "prepare", f"sub-{number}", seed=number)
        scan = Prepared.open(folder).read()
        t2w = folder / derivative(f"sub-{number}", Prepared.open(folder).grid, "desc-preproc_T2w")
        write_volume(1 - 2 * scan.t1w, scan.affine, t2w)
    (tmp_path / "real.tsv").write_text("id\tsplit\tfolder\nsub-0\ttrain\tprepare/sub-0\n")
    once = ["--epochs", "1", "--steps-per-epoch", "1"]
    run("train", "--index", tmp_path / "real.tsv", *once, "--out", tmp_path / "model")
    run("segment", "--prepared", tmp_path / "prepare/sub-1", "--model", tmp_path / "model", "--out", tmp_path / "segment")
    cascade = Cascade.open(tmp_path / "model")
    assert cascade.contrasts == ("T1w", "FLAIR", "T2w")
    scan = Prepared.open(tmp_path / "prepare/sub-1").unmarked().read()
    models = load_cascade(cascade.folder, cascade.config, cascade.contrasts)
    ours = read(tmp_path, "sub-1", "2mm", "probseg")
    t2w = 1 - 2 * scan.t1w
    by_hand, swapped = (
        lesion_probability(models, images, scan.brain, cascade.config, 2.0)
        for images in ([scan.t1w, scan.flair, t2w], [scan.t1w, t2w, scan.flair])
    )
    assert ours.any()
    np.testing.assert_allclose(ours, by_hand, atol=1e-5)
    assert np.abs(ours - swapped).max() > 0.01
