"""What is wrong with a scan and is found out: by the check of its files or by a quality limit, with the scan named."""

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.images import Prepared, find_image, read_image, read_json, read_volume, resample, world_matrix, write_json
from lesionforge.prepare import figures
from lesionforge.prepare.quality import judge, read_limits, worst

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def failed(**found):
    """The figures that cross their fail limits."""
    return [verdict.figure for verdict in judge(found, read_limits()) if verdict.level == "fail"]


def test_the_figures_of_a_whole_phantom_pass_and_half_of_it_is_seen(prepared_phantom):
    found = read_json(prepared_phantom / "sub-p01_desc-prepare.json")
    assert worst(judge(found | {"brain_volume_ml": 1400}, read_limits())) == "pass"
    brain = Prepared.open(prepared_phantom).read().brain
    places = np.argwhere(brain)
    for axis in (0, 2):
        half = brain.copy()
        half[(slice(None),) * axis + (slice(None, int(places[:, axis].mean())),)] = False
        assert failed(brain_proportion=figures.brain_proportion(half, AFFINE)) == ["brain_proportion"]


def test_a_turned_brain_keeps_its_proportion(rng):
    places = rng.uniform(-1, 1, (20000, 3))
    ellipsoid = places[(places**2).sum(axis=1) < 1] * (20, 26, 30)
    angle = 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for matrix in (np.eye(3), turn):
        mask = np.zeros((80, 80, 80), bool)
        mask[tuple((ellipsoid @ matrix.T + 40).round().astype(int).T)] = True
        assert figures.brain_proportion(mask, AFFINE) == pytest.approx(20 / 30, abs=0.03)
    assert np.isnan(figures.brain_proportion(np.zeros((4, 4, 4), bool), AFFINE))


def test_the_flair_of_another_patient_half_a_flair_and_a_copy_of_the_t1w_are_seen(prepared_phantom, phantom_cohort):
    scan = Prepared.open(prepared_phantom).read()
    other, affine = read_volume(phantom_cohort / "sub-p02/anat/sub-p02_FLAIR.nii.gz")
    # The phantoms' heads lie alike; the FLAIR of one comes onto the T1w of another as its own would.
    to_flair = world_matrix(find_image(prepared_phantom, "from-FLAIR_to-T1w_mode-image_xfm.mat"))
    moved = resample(other, affine, (scan.brain.shape, scan.affine), to_flair)
    half = scan.flair.copy()
    half[: half.shape[0] // 2] = 0
    own, wrong, cut, copy = (
        figures.mismatch(scan.t1w, flair, scan.brain, 3.0) for flair in (scan.flair, moved, half, 2 * scan.t1w + 5)
    )
    assert failed(flair_mismatch=own) == []
    for value in (wrong, cut, copy):
        assert failed(flair_mismatch=value) == ["flair_mismatch"]


def test_edges_that_know_nothing_of_each_other_are_at_right_angles_in_two_thirds(rng):
    brain = np.ones((40, 40, 40), bool)
    one, another = rng.normal(size=(2, *brain.shape))
    assert figures.mismatch(one, another, brain, 1.0) == pytest.approx(2 / 3, abs=0.05)
    assert figures.mismatch(one, -one, brain, 1.0) == pytest.approx(0, abs=1e-6)
    assert figures.mismatch(one, np.zeros_like(one), brain, 1.0) == 1


def test_a_t1w_given_as_flair_and_a_swap_are_seen_by_their_contrast(prepared_phantom):
    found = read_json(prepared_phantom / "sub-p01_desc-prepare.json")
    assert failed(flair_contrast=found["t1w_contrast"]) == ["flair_contrast"]
    assert failed(t1w_contrast=found["flair_contrast"]) == ["t1w_contrast"]


def test_a_lesion_mask_shifted_out_of_the_brain_fails_with_its_subject_named(prepared_phantom, tmp_path):
    scan = Prepared.open(prepared_phantom).read()
    lesion = np.roll(scan.lesion, scan.brain.shape[0] // 2, axis=0)
    path = tmp_path / "sub-p01_desc-prepare.json"
    found = read_json(prepared_phantom / path.name)
    write_json(found | figures.lesion_figures(lesion, scan.brain, scan.affine), path)
    result = CliRunner().invoke(main, ["prepare", "judge", "--figures", str(path)])
    assert result.exit_code == 2
    assert "sub-p01: lesion_outside_brain_percent is" in result.stderr


def localizer(image):
    middle = image.shape[2] // 2
    return image.slicer[:, :, middle : middle + 2]


def without_voxel_size(image):
    header = image.header.copy()
    header["pixdim"][3] = 0
    return type(image)(np.asarray(image.dataobj), None, header)


def constant(image):
    return type(image)(np.full(image.shape, 7, np.int16), image.affine)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (localizer, "looks like a localizer"),
        (without_voxel_size, "has the voxel size"),
        (constant, "has the value 7 in all voxels"),
    ],
)
@pytest.mark.parametrize("contrast", ["T1w", "FLAIR"])
def test_a_file_that_holds_no_head_is_refused_before_any_work(spoil, said, contrast, phantom_cohort, tmp_path):
    scans = {name: phantom_cohort / f"sub-p01/anat/sub-p01_{name}.nii.gz" for name in ("T1w", "FLAIR")}
    scan = tmp_path / f"sub-bad_{contrast}.nii.gz"
    spoiled = spoil(read_image(scans[contrast]))
    nib.save(spoiled, scan)
    if spoil is without_voxel_size:  # nibabel would write 1 mm
        unpacked = tmp_path / f"sub-bad_{contrast}.nii"
        nib.save(spoiled, unpacked)
        content = bytearray(unpacked.read_bytes())
        content[76 + 12 : 76 + 16] = bytes(4)
        unpacked.write_bytes(content)
        scan = unpacked
    scans[contrast] = scan
    out = tmp_path / "out"
    arguments = ["--t1w", str(scans["T1w"]), "--flair", str(scans["FLAIR"]), "--subject", "bad", "--out", str(out)]
    result = CliRunner().invoke(main, ["prepare", *arguments])
    assert result.exit_code == 2
    assert f"{scan}: " in result.stderr
    assert said in result.stderr
    assert not out.exists()
