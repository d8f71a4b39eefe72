"""The Ray cluster that scoring and training run on: extra ``ray``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from fertools.errors import ClusterError, MissingExtraError

#: Where work can be done: on this machine, or on a Ray cluster. The first is the default.
ENGINES: Final = ("local", "ray")

#: Environment variables for Ray: no telemetry, and no messages on the terminal.
QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@contextmanager
def connected(address: str | None = None) -> Iterator[ModuleType]:
    """Yield Ray, connected to a cluster for the block; an existing connection is used and kept.

    Arguments:
        address: the cluster's, e.g. ``"auto"`` on one of its machines, or ``"10.0.0.1:6379"``; None for
            ``$RAY_ADDRESS``, else a cluster on this machine, which ends with the block.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: there is no such cluster, or it cannot do the work.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "ray") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {_first(error)}") from error
    try:
        yield ray
    except RayTaskError as error:
        raise ClusterError(f"a worker of Ray failed: {_first(error.cause)}") from error
    except RayError as error:
        raise ClusterError(f"Ray failed: {_first(error)}") from error
    finally:
        if ours:
            ray.shutdown()


def _first(error: BaseException) -> str:
    """Return the error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
