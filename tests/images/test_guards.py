"""What the shared code refuses, and what it must not lose."""

import errno
import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import (
    ants_path,
    ants_scratch,
    new_folder,
    read_image,
    read_json,
    read_mask_on,
    read_tsv,
    read_volume,
    refuse_loss,
    scratch,
    scratch_folder,
    to_ants,
)
from lesionforge.images.check import inspect_file
from lesionforge.images.deform import displacement_field
from lesionforge.images.interfaces import run
from lesionforge.prepare.command import brain_mask_of


def test_a_model_folder_never_replaces_the_files_of_others(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    index = tmp_path / "real.tsv"
    index.write_text("id\tsplit\tfolder\n")
    result = CliRunner().invoke(main, ["train", "--index", str(index), "--out", str(precious)])
    assert result.exit_code == 2
    assert "which would be lost" in result.output
    assert (precious / "thesis.txt").read_text() == "years"


def test_a_folder_of_ours_and_an_empty_one_may_be_replaced(tmp_path):
    refuse_loss(tmp_path / "new", own=nets.MODEL_FILES)
    (tmp_path / "model").mkdir()
    refuse_loss(tmp_path / "model", own=nets.MODEL_FILES)
    for name in ("model.json", "cnn1.keras", "history.tsv"):
        (tmp_path / "model" / name).touch()
    refuse_loss(tmp_path / "model", own=nets.MODEL_FILES)


@pytest.mark.parametrize("name", ["thesis.doc", "inner/model.json", "m1.hdf5"])
def test_a_card_is_no_proof_that_a_folder_is_ours(tmp_path, name):
    """A hostile find: any model.json, even an empty one, let a folder be replaced with all it held."""
    (tmp_path / "model" / name).parent.mkdir(parents=True)
    (tmp_path / "model" / "model.json").write_text("{}")
    (tmp_path / "model" / name).write_text("years")
    for command in (["train", "--index", "x.tsv", "--out"], ["import-nicmslesions", "a.hdf5", "b.hdf5"]):
        result = CliRunner().invoke(main, [*command, str(tmp_path / "model")])
        assert result.exit_code == 2 and "which would be lost" in result.output, result.output
    assert (tmp_path / "model" / name).read_text() == "years"


def test_what_is_read_is_not_lost_however_deep_it_lies(tmp_path):
    (tmp_path / "out" / "model.json").parent.mkdir()
    for name in ("model.json", "history.tsv"):
        (tmp_path / "out" / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for read in ("out", "out/inner", "out/inner/deep/m1.hdf5", "link/inner", "out/../out/x"):
        with pytest.raises(InputError, match="is read from it"):
            refuse_loss(tmp_path / "out", tmp_path / read, own=nets.MODEL_FILES)
    refuse_loss(tmp_path / "out", tmp_path / "out2" / "x", None, own=nets.MODEL_FILES)
    index = tmp_path / "out" / "history.tsv"
    result = CliRunner().invoke(main, ["train", "--index", str(index), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "is read from it" in result.output
    assert index.exists()


@pytest.mark.parametrize("name", ["anat/sub-a_T1w.nii.gz", "sub-a_T1w.nii.gz", "notes.txt", "sub-a_label-lesion_mask.nii.gz"])
def test_a_folder_of_raw_scans_is_not_replaced_by_results_of_its_name(tmp_path, write_blob_scan, name):
    prepared = write_blob_scan(tmp_path / "prepare", "sub-a", 1)
    raw = tmp_path / "bids" / "sub-a" / name
    raw.parent.mkdir(parents=True)
    raw.write_text("years")
    for command in (["synthesize", "levels"], ["register"]):
        result = CliRunner().invoke(main, [*command, "--prepared", str(prepared), "--out", str(tmp_path / "bids")])
        assert result.exit_code == 2 and "which would be lost" in result.output, result.output
    assert raw.read_text() == "years"


@pytest.mark.parametrize("name", ["MS, 2024", "a[b", "a]b", "100%"])
def test_a_folder_that_ants_would_take_apart_is_refused_before_any_work(name, tmp_path, write_blob_scan):
    prepared = write_blob_scan(tmp_path / "prepare", "sub-a", 1)
    out = tmp_path / name / "out"
    scans = ["--t1w", str(tmp_path / "t1w.nii"), "--flair", str(tmp_path / "flair.nii"), "--subject", "a"]
    for scan in ("t1w.nii", "flair.nii"):
        (tmp_path / scan).touch()
    for command in (["prepare", *scans], ["register", "--prepared", str(prepared)]):
        result = CliRunner().invoke(main, [*command, "--out", str(out)])
        assert result.exit_code == 2
        assert result.output.startswith(f"Error: {tmp_path / name}: has one of the characters , [ ] % in its name")
        assert not (tmp_path / name).exists()


def test_a_failure_of_ants_names_the_scan_and_one_of_ours_stays_what_it_is(tmp_path):
    grid = to_ants(np.zeros((4, 4, 4)), np.eye(4))
    said = r"^sub-a: ANTs failed \(.*does not exist\); check the free space and memory, and that its scans show a whole head$"
    with pytest.raises(InputError, match=said), ants_scratch(tmp_path, "sub-a") as outprefix:
        displacement_field(grid, [f"{outprefix}missing.h5"], outprefix)
    with pytest.raises(KeyError), ants_scratch(tmp_path, "sub-a"):
        {}["ours"]
    assert not list(tmp_path.iterdir())


def test_what_ants_cannot_write_on_a_full_disk_is_no_fault_of_the_scan(tmp_path, monkeypatch):
    grid = to_ants(np.zeros((4, 4, 4)), np.eye(4))
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=100_000))
    with pytest.raises(OSError, match="No space left") as caught, ants_scratch(tmp_path, "sub-a") as outprefix:
        displacement_field(grid, [f"{outprefix}missing.h5"], outprefix)
    assert caught.value.filename == str(tmp_path)


def test_two_runs_do_not_work_in_one_scratch_folder(tmp_path):
    folder = tmp_path / "new" / ".steps"
    with scratch_folder(folder) as held:
        (held / "volume.npy").touch()
        with pytest.raises(InputError, match="another run works there; wait until it has ended"), scratch_folder(folder):
            pass
        assert (held / "volume.npy").exists()
    assert not folder.exists()
    (folder / "strip").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    with scratch_folder(folder) as held:
        assert not list(held.iterdir())
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]


@pytest.mark.parametrize("away_mm", [0.0, 0.02, 0.05])
def test_a_mask_belongs_to_the_scan_whose_grid_is_nearest(tmp_path, away_mm):
    """Both grids may fit; on one that they share it belongs to the first."""
    grids = {name: ((4, 4, 4), np.eye(4)) for name in ("T1w", "FLAIR")}
    grids["T1w"][1][0, 3] = away_mm
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "mask.nii")
    assert read_mask_on(tmp_path / "mask.nii", grids)[1] == ("FLAIR" if away_mm else "T1w")


