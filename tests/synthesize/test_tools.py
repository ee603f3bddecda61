"""The tools `fill` and `levels` on one subject's own scans."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.images import find_image, read_json, read_mask, read_volume
from lesionforge.synthesize import tools
from lesionforge.synthesize.config import CONFIGURATIONS
from lesionforge.synthesize.generator_folder import save_generator
from lesionforge.synthesize.levels import LEVEL_COUNT
from lesionforge.synthesize.native import as_stored, fill_on_grid, levels_of_mask
from lesionforge.synthesize.network import build_generator

UPRIGHT = np.diag([1.0, 1, 3, 1])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAL", "IPR"])
def test_filling_is_axial_whatever_the_order_of_the_axes_and_changes_nothing_else(codes, rng):
    image = rng.normal(100, 2, (30, 32, 12)).astype(np.float32)
    lesion = np.zeros(image.shape, bool)
    lesion[10:15, 12:18, 5:7] = True
    image[lesion] += 60
    white_matter = np.ones(image.shape, bool)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    turned = nib.Nifti1Image(image, UPRIGHT).as_reoriented(turn)
    volumes = [nib.apply_orientation(volume, turn) for volume in (image, lesion, white_matter)]
    upright, _ = fill_on_grid(image, UPRIGHT, lesion, white_matter, np.random.default_rng(3))
    found, filling = fill_on_grid(volumes[0], turned.affine, volumes[1], volumes[2], np.random.default_rng(3))
    assert filling.components == 2
    assert np.array_equal(found[~volumes[1]], volumes[0][~volumes[1]])
    assert np.array_equal(found, nib.apply_orientation(upright, turn))
    assert abs(found[volumes[1]].mean() - 100) < 2


def test_integers_stay_integers_where_the_scan_has_no_scale(tmp_path):
    plain = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    scaled = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    scaled.header.set_slope_inter(0.5, 1)
    for name, image, kind in (("plain", plain, np.int16), ("scaled", scaled, np.float32)):
        nib.save(image, tmp_path / f"{name}.nii")
        stored = as_stored(np.full((4, 4, 4), 2.6, np.float32), nib.load(tmp_path / f"{name}.nii"))
        assert stored.dtype == kind
        assert stored.max() == (3 if kind is np.int16 else np.float32(2.6))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32])
def test_what_does_not_fit_an_integer_becomes_its_nearest(kind, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), kind), np.eye(4)), tmp_path / "scan.nii")
    like, ends = nib.load(tmp_path / "scan.nii"), np.iinfo(kind)
    stored = as_stored(np.array([-1e12, -0.6, 254.6, 1e12], np.float32), like)
    assert stored.tolist() == [ends.min, max(-1, ends.min), 255, ends.max]


def test_paint_offers_every_level():
    (option,) = (option for option in tools.paint.params if option.name == "level")
    assert option.type.max == LEVEL_COUNT


def test_levels_rise_from_the_rim_to_the_inside():
    lesion = np.zeros((11, 11, 11), bool)
    lesion[2:9, 2:9, 2:9] = True
    levels = levels_of_mask(lesion, 6, 1.0)
    assert levels[5, 5, 5] == 6 and levels[2, 5, 5] == 3
    assert levels[lesion].min() >= 1 and not levels[~lesion].any()
    assert (levels_of_mask(lesion, 1, 1.0)[lesion] == 1).all()


@pytest.fixture(scope="module")
def tool_run(phantom_cohort, tmp_path_factory):
    """Runs a tool on the phantom's raw scans with its lesion mask and returns the output folder and what was said on stderr."""

    def run(name, *more):
        out = tmp_path_factory.mktemp(name)
        result = CliRunner().invoke(main, words(name, phantom_cohort, out, *more))
        assert result.exit_code == 0, result.output
        return out / "sub-p01", result.stderr

    return run


def words(name, phantom_cohort, out, *more, scan="p01"):
    """The command line of a tool for a phantom's raw scans, called sub-p01 whoever it is."""
    scans = [f"--{kind.lower()}={phantom_cohort}/sub-{scan}/anat/sub-{scan}_{kind}.nii.gz" for kind in ("T1w", "FLAIR")]
    return [name, *scans, "--voxel-mm", "3", "--subject", "p01", "--out", str(out), *more]


