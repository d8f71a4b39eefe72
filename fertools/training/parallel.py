"""Data parallelism: each batch is split over several devices, which Keras supports on JAX only.

With several processes (docs/scaling.md), each trains the whole run and writes a run folder of its own. They
differ in the part of each batch that they compute, and the folders are equal in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import keras
import numpy as np

from fertools.errors import ConfigError, RunError


@contextmanager
def split_over(devices: str, *, here: bool = False) -> Iterator[None]:
    """Split the batches of networks that are built and run in the context.

    Arguments:
        devices: "one" for no split, "all" for the devices of all processes.
        here: of this process alone.
    """
    if devices == "one" or keras.backend.backend() != "jax":
        yield
        return
    jax = import_module("jax")
    found = jax.local_devices() if here else jax.devices()
    with keras.distribution.DataParallel(devices=found, auto_shard_dataset=False).scope():
        yield


def check_split(batch_size: int) -> None:
    """Raise ConfigError unless ``batch_size`` images can be split evenly over the current devices."""
    distribution = keras.distribution.distribution()
    count = 1 if distribution is None else distribution.device_mesh.devices.size
    if batch_size % count:
        raise ConfigError(
            f"batch_size={batch_size}: must be a multiple of the {count} devices; change it, or use"
            " --devices one"
        )


def own_part(batch_size: int) -> slice:
    """Return the part of a batch that this process computes: all of it, or the share of its devices."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return slice(None)
    size = batch_size // distribution.num_processes
    return slice(distribution.data_shard_id * size, (distribution.data_shard_id + 1) * size)


def check_agreement(told: str) -> None:
    """Raise RunError unless all processes have the same configuration: they would silently mix their runs."""
    distribution = keras.distribution.distribution()
    if distribution is None or distribution.num_processes == 1:
        return
    digest = np.frombuffer(hashlib.sha256(told.encode()).digest(), np.uint8)
    everyones = import_module("jax.experimental.multihost_utils").process_allgather(digest)
    if (everyones != digest).any():
        raise RunError(
            "the processes have different settings: give all the same data and options, and to resume,"
            " copy the run folder with the most epochs over the others"
        )