@pytest.mark.parametrize("name", ["a[b", "a]b"])
def test_transforms_that_ants_would_take_apart_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="rename it or work in another folder"):
        ants_path(tmp_path / name / "sub-a" / "xfm.h5")
    assert ants_path(tmp_path / "MS, 100%" / "xfm.h5") == str(tmp_path / "MS, 100%" / "xfm.h5")


def test_the_folder_that_is_read_is_not_replaced(tmp_path, write_blob_scan):
    prepared = write_blob_scan(tmp_path / "prepare", "sub-a", 1)
    before = sorted(path.name for path in prepared.iterdir())
    for command in (["synthesize", "levels"], ["register"]):
        result = CliRunner().invoke(main, [*command, "--prepared", str(prepared), "--out", str(tmp_path / "prepare")])
        assert result.exit_code == 2, result.output
        assert "give another output folder" in result.output
    assert sorted(path.name for path in prepared.iterdir()) == before
    with pytest.raises(InputError):
        refuse_loss(prepared, prepared)


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note").touch()
    with pytest.raises(InputError, match="current folder"), new_folder("."):
        pass
    assert (tmp_path / "note").exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "made") as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_a_folder_may_be_read_and_written_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "made"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == mode


def test_interfaces_are_given_the_name_of_a_link(tmp_path):
    """Where data sets keep files under their checksums, only the link says what a file is."""
    (tmp_path / "0abc").touch()
    (tmp_path / "scan.nii.gz").symlink_to(tmp_path / "0abc")
    given = {}

    def interface(**inputs):
        given.update(inputs)
        return SimpleNamespace(run=lambda cwd: SimpleNamespace(outputs=SimpleNamespace(out_folder=cwd)))

    (tmp_path / "sub-01").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "sub-01")
    run(interface, t1w=tmp_path / "scan.nii.gz", prepared=tmp_path / "current", out=tmp_path / "out")
    assert given["prepared"] == str(tmp_path / "sub-01")
    assert given["t1w"] == brain_mask_of(str(tmp_path / "scan.nii.gz")) == str(tmp_path / "scan.nii.gz")


def test_of_a_link_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "model")
    for content in ("first", "second"):
        with new_folder(tmp_path / "link", own=("card",)) as folder:
            (folder / "card").write_text(content)
        assert (tmp_path / "elsewhere" / "model" / "card").read_text() == content
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["model"]


