"""Loading the two networks of a cascade, as its card says they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionforge import nets
from lesionforge.cascade.settings import NETWORKS, CascadeConfig
from lesionforge.errors import InputError
from lesionforge.train.lean import for_inference
from lesionforge.train.network import build_network

if TYPE_CHECKING:
    import keras


def load_cascade(folder: Path, config: CascadeConfig, contrasts: Sequence[str]) -> dict[str, keras.Model]:
    """Both networks of a model folder by name; `config` and `contrasts` are those of its card, which `read_cascade_card` checked.

    Raises InputError when one cannot be loaded, or has other inputs or layers than the network that the card names.
    """
    expected = _layers(build_network(config.network, contrasts))
    models = {}
    for name in NETWORKS:
        models[name] = nets.load_model(folder, name)
        if _layers(models[name]) != expected:
            raise InputError(
                f"{folder / f'{name}.keras'}: is not the network {config.network} of {', '.join(contrasts)} that {nets.CARD} "
                "names; copy the whole model folder again, or train it anew if another version made it"
            )
    return models


def load_judges(folder: Path, config: CascadeConfig, contrasts: Sequence[str]) -> dict[str, keras.Model]:
    """`load_cascade` for inference alone: networks that give the same probabilities, to rounding, in less time."""
    return {name: for_inference(model, config.network) for name, model in load_cascade(folder, config, contrasts).items()}


def _layers(network: keras.Model) -> tuple[Any, ...]:
    """Input shape, and kind and shapes of the weights of each layer; layers without a given name are numbered anew each time."""
    kinds = [(type(layer).__name__, [tuple(weight.shape) for weight in layer.weights]) for layer in network.layers]
    return network.input_shape, kinds
