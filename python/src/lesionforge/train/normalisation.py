"""Batch normalisation for training on the CPU: one operation of TensorFlow instead of a dozen passes over the activations."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, over the last axis with both scale and offset, which learns by `FusedBatchNormV3`: the same to rounding."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The normalised activations, as Keras' own layer gives them; a frozen layer and one that judges are that layer."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        rows = tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        found, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=rows, scale=self.gamma.value, offset=self.beta.value, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        # The operation gives the variance of a population of which the batch is a sample.
        count = tf.cast(tf.shape(rows)[0], variance.dtype)
        for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * self.momentum + of_batch * (1 - self.momentum))
        return tf.reshape(found, tf.shape(inputs))


def with_fused_normalisation(network: keras.Model) -> keras.Model:
    """A copy of a network, with its weights and with what is frozen in it, whose batch normalisation is fused."""

    def copied(layer: keras.Layer) -> keras.Layer:
        kind = FusedBatchNormalization if isinstance(layer, keras.layers.BatchNormalization) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=copied)
    copy.set_weights(network.get_weights())
    return copy
