"""Scans as people have them: turned, oblique, sheared, scaled, thick, on a raised background, with headers that disagree."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from lesionforge.images import find_image, read_image, read_mask, read_volume, resample, working_grid
from lesionforge.images.interfaces import run
from lesionforge.prepare.interfaces import Strip, _read_scan
from lesionforge.prepare.workflow import prepare_scan

TURNS = [np.column_stack([order, flips]) for order in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def turned(image, turn):
    """The same scan with its axes stored in another order and direction."""
    return image.as_reoriented(turn)


def onto_grid(image, linear, voxel_sizes):
    """The scan on a grid with other axes: `linear` (3 x 3) says where they lead, around the centre of the scan."""
    affine = np.eye(4)
    affine[:3, :3] = linear @ np.diag(voxel_sizes)
    extent = np.array(image.shape) * nib.affines.voxel_sizes(image.affine)
    extent = extent[np.argmax(np.abs(image.affine[:3, :3]), axis=1)]
    shape = tuple(np.ceil(extent / voxel_sizes).astype(int).tolist())
    centre = nib.affines.apply_affine(image.affine, (np.array(image.shape) - 1) / 2)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    moved = resample(np.asarray(image.dataobj, np.float32), image.affine, (shape, affine))
    made = nib.Nifti1Image(moved, affine)
    made.set_sform(affine, code=2)
    made.set_qform(affine, code=1)  # without the shear, which a qform cannot hold
    return made


def oblique(image):
    a, b = 0.3, -0.2
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return onto_grid(image, about_z @ about_x, (3, 3, 3))


def sheared(image):
    return onto_grid(image, np.array([[1, 0.05, 0], [0, 1, 0], [0, 0, 1]]), (3, 3, 3))


def thick_slices(image):
    return onto_grid(image, np.eye(3), (0.5, 0.5, 6))


def disagreeing_forms(image):
    made = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    wrong = image.affine.copy()
    wrong[:3, 3] += (15, -20, 10)
    made.set_sform(image.affine, code=2)
    made.set_qform(wrong, code=1)
    return made


def scaled(image):
    data = np.asarray(image.dataobj, np.float32)
    made = nib.Nifti1Image(data * 0.037 - 3, image.affine)
    made.set_data_dtype(np.int16)
    return made  # saved with a slope and an intercept of nibabel's choice


def raised_background(image):
    return nib.Nifti1Image(np.asarray(image.dataobj, np.float32) + 1000, image.affine)


def four_dimensional(image):
    return nib.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine)


FORMS = (oblique, sheared, thick_slices, disagreeing_forms, scaled, raised_background, four_dimensional)


@pytest.fixture(scope="module")
def scans(phantom_cohort):
    return {name: phantom_cohort / f"sub-p01/anat/sub-p01_{name}.nii.gz" for name in ("T1w", "FLAIR")}


@pytest.fixture(scope="module")
def true_brain(phantom_cohort):
    return read_mask(phantom_cohort / "derivatives/phantom/sub-p01/anat/sub-p01_desc-truth_mask.nii.gz")


def what_is_read(path, grid):
    """A scan as prepare reads it, on a grid, as a fraction of its range."""
    moved = resample(*_read_scan(path), grid)
    return moved / np.percentile(moved, 99.9)


def as_read(image, path, grid):
    nib.save(image, path)
    return what_is_read(path, grid)


@pytest.mark.parametrize("number", [5, 22, 43])
def test_a_turned_scan_is_read_as_the_same_head(number, scans, tmp_path):
    for path in scans.values():
        plain = read_image(path)
        turn = turned(plain, TURNS[number])
        grid = working_grid(plain.shape, plain.affine, 3.0)
        assert np.allclose(as_read(turn, tmp_path / "turned.nii.gz", grid), what_is_read(path, grid), atol=1e-3)


@pytest.mark.parametrize("form", [disagreeing_forms, scaled, raised_background, four_dimensional])
def test_the_form_of_a_file_does_not_change_what_is_read(form, scans, tmp_path):
    plain = read_image(scans["T1w"])
    grid = working_grid(plain.shape, plain.affine, 3.0)
    assert np.allclose(as_read(form(plain), tmp_path / "form.nii.gz", grid), what_is_read(scans["T1w"], grid), atol=2e-3)


@pytest.mark.parametrize("form", [oblique, sheared, thick_slices])
def test_a_head_lies_where_its_affine_says(form, scans, true_brain, tmp_path):
    plain = read_image(scans["T1w"])
    grid = (plain.shape, plain.affine)
    found = as_read(form(plain), tmp_path / "form.nii.gz", grid)
    inside = true_brain[0]
    assert np.corrcoef(found[inside], what_is_read(scans["T1w"], grid)[inside])[0, 1] > 0.93


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def prepared(t1w, flair, out):
    return prepare_scan(t1w=t1w, flair=flair, scan_id="sub-x", out=out, lesion_mask=None, brain_mask=None, voxel_mm=3.0)


def check_brain(folder, true_brain, least):
    brain, affine = read_mask(find_image(folder, "res-3mm_desc-brain_mask.nii.gz"))
    assert dice(resample(brain, affine, (true_brain[0].shape, true_brain[1])) >= 0.5, true_brain[0]) > least


def check_native(folder, given):
    """The brain mask on each scan's own grid has that scan's header."""
    for space, path in given.items():
        like, mask = read_image(path), nib.load(find_image(folder, f"space-{space}_res-native_desc-brain_mask.nii.gz"))
        assert mask.shape == like.shape
        assert np.array_equal(mask.affine, like.affine)
        for form in ("get_sform", "get_qform"):
            (ours, our_code), (theirs, their_code) = (getattr(image.header, form)(coded=True) for image in (mask, like))
            assert our_code == their_code
            assert (ours is None and theirs is None) or np.array_equal(ours, theirs)
        assert read_volume(find_image(folder, f"space-{space}_res-native_desc-brain_mask.nii.gz"))[0].any()


def test_all_forms_at_once_give_the_brain_and_come_back_with_their_headers(scans, true_brain, tmp_path):
    given = {"T1w": tmp_path / "t1.nii.gz", "FLAIR": tmp_path / "flair.nii.gz"}
    t1w = turned(raised_background(read_image(scans["T1w"])), TURNS[29])
    nib.save(four_dimensional(scaled(disagreeing_forms(t1w))), given["T1w"])
    nib.save(sheared(oblique(read_image(scans["FLAIR"]))), given["FLAIR"])
    folder = prepared(given["T1w"], given["FLAIR"], tmp_path / "out")
    check_brain(folder, true_brain, 0.93)
    check_native(folder, given)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_brain(form, scans, true_brain, tmp_path):
    given = {}
    for name, path in scans.items():
        given[name] = tmp_path / f"{name}.nii.gz"
        nib.save(form(read_image(path)), given[name])
    folder = prepared(given["T1w"], given["FLAIR"], tmp_path / "out")
    check_brain(folder, true_brain, 0.93)
    check_native(folder, given)


@pytest.mark.slow
def test_all_48_orientations_give_the_same_brain(scans, tmp_path):
    brains = []
    for number, turn in enumerate(TURNS):
        paths = {}
        for name, path in scans.items():
            paths[name] = tmp_path / f"{number}_{name}.nii.gz"
            nib.save(turned(read_image(path), turn), paths[name])
        inputs = {"t1w": paths["T1w"], "flair": paths["FLAIR"], "voxel_mm": 3.0, "out": tmp_path / str(number)}
        folder = run(Strip, scan_id="sub-x", **inputs)
        brain, affine = read_mask(find_image(folder, "desc-brain_mask.nii.gz"))
        if not brains:
            grid = (brain.shape, affine)
        brains.append(resample(brain, affine, grid) >= 0.5)
    assert min(dice(brains[0], brain) for brain in brains[1:]) > 0.99
