"""A training that stops, or is killed, goes on to the same weights."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import Prepared
from lesionforge.nets.checkpoint import NAME, TrainingState, load_state, save_state, sweep
from lesionforge.nets.devices import Device
from lesionforge.synthesize import stage
from lesionforge.synthesize.config import CONFIGURATIONS
from lesionforge.synthesize.network import build_generator
from lesionforge.synthesize.tiles import StoredScan
from lesionforge.synthesize.training import best_epoch, ended, train_generator, training_identity

OURS = CONFIGURATIONS["lesionforge"]
TINY = replace(OURS, width=2, epochs=2, tiles_per_epoch=4, patience=None)
STATE = TrainingState(
    history=[{"epoch": 1, "loss": 0.1}],
    weights=[np.arange(3, dtype=np.float32), np.ones((2, 2), np.float32)],
    optimizer=[np.array(7), np.full(3, 0.5, np.float32)],
    best_weights=[np.zeros(3, np.float32), np.zeros((2, 2), np.float32)],
)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert load_state(tmp_path, {"seed": 1}) is None
    save_state(tmp_path, STATE, {"seed": 1})
    found = load_state(tmp_path, {"seed": 1})
    assert found is not None and found.history == STATE.history
    for part in ("weights", "optimizer", "best_weights"):
        for mine, theirs in zip(getattr(STATE, part), getattr(found, part), strict=True):
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_one_sentence_that_says_to_delete_it(keep: float, tmp_path: Path) -> None:
    save_state(tmp_path, STATE, {})
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(InputError, match=r"checkpoint\.npz: is cut short.*delete it") as caught:
        load_state(tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    save_state(tmp_path, replace(STATE, weights=[np.ones(5000, np.float32)]), {})
    content = bytearray((tmp_path / NAME).read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(InputError, match="delete it"):
        load_state(tmp_path, {})


@pytest.mark.parametrize(
    ("before", "at", "value"),
    [(b"PK\1\2", 6, 99), (b"PK\1\2", 8, 1), (b"PK\1\2", 10, 99), (b"{'descr'", 0, ord("("))],
    ids=["version of zip", "encrypted", "compression", "header of an array"],
)
def test_a_byte_that_changes_what_the_file_claims_to_be_is_found(before: bytes, at: int, value: int, tmp_path: Path) -> None:
    save_state(tmp_path, STATE, {})
    content = bytearray((tmp_path / NAME).read_bytes())
    content[content.index(before) + at] = value
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(InputError, match="delete it"):
        load_state(tmp_path, {})


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, STATE, {"seed": 1, "setting width": 2})
    with pytest.raises(InputError, match=r"another training \(other seed\)"):
        load_state(tmp_path, {"seed": 2, "setting width": 2})


def test_what_a_killed_write_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / f".123.{NAME}").touch()
    (tmp_path / "mine").touch()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_patience_ends_training_and_nan_is_never_best() -> None:
    losses = [float("nan"), 3.0, 2.0, 2.5, 2.0]
    history = [{"epoch": n + 1, "loss": 9.0 - n, "val_loss": loss} for n, loss in enumerate(losses)]
    assert best_epoch(history) == 2
    assert ended(history, replace(OURS, epochs=70, patience=2))
    assert not ended(history, replace(OURS, epochs=70, patience=3))
    assert not ended(history, replace(OURS, epochs=70, patience=None))
    assert ended(history, replace(OURS, epochs=5, patience=None))
    assert not ended([], OURS)


def test_a_training_that_ended_is_not_trained_again(example: StoredScan, tmp_path: Path) -> None:
    weights = [np.full(array.shape, n, array.dtype) for n, array in enumerate(build_generator(TINY)[0].get_weights())]
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 3.0}]
    identity = training_identity([example], [], TINY, 1, Device())
    save_state(tmp_path, TrainingState(history, [], [], weights), identity)
    model, same = train_generator([example], [], TINY, seed=1, checkpoint=tmp_path)
    assert same == history
    assert sorted(float(array.flat[0]) for array in model.get_weights()) == list(range(len(weights)))
    with pytest.raises(InputError, match="other seed"):
        train_generator([example], [], TINY, seed=2, checkpoint=tmp_path)


def test_a_training_that_stopped_between_epochs_of_many_batches_ends_with_the_same_weights(
    example: StoredScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras shuffled the batches by random numbers that no checkpoint held; with one batch an epoch nobody saw it."""
    monkeypatch.setenv("LESIONFORGE_REPRODUCIBLE", "1")
    config = replace(TINY, epochs=3, batch_size=4, tiles_per_epoch=32)

    class Killed(BaseException):
        pass

    def trained(checkpoint: Path | None, killed: bool = False) -> list[np.ndarray]:
        def on_epoch(row: dict[str, float]) -> None:
            if killed:
                raise Killed

        nets.set_up(1)
        return train_generator([example], [], config, seed=1, checkpoint=checkpoint, on_epoch=on_epoch)[0].get_weights()

    whole = trained(None)
    with pytest.raises(Killed):
        trained(tmp_path, killed=True)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(whole, trained(tmp_path), strict=True))


