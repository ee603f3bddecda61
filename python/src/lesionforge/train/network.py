"""The networks of the cascade to choose from; the chosen one is used twice in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.images.names import ALWAYS, CONTRASTS

if TYPE_CHECKING:
    import keras

PATCH = 11

# Keras' own default, 0.99, needs hundreds of steps before the moving averages mean anything; short trainings on
# few scans would then be judged with wrong statistics.
BATCH_NORM_MOMENTUM = 0.9
# A batch holds few blocks, of which each has many voxels.
DENSE_MOMENTUM = 0.95
DENSE_FACTOR = 8


def build_network(name: str = CascadeConfig.network, contrasts: Sequence[str] = ALWAYS) -> keras.Model:
    """One network of the cascade: patches [n, 11, 11, 11, contrast] to probabilities [n, 2] (healthy, lesion).

    The network dense takes blocks [n, x, y, z, contrast] of any sides that DENSE_FACTOR divides, and gives [n, x, y, z, 2].
    `name` is one of ARCHITECTURES. Raises ValueError for another, and unless there are one to four contrasts.
    """
    from keras import Input, Model

    if name not in ARCHITECTURES:
        raise ValueError(f"no network {name!r}: {', '.join(ARCHITECTURES)}")
    if not 1 <= len(contrasts) <= len(CONTRASTS):
        raise ValueError(f"{len(contrasts)} contrasts: a network takes 1 to {len(CONTRASTS)}")
    sides = (None,) * 3 if name == "dense" else (PATCH,) * 3
    patch = Input((*sides, len(contrasts)))
    return Model(patch, ARCHITECTURES[name](patch))


def _dense(block: keras.KerasTensor) -> keras.KerasTensor:
    """Ours: every voxel of a block is judged in one pass, from up to 49 voxels on each side of it.

    Four resolutions with additive skips. All voxels pass through few filters and a strided convolution takes them to half the
    resolution, where most filters are: that leaves two processor cores time for more steps than filters at full resolution do.
    """
    from keras import layers

    def convolved(flow: keras.KerasTensor, filters: int, size: int = 3, strides: int = 1) -> keras.KerasTensor:
        flow = layers.Conv3D(filters, size, strides=strides, padding="same", use_bias=False)(flow)
        flow = layers.BatchNormalization(momentum=DENSE_MOMENTUM)(flow)
        return layers.ReLU()(flow)

    def twice(flow: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        return convolved(convolved(flow, filters), filters)

    def merged(coarse: keras.KerasTensor, skip: keras.KerasTensor) -> keras.KerasTensor:
        return layers.Add()([layers.UpSampling3D(2)(layers.Conv3D(skip.shape[-1], 1)(coarse)), skip])

    full = convolved(block, 8)
    half = twice(convolved(block, 32, size=2, strides=2), 32)
    quarter = twice(layers.MaxPooling3D(2)(half), 64)
    eighth = twice(layers.MaxPooling3D(2)(quarter), 96)
    quarter = twice(merged(eighth, quarter), 64)
    half = twice(merged(quarter, half), 32)
    full = convolved(merged(half, full), 8)
    return layers.Conv3D(2, 1, activation="softmax", dtype="float32")(full)


def _valverde2017(patch: keras.KerasTensor) -> keras.KerasTensor:
    """Valverde et al., NeuroImage 2017: 189,058 trainable parameters for two contrasts.

    The published layers without the convolution biases that batch normalisation cancels.
    """
    from keras import layers

    flow = patch
    for filters in (32, 64):
        flow = layers.Conv3D(filters, 3, padding="same", use_bias=False)(flow)
        flow = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(flow)
        flow = layers.ReLU()(flow)
        flow = layers.MaxPooling3D(2)(flow)
    flow = layers.Flatten()(flow)
    flow = layers.Dropout(0.5)(flow)
    flow = layers.Dense(256, activation="relu")(flow)
    return layers.Dense(2, activation="softmax", dtype="float32")(flow)


def _nicmslesions(patch: keras.KerasTensor) -> keras.KerasTensor:
    """Valverde et al., NeuroImage: Clinical 2019: 470,082 trainable parameters for two contrasts, 470,466 stored values.

    One PReLU slope per voxel and channel. Layers with weights have the names of the program's own files. What is flattened
    is channel-last, as in any Keras network; `nicmslesions.py` brings the program's channel-first weights into that order.
    """
    from keras import layers

    flow = patch
    for block, filters in ((1, 32), (2, 64)):
        for part in (1, 2):
            flow = layers.Conv3D(filters, 3, padding="same", name=f"conv{block}_{part}")(flow)
            flow = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=1e-3, name=f"bn_{block}_{part}")(flow)
            flow = layers.PReLU(name=f"prelu_conv{block}_{part}")(flow)
        flow = layers.MaxPooling3D(2)(flow)
    flow = layers.Flatten()(flow)
    for block, units in ((1, 256), (2, 128), (3, 64)):
        flow = layers.Dropout(0.5)(flow)
        flow = layers.Dense(units, name=f"d{block}")(flow)
        flow = layers.PReLU(name=f"prelu_d{block}")(flow)
    return layers.Dense(2, activation="softmax", dtype="float32", name="out")(flow)


# The last layers are float32: half precision inside, on a GPU, is too coarse for probabilities.
ARCHITECTURES = {"dense": _dense, "valverde2017": _valverde2017, "nicmslesions": _nicmslesions}


def is_dense(network: keras.Model) -> bool:
    """Whether a network judges every voxel of a block at once, not the centre of a patch."""
    return network.input_shape[1] is None


def build_optimizer(config: CascadeConfig) -> keras.optimizers.Optimizer:
    """The optimiser a configuration names: "adadelta" (published, rho 0.95) or "adam"; raises ValueError for another."""
    from keras import optimizers

    if config.optimizer == "adadelta":
        return optimizers.Adadelta(config.learning_rate, rho=0.95)
    if config.optimizer == "adam":
        steps = config.epochs * config.steps_per_epoch
        rate = optimizers.schedules.CosineDecay(
            config.learning_rate / 10,
            max(1, steps - steps // 20),
            alpha=0.01,
            warmup_target=config.learning_rate,
            warmup_steps=max(1, steps // 20),
        )
        return optimizers.Adam(rate)
    raise ValueError(f"no optimiser {config.optimizer!r}: adadelta or adam")
