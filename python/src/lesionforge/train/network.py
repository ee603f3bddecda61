"""The cascade's parameters and the networks to choose from; the chosen one is used twice in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from lesionforge.nets.settings import Within

if TYPE_CHECKING:
    import keras

PATCH = 11
CONTRASTS = ("T1w", "FLAIR")
MOST_CONTRASTS = 4
NETWORKS = ("cnn1", "cnn2")

Architecture = Literal["valverde2017", "nicmslesions"]
Count = Annotated[int, Within(1, 1_000_000)]

# Keras' own default, 0.99, needs hundreds of steps before the moving averages mean anything; short trainings on
# few scans would then be judged with wrong statistics.
BATCH_NORM_MOMENTUM = 0.9


@dataclass(frozen=True)
class CascadeConfig:
    """Every number of the cascade, with the values of Valverde et al. 2017 where they published one.

    `cnn1_threshold` serves both the choice of CNN2's negatives and inference (the published code used 0.5 and 0.8).
    """

    network: Architecture = "valverde2017"
    """The layers of both networks, a name in ARCHITECTURES."""
    candidate_flair_z: float = 0.5
    """Only voxels of the brain whose FLAIR z-score is above this are looked at."""
    cnn1_threshold: Annotated[float, Within(0, 1)] = 0.5
    """CNN2 sees the voxels whose CNN1 probability is above this."""
    fallback_flair_z: float = 2.0
    """CNN2's negatives where CNN1 leaves too few: FLAIR z-score above this."""
    lesion_threshold: Annotated[float, Within(0, 1, above=True)] = 0.8
    """A voxel is lesion when its final probability is at least this (nicMSlesions: t_bin)."""
    min_volume_mm3: Annotated[float, Within(0, 1_000_000)] = 20.0
    """Lesions of this volume or less are dropped (nicMSlesions: l_min, in voxels of 1 mm³)."""
    batch_size: Count = 128
    epochs: Count = 200
    patience: Count = 25
    """Epochs without a better validation loss before training ends; without validation scans it never does."""
    optimizer: Literal["adadelta", "adam"] = "adadelta"
    learning_rate: Annotated[float, Within(0, 1000, above=True)] = 1.0
    samples_per_epoch: Annotated[int, Within(2, 1_000_000_000)] = 20_000
    """Patches in one epoch, half of them lesion: bounds time, and gives every arm the same number of steps (ours)."""
    mined_per_negative: Count = 40
    """Candidates that CNN1 judges for each negative of an epoch, to find CNN2's: bounds time (ours).

    With 10 CNN2 saw so few kinds of negatives that the phantom's test patient fell from a Dice of 0.66 to 0.40.
    """


def build_network(name: str = CascadeConfig.network, contrasts: Sequence[str] = CONTRASTS) -> keras.Model:
    """One network of the cascade: patches [n, 11, 11, 11, contrast] to probabilities [n, 2] (healthy, lesion).

    `name` is one of ARCHITECTURES. Raises ValueError for another, and unless there are one to four contrasts.
    """
    from keras import Input, Model

    if name not in ARCHITECTURES:
        raise ValueError(f"no network {name!r}: {', '.join(ARCHITECTURES)}")
    if not 1 <= len(contrasts) <= MOST_CONTRASTS:
        raise ValueError(f"{len(contrasts)} contrasts: a network takes 1 to {MOST_CONTRASTS}")
    patch = Input((PATCH, PATCH, PATCH, len(contrasts)))
    return Model(patch, ARCHITECTURES[name](patch))


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
    return layers.Dense(2, activation="softmax")(flow)


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
    return layers.Dense(2, activation="softmax", name="out")(flow)


ARCHITECTURES = {"valverde2017": _valverde2017, "nicmslesions": _nicmslesions}


def build_optimizer(config: CascadeConfig) -> keras.optimizers.Optimizer:
    """The optimiser a configuration names: "adadelta" (published, rho 0.95) or "adam"; raises ValueError for another."""
    from keras import optimizers

    if config.optimizer == "adadelta":
        return optimizers.Adadelta(config.learning_rate, rho=0.95)
    if config.optimizer == "adam":
        return optimizers.Adam(config.learning_rate)
    raise ValueError(f"no optimiser {config.optimizer!r}: adadelta or adam")
