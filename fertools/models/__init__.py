"""The networks, by name.

A network is a module with a ``build()`` function and one line in ``BUILDERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fertools.errors import ConfigError
from fertools.models import compact, sequential

if TYPE_CHECKING:
    import keras

__all__ = ["BUILDERS", "build"]

#: Name -> function that builds the network, float32 (batch, 48, 48, 1) in 0..1 -> (batch, 7).
BUILDERS: dict[str, Callable[[], keras.Model]] = {
    "sequential": sequential.build,
    "compact": compact.build,
}


def build(name: str) -> keras.Model:
    """Build the network ``name`` with fresh weights. Raises ConfigError for an unknown name."""
    if name not in BUILDERS:
        raise ConfigError(f"unknown model {name!r}: choose one of {', '.join(BUILDERS)}")
    return BUILDERS[name]()
