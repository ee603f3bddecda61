"""A training of the cascade that was killed goes on to the same weights; on GPUs it is in half precision inside."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cascade.settings import CONFIGURATIONS, CascadeConfig
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import Prepared
from lesionforge.nets.checkpoint import NAME
from lesionforge.nets.devices import Device
from lesionforge.train import fit
from lesionforge.train.fit import EpochRow, Samples, batches, best_row, ended, train_cascade
from lesionforge.train.network import build_network
from lesionforge.train.sampling import LabelledScan, label_scan, pool

# Dropout, batch normalisation and mining draw random numbers; so does CNN2's choice of voxels to validate on.
SMALL = {
    "valverde2017": CascadeConfig(epochs=2, steps_per_epoch=3, batch_size=8, mined_per_negative=4),
    "dense": replace(CONFIGURATIONS["lesionforge"], epochs=2, steps_per_epoch=2, batch_size=1),
}


class Killed(BaseException):
    """Ends a training where a signal would."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, write_blob_scan: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("resume")
    for number in range(2):
        write_blob_scan(root, f"sub-{number}", seed=number)
    (root / "real.tsv").write_text("id\tsplit\tfolder\nsub-0\ttrain\tsub-0\nsub-1\tvalidation\tsub-1\n")
    return root


def scans_for(root: Path, config: CascadeConfig) -> list[list[LabelledScan]]:
    return [[label_scan(name, Prepared.open(root / name).read(), config)] for name in ("sub-0", "sub-1")]


def trained(
    scans: list[list[LabelledScan]], config: CascadeConfig, checkpoint: Path | None, killed_at: str = ""
) -> tuple[list[np.ndarray], list[EpochRow], list[str]]:
    """Weights, history and progress of a training as in a process of its own, which dies with a line `killed_at` of an epoch."""
    lines = []

    def report(line: str) -> None:
        lines.append(line)
        if killed_at and killed_at in line and ": loss" in line:
            raise Killed

    nets.set_up(1)
    models, history = train_cascade(*scans, config, 1, report, checkpoint=checkpoint)
    return [weight for model in models.values() for weight in model.get_weights()], history, lines


