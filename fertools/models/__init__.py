"""The networks, by name.

A network is a module that builds it and states the facts about it, and one line in ``NETWORKS``.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from fertools.errors import ConfigError, ModelError
from fertools.models import cnn3, compact, inception_resnet, mlp, resnet, sequential, shallow, transfer
from fertools.models.network import Network, Published

if TYPE_CHECKING:
    import keras

__all__ = ["IMAGENET", "NETWORKS", "Network", "Published", "build", "build_pretrained", "find"]

#: Weights that are not a file of ours.
IMAGENET = "imagenet"

#: Name -> network.
NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        sequential.NETWORK,
        *compact.NETWORKS,
        *mlp.NETWORKS,
        *cnn3.NETWORKS,
        shallow.NETWORK,
        *resnet.NETWORKS,
        inception_resnet.NETWORK,
        *transfer.NETWORKS,
    )
}


def find(name: str) -> Network:
    """Return the network ``name``. Raises ConfigError for an unknown name."""
    if name not in NETWORKS:
        raise ConfigError(f"unknown model {name!r}: choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def build(name: str) -> keras.Model:
    """Build the network ``name`` with fresh weights. Raises ConfigError for an unknown name."""
    return find(name).build()


def build_pretrained(name: str, weights: str = IMAGENET) -> keras.Model:
    """Build the network ``name`` on ImageNet's weights, fresh ones above them.

    Arguments:
        name: one of ``NETWORKS``.
        weights: "imagenet", which Keras has in its cache or downloads, or the ``.h5`` file.

    Raises:
        ConfigError: the network is unknown or has no such weights.
        ModelError: the weights are not available.
    """
    pretrained = find(name).pretrained
    if pretrained is None:
        having = ", ".join(network.name for network in NETWORKS.values() if network.pretrained)
        raise ConfigError(f"weights={weights}: {name} has none of ImageNet; {having} have")
    try:
        with redirect_stdout(sys.stderr):  # where Keras tells of a download
            return pretrained(weights)
    except Exception as error:  # Keras raises nothing more special
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"weights={weights}: cannot be had for {name} ({reason}); train with weights none, or a file"
        ) from error
