"""Laws of the phantom: what is known about a head must be found in its scans."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from lesionforge.images import label_lesions, read_mask, read_volume
from lesionforge.images.check import coverage_faults, grid_faults
from lesionforge.phantom.cohort import plan_subjects
from lesionforge.phantom.command import MOST_MM
from lesionforge.phantom.head import rigid, smooth_displacement
from lesionforge.phantom.lesions import LesionSpec, lay_lesions
from lesionforge.phantom.scan import bias_field, flair_grid, t1w_grid


def test_the_coarsest_phantom_passes_the_check_of_scans() -> None:
    """The axes of most tilts are a little longer in a header's single precision."""
    for shape, affine in (t1w_grid(MOST_MM), *(flair_grid(MOST_MM, tilt) for tilt in np.linspace(-10, 10, 41))):
        stored = affine.astype(np.float32).astype(np.float64)
        assert grid_faults(shape, stored, nib.affines.voxel_sizes(stored)) == coverage_faults(shape, stored) == []


def test_a_coarser_phantom_is_refused(make_cohort, tmp_path: Path) -> None:
    result = make_cohort(tmp_path / "coarse", "--voxel-mm", "6.5")
    assert result.exit_code == 2 and "6.5 is not in the range" in result.output
    assert not (tmp_path / "coarse").exists()


def truth(cohort: Path, label: str, ending: str) -> Path:
    return cohort / "derivatives" / "phantom" / f"sub-{label}" / "anat" / f"sub-{label}_{ending}"


def raw(cohort: Path, label: str, suffix: str) -> Path:
    return cohort / f"sub-{label}" / "anat" / f"sub-{label}_{suffix}.nii.gz"


def lesions(cohort: Path, label: str) -> np.ndarray:
    return read_mask(cohort / f"derivatives/manual/sub-{label}/anat/sub-{label}_label-lesion_mask.nii.gz")[0]