@pytest.mark.parametrize(("name", "killed_at", "times"), [("valverde2017", " epoch ", 4), ("dense", " epoch 1/", 2)])
def test_killed_after_every_epoch_it_ends_with_the_same_weights(
    name: str, killed_at: str, times: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESIONFORGE_REPRODUCIBLE", "1")
    config, scans = SMALL[name], scans_for(root, SMALL[name])
    weights, history, _ = trained(scans, config, None)
    for _ in range(times):
        with pytest.raises(Killed):
            trained(scans, config, tmp_path, killed_at)
    again, same, lines = trained(scans, config, tmp_path)
    assert sum(": loss" in line for line in lines) == (0 if times == 4 else 1)
    assert same == history
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(weights, again, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_checkpoint_of_another_training_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL["valverde2017"], epochs=1, steps_per_epoch=1)
    scans = scans_for(root, config)
    trained(scans, config, tmp_path)
    before = (tmp_path / NAME).read_bytes()
    monkeypatch.setattr(fit, "save_state", None)
    for other, said in (
        ((scans, replace(config, epochs=3)), "setting epochs"),
        ((scans[::-1], config), "training scans, validation scans"),
        (([[replace(scans[0][0], weight=2.0)], scans[1]], config), "training scans"),
    ):
        with pytest.raises(InputError, match=rf"another training \(other {said}\); delete it"):
            trained(*other, tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


def test_each_network_ends_by_its_own_history() -> None:
    config = replace(SMALL["dense"], epochs=9, patience=2)
    history = [EpochRow("cnn1", number + 1, 1.0, loss) for number, loss in enumerate([3.0, 1.0, 1.0])]
    assert best_row(history) is history[1] and not ended(history, config)
    assert ended([*history, EpochRow("cnn1", 4, 1.0, 2.0)], config)
    assert not ended([EpochRow("cnn1", number + 1, 1.0, np.nan) for number in range(8)], config)
    assert ended([EpochRow("cnn1", number + 1, 1.0, np.nan) for number in range(9)], config)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_that_devices_share_is_filled_up(name: str, root: Path) -> None:
    config = replace(SMALL[name], batch_size=2, steps_per_epoch=3)
    scans = scans_for(root, config)[0]
    samples = Samples(scans[:1], pool([scans[0].lesion]), pool([scans[0].healthy]))
    alone, shared = (list(batches(samples, config, np.random.default_rng(0), count)) for count in (1, 4))
    assert [len(inputs) for inputs, _ in alone] == [2, 2, 2] and [len(inputs) for inputs, _ in shared] == [4, 4, 4]
    assert not np.array_equal(alone[0][0], alone[1][0])


def command(root: Path, out: Path, *more: object) -> list[str]:
    sizes = ["--configuration", "published", "--epochs", "1", "--steps-per-epoch", "1"]
    return ["train", "--index", f"{root}/real.tsv", *sizes, *map(str, more), "--out", str(out)]


def test_the_command_says_where_it_trains_and_keeps_a_checkpoint(root: Path, tmp_path: Path) -> None:
    model, state = tmp_path / "model", tmp_path / "state"
    result = CliRunner().invoke(main, command(root, model, "--checkpoint", state))
    assert result.exit_code == 0, result.output
    assert "networks run on the CPU, as no GPU that works is found\n" in result.output
    assert (model / "history.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "state"]
    before = (state / NAME).read_bytes()
    result = CliRunner().invoke(main, command(root, tmp_path / "other", "--checkpoint", state, "--seed", 2))
    assert result.exit_code == 2 and result.output.count("Error:") == 1
    assert result.output.endswith("belongs to another training (other seed); delete it or give another --checkpoint\n")
    assert (state / NAME).read_bytes() == before and not (tmp_path / "other").exists()
    # A start is a part of what a training is.
    start = [
        "train",
        "--index",
        f"{root}/real.tsv",
        "--init",
        f"{model}",
        "--checkpoint",
        f"{state}",
        "--out",
        f"{tmp_path}/other",
    ]
    result = CliRunner().invoke(main, start)
    assert result.exit_code == 2 and "(other start)" in result.output


def test_a_checkpoint_in_the_folder_that_is_replaced_is_refused(root: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, command(root, tmp_path / "model", "--checkpoint", tmp_path / "model/state"))
    assert result.exit_code == 2 and "give a --checkpoint beside it" in result.output
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lesionforge.nets.devices._working_gpus", lambda: 0)
    result = CliRunner().invoke(main, command(root, tmp_path / "model", "--device", "gpu"))
    assert result.exit_code == 2 and result.output.count("Error:") == 1 and "--device cpu" in result.output
    assert not list(tmp_path.iterdir())


def test_a_training_killed_with_9_ends_with_the_same_files(root: Path, tmp_path: Path) -> None:
    def start(out: str, *options: str) -> subprocess.Popen:
        call = [sys.executable, "-m", "lesionforge", "--threads", "1", "--reproducible", "train", "--index", f"{root}/real.tsv"]
        call += [
            "--configuration",
            "published",
            "--epochs",
            "12",
            "--steps-per-epoch",
            "1",
            *options,
            "--out",
            f"{tmp_path}/{out}",
        ]
        return subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def epochs(process: subprocess.Popen) -> list[str]:
        assert process.stderr is not None
        return [line.split(":")[0] for line in process.stderr if ": loss" in line]

    whole = start("whole")
    killed = start("resumed", "--checkpoint", f"{tmp_path}/state")
    assert killed.stderr is not None
    while not killed.stderr.readline().startswith("cnn2 epoch 2/12"):
        assert killed.poll() is None
    os.kill(killed.pid, signal.SIGKILL)
    epochs(killed)
    assert killed.wait() == -signal.SIGKILL
    assert len(epochs(whole)) == 24 and whole.wait() == 0
    resumed = start("resumed", "--checkpoint", f"{tmp_path}/state")
    done = epochs(resumed)
    assert resumed.wait() == 0
    assert done[-1] == "cnn2 epoch 12/12" and len(done) <= 10
    for name in ("cnn1.keras", "cnn2.keras"):
        models = [nets.load_model(tmp_path / out, name.removesuffix(".keras")).get_weights() for out in ("whole", "resumed")]
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(*models, strict=True))
    for name in ("history.tsv", "history.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed", "state", "whole"]


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_inside_leaves_what_judges_and_is_saved_in_single(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on one GPU, but in the half precision that the pooling of tensorflow has on a CPU too.
    monkeypatch.setattr(Device, "precision", "mixed_bfloat16")
    config = replace(SMALL[name], epochs=1)
    seen = set()
    real = fit._train_epoch

    def watched(network: keras.Model, *rest: object) -> float:
        seen.update((layer.compute_dtype, layer.variable_dtype) for layer in network.layers[1:-1])
        return real(network, *rest)

    monkeypatch.setattr(fit, "_train_epoch", watched)
    nets.set_up(1)
    untrained = build_network(config.network).get_weights()
    nets.set_up(1)
    models, history = train_cascade(*scans_for(root, config), config, 1, lambda _: None, device=Device("gpu"))
    assert seen == {("bfloat16", "float32")}
    assert all(np.isfinite([row.loss, row.val_loss]).all() for row in history)
    for network in models.values():
        assert {layer.compute_dtype for layer in network.layers} == {"float32"}
        assert {weight.dtype for weight in network.weights} == {"float32"}
    assert not np.array_equal(models["cnn1"].get_weights()[0], untrained[0])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends trace differently")
def test_a_step_of_each_network_is_traced_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, traced = SMALL["dense"], []
    real = fit.block_loss

    def counted(*given: object) -> object:
        traced.append(1)
        return real(*given)

    monkeypatch.setattr(fit, "block_loss", counted)
    nets.set_up(1)
    train_cascade(scans_for(root, config)[0], [], config, 1, lambda _: None)
    assert len(traced) == 2


def test_a_cascade_is_trained_on_two_devices(root: Path) -> None:
    """On two parts of the CPU, in a process of its own, since tensorflow, which it is about, divides it before its first use."""
    code = f"""
from functools import cache
import numpy as np, tensorflow as tf
cpu, parts = tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, parts)
from lesionforge import nets
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images import Prepared
from lesionforge.nets import devices
from lesionforge.train.fit import _to_train, train_cascade
from lesionforge.train.sampling import label_scan
from pathlib import Path
devices._mirrored = cache(lambda count: tf.distribute.MirroredStrategy([f"CPU:{{n}}" for n in range(count)]))
devices.Device.precision = "float32"
config = CascadeConfig(epochs=1, steps_per_epoch=2, batch_size=8, mined_per_negative=4)
nets.set_up(1)
scan = label_scan("sub-0", Prepared.open(Path({str(root / "sub-0")!r})).read(), config)
models, history = train_cascade([scan], [], config, 1, print, device=devices.Device("gpu", 2))
assert all(np.isfinite(row.loss) for row in history) and len(history) == 2
assert all(np.isfinite(weight).all() for model in models.values() for weight in model.get_weights())
# In half precision the losses of the steps are scaled, by variables that all devices have. Its pooling needs a GPU.
devices.Device.precision = "mixed_float16"
halved = _to_train(models["cnn1"], config, ("T1w", "FLAIR"), devices.Device("gpu", 2))
assert halved.optimizer.built and type(halved.optimizer).__name__ == "LossScaleOptimizer"
assert devices._mirrored.cache_info().hits and devices._mirrored(2).num_replicas_in_sync == 2
"""
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
