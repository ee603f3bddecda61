"""A mask in template space comes onto a canvas through the canvas' own transform and the mask's world coordinates."""

import json
from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import find_image, label_lesions, library_id, read_volume, refuse_loss
from lesionforge.register.interfaces import PAIR_FILES

PLACES = [(16, 20, 20), (24, 18, 22)]


@pytest.fixture
def canvas(tmp_path: Path, write_blob_scan) -> Path:
    return write_blob_scan(tmp_path / "prepare", "sub-h", 1, with_lesions=False)


@pytest.fixture
def transforms(tmp_path: Path) -> Path:
    """What `register` would write for a canvas that lies 4 mm further to the right than the template."""
    folder = tmp_path / "register" / "sub-h"
    folder.mkdir(parents=True)
    # ITK counts x to the left.
    shift = ants.create_ants_transform(transform_type="AffineTransform", translation=(4.0, 0, 0))
    ants.write_transform(shift, str(folder / "sub-h_from-MNI152_to-T1w_mode-image_xfm.h5"))
    return folder


def library_mask(folder: Path, canvas: Path, turned: bool) -> Path:
    """Two lesions 4 mm to the left of PLACES on the canvas, on a grid whose first axis may run the other way."""
    image = nib.load(find_image(canvas, "desc-brain_mask.nii.gz"))
    mask = np.zeros(image.shape, np.uint8)
    for x, y, z in PLACES:
        mask[x - 2 : x, y : y + 3, z : z + 2] = 1
    affine = image.affine.copy()
    if turned:
        mask = mask[::-1]
        affine[:3, 3] += (mask.shape[0] - 1) * affine[:3, 0]
        affine[:3, 0] *= -1
    path = folder / "sub-x_ses-2_space-MNI152_label-lesion_mask.nii.gz"
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path


@pytest.mark.parametrize("turned", [False, True])
def test_lesions_lie_where_the_world_says(tmp_path, canvas, transforms, turned):
    mask = library_mask(tmp_path, canvas, turned)
    options = ["--lesions", mask, "--canvas", canvas, "--canvas-transforms", transforms, "--out", tmp_path / "pairs"]
    result = CliRunner().invoke(main, ["register", "pair", *map(str, options)])
    assert result.exit_code == 0, result.output
    pair = tmp_path / "pairs" / "lib-xses2_to_sub-h"
    refuse_loss(pair, own=PAIR_FILES)
    numbers = read_volume(find_image(pair, "label-lesion_dseg.nii.gz"))[0]
    expected = np.zeros(numbers.shape, bool)
    for x, y, z in PLACES:
        expected[x : x + 2, y : y + 3, z : z + 2] = True
    assert np.array_equal(numbers > 0, expected)
    record = json.loads((pair / "lib-xses2_to_sub-h_desc-pair.json").read_text())
    assert (record["donor"], record["canvas"], record["method"]) == ("lib-xses2", "sub-h", "library")
    assert record["donor_lesions"] == record["warped_lesions"] == label_lesions(expected)[1]


@pytest.mark.parametrize("options", [(), ("--lesions-id", "lib-xses2")], ids=["link", "id"])
def test_a_mask_in_an_annex_is_the_one_that_is_named(tmp_path, canvas, transforms, options):
    """The link has the mask's name, and leads to a file that has a name of its own; in a container that is all there is."""
    mask = library_mask(tmp_path, canvas, False)
    real = mask.rename(tmp_path / "MD5E-s100--0abc.nii.gz")
    mask.symlink_to(real)
    given = ["--lesions", real if options else mask, *options, "--canvas", canvas, "--canvas-transforms", transforms]
    result = CliRunner().invoke(main, ["register", "pair", *map(str, given), "--out", str(tmp_path / "pairs")])
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["lib-xses2_to_sub-h"]


