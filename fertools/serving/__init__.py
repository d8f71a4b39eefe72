"""Serve a model over HTTP: the Open Inference Protocol and a plain route for pictures. Extra ``serve``."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from types import ModuleType
from typing import Any

from fertools.errors import ConfigError, MissingExtraError
from fertools.serving.settings import Settings

__all__ = ["Settings", "import_uvicorn", "serve"]

_APP = "fertools.serving.app:from_environment"


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT; requests that have arrived by then are still answered.

    Arguments:
        settings: the model and the limits.
        host: address to listen on; 127.0.0.1 is reached from this machine alone.
        port: to listen on.
        workers: number of processes, each with its own model.

    Raises:
        MissingExtraError: the extra is not installed.
        ConfigError: uvicorn could not start, e.g. because the port is taken; it has logged why.
    """
    uvicorn = import_uvicorn()
    settings.to_environment()
    options: dict[str, Any] = {
        "factory": True,
        "host": host,
        "port": port,
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "proxy_headers": False,  # the address of the client is not used
        "timeout_graceful_shutdown": 30,
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            if workers == 1:
                uvicorn.run(_APP, **options)
            else:  # workers share counters by files; prometheus_client reads this when it is imported
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
                _run_workers(uvicorn.Config(_APP, workers=workers, **options))
        except SystemExit as error:
            if error.code:
                raise ConfigError(
                    f"cannot serve on {host} port {port}: see above; try another --port"
                ) from error


def import_uvicorn() -> ModuleType:
    """Import uvicorn. Raises MissingExtraError if it, or what it is to serve with, is not installed."""
    try:
        for name in ("fastapi", "prometheus_client", "python_multipart"):
            import_module(name)
        return import_module("uvicorn")
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "uvicorn", "serve") from error


def _run_workers(config: Any) -> None:
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

    Workers(config, sockets=[config.bind_socket()]).run()
