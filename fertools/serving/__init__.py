"""Serve a model over HTTP: the Open Inference Protocol and a plain route for pictures. Extra ``serve``."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from fertools.errors import ConfigError, MissingExtraError
from fertools.serving.settings import Settings

__all__ = ["Settings", "import_uvicorn", "listen", "serve"]

_APP = "fertools.serving.app:from_environment"


def listen(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """Open a port; who connects waits for ``serve``.

    Arguments:
        host: address to listen on; 127.0.0.1 is reached from this machine alone.
        port: to listen on.

    Raises:
        ConfigError: the port is taken, say, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only if the socket itself says that it is TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot serve on {host} port {port}: {error.strerror}; try another --port or --host"
        ) from error
    return listening


def serve(settings: Settings, listening: socket.socket, *, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT; requests that have arrived by then are still answered.

    Arguments:
        settings: the model and the limits.
        listening: the port, as ``listen`` opens it; closed in the end.
        workers: number of processes, each with its own model.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    uvicorn = import_uvicorn()
    settings.to_environment()
    config = uvicorn.Config(
        _APP,
        factory=True,
        workers=workers,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # the address of the client is not used
        timeout_graceful_shutdown=30,
    )
    if workers == 1:
        with suppress(KeyboardInterrupt):  # uvicorn raises it again, once all is answered
            uvicorn.Server(config).run([listening])
        return
    with tempfile.TemporaryDirectory() as folder:
        # Workers share counters by files; prometheus_client reads this when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _run_workers(config, listening)


def import_uvicorn() -> ModuleType:
    """Import uvicorn. Raises MissingExtraError if it, or what it is to serve with, is not installed."""
    try:
        for name in ("fastapi", "prometheus_client", "python_multipart"):
            import_module(name)
        return import_module("uvicorn")
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "uvicorn", "serve") from error


def _run_workers(config: Any, listening: socket.socket) -> None:
    """Run uvicorn's worker processes until SIGTERM or SIGINT.

    A worker that was killed has not counted down the images that it held, so its count is removed.

    uvicorn's parent process keeps the listening socket open until the last worker has ended. Clients that
    connect after the workers have stopped accepting would wait until then, and be reset.
    """
    from prometheus_client.multiprocess import mark_process_dead
    from uvicorn.supervisors import Multiprocess

    class Workers(Multiprocess):
        def keep_subprocess_alive(self) -> None:
            before = list(self.processes)
            super().keep_subprocess_alive()
            for each in before:
                if each not in self.processes:
                    mark_process_dead(each.pid)  # type: ignore[no-untyped-call]

        def terminate_all(self) -> None:
            super().terminate_all()
            for each in self.sockets:
                each.close()

    Workers(config, sockets=[listening]).run()
