"""What a full disk leaves: one sentence that names the file, and nothing half-written.

A limit on the size of files stands for the disk: a write beyond it fails as on a full one, without a mount.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lesionforge.cli import main
from lesionforge.images import Prepared, write_volume
from lesionforge.nets.checkpoint import NAME, TrainingState, save_state
from lesionforge.synthesize import stage

FIRST_IMAGE = "space-T1w_res-1mm_desc-{}_T1w.nii.gz"
# The tiles of a scan are files of up to 2.9 MB. So is the checkpoint of a WIDE network larger, and a WIDER network itself.
LESS_THAN_TILES = 2_000_000
LARGER_THAN_TILES = 3_200_000
WIDE = ["--width", "12", "--epochs", "1", "--tiles-per-epoch", "2"]
WIDER = ["--width", "21", "--epochs", "1", "--tiles-per-epoch", "2"]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may be written beyond a size in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_on_full_disk(size: int, *command: str | Path) -> Result:
    with files_up_to(size):
        return CliRunner().invoke(main, ["synthesize", *map(str, command)])


def assert_said(result: Result, named: Path) -> None:
    """The exit code, and at the end the one sentence that names a file. What numpy cannot write it does not say the cause of, and
    that is a full disk."""
    assert result.exit_code == (os.EX_IOERR if "was not written whole" in result.output else 2), result.output
    errors = [line for line in result.output.splitlines() if not line.startswith(("generator epoch", "networks run on"))]
    assert [line.split(": ")[:2] for line in errors] == [["Error", str(named)]], result.output
    assert errors[0].endswith("; check the path, its permissions and the free space")


def patient(inputs: Path, cohort_root: Path) -> list[str]:
    """The options of train-generator that name a patient; a lone one goes without validation, which saves a graph."""
    return ["--prepared", str(cohort_root / "prepare" / "sub-01"), "--levels", str(inputs / "levels" / "sub-01")]


def test_levels(cohort_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "levels"
    result = run_on_full_disk(50_000, "levels", "--prepared", cohort_root / "prepare" / "sub-01", "--out", out)
    assert_said(result, out / "sub-01" / f"sub-01_{FIRST_IMAGE.format('filled')}")
    assert not list(tmp_path.iterdir())


def test_levels_appear_with_what_is_added_to_them_or_not_at_all(cohort_root: Path, tmp_path: Path) -> None:
    """As `lesionforge levels` adds those on the scans' own grids."""

    def add_too_much(folder: Path, levels: dict[str, np.ndarray]) -> None:
        write_volume(levels["flair"].astype(np.float32), np.eye(4), folder / "native.nii")

    # Enough for the compressed images of levels.
    with files_up_to(200_000), pytest.raises(OSError, match="too large") as caught:
        stage.write_levels(Prepared.open(cohort_root / "prepare" / "sub-01"), tmp_path / "new", 1, add_too_much)
    assert caught.value.filename == str(tmp_path / "new" / "sub-01" / "native.nii")
    assert not list(tmp_path.iterdir())


def test_transplant(inputs: Path, cohort_root: Path, tmp_path: Path) -> None:
    command = ["transplant", "--id", "sub-syn0001", "--pair", cohort_root / "register" / "sub-01_to_sub-04"]
    command += ["--canvas", cohort_root / "prepare" / "sub-04", "--donor-levels", inputs / "levels" / "sub-01"]
    result = run_on_full_disk(1000, *command, "--out", tmp_path / "new")
    assert_said(result, tmp_path / "new" / "sub-syn0001" / "sub-syn0001_desc-transplant.json")
    assert not list(tmp_path.iterdir())


def test_paint(inputs: Path, cohort_root: Path, tmp_path: Path) -> None:
    command = ["paint", "--transplant", inputs / "transplant" / "sub-syn0001", "--generator", inputs / "generator"]
    result = run_on_full_disk(50_000, *command, "--canvas", cohort_root / "prepare" / "sub-04", "--out", tmp_path / "new")
    assert_said(result, tmp_path / "new" / "sub-syn0001" / f"sub-syn0001_{FIRST_IMAGE.format('preproc')}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_tiles_of_a_training(inputs: Path, cohort_root: Path, tmp_path: Path, with_checkpoint: bool) -> None:
    out = tmp_path / "new" / "generator"
    more = ["--checkpoint", tmp_path / "state"] if with_checkpoint else []
    command = ["train-generator", *patient(inputs, cohort_root), *more, "--out", out]
    result = run_on_full_disk(LESS_THAN_TILES, *command)
    scratch = tmp_path / "state" / ".tiles" if with_checkpoint else out.with_name(".generator.tiles")
    assert_said(result, scratch / "sub-01")
    assert result.exit_code == os.EX_IOERR
    assert not list(tmp_path.iterdir())


def test_the_checkpoint(inputs: Path, cohort_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "generator"
    command = ["train-generator", *patient(inputs, cohort_root), *WIDE, "--checkpoint", tmp_path / "state", "--out", out]
    assert_said(run_on_full_disk(LARGER_THAN_TILES, *command), tmp_path / "state" / NAME)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    state = TrainingState([{"epoch": 1, "loss": 1.0}], [np.ones(10)], [], [])
    save_state(tmp_path, state, {})
    before = (tmp_path / NAME).read_bytes()
    with files_up_to(len(before)), pytest.raises(OSError, match="too large") as caught:
        save_state(tmp_path, replace(state, weights=[np.ones(1000)]), {})
    assert caught.value.filename == str(tmp_path / NAME)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == before


def test_the_trained_network(inputs: Path, cohort_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "generator"
    command = ["train-generator", *patient(inputs, cohort_root), *WIDER, "--out", out]
    assert_said(run_on_full_disk(LARGER_THAN_TILES, *command), out / "generator.keras")
    assert not list(tmp_path.iterdir())
