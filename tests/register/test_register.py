"""Laws of `register`, on arrays and on one phantom."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from lesionforge.cli import main
from lesionforge.images import Prepared, Scan, deform, find_image, label_lesions, read_volume, refuse_loss, to_ants, write_volume
from lesionforge.images.deform import folding_fraction, jacobian_determinant
from lesionforge.register import interfaces
from lesionforge.register.deformation import tissue_overlap

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def test_no_displacement_keeps_every_volume():
    determinant = jacobian_determinant(np.zeros((5, 6, 7, 3), np.float32), AFFINE)
    assert np.allclose(determinant, 1)


def test_scaling_has_the_determinant_of_its_matrix():
    place_mm = np.moveaxis(np.indices((6, 6, 6)), 0, -1) * 2.0
    matrix = np.array([[1.1, 0.2, 0], [0, 0.9, 0], [0, 0, 1.3]])
    displacement = place_mm @ (matrix - np.eye(3)).T
    assert np.allclose(jacobian_determinant(displacement, AFFINE), np.linalg.det(matrix), atol=1e-5)


def test_a_flip_is_folding_everywhere():
    place_mm = np.moveaxis(np.indices((6, 6, 6)), 0, -1) * 2.0
    displacement = place_mm @ (np.diag([-1.0, 1, 1]) - np.eye(3))
    assert folding_fraction(displacement, AFFINE, np.ones((6, 6, 6), bool)) == 1


def test_folding_of_no_brain_is_undefined():
    assert np.isnan(folding_fraction(np.zeros((4, 4, 4, 3)), AFFINE, np.zeros((4, 4, 4), bool)))


def test_tissues_overlap_with_themselves_wholly():
    tissues = np.arange(64).reshape(4, 4, 4) % 4
    assert tissue_overlap(tissues, tissues) == {"dice_csf": 1, "dice_gm": 1, "dice_wm": 1}


@pytest.fixture(scope="module")
def registered(prepared_phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("register")
    result = CliRunner().invoke(main, ["register", "--prepared", str(prepared_phantom), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out / "sub-p01"


def test_a_phantom_meets_the_template_without_folding(registered):
    figures = json.loads((registered / "sub-p01_desc-register.json").read_text())
    assert figures["folding_fraction"] < 0.001
    assert figures["dice_wm"] > 0.8
    assert figures["dice_gm"] > 0.7
    refuse_loss(registered, own=interfaces.TEMPLATE_FILES)


def test_to_the_template_and_back_is_where_it_began(registered, prepared_phantom, tmp_path):
    """A scan paired with itself goes through both transforms: its lesions come back."""
    transforms = ["--donor-transforms", str(registered), "--canvas-transforms", str(registered)]
    scans = ["--donor", str(prepared_phantom), "--canvas", str(prepared_phantom)]
    result = CliRunner().invoke(main, ["register", "pair", *scans, *transforms, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    pair = tmp_path / "sub-p01_to_sub-p01"
    figures = json.loads((pair / "sub-p01_to_sub-p01_desc-pair.json").read_text())
    assert (figures["donor"], figures["canvas"]) == ("sub-p01", "sub-p01")
    refuse_loss(pair, own=interfaces.PAIR_FILES)
    assert figures["dice_wm"] > 0.93
    scan = Prepared.open(prepared_phantom).read()
    warped, affine = read_volume(find_image(pair, "label-lesion_dseg.nii.gz"))
    assert np.allclose(affine, scan.affine)
    assert figures["warped_lesions"] == figures["donor_lesions"] == label_lesions(scan.lesion)[1]
    assert 2 * ((warped > 0) & scan.lesion).sum() / ((warped > 0).sum() + scan.lesion.sum()) > 0.8


@pytest.fixture
def coarse(monkeypatch):
    """Registration in seconds."""
    monkeypatch.setattr(interfaces, "TEMPLATE_MM", 4)


def test_without_transforms_a_donor_is_registered_to_the_canvas_directly(prepared_phantom, tmp_path, coarse):
    """The donor is the canvas itself, turned by 6 degrees and shifted by 9 mm."""
    donor = tmp_path / "sub-moved"
    out = tmp_path / "out"
    donor.mkdir()
    turn = np.array([[0.9945, -0.1045, 0, 9], [0.1045, 0.9945, 0, -4], [0, 0, 1, 6], [0, 0, 0, 1]])
    for path in prepared_phantom.glob("*_space-T1w_res-3mm_*.nii.gz"):
        data, affine = read_volume(path)
        write_volume(data, turn @ affine, donor / path.name.replace("sub-p01", "sub-moved"))
    scans = ["--donor", str(donor), "--canvas", str(prepared_phantom)]
    result = CliRunner().invoke(main, ["register", "pair", *scans, "--out", str(out)])
    assert result.exit_code == 0, result.output
    figures = json.loads((out / "sub-moved_to_sub-p01" / "sub-moved_to_sub-p01_desc-pair.json").read_text())
    assert figures["method"] == "pairwise"
    assert figures["dice_wm"] > 0.85
    assert figures["folding_fraction"] == 0


@pytest.mark.parametrize(("given", "lacking"), [("donor", "canvas"), ("canvas", "donor")])
def test_one_of_two_transforms_is_refused_in_a_sentence(tmp_path, given, lacking):
    options = ["--donor", str(tmp_path), "--canvas", str(tmp_path), f"--{given}-transforms", str(tmp_path)]
    result = CliRunner().invoke(main, ["register", "pair", *options, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert f"--{lacking}-transforms is missing" in result.output


@pytest.fixture
def single_threaded(monkeypatch):
    """Registration that gives the same field twice, which with several threads no two do."""
    import ants

    monkeypatch.setattr(deform, "fix_seed", lambda: ants.config.set_ants_deterministic(on=True, seed_value=deform.SEED))
    yield
    ants.config.set_ants_deterministic(on=False)


def test_a_dark_spot_in_white_matter_does_not_bend_the_anatomy(prepared_phantom, tmp_path, coarse, single_threaded, monkeypatch):
    """A lesion nobody annotated, hyperintense in FLAIR: what it changes in the registration of its scan around it."""
    scan = Prepared.open(prepared_phantom).read()
    depth = ndimage.distance_transform_edt((scan.tissues == 3) & ~scan.lesion)
    centre = np.reshape(np.unravel_index(depth.argmax(), depth.shape), (3, 1, 1, 1))
    away_mm = 3 * np.linalg.norm(np.indices(depth.shape) - centre, axis=0)
    spot = (away_mm <= 8) & (scan.tissues == 3)
    ill = replace(scan, t1w=np.where(spot, -2, scan.t1w), flair=np.where(spot, 4, scan.flair))

    def field_mm(donor: Scan) -> np.ndarray:
        transform = interfaces.donor_onto_canvas(donor, scan, f"{tmp_path}/xfm_")
        grid = to_ants(scan.t1w, scan.affine)
        return interfaces.displacement_field(grid, [transform], f"{tmp_path}/field_")[away_mm <= 14]

    def bent_mm(donor: Scan) -> float:
        return float(np.linalg.norm(field_mm(donor) - healthy, axis=-1).mean())

    healthy = field_mm(scan)
    filled = bent_mm(ill)
    # What processors round differently bends a coarse field too: by up to 0.2 mm, so millimetres would be no limit.
    noise = np.random.default_rng(1).normal(0, 0.1, scan.t1w.shape).astype(np.float32)
    assert filled < bent_mm(replace(scan, t1w=scan.t1w + noise))
    monkeypatch.setattr(interfaces, "dark_white_matter", lambda scan: scan.lesion)
    assert filled < bent_mm(ill) / 4