def test_fill_takes_the_lesions_out_of_the_scans_as_given(tool_run, phantom_cohort):
    mask = phantom_cohort / "derivatives/manual/sub-p01/anat/sub-p01_label-lesion_mask.nii.gz"
    folder, _said = tool_run("fill", "--lesion-mask", str(mask))
    prepared = folder.parent / "prepare" / "sub-p01"
    for space in ("T1w", "FLAIR"):
        given = nib.load(phantom_cohort / f"sub-p01/anat/sub-p01_{space}.nii.gz")
        filled = nib.load(find_image(folder, f"space-{space}_res-native_desc-filled_{space}.nii.gz"))
        lesion = read_mask(find_image(prepared, f"space-{space}_res-native_label-lesion_mask.nii.gz"))[0]
        tissues = read_volume(find_image(prepared, f"space-{space}_res-native_dseg.nii.gz"))[0]
        before, after = (np.asanyarray(image.dataobj, dtype=np.float32) for image in (given, filled))
        assert np.array_equal(filled.affine, given.affine)
        assert np.array_equal(before[~lesion], after[~lesion])
        white = before[(tissues == 3) & ~lesion]
        assert abs(np.median(after[lesion]) - np.median(white)) < abs(np.median(before[lesion]) - np.median(white)) / 3
    assert read_json(folder / "sub-p01_desc-fill.json")["filled"] == "lesion mask"


def test_levels_come_on_the_working_grid_and_on_both_grids_as_given(tool_run, phantom_cohort):
    folder, _said = tool_run("levels")
    on_grids = [read_volume(path)[0] for path in sorted(folder.glob("*desc-levelsFLAIR_dseg.nii.gz"))]
    assert len(on_grids) == len(list(folder.glob("*desc-levelsT1w_dseg.nii.gz"))) == 3
    for levels in on_grids:
        assert 8 <= levels.max() <= LEVEL_COUNT and levels.min() == 0
    lesion = read_mask(phantom_cohort / "derivatives/manual/sub-p01/anat/sub-p01_label-lesion_mask.nii.gz")[0]
    native = read_volume(find_image(folder, "space-T1w_res-native_desc-levelsFLAIR_dseg.nii.gz"))[0]
    assert (native[lesion] > 0).mean() > 0.7
    assert (native[~lesion] > 0).mean() < 0.05
    files = sorted(folder.iterdir())
    for fault, refused in (
        ("holds other files, such as sub-p01_desc-levels.json", words("fill", phantom_cohort, folder.parent)),
        ("was made with another T1w, FLAIR; remove that folder", words("levels", phantom_cohort, folder.parent, scan="p02")),
    ):
        result = CliRunner().invoke(main, refused)
        assert result.exit_code == 2 and fault in result.output
    assert sorted(folder.iterdir()) == files


def test_paint_changes_the_scans_as_given_at_the_mask_and_nowhere_else(tool_run, phantom_cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("lesionforge.nets.devices._working_gpus", lambda: 0)  # One that is listed and broken is none either.
    given = {space: nib.load(phantom_cohort / f"sub-p01/anat/sub-p01_{space}.nii.gz") for space in ("T1w", "FLAIR")}
    brain = read_mask(phantom_cohort / "derivatives/phantom/sub-p01/anat/sub-p01_desc-truth_mask.nii.gz")[0]
    middle = np.argwhere(brain).mean(axis=0).round().astype(int)
    lesion = np.zeros(brain.shape, np.uint8)
    lesion[middle[0] + 5 : middle[0] + 9, middle[1] : middle[1] + 4, middle[2] : middle[2] + 3] = 1
    nib.save(nib.Nifti1Image(lesion, given["T1w"].affine), tmp_path / "mask.nii.gz")
    config = replace(CONFIGURATIONS["lesionforge"], width=2)
    network = build_generator(config)[1]
    typical = {"t1w": [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], "flair": list(range(13))}
    history, learned_from = [{"epoch": 1, "loss": 1.0}], {"trained_on": [], "validated_on": [], "typical_levels": typical}
    save_generator(tmp_path / "generator", network, config, history, seed=1, **learned_from)
    folder, said = tool_run("paint", "--mask", str(tmp_path / "mask.nii.gz"), "--generator", str(tmp_path / "generator"))
    assert said.count("networks run on the CPU, as no GPU that works is found\n") == 1
    for space, scan in given.items():
        painted = nib.load(find_image(folder, f"space-{space}_res-native_desc-painted_{space}.nii.gz"))
        mask = read_mask(find_image(folder, f"space-{space}_res-native_label-lesion_mask.nii.gz"))[0]
        before, after = (np.asanyarray(image.dataobj, dtype=np.float32) for image in (scan, painted))
        changed = before != after
        assert np.array_equal(painted.affine, scan.affine)
        assert changed[mask].mean() > 0.9
        places = nib.affines.apply_affine(scan.affine, np.argwhere(changed))
        centre = nib.affines.apply_affine(scan.affine, np.argwhere(mask)).mean(axis=0)
        assert np.abs(places - centre).max() < 30
    own = read_mask(find_image(folder, "space-T1w_res-native_label-lesion_mask.nii.gz"))[0]
    assert np.array_equal(own, lesion > 0)
    for contrast, highest in (("FLAIR", 6), ("T1w", 2)):
        assert read_volume(find_image(folder, f"res-3mm_desc-levels{contrast}_dseg.nii.gz"))[0].max() == highest
