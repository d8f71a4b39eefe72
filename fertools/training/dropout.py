"""Training with less dropout than a network was published with; the saved network keeps its rates."""

from __future__ import annotations

import keras

from fertools.errors import ConfigError


def scale_dropout(network: keras.Model, scale: float) -> None:
    """Multiply the rates of ``network``'s dropout layers by ``scale``, 0..1.

    Raises ConfigError if ``scale`` lies between 0 and 1 and there is none. At 0 and 1 there need not be: such
    a network drops nothing, as it was published.
    """
    found = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    if 0 < scale < 1 and not found:
        raise ConfigError(f"dropout_scale={scale:g}: {network.name} has no dropout; leave it out")
    for layer in found:
        layer.rate *= scale