@pytest.fixture(scope="module")
def patients(cohort_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of train-generator that name two patients."""
    out = tmp_path_factory.mktemp("levels")
    options = []
    for scan_id in ("sub-01", "sub-02"):
        stage.write_levels(Prepared.open(cohort_root / "prepare" / scan_id), out, 1)
        options += ["--prepared", str(cohort_root / "prepare" / scan_id), "--levels", str(out / scan_id)]
    return [*options, "--width", "2", "--tiles-per-epoch", "8"]


def test_a_broken_checkpoint_ends_the_command_with_code_2(patients: list[str], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / NAME).write_bytes(b"PK\x03\x04")
    options = [*patients, "--checkpoint", str(tmp_path / "state"), "--out", str(tmp_path / "generator")]
    result = CliRunner().invoke(main, ["synthesize", "train-generator", *options])
    assert result.exit_code == 2
    assert result.output.count("Error:") == 1 and "delete it" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert [path.name for path in (tmp_path / "state").iterdir()] == [NAME]


def test_a_checkpoint_of_another_training_ends_the_command_with_code_2(patients: list[str], tmp_path: Path) -> None:
    save_state(tmp_path / "state", STATE, {"seed": 9})
    before = (tmp_path / "state" / NAME).read_bytes()
    options = [*patients, "--checkpoint", str(tmp_path / "state"), "--out", str(tmp_path / "new" / "generator")]
    result = CliRunner().invoke(main, ["synthesize", "train-generator", *options])
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {tmp_path}/state/{NAME}: belongs to another training (other ")
    assert result.output.endswith("); delete it or give another --checkpoint\n")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert [path.name for path in (tmp_path / "state").iterdir()] == [NAME]
    assert (tmp_path / "state" / NAME).read_bytes() == before


def test_a_checkpoint_in_the_folder_that_is_replaced_is_refused(patients: list[str], tmp_path: Path) -> None:
    options = [*patients, "--checkpoint", str(tmp_path / "generator" / "state"), "--out", str(tmp_path / "generator")]
    result = CliRunner().invoke(main, ["synthesize", "train-generator", *options])
    assert result.exit_code == 2 and "give a --checkpoint beside it" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_training_killed_with_9_ends_with_the_same_weights(patients: list[str], tmp_path: Path) -> None:
    def start(out: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "lesionforge", "--threads", "1", "--reproducible", "synthesize", "train-generator"]
        # One patient: without validation there is one graph less to build, three times.
        command += [*patients[:4], *patients[-4:], "--epochs", "12", *options, "--out", str(tmp_path / out)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def epochs(process: subprocess.Popen) -> list[int]:
        assert process.stderr is not None
        return [int(line.split()[2].split("/")[0]) for line in process.stderr if line.startswith("generator epoch")]

    whole = start("whole")
    killed = start("resumed", "--checkpoint", str(tmp_path / "state"))
    assert killed.stderr is not None
    while not killed.stderr.readline().startswith("generator epoch 2/12"):
        assert killed.poll() is None
    os.kill(killed.pid, signal.SIGKILL)
    told = 2 + len(epochs(killed))
    assert killed.wait() == -signal.SIGKILL
    assert epochs(whole) == list(range(1, 13)) and whole.wait() == 0
    if told == 12:
        pytest.skip("training was over before it could be killed")
    resumed = start("resumed", "--checkpoint", str(tmp_path / "state"))
    done = epochs(resumed)
    assert resumed.wait() == 0
    # An epoch whose line was not read before the kill may be saved all the same.
    assert done[0] in (told + 1, told + 2) and done[-1] == 12
    models = [nets.load_model(tmp_path / name, "generator").get_weights() for name in ("whole", "resumed")]
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(*models, strict=True))
    assert (tmp_path / "whole" / "history.tsv").read_bytes() == (tmp_path / "resumed" / "history.tsv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed", "state", "whole"]
    assert [path.name for path in (tmp_path / "state").iterdir()] == [NAME]
