"""Laws of augmented copies: nothing drawn changes nothing, all volumes move together, lesions stay whole and of their size."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.assemble.classical import (
    ClassicalDraw,
    Intensity,
    apply_classical,
    changed_intensities,
    draw_classical,
    smooth_field,
    source_of_copy,
)
from lesionforge.cli import main
from lesionforge.images import Prepared, Scan, find_image, label_lesions, read_json, write_json
from lesionforge.images.deform import dice

VOXEL_MM = 2.0
UNCHANGED = Intensity(gain=1, gamma=1, log_bias=0, bias_seed=0, noise=0, noise_seed=0)
NOTHING = ClassicalDraw(
    id="sub-cla0001",
    scan="sub-p0",
    seed=1,
    software="0",
    flip=False,
    rotation_degrees=(0, 0, 0),
    scale=(1, 1, 1),
    shift_mm=(0, 0, 0),
    elastic_mm=0,
    elastic_seed=0,
    intensities={"T1w": UNCHANGED, "FLAIR": UNCHANGED},
)


@pytest.fixture(scope="module")
def scan(write_blob_scan, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return Prepared.open(write_blob_scan(tmp_path_factory.mktemp("prepare"), "sub-p0", seed=1)).read()


def drawn(seed: int, contrasts: tuple[str, ...] = ("T1w", "FLAIR")) -> ClassicalDraw:
    return draw_classical("sub-cla0001", "sub-p0", contrasts, seed, "0", np.random.default_rng(seed))


def test_a_draw_of_nothing_is_the_scan_itself(scan: Scan) -> None:
    copy = apply_classical(NOTHING, scan, VOXEL_MM)
    for name in ("brain", "tissues", "lesion"):
        assert np.array_equal(getattr(copy, name), getattr(scan, name)), name
    for name, image in scan.images().items():
        assert np.abs(copy.images()[name] - image).max() < 1e-4, name


def test_the_same_json_gives_the_same_copy(scan: Scan, tmp_path: Path) -> None:
    draw = drawn(3)
    write_json(asdict(draw), tmp_path / "draw.json")
    content = read_json(tmp_path / "draw.json")
    intensities = {name: Intensity(**values) for name, values in content["intensities"].items()}
    read = ClassicalDraw(**content | {"intensities": intensities})
    copy, again = (apply_classical(one, scan, VOXEL_MM) for one in (draw, read))
    assert np.array_equal(copy.lesion, again.lesion) and np.array_equal(copy.tissues, again.tissues)
    assert all(np.array_equal(image, again.images()[name]) for name, image in copy.images().items())


def test_two_seeds_give_two_copies(scan: Scan) -> None:
    one, other = (apply_classical(drawn(seed), scan, VOXEL_MM) for seed in (1, 2))
    assert not np.array_equal(one.flair, other.flair) and not np.array_equal(one.lesion, other.lesion)


@pytest.mark.parametrize("seed", range(6))
def test_labels_and_images_move_together(scan: Scan, seed: int) -> None:
    """An image of the mask itself, taken along as a further contrast, is bright where the mask is after the move."""
    three = replace(scan, further={"T2w": scan.lesion.astype(np.float32)})
    draw = replace(drawn(seed), intensities=dict.fromkeys(three.contrasts, UNCHANGED))
    copy = apply_classical(draw, three, VOXEL_MM)
    moved = copy.further["T2w"]
    middle = (moved.max() + np.median(moved[copy.brain])) / 2
    assert dice(moved > middle, copy.lesion) > 0.9
    assert dice(moved > middle, scan.lesion) < 0.8


@pytest.mark.parametrize("seed", range(6))
def test_lesions_stay_whole_and_keep_their_volume_but_for_the_scale(scan: Scan, seed: int) -> None:
    draw = drawn(seed)
    copy = apply_classical(draw, scan, VOXEL_MM)
    assert label_lesions(copy.lesion)[1] == label_lesions(scan.lesion)[1]
    assert copy.lesion.sum() / scan.lesion.sum() / np.prod(draw.scale) == pytest.approx(1, abs=0.2)
    assert (copy.tissues[copy.lesion] == 3).all() and copy.brain[copy.lesion].all()


def test_a_flip_is_the_mirror_image(scan: Scan) -> None:
    copy = apply_classical(replace(NOTHING, flip=True), scan, VOXEL_MM)
    # The brain of this scan is a ball around voxel 20, so that its mirror image is the array turned about it.
    mirrored = np.roll(scan.lesion[::-1], 1, axis=0)
    assert np.array_equal(copy.lesion, mirrored)
    assert np.abs(copy.flair - np.roll(scan.flair[::-1], 1, axis=0)).max() < 1e-4


def test_a_shift_goes_the_way_it_says(scan: Scan) -> None:
    copy = apply_classical(replace(NOTHING, shift_mm=(4, 0, -2)), scan, VOXEL_MM)
    assert np.array_equal(copy.lesion, np.roll(scan.lesion, (2, -1), axis=(0, 2)))


@pytest.mark.parametrize("seed", range(4))
def test_no_copy_is_folded(scan: Scan, seed: int) -> None:
    source = source_of_copy(replace(drawn(seed), elastic_mm=10), scan.brain, VOXEL_MM)
    steps = np.stack([np.stack(np.gradient(axis), axis=-1) for axis in source], axis=-2)
    determinants = np.linalg.det(steps)
    assert (determinants > 0).all() or (determinants < 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_intensities_stay_normalised_and_0_outside_the_brain(scan: Scan, seed: int) -> None:
    copy = apply_classical(drawn(seed), scan, VOXEL_MM)
    for name, image in copy.images().items():
        before = scan.images()[name][scan.brain]
        assert not image[~copy.brain].any() and image.dtype == np.float32
        assert image[copy.brain].mean() == pytest.approx(before.mean(), abs=0.15)
        assert image[copy.brain].std() == pytest.approx(before.std(), rel=0.25)


def test_each_intensity_change_does_its_part_alone(scan: Scan) -> None:
    def changed(**values: float) -> np.ndarray:
        return changed_intensities(scan.flair, scan.brain, replace(UNCHANGED, **values), VOXEL_MM)[scan.brain]

    before = scan.flair[scan.brain]
    assert np.allclose(changed(gain=1.1), 1.1 * before, atol=1e-4)
    assert (changed(noise=0.2) - before).std() == pytest.approx(0.2, rel=0.05)
    order = np.argsort(before, kind="stable")
    assert (np.diff(changed(gamma=1.3)[order]) >= -1e-5).all(), "gamma keeps the order of intensities"
    for change in ({"gamma": 1.3}, {"log_bias": 0.3}):
        after = changed(**change)
        assert np.abs(after - before).max() > 0.05
        assert (after.mean(), after.std()) == pytest.approx((before.mean(), before.std()), abs=1e-4)


def test_smooth_fields_are_bounded_and_smooth(rng: np.random.Generator) -> None:
    field = smooth_field((40, 30, 1), 8.0, rng)
    assert field.shape == (40, 30, 1) and np.abs(field).max() <= 1
    assert np.abs(np.diff(field, axis=0)).max() < 0.25 and field.std() > 0.05


Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def called(prepared: Path, out: str = "assemble", scan_id: str = "sub-cla0001") -> tuple[int, str]:
        arguments = ["assemble", "classical", "--id", scan_id, "--prepared", str(prepared), "--seed", "5"]
        result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / out)])
        return result.exit_code, result.output

    return called


def test_the_command_writes_a_prepared_folder_and_the_same_one_again(call: Call, write_blob_scan, tmp_path: Path) -> None:
    prepared = write_blob_scan(tmp_path / "prepare", "sub-p0", seed=1)
    for out in ("one", "two"):
        code, output = call(prepared, out)
        assert code == 0, output
    one, two = (sorted((tmp_path / out / "sub-cla0001").iterdir()) for out in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    made = Prepared.open(tmp_path / "one/sub-cla0001")
    record = read_json(made.folder / "sub-cla0001_desc-provenance.json")
    assert (record["donor"], record["canvas"], record["seed"]) == ("sub-p0", "sub-p0", 5)
    assert record["parameters"] == read_json(made.folder / "sub-cla0001_desc-draw.json")
    assert made.read().lesion.sum() * VOXEL_MM**3 / 1000 == pytest.approx(record["lesion_volume_ml"])


def test_the_copy_has_the_further_contrasts_and_the_others_stay_as_they_are_without(
    call: Call, write_blob_scan, add_contrast, tmp_path: Path
) -> None:
    prepared = write_blob_scan(tmp_path / "prepare", "sub-p0", seed=1)
    assert call(prepared, "two")[0] == 0
    add_contrast(prepared, "T2w")
    assert call(prepared, "three")[0] == 0
    two, three = (Prepared.open(tmp_path / out / "sub-cla0001").read() for out in ("two", "three"))
    assert (two.contrasts, three.contrasts) == (("T1w", "FLAIR"), ("T1w", "FLAIR", "T2w"))
    assert all(np.array_equal(image, three.images()[name]) for name, image in two.images().items())
    t2w = three.further["T2w"]
    assert t2w[three.lesion].mean() > t2w[three.brain].mean() + 1 and not t2w[~three.brain].any()


def test_the_command_refuses_what_it_cannot_copy(call: Call, write_blob_scan, tmp_path: Path) -> None:
    unannotated = write_blob_scan(tmp_path / "prepare", "sub-p1", seed=1, with_mask=False)
    code, output = call(unannotated)
    assert code == 2 and "has no lesion mask" in output
    for scan_id in ("sub-syn0001", "sub-cla", "sub-cla0001_x", "sub-cla/.."):
        code, output = call(unannotated, scan_id=scan_id)
        assert code == 2 and "is no id of such a scan" in output
    for ending, said in (("desc-brain_mask", "is empty"), ("desc-preproc_FLAIR", "its FLAIR has one value in the whole brain")):
        prepared = write_blob_scan(tmp_path / ending, "sub-p0", seed=1)
        path = find_image(prepared, f"{ending}.nii.gz")
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
        code, output = call(prepared)
        assert code == 2 and said in output, output
    assert not (tmp_path / "assemble").exists()