@pytest.mark.parametrize("stuck", ["new", "old"])
def test_what_was_there_stays_when_the_new_folder_cannot_take_its_place(tmp_path, monkeypatch, stuck):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "card").write_text("old")
    with pytest.raises(OSError, match="busy"), new_folder(tmp_path / "made", own=("card",)) as folder:
        (folder / "card").write_text("new")
        rename, still = Path.replace, folder if stuck == "new" else tmp_path / "made"
        monkeypatch.setattr(Path, "replace", lambda path, to: busy() if path == still else rename(path, to))
    assert (tmp_path / "made" / "card").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def busy():
    raise OSError(errno.EBUSY, "busy")


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(
        main, ["phantom", str(tmp_path / "file" / "x"), "--patients", "1", "--healthy", "0", "--voxel-mm", "6"]
    )
    assert result.exit_code == 2
    assert result.output.count("Error:") == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01binary"])
def test_a_table_that_is_none_is_named(tmp_path, content):
    (tmp_path / "cohort.tsv").write_bytes(content)
    with pytest.raises(InputError, match=r"cohort\.tsv: is no table"):
        read_tsv(tmp_path / "cohort.tsv")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "nonsense", "1" * 5000])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json: is n"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colours_and_complex_numbers_are_no_scan(tmp_path, dtype):
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), dtype), np.eye(4)), tmp_path / "odd.nii.gz")
    with pytest.raises(InputError, match="not one number each"):
        read_image(tmp_path / "odd.nii.gz")


@pytest.mark.parametrize("fault", ["singular", "NaN", "no voxels"])
def test_a_grid_that_is_none_is_named(tmp_path, fault):
    """A hostile find: evaluate divided by the voxel's volume, zero."""
    affine = {"singular": np.diag([1.0, 1, 0, 1]), "NaN": np.diag([np.nan, 1, 1, 1])}.get(fault, np.eye(4))
    image = nib.Nifti1Image(np.ones((3, 3, 0 if fault == "no voxels" else 3), np.uint8), None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    path = tmp_path / "odd.nii"
    nib.Nifti1Image(image.dataobj, None, image.header).to_filename(path)
    said = "odd.nii: holds no voxels" if fault == "no voxels" else "odd.nii: has an affine that is singular or not finite"
    with pytest.raises(InputError, match=said):
        read_volume(path)
    result = CliRunner().invoke(main, ["evaluate", "--prediction", str(path), "--reference", str(path)])
    assert result.exit_code == 2 and said in result.output


@pytest.mark.parametrize("name", ["huge.nii", "huge.nii.gz"])
def test_a_header_that_claims_more_voxels_than_memory_holds_is_named(tmp_path, name):
    content = bytearray(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    content[42:48] = np.full(3, 32767, "<i2").tobytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (fault,) = inspect_file(str(tmp_path / name), is_mask=False).faults
    assert fault.startswith("has 32767 x 32767 x 32767 voxels by its header, more than memory holds; correct the header")


def test_a_truncated_scan_is_named(tmp_path):
    path = tmp_path / "cut.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((30, 30, 30)), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"cut\.nii\.gz"):
        read_volume(path)


@pytest.mark.parametrize("card", [[1], {"kind": "cascade"}, {"kind": "cascade", "checksums": {}}, {"kind": "generator"}])
def test_a_card_that_vouches_for_nothing_is_refused(tmp_path, card):
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError):
        nets.read_card(tmp_path, "cascade")


@pytest.mark.parametrize("scan_id", ["../evil", "sub-1 y", "-x", "sub-"])
def test_a_scan_id_cannot_leave_the_output_folder(tmp_path, scan_id):
    scan = tmp_path / "t1.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), scan)
    result = CliRunner().invoke(
        main, ["prepare", "strip", "--id", scan_id, "--t1w", str(scan), "--out", str(tmp_path / "o" / "p")]
    )
    assert result.exit_code == 2
    assert "is no scan id" in result.output
    assert not (tmp_path / "o").exists()


def test_a_scan_with_nan_voxels_is_refused_by_prepare(tmp_path):
    data = np.ones((20, 20, 20), np.float32)
    data[3, 3, 3] = np.nan
    scan = tmp_path / "nan.nii.gz"
    nib.save(nib.Nifti1Image(data, np.eye(4)), scan)
    result = CliRunner().invoke(
        main, ["prepare", "strip", "--id", "sub-1", "--t1w", str(scan), "--flair", str(scan), "--out", str(tmp_path / "o")]
    )
    assert result.exit_code == 2
    assert "nan.nii.gz: holds NaN or infinite voxels (1 of " in result.output
