"""Exact inference of the network `nicmslesions` without what pooling drops.

Along an axis pooling makes 5 voxels of 11 and 2 of 5: the last one is dropped. So the convolution before each pooling need not
compute it, which spares a quarter of the first such convolution and half of the second, and batch normalisation becomes part
of the convolution before it. The same numbers are added in another order, so that probabilities agree to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesionforge.train.exact import folded

if TYPE_CHECKING:
    import keras
    import numpy as np


def for_inference(network: keras.Model, architecture: str) -> keras.Model:
    """What gives the probabilities of a network of this architecture, to rounding, in less time; the network itself if none is.

    Weights are copied: ask again once they have changed.
    """
    return lean(network) if architecture == "nicmslesions" else network


def lean(network: keras.Model) -> keras.Model:
    """What gives the same probabilities [n, 2] for patches [n, 11, 11, 11, contrast] as a network `nicmslesions`."""
    from keras import Input, Model, layers

    own = {layer.name: layer for layer in network.layers}
    weights: dict[str, list[np.ndarray]] = {}
    flow = patch = Input(network.input_shape[1:])
    for block in (1, 2):
        for part in (1, 2):
            name, before_pooling = f"conv{block}_{part}", part == 2
            convolution, slopes = own[name], own[f"prelu_{name}"].get_weights()[0]
            if before_pooling:
                # As `same` pads, but not behind.
                flow = layers.ZeroPadding3D(((1, 0),) * 3)(flow)
                slopes = slopes[:-1, :-1, :-1]
            # Zeros, as random weights would be drawn from what a training goes on to draw from.
            padding = "valid" if before_pooling else "same"
            flow = layers.Conv3D(convolution.filters, 3, padding=padding, kernel_initializer="zeros", name=name)(flow)
            flow = layers.PReLU(name=f"prelu_{name}")(flow)
            weights[name] = [*folded(convolution, own[f"bn_{block}_{part}"])]
            weights[f"prelu_{name}"] = [slopes]
        flow = layers.MaxPooling3D(2)(flow)
    flow = layers.Flatten()(flow)
    for layer in network.layers[network.layers.index(own["d1"]) :]:
        if layer.weights:
            kernel = {"kernel_initializer": "zeros"} if isinstance(layer, layers.Dense) else {}
            flow = type(layer).from_config(layer.get_config() | kernel)(flow)
            weights[layer.name] = layer.get_weights()
    model = Model(patch, flow)
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    return model