def test_the_transforms_of_another_canvas_are_refused(tmp_path, transforms, write_blob_scan):
    other = write_blob_scan(tmp_path / "prepare", "sub-other", 1)
    given = ["--canvas", str(other), "--canvas-transforms", str(transforms)]
    lacking = "sub-other_from-MNI152_to-T1w_mode-image_xfm.h5"
    said = f"{transforms}: holds no {lacking}; give the folder that register wrote for sub-other"
    lesions = ["--lesions", str(library_mask(tmp_path, other, False))]
    for donor in (lesions, ["--donor", str(other), "--donor-transforms", str(transforms)]):
        result = CliRunner().invoke(main, ["register", "pair", *donor, *given, "--out", str(tmp_path / "pairs")])
        assert result.exit_code == 2
        assert said in result.output
    assert not (tmp_path / "pairs").exists()


def test_an_id_that_is_none_is_refused(tmp_path, canvas, transforms):
    given = ["--lesions", library_mask(tmp_path, canvas, False), "--canvas", canvas, "--canvas-transforms", transforms]
    words = ["register", "pair", *map(str, given), "--lesions-id", "../x", "--out", str(tmp_path / "pairs")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and "--lesions-id ../x is none of lib- and letters and digits" in result.output


def test_a_mask_without_the_transforms_of_its_canvas_is_refused(tmp_path, canvas):
    mask = library_mask(tmp_path, canvas, False)
    result = CliRunner().invoke(
        main, ["register", "pair", "--lesions", str(mask), "--canvas", str(canvas), "--out", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert "give --canvas-transforms with it" in result.output


LESIONS = "give a mask with lesions, in the space of MNI152"
BAD_MASKS = {
    "two": (lambda mask: mask * 2, 0, "holds the value 2; write a mask with 0 outside and 1 inside only"),
    "negative": (lambda mask: -mask, 0, "holds the value -1; write a mask with 0 outside and 1 inside only"),
    "nan": (lambda mask: mask / mask, 0, "holds NaN or infinite voxels (63976 of 64000); replace them by 0 or export it again"),
    "empty": (lambda mask: mask * 0, 0, f"none of its lesions lies in the brain of sub-h; {LESIONS}"),
    "elsewhere": (lambda mask: mask, 500, f"none of its lesions lies in the brain of sub-h; {LESIONS}"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("fault", BAD_MASKS)
def test_a_bad_mask_is_refused_in_a_sentence(tmp_path, canvas, transforms, fault):
    path = library_mask(tmp_path, canvas, False)
    change, away_mm, said = BAD_MASKS[fault]
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += away_mm
    nib.save(nib.Nifti1Image(change(image.get_fdata(dtype=np.float32)), affine), path)
    options = ["--lesions", path, "--canvas", canvas, "--canvas-transforms", transforms, "--out", tmp_path / "new" / "pairs"]
    result = CliRunner().invoke(main, ["register", "pair", *map(str, options)])
    assert result.exit_code == 2
    assert result.output == f"Error: {path}: {said}\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("sub-cs01_space-MNI152_label-lesion_mask.nii.gz", "lib-cs01"),
        ("sub-01_ses-2_label-lesion_mask.nii", "lib-01ses2"),
        ("sub-01_lesion.nii.gz", "lib-01"),
        ("sub-01_ses-2_run-2_FLAIR_label-lesion_mask.nii.gz", "lib-01ses2"),
        ("patient 3 mask.nii.gz", "lib-patient3mask"),
        ("wsub-03_lesions.nii.gz", "lib-03"),
        ("MNI_Sub-03_ses-1.nii.gz", "lib-03ses1"),
    ],
)
def test_the_id_of_a_mask_is_made_of_letters_and_digits(name, label):
    assert library_id(name) == label


@pytest.mark.parametrize("name", ["été.nii.gz", "$(touch pwned).nii.gz", "_mask.nii.gz", "a;b.nii", "a\nb.nii"])
def test_a_name_without_a_label_is_refused_on_one_line(name):
    with pytest.raises(InputError, match="gives no label") as caught:
        library_id(name)
    assert "\n" not in str(caught.value)
