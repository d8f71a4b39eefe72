"""Serve a model over HTTP: the Open Inference Protocol and a plain route for pictures. Extra ``serve``."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module

from fertools.errors import ConfigError, MissingExtraError
from fertools.serving.settings import Settings

__all__ = ["Settings", "serve"]


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
    try:
        for name in ("fastapi", "prometheus_client", "python_multipart"):
            import_module(name)
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "uvicorn", "serve") from error
    settings.to_environment()
    with tempfile.TemporaryDirectory() as folder:
        if (
            workers > 1
        ):  # workers share their counters by files; prometheus_client reads this when it is imported
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            uvicorn.run(
                "fertools.serving.app:from_environment",
                factory=True,
                host=host,
                port=port,
                workers=workers,
                access_log=False,
                log_level="warning",
                server_header=False,
                proxy_headers=False,  # the address of the client is not used
                timeout_graceful_shutdown=30,
            )
        except SystemExit as error:
            if error.code:
                raise ConfigError(
                    f"cannot serve on {host} port {port}: see above; try another --port"
                ) from error