def flair_on_t1w(cohort: Path, label: str, moved: bool = True) -> np.ndarray:
    """The FLAIR resampled to the T1w grid with the true transform, or with headers alone."""
    t1w = nib.load(raw(cohort, label, "T1w"))
    flair, affine = read_volume(raw(cohort, label, "FLAIR"))
    motion = np.array(json.loads(truth(cohort, label, "from-FLAIR_to-T1w_mode-image_xfm.json").read_text())["matrix"])
    voxels = np.linalg.inv(affine) @ np.linalg.inv(motion if moved else np.eye(4)) @ t1w.affine
    return ndimage.affine_transform(flair, voxels[:3, :3], voxels[:3, 3], output_shape=t1w.shape, order=1)


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes_and_another_seed_another_head(cohort, make_cohort, tmp_path):
    assert make_cohort(tmp_path / "again", "--patients", "1", "--healthy", "0", "--seed", "3").exit_code == 0
    assert make_cohort(tmp_path / "other", "--patients", "1", "--healthy", "0", "--seed", "4").exit_code == 0
    # A smaller cohort holds the same heads; its tables are shorter.
    first, again, other = (
        {name: content for name, content in all_bytes(folder).items() if "sub-p01" in name}
        for folder in (cohort, tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith((".nii.gz", "_desc-phantom.json", "_xfm.json")))


def test_subjects_of_one_cohort_differ(cohort):
    first, second = (read_volume(raw(cohort, label, "T1w"))[0] for label in ("p01", "p02"))
    brain = read_mask(truth(cohort, "p01", "desc-truth_mask.nii.gz"))[0]
    assert np.corrcoef(first[brain], second[brain])[0, 1] < 0.95


def test_lesions_lie_in_white_matter(cohort):
    for label in ("p01", "p02"):
        tissues, _ = read_volume(truth(cohort, label, "dseg.nii.gz"))
        mask = lesions(cohort, label)
        assert label_lesions(mask)[1] >= 5
        assert 3 < mask.sum() * 0.064 < 35  # ml, at 4 mm
        assert (tissues[mask] == 3).all()


def test_the_healthy_have_no_lesions_and_no_mask(cohort):
    assert not list(cohort.rglob("sub-h01*lesion*"))
    assert json.loads(truth(cohort, "h01", "desc-phantom.json").read_text())["lesions"] == []


def test_lesions_are_bright_in_flair_and_dark_in_t1w(cohort):
    for label in ("p01", "p02"):
        tissues, _ = read_volume(truth(cohort, label, "dseg.nii.gz"))
        t1w, _ = read_volume(raw(cohort, label, "T1w"))
        flair, mask = flair_on_t1w(cohort, label), lesions(cohort, label)
        t1w_of = {tissue: np.median(t1w[(tissues == tissue) & ~mask]) for tissue in (1, 2, 3)}
        flair_of = {tissue: np.median(flair[(tissues == tissue) & ~mask]) for tissue in (1, 2, 3)}
        assert t1w_of[1] < t1w_of[2] < t1w_of[3]
        assert flair_of[1] < flair_of[3] < flair_of[2]
        assert np.median(t1w[mask]) < 0.85 * t1w_of[3]
        assert np.median(flair[mask]) > 1.2 * flair_of[3]


def test_t1w_and_flair_show_the_same_head_once_the_motion_is_undone(cohort):
    for label in ("p01", "h01"):
        tissues, _ = read_volume(truth(cohort, label, "dseg.nii.gz"))
        edges = [np.corrcoef((tissues > 1).ravel(), flair_on_t1w(cohort, label, moved).ravel())[0, 1] for moved in (True, False)]
        assert edges[0] > 0.85
        assert edges[0] > edges[1] + 0.01


def test_a_dark_skull_parts_brain_and_bright_scalp(cohort):
    t1w, _ = read_volume(raw(cohort, "h01", "T1w"))
    brain, affine = read_mask(truth(cohort, "h01", "desc-truth_mask.nii.gz"))
    white = np.median(t1w[read_volume(truth(cohort, "h01", "dseg.nii.gz"))[0] == 3])
    above_base = np.arange(brain.shape[2]) * affine[2, 2] + affine[2, 3] > 10
    distance_mm = np.where(above_base, ndimage.distance_transform_edt(~brain) * 4, 0)
    along = [np.median(t1w[(distance_mm > low) & (distance_mm <= low + 4)]) for low in (0, 4, 8, 12, 16, 20, 24)]
    assert min(along[:3]) < 0.3 * white
    assert max(along) > 0.6 * white
    assert along[-1] < 0.15 * white


def test_grids_differ_and_headers_are_valid(cohort):
    for label in ("p01", "h01"):
        t1w, flair = (nib.load(raw(cohort, label, suffix)) for suffix in ("T1w", "FLAIR"))
        assert nib.aff2axcodes(t1w.affine) == ("R", "A", "S")
        assert nib.aff2axcodes(flair.affine) == ("A", "L", "S")
        assert flair.header.get_zooms() == pytest.approx((4, 4, 8))
        for image in (t1w, flair):
            assert int(image.header["sform_code"]) > 0
            assert int(image.header["qform_code"]) > 0
            np.testing.assert_allclose(image.header.get_qform(), image.header.get_sform(), atol=1e-3)
            assert image.header.get_xyzt_units()[0] == "mm"
        assert t1w.get_data_dtype() == np.int16
        assert flair.get_data_dtype() == np.uint16
        assert flair.dataobj.slope == pytest.approx(0.05)


def test_the_sheet_names_existing_files_on_one_grid(cohort):
    with (cohort / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == ["p01", "p02", "h01"]
    assert list(rows[0]) == ["subject", "session", "role", "split", "t1w", "flair", "lesion_mask", "brain_mask"]
    for row in rows:
        assert (cohort / row["t1w"]).is_file()
        assert (cohort / row["flair"]).is_file()
        assert bool(row["lesion_mask"]) == (row["role"] == "patient")
        if row["lesion_mask"]:
            mask, t1w = nib.load(cohort / row["lesion_mask"]), nib.load(cohort / row["t1w"])
            assert mask.shape == t1w.shape
            np.testing.assert_array_equal(mask.affine, t1w.affine)


def test_the_brain_lies_inside_both_fields_of_view(cohort):
    for label in ("p01", "p02", "h01"):
        brain, affine = read_mask(truth(cohort, label, "desc-truth_mask.nii.gz"))
        assert not any(brain.take(end, axis).any() for axis in range(3) for end in (0, -1))
        flair = nib.load(raw(cohort, label, "FLAIR"))
        motion = np.array(json.loads(truth(cohort, label, "from-FLAIR_to-T1w_mode-image_xfm.json").read_text())["matrix"])
        voxels = nib.affines.apply_affine(np.linalg.inv(motion @ flair.affine) @ affine, np.argwhere(brain))
        assert (voxels > 0).all()
        assert (voxels < np.array(flair.shape) - 1).all()


@pytest.mark.parametrize(
    ("patients", "splits"),
    [
        (1, ["train"]),
        (2, ["train", "test"]),
        (3, ["train", "train", "test"]),
        (5, ["train", "train", "train", "validation", "test"]),
    ],
)
def test_splits(patients, splits):
    subjects = plan_subjects(patients, 2)
    assert [subject.split for subject in subjects if subject.role == "patient"] == splits
    assert [subject.split for subject in subjects if subject.role == "healthy"] == ["train", "train"]


def test_a_folder_with_files_is_refused_and_kept(make_cohort, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = make_cohort(tmp_path)
    assert result.exit_code == 2
    assert "not an empty folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_no_heads_are_refused(make_cohort, tmp_path):
    result = make_cohort(tmp_path / "none", "--patients", "0", "--healthy", "0")
    assert result.exit_code == 2
    assert not (tmp_path / "none").exists()


def test_a_lesion_never_exceeds_white_matter_and_has_its_volume_where_there_is_room():
    lesion = LesionSpec("deep", (20, 20, 20), (0.6, 0.8, 0.0), 1.5, 4.0, 0.0, 2.0, 1.8, 0.6, 0.1)
    everywhere = np.ones((41, 41, 41), np.float32)
    noise = np.zeros_like(everywhere)
    fraction, flair, t1w = lay_lesions([lesion], everywhere, noise)
    assert (fraction > 0.5).sum() / 1000 == pytest.approx(4.0, rel=0.03)
    assert flair[20, 20, 20] == pytest.approx(1.9)
    assert t1w[20, 20, 20] == pytest.approx(0.5)
    half = everywhere.copy()
    half[:20] = 0
    cut, _, _ = lay_lesions([lesion], half, noise)
    assert (cut <= half).all()
    np.testing.assert_array_equal(cut[20:], fraction[20:])


def test_displacements_do_not_fold_space():
    for seed in range(3):
        field, affine = smooth_displacement(np.random.default_rng(seed), 2.5)
        slopes = np.stack([np.stack(np.gradient(part, affine[0, 0])) for part in field])
        jacobian = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3))
        assert jacobian.min() > 0.2


def test_motion_is_rigid_and_bias_keeps_its_bounds():
    matrix = rigid([3, -2, 4], [1, 2, 3])
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    field = bias_field((9, 8, 7), [1, -1, 0.5, 2, 0, 0, 1, 0, 0], 0.15)
    assert np.log(field.max()) == pytest.approx(0.15, abs=1e-5)
    assert np.log(field.min()) == pytest.approx(-0.15, abs=1e-5)


def test_grids_share_their_middle_region():
    t1w_shape, t1w_affine = t1w_grid(2)
    flair_shape, flair_affine = flair_grid(2, 8)
    middles = [
        nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
        for shape, affine in ((t1w_shape, t1w_affine), (flair_shape, flair_affine))
    ]
    assert np.linalg.norm(middles[0] - middles[1]) < 10
    assert np.linalg.norm(flair_affine[:3, :3], axis=0) == pytest.approx([2, 2, 4])


def test_further_contrasts_are_as_those_of_scanners_and_change_nothing_else(cohort, make_cohort, tmp_path):
    out = tmp_path / "more"
    result = make_cohort(out, "--seed", "3", "--contrasts", "PDw,T1w,FLAIR,T2w")
    assert result.exit_code == 0, result.output
    first, more = all_bytes(cohort), all_bytes(out)
    tables = {name for name in first if name == "cohort.csv" or name.endswith("_desc-phantom.json")}
    assert {name for name in first if more[name] != first[name]} == tables
    assert all(
        "_T2w" in name or "_PDw" in name or "from-T2w" in name or "from-PDw" in name for name in more.keys() - first.keys()
    )
    assert (out / "cohort.csv").read_text().startswith("subject,session,role,split,t1w,flair,t2w,pdw,lesion_mask")
    tissues, _ = read_volume(truth(out, "p01", "dseg.nii.gz"))
    lesion = lesions(out, "p01")
    for name in ("T2w", "PDw"):
        image, affine = read_volume(raw(out, "p01", name))
        motion = np.array(json.loads(truth(out, "p01", f"from-{name}_to-T1w_mode-image_xfm.json").read_text())["matrix"])
        voxels = np.linalg.inv(affine) @ np.linalg.inv(motion) @ nib.load(raw(out, "p01", "T1w")).affine
        there = ndimage.affine_transform(image, voxels[:3, :3], voxels[:3, 3], output_shape=tissues.shape, order=1)
        grey, white = (np.median(there[(tissues == label) & ~lesion]) for label in (2, 3))
        assert np.median(there[lesion]) > grey > white, name


@pytest.mark.parametrize("contrasts", ["T1w", "T1w,FLAIR,SWI", "T1w,FLAIR,T2w,T2w", ""])
def test_other_contrasts_are_refused(make_cohort, tmp_path, contrasts):
    result = make_cohort(tmp_path / "out", "--contrasts", contrasts)
    assert result.exit_code == 2 and "is not T1w,FLAIR and maybe T2w, PDw" in result.output
    assert not (tmp_path / "out").exists()
