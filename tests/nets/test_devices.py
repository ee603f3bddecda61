"""Where networks are trained."""

from contextlib import nullcontext
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.nets import devices
from lesionforge.nets.devices import Device, find_device, on_device

GPUS = Device("gpu", 2)


@pytest.fixture(autouse=True)
def not_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LESIONFORGE_REPRODUCIBLE", raising=False)


@pytest.mark.parametrize(("gpus", "wanted", "found"), [(0, "auto", Device()), (2, "auto", GPUS), (2, "cpu", Device())])
def test_auto_takes_the_gpus_that_work(gpus: int, wanted: str, found: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_working_gpus", lambda: gpus)
    assert find_device(wanted) == found


def test_gpus_that_are_hidden_are_not_called_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_working_gpus", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_device("auto").why == ", as no GPU that works is found"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES=-1 hides all GPUs" in find_device("auto").why


def test_gpu_without_a_gpu_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_working_gpus", lambda: 0)
    with pytest.raises(InputError, match="--device cpu"):
        find_device("gpu")


def test_what_is_to_be_reproducible_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_working_gpus", lambda: 2)
    monkeypatch.setenv("LESIONFORGE_REPRODUCIBLE", "1")
    assert find_device("auto") == find_device("cpu") == Device()
    assert find_device("auto").why == ", as --reproducible asks"
    with pytest.raises(InputError, match="--reproducible and --device gpu exclude each other"):
        find_device("gpu")


def test_a_gpu_that_is_listed_but_broken_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0"])

    def broken(*arguments: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(keras.ops, "matmul", broken)
    assert find_device("auto") == Device()


def test_the_command_refuses_a_gpu_that_is_not_there(write_blob_scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lesionforge.images import Prepared
    from lesionforge.synthesize import stage

    monkeypatch.setattr(devices, "_working_gpus", lambda: 0)
    prepared = write_blob_scan(tmp_path / "prepare", "sub-a", 1)
    monkeypatch.setattr(stage, "match_patients", lambda *arguments: [(Prepared.open(prepared), None, "")])
    monkeypatch.setattr(stage, "shared_contrasts", lambda levels: ("t1w", "flair"))
    options = ["--prepared", str(prepared), "--device", "gpu", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["synthesize", "train-generator", *options])
    assert result.exit_code == 2
    assert result.output.count("Error:") == 1 and "--device cpu" in result.output


def test_half_precision_only_on_a_gpu_and_only_inside() -> None:
    before = keras.config.dtype_policy().name
    with on_device(Device()):
        assert keras.config.dtype_policy().name == "float32"
    with on_device(Device("gpu")):
        assert keras.config.dtype_policy().name == "mixed_float16"
    assert keras.config.dtype_policy().name == before


def test_batches_are_shared_evenly() -> None:
    assert Device("gpu", 3).sharing(32) == Device("gpu", 2)
    assert Device("gpu", 8).sharing(32) == Device("gpu", 8)
    assert Device().sharing(32) == Device()


@pytest.mark.parametrize(("backend", "named"), [("tensorflow", "cpu:0"), ("jax", "cpu:0"), ("torch", "cpu")])
def test_the_cpu_has_the_name_under_which_a_backend_trains(backend: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by training with torch: parameters put on "cpu:0" are copies that get no gradients."""
    seen = []

    def device(name: str) -> nullcontext:
        seen.append(name)
        return nullcontext()

    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(keras, "device", device)
    with on_device(Device()):
        pass
    assert seen == [named]
