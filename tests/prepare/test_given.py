"""What a prepared folder was made of: nothing that was made of other scans, or of unknown ones, is replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import checksum, read_json, write_json
from lesionforge.images.interfaces import result_folder
from lesionforge.prepare import workflow
from lesionforge.prepare.interfaces import ALIGN_FILES, ALIGN_RECORD, PREPARE_RECORD, PREPARED_FILES, STRIP_FILES, STRIP_RECORD
from lesionforge.prepare.workflow import prepare_scan, refuse_others, refuse_results
from lesionforge.register.interfaces import PAIR_FILES, PAIR_RECORD, TEMPLATE_FILES, TEMPLATE_RECORD

GIVEN = {"T1w": "a", "FLAIR": "b", "lesion mask": "c", "denoised": False, "voxel_mm": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sub-01"
    made.mkdir()
    return made


@pytest.fixture
def scans(tmp_path: Path) -> dict[str, Path]:
    """Two scans of a head's size in few voxels."""
    made = {}
    for number, name in enumerate(("t1w", "flair")):
        made[name] = tmp_path / f"{name}.nii.gz"
        voxels = np.random.default_rng(number).random((8, 8, 8), np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([10.0, 10, 10, 1])), made[name])
    return made


@pytest.fixture
def made_in_no_time(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The steps of prepare make empty folders; what each was given."""
    steps = []

    def run(_interface: type, *, out: Path, **inputs: object) -> Path:
        steps.append(inputs | {"out": out})
        (out / "sub-01").mkdir(parents=True)
        return out / "sub-01"

    monkeypatch.setattr(workflow, "run", run)
    monkeypatch.setattr(workflow, "doubts", lambda _folder: [])
    return steps


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (GIVEN | {"FLAIR": "x"}, "another FLAIR"),
        (GIVEN | {"lesion mask": "x"}, "another lesion mask"),
        ({name: value for name, value in GIVEN.items() if name != "lesion mask"}, "another lesion mask"),
        (GIVEN | {"brain mask": "x"}, "another brain mask"),
        (GIVEN | {"denoised": True, "voxel_mm": 2}, "another denoised, voxel_mm"),
    ],
)
def test_a_folder_of_other_scans_masks_or_settings_is_refused(folder: Path, given: dict[str, object], named: str) -> None:
    write_json(GIVEN, folder / "sub-01_desc-given.json")
    refuse_others(folder, GIVEN)
    with pytest.raises(InputError, match=f"was made with {named}; remove that folder"):
        refuse_others(folder, given)


def test_a_folder_that_does_not_tell_what_it_was_made_of_is_refused(folder: Path) -> None:
    refuse_others(folder, GIVEN)
    (folder / "sub-01_desc-brain_mask.nii.gz").touch()
    with pytest.raises(InputError, match="does not tell of which scans it was made"):
        refuse_others(folder, GIVEN)
    for content in (None, []):
        write_json(content, folder / "sub-01_desc-given.json")
        with pytest.raises(InputError, match="lacks T1w, FLAIR"):
            refuse_others(folder, GIVEN)


def test_results_whose_prepared_scan_is_gone_are_not_replaced(folder: Path, tmp_path: Path) -> None:
    own = ("sub-*_desc-segment.json",)
    refuse_results(tmp_path, "sub-01", own=own)
    (folder / "sub-01_desc-segment.json").touch()
    with pytest.raises(InputError, match="nothing tells of which scans; remove that folder"):
        refuse_results(tmp_path, "sub-01", own=own)
    (tmp_path / "prepare/sub-01").mkdir(parents=True)
    refuse_results(tmp_path, "sub-01", own=own)


def test_the_record_appears_with_the_folder(
    made_in_no_time: list[dict[str, object]], scans: dict[str, Path], tmp_path: Path
) -> None:
    """A disk that was full, or a kill, between the two left a folder that the same command then refused."""
    folder = prepare_scan(**scans, scan_id="sub-01", out=tmp_path / "out", lesion_mask=None, brain_mask=None, voxel_mm=1)
    given = made_in_no_time[-1]["given"]
    assert isinstance(given, dict)
    assert given["T1w"] == checksum(scans["t1w"]) and given["FLAIR"] == checksum(scans["flair"])
    assert not list(folder.iterdir())


def test_what_a_killed_run_left_is_cleared_by_the_next_of_its_scan(
    made_in_no_time: list[dict[str, object]], scans: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for scan_id in ("sub-01", "sub-02"):
        (out / f".prepare-{scan_id}" / "strip" / scan_id).mkdir(parents=True)
    prepare_scan(**scans, scan_id="sub-01", out=out, lesion_mask=None, brain_mask=None, voxel_mm=1)
    assert made_in_no_time[0]["out"] == out / ".prepare-sub-01" / "strip"
    assert sorted(path.name for path in out.iterdir()) == [".prepare-sub-02", "sub-01"]


def test_a_prepared_folder_holds_its_record(prepared_phantom: Path, phantom_cohort: Path) -> None:
    given = read_json(prepared_phantom / "sub-p01_desc-given.json")
    assert given["T1w"] == checksum(phantom_cohort / "sub-p01/anat/sub-p01_T1w.nii.gz")


@pytest.mark.parametrize("held", [(), ("sub-02_desc-strip.json", "sub-02_desc-align.json"), ("sub-01_ses-1_desc-strip.json",)])
def test_a_step_refuses_the_folder_of_another_scan_and_one_without_its_record(
    held: tuple[str, ...], scans: dict[str, Path], tmp_path: Path
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    for name in held:
        write_json({"skull_stripping": "builtin"}, before / name)
    given = ["--id", "sub-01", "--stripped", str(before), "--out", str(tmp_path / "out")]
    both = [f"--{name}={path}" for name, path in scans.items()]
    for command in (["align", *both], ["tissues", "--aligned", str(before)]):
        result = CliRunner().invoke(main, ["prepare", *command, *given])
        assert result.exit_code == 2
        said = "holds no sub-01_desc-strip.json; give the folder that prepare strip wrote for sub-01"
        assert result.stderr == f"Error: {before}: {said}\n"
    write_json({"skull_stripping": "builtin"}, before / "sub-01_desc-strip.json")
    result = CliRunner().invoke(main, ["prepare", "tissues", "--aligned", str(before), *given])
    assert result.exit_code == 2
    assert "holds no sub-01_desc-align.json; give the folder that prepare align wrote for sub-01" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("record", "own", "written"),
    [
        (STRIP_RECORD, STRIP_FILES, "space-T1w_res-1mm_desc-brain_mask.nii.gz"),
        (ALIGN_RECORD, ALIGN_FILES, "space-FLAIR_res-native_label-lesion_mask.nii.gz"),
        (PREPARE_RECORD, PREPARED_FILES, "space-T1w_res-1p5mm_dseg.nii.gz"),
        (TEMPLATE_RECORD, TEMPLATE_FILES, "from-T1w_to-MNI152_mode-image_xfm.h5"),
        (PAIR_RECORD, PAIR_FILES, "space-sub02_label-lesion_dseg.nii.gz"),
    ],
)
def test_a_step_replaces_its_own_results_and_no_masks_that_were_drawn(
    record: str, own: tuple[str, ...], written: str, tmp_path: Path
) -> None:
    inputs = SimpleNamespace(out=str(tmp_path), get_traitsfree=dict)
    for names in (("label-lesion_mask.nii.gz",), (written,), (written, "label-lesion_mask.nii.gz", record)):
        folder = tmp_path / f"sub-{len(names)}{len(names[0])}"
        folder.mkdir()
        for name in names:
            (folder / f"sub-01_{name}").write_text("years")
        with pytest.raises(InputError, match="which would be lost"):
            result_folder(inputs, folder.name, record, own).__enter__()
    (tmp_path / "sub-01").mkdir()
    for name in (written, record):
        (tmp_path / f"sub-01/sub-01_{name}").touch()
    with result_folder(inputs, "sub-01", record, own):
        pass
    assert not list((tmp_path / "sub-01").iterdir())


@pytest.mark.parametrize("tool", ["prepare", "fill", "levels", "paint"])
def test_a_mask_on_another_grid_is_refused_before_stripping(
    tool: str, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "run", lambda *_, **__: pytest.fail("work was begun"))
    monkeypatch.setattr("lesionforge.synthesize.generator_folder.read_generator_card", lambda *_: {})
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    scans = [
        word
        for name in ("T1w", "FLAIR")
        for word in (f"--{name.lower()}", str(phantom_cohort / f"sub-p01/anat/sub-p01_{name}.nii.gz"))
    ]
    mask = ["--mask" if tool == "paint" else "--lesion-mask", str(tmp_path / "mask.nii.gz")]
    generator = ["--generator", str(tmp_path)] if tool == "paint" else []
    result = CliRunner().invoke(main, [tool, *scans, *mask, *generator, "--subject", "p01", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "mask.nii.gz: lies neither on the grid of the T1w nor of the FLAIR" in result.stderr
    assert not (tmp_path / "out").exists()
