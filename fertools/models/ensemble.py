"""Several networks as one, whose answer is the weighted mean of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fertools.contract import IMAGE_SIZE
from fertools.errors import ConfigError

if TYPE_CHECKING:
    import keras

NAME = "ensemble"


def shares(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return the weights of ``count`` networks as shares that sum to 1; None weights them equally.

    Raises:
        ConfigError: there are fewer than two networks, or not one positive, finite weight for each.
    """
    if count < 2:
        raise ConfigError(f"an ensemble takes two networks or more, not {count}")
    weights = weights or (1.0,) * count
    if len(weights) != count:
        raise ConfigError(f"{len(weights)} weights for {count} networks: give one for each, in their order")
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(
                f"weight {weight:g}: must be positive; leave out a network that should not count"
            )
    return tuple(weight / sum(weights) for weight in weights)


def weighted_mean(networks: Sequence[keras.Model], shares: Sequence[float]) -> keras.Model:
    """Return one flat network over ``networks``, which are not changed.

    It contains the layers of all of them, those of the second as ``member2_...``, so whatever is done to a
    network (folding, quantizing, drawing) is done to each of them.

    Arguments:
        networks: any of ours.
        shares: weight of each, summing to 1.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    """
    import keras
    from keras import layers

    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")
    answers = []
    for number, (network, share) in enumerate(zip(networks, shares, strict=True), 1):
        copy = _copy(network, image, f"member{number}_")
        share_layer = layers.Rescaling(share, dtype="float32", name=f"member{number}_share")
        answers.append(share_layer(copy.outputs[0]))
    return keras.Model(image, layers.Add(dtype="float32", name="probabilities")(answers), name=NAME)


def under_policy(network: keras.Model) -> keras.Model:
    """A copy of an ensemble whose convolutions and dense layers compute under the current dtype policy.

    All else stays in float32, which is exact: the softmax of each member and their mean, above all.
    """
    import keras
    from keras import layers

    policy = keras.config.dtype_policy()

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, layers.Conv2D) or (
            isinstance(layer, layers.Dense) and layer.activation is not keras.activations.softmax
        ):
            config |= {"dtype": policy.name}
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy


def _copy(network: keras.Model, image: Any, prefix: str) -> keras.Model:
    """``network`` with its weights on another input, the names of its layers behind ``prefix``."""
    import keras

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"name": prefix + layer.name})

    flat = keras.Model(network.inputs, network.outputs)  # a Sequential would be cloned as one layer
    copy = keras.models.clone_model(flat, input_tensors=[image], clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy
