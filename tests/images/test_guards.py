"""What the shared code refuses, and what it must not lose."""

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import new_folder, read_image, read_tsv, read_volume, refuse_foreign_folder, refuse_input_as_output


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
    refuse_foreign_folder(tmp_path / "new", "model.json")
    (tmp_path / "model").mkdir()
    refuse_foreign_folder(tmp_path / "model", "model.json")
    (tmp_path / "model" / "model.json").touch()
    refuse_foreign_folder(tmp_path / "model", "model.json")


def test_the_folder_that_is_read_is_not_replaced(tmp_path, write_blob_scan):
    prepared = write_blob_scan(tmp_path / "prepare", "sub-a", 1)
    before = sorted(path.name for path in prepared.iterdir())
    for command in (["synthesize", "levels"], ["register"]):
        result = CliRunner().invoke(main, [*command, "--prepared", str(prepared), "--out", str(tmp_path / "prepare")])
        assert result.exit_code == 2, result.output
        assert "give another --out" in result.output
    assert sorted(path.name for path in prepared.iterdir()) == before
    with pytest.raises(InputError):
        refuse_input_as_output(tmp_path / "prepare", prepared)


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


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(
        main, ["phantom", str(tmp_path / "file" / "x"), "--patients", "1", "--healthy", "0", "--voxel-mm", "8"]
    )
    assert result.exit_code == 2
    assert result.output.count("Error:") == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01binary"])
def test_a_table_that_is_none_is_named(tmp_path, content):
    (tmp_path / "cohort.tsv").write_bytes(content)
    with pytest.raises(InputError, match=r"cohort\.tsv: is no table"):
        read_tsv(tmp_path / "cohort.tsv")


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colours_and_complex_numbers_are_no_scan(tmp_path, dtype):
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), dtype), np.eye(4)), tmp_path / "odd.nii.gz")
    with pytest.raises(InputError, match="not one number each"):
        read_image(tmp_path / "odd.nii.gz")


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
