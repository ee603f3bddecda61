"""A prepared scan may have more contrasts than T1w and FLAIR."""

from pathlib import Path

import numpy as np
import pytest

from lesionforge.errors import InputError
from lesionforge.images import Prepared, read_volume, write_volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared scan with T1w, FLAIR, T2w and PDw of the values 1 to 4."""
    made = tmp_path / "sub-01"
    made.mkdir()
    stem = made / "sub-01_space-T1w_res-2mm"
    for value, name in enumerate(("T1w", "FLAIR", "T2w", "PDw"), start=1):
        write_volume(np.full((4, 4, 4), value, np.float32), np.diag([2, 2, 2, 1]), Path(f"{stem}_desc-preproc_{name}.nii.gz"))
    for name in ("desc-brain_mask", "dseg"):
        write_volume(np.ones((4, 4, 4), np.uint8), np.diag([2, 2, 2, 1]), Path(f"{stem}_{name}.nii.gz"))
    return made


def test_further_contrasts_are_found_and_given_in_the_order_asked_for(folder: Path) -> None:
    prepared = Prepared.open(folder)
    scan = prepared.read()

    assert prepared.contrasts == scan.contrasts == ("T1w", "FLAIR", "T2w", "PDw")
    images = scan.images(("PDw", "T1w"))
    assert list(images) == ["PDw", "T1w"]
    assert images["PDw"][0, 0, 0] == 4
    assert images["T1w"] is scan.t1w


def test_without_them_a_scan_has_t1w_and_flair(folder: Path) -> None:
    for path in [*folder.glob("*T2w*"), *folder.glob("*PDw*")]:
        path.unlink()

    scan = Prepared.open(folder).read()

    assert scan.contrasts == ("T1w", "FLAIR")
    assert list(scan.images()) == ["T1w", "FLAIR"]


def test_a_lacking_contrast_is_one_sentence_that_names_the_folder(folder: Path) -> None:
    next(folder.glob("*T2w*")).unlink()
    prepared = Prepared.open(folder)

    for refuse in (prepared.refuse_lacking, prepared.read().images):
        with pytest.raises(InputError, match=rf"^{folder}: has T1w, FLAIR, PDw but no T2w; prepare"):
            refuse(("T1w", "T2w"))


@pytest.mark.parametrize("contrast", ["T1w", "FLAIR", "T2w"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_of_the_brain_that_is_no_number_is_refused(folder: Path, contrast: str, value: float) -> None:
    path = next(folder.glob(f"*{contrast}*"))
    voxels, affine = read_volume(path)
    voxels[0, 0, 0] = value
    write_volume(voxels, affine, path)

    with pytest.raises(InputError, match=rf"{contrast}.*has voxels in the brain that are no finite numbers"):
        Prepared.open(folder).read()


def test_a_further_contrast_on_another_grid_is_refused(folder: Path) -> None:
    write_volume(np.ones((4, 4, 5), np.float32), np.diag([2, 2, 2, 1]), next(folder.glob("*T2w*")))

    with pytest.raises(InputError, match=r"T2w.*does not lie on the grid"):
        Prepared.open(folder).read()
