"""The generator: one encoder and one decoder per contrast, latents fused by maximum (Salem et al., IEEE Access 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lesionforge.synthesize.levels import LEVEL_COUNT

if TYPE_CHECKING:
    import keras

CONTRASTS = ("t1w", "flair")
# Each contrast is decoded from its own latent, from the other's and from the fused one.
RECONSTRUCTIONS = {f"{name}_from_{source}": name for name in CONTRASTS for source in (*CONTRASTS, "fused")}
LATENT_DISTANCE = "latent_distance"
DEFAULT_WIDTH = 32
LEARNING_RATE = 1e-3
# Three poolings: input sides must be divisible by this.
SIZE_MULTIPLE = 8


def build_generator(width: int = DEFAULT_WIDTH) -> tuple[keras.Model, keras.Model]:
    """The network as (training model, inference model), which share their weights.

    Inputs are `t1w` and `flair`, float32 [batch, x, y, 9]: the filled image, then bands W1..W8; x and y are any
    multiples of 8, since PReLU slopes are shared over space. The inference model gives [t1w, flair], each
    [batch, x, y, 1], decoded from the fused latent. The training model adds the decodings of each single latent and
    the squared latent difference, pooled, as named outputs. `width` is the channel count of the first level (32
    published: 2,058,498 parameters). The output is linear, because normalised intensities have both signs.
    """
    import keras
    from keras import layers

    inputs = {name: keras.Input((None, None, 1 + LEVEL_COUNT), name=name) for name in CONTRASTS}
    latents = {name: _encoder(inputs[name], width) for name in CONTRASTS}
    fused = layers.Maximum()(list(latents.values()))
    decoders = {name: _decoder(width, name) for name in CONTRASTS}

    outputs = {}
    for name, decoder in decoders.items():
        for source, latent in (latents | {"fused": fused}).items():
            # Keras tells losses apart by the name of the last layer, and a decoder is used three times.
            outputs[f"{name}_from_{source}"] = layers.Identity(name=f"{name}_from_{source}")(decoder(latent))
    difference = layers.Subtract()(list(latents.values()))
    squared = layers.Multiply()([difference, difference])
    training = keras.Model(inputs, outputs | {LATENT_DISTANCE: layers.GlobalAveragePooling2D(name=LATENT_DISTANCE)(squared)})
    inference = keras.Model(list(inputs.values()), [outputs[f"{name}_from_fused"] for name in CONTRASTS], name="generator")
    return training, inference


def compile_for_training(training: keras.Model) -> None:
    """Adam, six mean absolute errors of weight 1 and the mean variance between the two latents of weight 1."""
    import keras

    # The population variance of two numbers is a quarter of their squared difference.
    weights = dict.fromkeys(RECONSTRUCTIONS, 1.0) | {LATENT_DISTANCE: 0.25}
    # Without XLA: it compiles anew for each shape of batch, and its steps measured slower on a CPU.
    training.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=dict.fromkeys(weights, "mae"),
        loss_weights=weights,
        jit_compile=False,
    )


def _prelu(tensor: Any) -> Any:
    from keras import layers

    return layers.PReLU(shared_axes=[1, 2])(tensor)


def _residual(tensor: Any, filters: int) -> Any:
    """PReLU(conv3x3 + conv1x1), without batch normalisation."""
    from keras import layers

    wide = layers.Conv2D(filters, 3, padding="same")(tensor)
    return _prelu(layers.Add()([wide, layers.Conv2D(filters, 1)(tensor)]))


def _up(tensor: Any, filters: int) -> Any:
    from keras import layers

    return layers.Conv2DTranspose(filters, 2, strides=2)(tensor)


def _encoder(tensor: Any, width: int) -> Any:
    from keras import layers

    level_1 = _residual(tensor, width)
    level_2 = _residual(layers.MaxPooling2D()(level_1), 2 * width)
    level_3 = _residual(layers.MaxPooling2D()(level_2), 4 * width)
    bottom = _residual(layers.MaxPooling2D()(level_3), 8 * width)
    up_3 = _residual(_up(bottom, 4 * width), 4 * width)
    up_3 = _residual(_prelu(layers.Add()([up_3, level_3])), 4 * width)
    up_2 = _residual(_prelu(layers.Add()([_up(up_3, 2 * width), level_2])), 2 * width)
    up_1 = _prelu(layers.Add()([_up(up_2, width), level_1]))
    return _prelu(layers.Conv2D(width, 1)(up_1))


def _decoder(width: int, name: str) -> keras.Model:
    import keras
    from keras import layers

    latent = keras.Input((None, None, width))
    first = layers.Concatenate()([latent, _residual(_residual(latent, width), width)])
    second = layers.Concatenate()([first, _residual(_residual(first, width), width)])
    return keras.Model(latent, layers.Conv2D(1, 1)(second), name=f"{name}_decoder")
