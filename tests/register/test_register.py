"""Laws of `register`, on arrays and on one phantom."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.images import Prepared, find_image, read_volume
from lesionforge.register.deformation import folding_fraction, jacobian_determinant, tissue_overlap

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


def test_to_the_template_and_back_is_where_it_began(registered, prepared_phantom, tmp_path):
    """A scan paired with itself goes through both transforms: its lesions come back."""
    transforms = ["--donor-transforms", str(registered), "--canvas-transforms", str(registered)]
    scans = ["--donor", str(prepared_phantom), "--canvas", str(prepared_phantom)]
    result = CliRunner().invoke(main, ["register", "pair", *scans, *transforms, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    pair = tmp_path / "sub-p01_to_sub-p01"
    figures = json.loads((pair / "sub-p01_to_sub-p01_desc-pair.json").read_text())
    assert (figures["donor"], figures["canvas"]) == ("sub-p01", "sub-p01")
    assert figures["dice_wm"] > 0.93
    scan = Prepared.open(prepared_phantom).read()
    probability, affine = read_volume(find_image(pair, "label-lesion_probseg.nii.gz"))
    assert np.allclose(affine, scan.affine)
    assert probability.sum() == pytest.approx(scan.lesion.sum(), rel=0.1)
    returned = probability > 0.5
    assert 2 * (returned & scan.lesion).sum() / (returned.sum() + scan.lesion.sum()) > 0.8
