"""The generator: one encoder and one decoder per contrast, latents fused by maximum (Salem et al., IEEE Access 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lesionforge.synthesize.config import GeneratorConfig

if TYPE_CHECKING:
    import keras

LATENT_VARIANCE = "latent_variance"


def build_generator(config: GeneratorConfig) -> tuple[keras.Model, keras.Model]:
    """The network as (training model, inference model), which share their weights.

    Inputs are named by contrast, float32 [batch, x, y, slices * (1 + masks)]: of each slice, from below, the filled image (for
    ours coarsely painted), then the masks of the levels, 8 as published, 12 for ours. With shared slopes x and y are any
    multiples of 8, else both are the tile size. The inference model gives the contrasts in order, each [batch, x, y, 1],
    decoded from the fused latent. The training model gives named outputs: the decodings of every latent, and the variance
    between the latents [batch, width], averaged over space.
    """
    import keras
    from keras import layers, ops

    side = None if config.shared_slopes else config.tile_size
    channels = config.slices * config.slice_channels
    inputs = {name: keras.Input((side, side, channels), name=name) for name in config.contrasts}
    latents = {name: _encoder(inputs[name], config) for name in config.contrasts}
    every_latent = list(latents.values())
    fused = layers.Maximum()(every_latent) if len(every_latent) > 1 else every_latent[0]
    decoders = {name: _decoder(config, side, name) for name in config.contrasts}

    middle_image = config.neighbours * config.slice_channels
    outputs = {}
    for name, decoder in decoders.items():
        for source, latent in (latents | {"fused": fused}).items():
            image = decoder(latent)
            if config.own_levels:
                image = layers.Add()([image, inputs[name][..., middle_image : middle_image + 1]])
            # Keras tells losses apart by the name of the last layer, and a decoder is used several times. Errors are taken
            # in float32 whatever the precision inside.
            output = f"{name}_from_{source}"
            outputs[output] = layers.Identity(name=output, dtype="float32")(image)
    variance = ops.var(ops.stack([ops.cast(latent, "float32") for latent in every_latent]), axis=0)
    pooled = layers.GlobalAveragePooling2D(name=LATENT_VARIANCE, dtype="float32")(variance)
    training = keras.Model(inputs, outputs | {LATENT_VARIANCE: pooled})
    painted = [outputs[f"{name}_from_fused"] for name in config.contrasts]
    return training, keras.Model(list(inputs.values()), painted, name="generator")


def compile_for_training(training: keras.Model, config: GeneratorConfig) -> None:
    """Adam, a mean absolute error of weight 1 per reconstruction and the mean variance between the latents of weight 1.

    With sample weights an error is the weighted mean over the voxels.
    """
    import keras

    errors = {name: keras.losses.MeanAbsoluteError(reduction="mean_with_sample_weight") for name in config.reconstructions}
    # The target of the variance is 0, so that its absolute error is the variance itself.
    # Without XLA: it compiles anew for each shape of batch, and its steps measured slower on a CPU.
    training.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss=errors | {LATENT_VARIANCE: keras.losses.MeanAbsoluteError()},
        jit_compile=False,
    )


def _prelu(tensor: Any, config: GeneratorConfig) -> Any:
    from keras import layers

    return layers.PReLU(shared_axes=[1, 2] if config.shared_slopes else None)(tensor)


def _residual(tensor: Any, filters: int, config: GeneratorConfig) -> Any:
    """PReLU(conv3x3 + conv1x1), without batch normalisation."""
    from keras import layers

    wide = layers.Conv2D(filters, 3, padding="same")(tensor)
    return _prelu(layers.Add()([wide, layers.Conv2D(filters, 1)(tensor)]), config)


def _up(tensor: Any, filters: int) -> Any:
    from keras import layers

    return layers.Conv2DTranspose(filters, 2, strides=2)(tensor)


def _encoder(tensor: Any, config: GeneratorConfig) -> Any:
    from keras import layers

    width = config.width
    level_1 = _residual(tensor, width, config)
    level_2 = _residual(layers.MaxPooling2D()(level_1), 2 * width, config)
    level_3 = _residual(layers.MaxPooling2D()(level_2), 4 * width, config)
    bottom = _residual(layers.MaxPooling2D()(level_3), 8 * width, config)
    up_3 = _residual(_up(bottom, 4 * width), 4 * width, config)
    up_3 = _residual(_prelu(layers.Add()([up_3, level_3]), config), 4 * width, config)
    up_2 = _residual(_prelu(layers.Add()([_up(up_3, 2 * width), level_2]), config), 2 * width, config)
    up_1 = _prelu(layers.Add()([_up(up_2, width), level_1]), config)
    return _prelu(layers.Conv2D(width, 1)(up_1), config)


def _decoder(config: GeneratorConfig, side: int | None, name: str) -> keras.Model:
    import keras
    from keras import layers

    width = config.width
    latent = keras.Input((side, side, width))
    first = layers.Concatenate()([latent, _residual(_residual(latent, width, config), width, config)])
    second = layers.Concatenate()([first, _residual(_residual(first, width, config), width, config)])
    image = layers.Conv2D(1, 1)(second)
    return keras.Model(latent, _prelu(image, config) if config.output_prelu else image, name=f"{name}_decoder")
