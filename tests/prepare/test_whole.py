"""One phantom through the whole of `prepare`, held against its truth."""

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from lesionforge.cli import main
from lesionforge.images import Prepared, find_image, read_mask, read_volume, refuse_loss
from lesionforge.phantom.head import rigid, smooth_displacement
from lesionforge.prepare.interfaces import PREPARED_FILES


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def truth(phantom_cohort):
    return phantom_cohort / "derivatives" / "phantom" / "sub-p01" / "anat"


def test_brain_and_tissues_agree_with_the_truth(prepared_phantom, truth):
    scan = Prepared.open(prepared_phantom).read()
    brain, affine = read_mask(truth / "sub-p01_desc-truth_mask.nii.gz")
    tissues, _ = read_volume(truth / "sub-p01_dseg.nii.gz")
    assert np.allclose(affine, scan.affine)
    assert dice(scan.brain, brain) > 0.95
    for label, least in ((2, 0.85), (3, 0.90)):
        assert dice(scan.tissues == label, tissues == label) > least
    assert not scan.tissues[~scan.brain].any()
    assert (scan.tissues[scan.lesion & scan.brain] == 3).all()
    # Read as if there were no mask, some are what the scan alone shows.
    assert (Prepared.open(prepared_phantom).unmarked().read().tissues[scan.lesion & scan.brain] != 3).any()


def test_flair_lies_on_the_t1w(prepared_phantom, truth):
    import ants

    scan = Prepared.open(prepared_phantom).read()
    true_transform = np.array(json.loads((truth / "sub-p01_from-FLAIR_to-T1w_mode-image_xfm.json").read_text())["matrix"])
    transform = ants.read_transform(str(find_image(prepared_phantom, "from-FLAIR_to-T1w_mode-image_xfm.mat")))
    flip = np.array([-1, -1, 1])
    points = nib.affines.apply_affine(scan.affine, np.argwhere(scan.brain)[::200])
    in_flair = np.array([transform.apply_to_point((point * flip).tolist()) for point in points]) * flip
    error_mm = np.linalg.norm(nib.affines.apply_affine(true_transform, in_flair) - points, axis=1)
    assert error_mm.mean() < 0.5


def test_the_way_to_the_template_ends_within_millimetres_of_the_truth(prepared_phantom, truth):
    prepared = Prepared.open(prepared_phantom)
    scan = prepared.read()
    points = nib.affines.apply_affine(scan.affine, np.argwhere(scan.tissues == 3)[::50])
    head = json.loads((truth / "sub-p01_desc-phantom.json").read_text())
    expected = nib.affines.apply_affine(rigid(head["rotation"], head["shift"]) @ np.diag([*head["scale"], 1.0]), points)
    field, affine = smooth_displacement(np.random.default_rng(head["displacement_seed"]), head["displacement_mm"])
    voxels = nib.affines.apply_affine(np.linalg.inv(affine), points).T
    expected += np.stack([ndimage.map_coordinates(part, voxels, order=1) for part in field], axis=-1)
    away_mm = np.linalg.norm(prepared.way_to_template()(points) - expected, axis=1)
    assert np.median(away_mm) < 2.5 and np.percentile(away_mm, 95) < 5


def test_the_lesion_mask_keeps_its_volume(prepared_phantom, phantom_cohort):
    scan = Prepared.open(prepared_phantom).read()
    given, _ = read_mask(phantom_cohort / "derivatives/manual/sub-p01/anat/sub-p01_label-lesion_mask.nii.gz")
    assert np.array_equal(scan.lesion, given)


def test_native_masks_carry_the_headers_of_the_scans(prepared_phantom, phantom_cohort):
    for space in ("T1w", "FLAIR"):
        given = nib.load(phantom_cohort / f"sub-p01/anat/sub-p01_{space}.nii.gz")
        mask = nib.load(find_image(prepared_phantom, f"space-{space}_res-native_desc-brain_mask.nii.gz"))
        assert mask.shape == given.shape
        assert np.array_equal(mask.affine, given.affine)
        for field in ("sform_code", "qform_code", "pixdim"):
            assert np.array_equal(mask.header[field], given.header[field])
        assert set(np.unique(mask.get_fdata())) == {0, 1}


def test_it_may_be_prepared_again(prepared_phantom):
    refuse_loss(prepared_phantom, own=PREPARED_FILES)


def test_nothing_but_the_prepared_folder_is_left(prepared_phantom):
    assert [path.name for path in prepared_phantom.parent.iterdir()] == [prepared_phantom.name]


def test_a_scan_without_a_head_is_refused_in_one_sentence(tmp_path):
    data = np.zeros((30, 30, 30), np.float32)
    data[10:20, 10:20, 10:20] = 100
    scan = tmp_path / "tiny.nii.gz"
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1])), scan)
    out = tmp_path / "out"
    arguments = ["prepare", "--t1w", str(scan), "--flair", str(scan), "--subject", "x", "--voxel-mm", "2", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "tiny.nii.gz: only 4 ml of brain were found; check that it is a T1w" in result.output
    assert not out.exists()


@pytest.mark.parametrize("label", ["a b", "$(id)", "a;b", "../x", ""])
def test_a_subject_label_that_is_no_label_is_refused(label, tmp_path):
    scan = tmp_path / "t1.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), scan)
    arguments = ["prepare", "--t1w", str(scan), "--flair", str(scan), "--subject", label, "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "only letters and digits" in result.output


def test_each_image_says_in_its_sidecar_in_which_space_and_on_which_grid_it_lies(prepared_phantom):
    images = sorted(prepared_phantom.glob("*.nii.gz"))
    assert len(images) >= 9
    for image in images:
        sidecar = json.loads((image.parent / image.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["SpatialReference"] == f"space of the {'FLAIR' if 'space-FLAIR' in image.name else 'T1w'} scan"
        assert ("as given" in sidecar["Resolution"]) == ("res-native" in image.name)
