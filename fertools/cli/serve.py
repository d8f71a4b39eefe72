"""``fertools serve``."""

from __future__ import annotations

from typing import Any

import click

from fertools.cli.common import precision_option, provider_option, talk, views_option
from fertools.cli.photos import detector_option, min_confidence_option
from fertools.reading import MOST_PIXELS
from fertools.serving import Settings, import_uvicorn, listen, serve


@click.command()
@click.argument("model", required=False, type=click.Path())
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 accepts connections from other machines.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes, each with its own model.",
)
@precision_option
@provider_option
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads of onnxruntime per process.  [default: the processors that it may use]",
)
@views_option
@detector_option
@min_confidence_option
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=Settings.batch_size,
    show_default=True,
    help="Most images per run of the network.",
)
@click.option(
    "--max-delay",
    type=click.FloatRange(0, 60),
    default=Settings.max_delay,
    show_default=True,
    metavar="SECONDS",
    help="How long an image waits for others to share a run with.",
)
@click.option(
    "--queue-size",
    type=click.IntRange(1),
    default=Settings.queue_size,
    show_default=True,
    help="Most images in a process at the same time; further requests are answered 503.",
)
@click.option(
    "--max-body",
    type=click.IntRange(1),
    default=Settings.max_body,
    show_default=True,
    metavar="BYTES",
    help="Largest body of a request.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1, MOST_PIXELS),
    default=Settings.max_pixels,
    show_default=True,
    metavar="N",
    help="Largest picture.",
)
def command(model: str | None, host: str, port: int, workers: int, **options: Any) -> None:
    """Serve a model over HTTP.

    MODEL is an export folder, an .onnx or .ort file, or a model that ships: sequential (the default) or
    compact. The server speaks the Open Inference Protocol v2, so tritonclient.http works; POST /predict takes
    a picture, /metrics is for Prometheus, and / lists all routes. Requests are batched as they arrive. On
    SIGTERM it answers the requests that it has, then ends.
    """
    import_uvicorn()
    settings = Settings(model, **options)
    # Each process opens its own; what cannot be opened is reported once, here.
    opened, _ = settings.predictor(), settings.finder()
    listening = listen(host, port)
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    talk(
        f"Serving {opened.info.name} {opened.info.precision} on {place}/, {opened.provider}; Ctrl-C ends it."
    )
    talk(f"Next: curl --data-binary @face.jpg {place}/predict")
    del opened
    serve(settings, listening, workers=workers)
