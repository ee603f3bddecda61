"""T2w and PDw are prepared as the FLAIR is, and change nothing of T1w and FLAIR."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.images import Prepared, read_json, write_json


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first patient of `phantom_cohort` with a T2w."""
    out = tmp_path_factory.mktemp("contrasts") / "cohort"
    asked = ["--patients", "1", "--healthy", "0", "--voxel-mm", "3", "--seed", "2", "--contrasts", "T1w,FLAIR,T2w"]
    result = CliRunner().invoke(main, ["--threads", "1", "phantom", str(out), *asked])
    assert result.exit_code == 0, result.output
    return out


def given(cohort: Path) -> list[str]:
    """The options with the three scans."""
    scans = {name: cohort / f"sub-p01/anat/sub-p01_{name}.nii.gz" for name in ("T1w", "FLAIR", "T2w")}
    return [part for name, path in scans.items() for part in (f"--{name.lower()}", str(path))]


@pytest.fixture(scope="module")
def prepared(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    out = tmp_path_factory.mktemp("prepared")
    scans = given(cohort)
    mask = cohort / "derivatives/manual/sub-p01/anat/sub-p01_label-lesion_mask.nii.gz"
    command = ["prepare", *scans, "--lesion-mask", mask, "--subject", "p01", "--voxel-mm", "3", "--out", out]
    result = CliRunner().invoke(main, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    return Prepared.open(out / "sub-p01")


def test_the_t2w_lies_on_the_t1w_by_a_transform_of_its_own(prepared: Prepared, cohort: Path) -> None:
    truth = cohort / "derivatives/phantom/sub-p01/anat/sub-p01_from-T2w_to-T1w_mode-image_xfm.json"
    matrix = np.array(json.loads(truth.read_text())["matrix"])
    found = prepared.given_to_t1w("T2w")
    corners = np.array([[x, y, z, 1] for x in (-60, 60) for y in (-80, 50) for z in (-40, 70)]).T
    assert np.linalg.norm((found @ corners - matrix @ corners)[:3], axis=0).max() < 1
    assert not np.allclose(found, prepared.given_to_t1w("FLAIR"), atol=1e-3)


def test_it_is_normalised_as_the_flair_is(prepared: Prepared) -> None:
    scan = prepared.read()
    assert scan.contrasts == ("T1w", "FLAIR", "T2w")
    t2w = scan.further["T2w"]
    assert not t2w[~scan.brain].any()
    assert abs(t2w[scan.brain].mean()) < 0.3 and t2w[scan.brain].std() == pytest.approx(1, abs=0.3)
    parts = (scan.lesion & scan.brain, *(scan.tissues == number for number in (1, 2, 3)))
    lesion, csf, grey, white = (np.median(t2w[part]) for part in parts)
    assert csf > lesion > grey > white
    figures = read_json(prepared.folder / "sub-p01_desc-prepare.json")
    assert figures["t2w_contrast"] < 0 and figures["t2w_mismatch"] < 0.35 and "pdw_contrast" not in figures


def test_t1w_and_flair_and_the_masks_are_the_same_with_and_without_it(prepared: Prepared, prepared_phantom: Path) -> None:
    """But for the rounding of registrations by several threads."""
    scan, without = prepared.read(), Prepared.open(prepared_phantom).read()
    assert (scan.brain != without.brain).sum() < 0.005 * scan.brain.sum()
    assert np.array_equal(scan.lesion, without.lesion)
    for name, image in without.images().items():
        inside = scan.brain & without.brain
        assert np.abs(scan.images()[name] - image)[inside].mean() < 0.02, name
    more = {path.name for path in prepared.folder.iterdir()} - {path.name for path in prepared_phantom.iterdir()}
    assert more and all("T2w" in name for name in more)


def test_it_is_asked_for_in_each_step(prepared: Prepared, cohort: Path, tmp_path: Path) -> None:
    """Align needs the transform that Strip finds only where it has the T2w too."""
    strip = tmp_path / "sub-p01"
    strip.mkdir()
    for path in prepared.folder.glob("*_from-*"):
        (strip / path.name).write_bytes(path.read_bytes())
    (strip / "sub-p01_from-T2w_to-T1w_mode-image_xfm.mat").unlink()
    name = f"sub-p01_{prepared.grid}_desc-brain_mask.nii.gz"
    (strip / name).write_bytes(prepared.brain.read_bytes())
    write_json({"skull_stripping": "builtin"}, strip / "sub-p01_desc-strip.json")
    command = ["prepare", "align", "--id", "sub-p01", *given(cohort), "--stripped", str(strip), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "holds no file ending in _from-T2w_to-T1w_mode-image_xfm.mat" in result.stderr
