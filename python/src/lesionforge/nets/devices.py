"""Where networks are trained: CPU or GPU, at which precision, on one or on several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import click

from lesionforge.errors import InputError


@dataclass(frozen=True)
class Device:
    """What a network is trained on: `kind` "cpu" or "gpu", how many of them share each batch, and why, if that must be said."""

    kind: str = "cpu"
    count: int = 1
    why: str = field(default="", compare=False)

    @property
    def precision(self) -> str:
        """The Keras policy: half precision inside only on a GPU, where it is faster."""
        return "mixed_float16" if self.kind == "gpu" else "float32"

    @property
    def in_words(self) -> str:
        """`the CPU`, `a GPU in half precision` or `2 GPUs in half precision`."""
        if self.kind == "cpu":
            return "the CPU"
        return f"{'a GPU' if self.count == 1 else f'{self.count} GPUs'} in half precision"

    def say(self, *, training: bool = False) -> None:
        """Tell on stderr that networks run on it, which are judging on one device or training."""
        where = self.in_words if training or self.kind == "cpu" else "a GPU"
        click.echo(f"networks run on {where}{self.why}", err=True)

    def sharing(self, batch_size: int) -> Device:
        """As many of the devices as can share batches of this size evenly."""
        return replace(self, count=max(n for n in range(1, self.count + 1) if batch_size % n == 0))


def find_device(wanted: str) -> Device:
    """The device for "auto" (GPUs that work, else the CPU), "cpu" or "gpu"; call it after `nets.set_up`.

    With --reproducible "auto" is the CPU. Raises InputError when a GPU is wanted then, and when there is none that works.
    """
    import keras

    if os.environ.get("LESIONFORGE_REPRODUCIBLE"):
        if wanted == "gpu":
            raise InputError(
                "--reproducible and --device gpu exclude each other, as a GPU does not give the same results twice; leave one out"
            )
        return Device(why=", as --reproducible asks" if wanted == "auto" else "")
    count = 0 if wanted == "cpu" else _working_gpus()
    if wanted == "gpu" and not count:
        raise InputError(
            f"--device gpu: {keras.backend.backend()} finds no GPU that it can compute on; "
            "check the driver with nvidia-smi and start containers with their GPU option, or give --device cpu"
        )
    if count:
        return Device("gpu", count)
    return Device(why=f", as {_why_none()}" if wanted == "auto" else "")


def _why_none() -> str:
    """Why there is no GPU, to follow `as`."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "-1":
        return "CUDA_VISIBLE_DEVICES=-1 hides all GPUs (a run of the pipeline asks for them with -profile gpu)"
    return "no GPU that works is found"


def threads() -> int:
    """How many threads of its own a process may use: as `lesionforge --threads` says, else as many as it has processors."""
    return int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0] or len(os.sched_getaffinity(0)))


@contextmanager
def on_device(device: Device) -> Iterator[None]:
    """Networks that are built, compiled and trained in this block use the device and its precision."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(device.precision)
    try:
        with _placed(device):
            yield
    finally:
        keras.config.set_dtype_policy(before)


def on_one_device(device: Device) -> AbstractContextManager:
    """Networks that judge, or are saved, are built and used in this block: in float32, on the CPU or the first GPU."""
    return on_device(device) if device.kind == "cpu" else nullcontext()


def _working_gpus() -> int:
    """How many GPUs the backend has, if it can compute on them: a driver that does not fit shows only then."""
    import keras

    try:
        if keras.backend.backend() == "torch":
            import torch

            # Keras has no data parallelism on torch.
            count = min(torch.cuda.device_count(), 1)
        else:
            count = len(keras.distribution.list_devices("gpu"))
        if count:
            with keras.device("gpu:0"):
                keras.ops.convert_to_numpy(keras.ops.matmul(keras.ops.ones((2, 2)), keras.ops.ones((2, 2))))
    except Exception:  # Each backend raises its own classes for a GPU that is absent or broken, and all mean the same here.
        return 0
    return count


def _placed(device: Device) -> AbstractContextManager:
    """The scope of a backend for a device; a single GPU needs none, since every backend takes it by itself."""
    import keras

    backend = keras.backend.backend()
    if device.kind == "cpu":
        # Parameters that torch puts on "cpu:0" are copies, without gradients of their own.
        return keras.device("cpu" if backend == "torch" else "cpu:0")
    if device.count > 1 and backend == "tensorflow":
        scope: AbstractContextManager = _mirrored(device.count).scope()
        return scope
    if device.count > 1 and backend == "jax":
        return _data_parallel(device.count)
    return nullcontext()


@cache
def _mirrored(count: int) -> Any:
    """One strategy for all blocks: a network is trained under the one that it was built under."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"GPU:{n}" for n in range(count)])


@contextmanager
def _data_parallel(count: int) -> Iterator[None]:
    import keras

    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices("gpu")[:count]))
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)
