"""The HTTP service: the Open Inference Protocol, a plain route for pictures, metrics.

``POST /v2/models/.../infer``, which carries the load, is bare ASGI in front of FastAPI, whose layers would
cost more than the protocol. All other routes are FastAPI's. No picture is kept or logged.
"""

from __future__ import annotations

import asyncio
import html
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from io import BytesIO
from time import perf_counter
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from fertools import __version__
from fertools.errors import FertoolsError, ImageError
from fertools.faces import Face, FaceFinder
from fertools.faces.describing import describe
from fertools.runtime import Prediction, to_face
from fertools.runtime.decoding import decoded_pixels, quietly
from fertools.serving import protocol, schema
from fertools.serving.batching import Batcher, FullError, NetworkError
from fertools.serving.protocol import RefusedError
from fertools.serving.settings import Settings

#: Seconds after which a refused client may try again.
RETRY: Final = "1"

#: Seconds that a body may take to arrive.
PATIENCE: Final = 30.0

_LOG = logging.getLogger(__name__)

_REGISTRY = CollectorRegistry()
_REQUESTS = Counter("fertools_requests", "Requests for predictions.", ("route", "status"), registry=_REGISTRY)
_SECONDS = Histogram(
    "fertools_request_seconds",
    "Seconds from the head of a request for predictions to its answer.",
    ("route",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=_REGISTRY,
)
_BATCHES = Histogram(
    "fertools_batch_images",
    "Images per run of the network.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=_REGISTRY,
)
_HELD = Gauge(
    "fertools_held_images", "Images being worked on.", registry=_REGISTRY, multiprocess_mode="livesum"
)


class Service:
    """A model, the requests that wait for it, and whether more are accepted."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.predictor = settings.predictor()
        self.finder = settings.finder()
        self.name = self.predictor.info.name
        self.batcher = Batcher(
            self.predictor.probabilities,
            batch_size=settings.batch_size,
            max_delay=settings.max_delay,
            capacity=settings.queue_size,
            observe=_BATCHES.observe,
            watch=_HELD.set,
        )
        self.decoding = ThreadPoolExecutor(1, thread_name_prefix="fertools-decoding")
        #: Set by SIGTERM: this process will close its connections soon.
        self.draining = False

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """The lifetime: from before the first request until after the last."""
        self.batcher.start()
        self._drain_on_termination()
        yield
        await self.batcher.close()
        self.decoding.shutdown()

    def _drain_on_termination(self) -> None:
        """On SIGTERM, keep answering and ask clients to close their connections, before uvicorn closes them.

        uvicorn closes an idle connection at once, while the next request may be on its way.
        """
        usual = signal.getsignal(signal.SIGTERM)
        if not callable(usual):  # not under uvicorn
            return
        loop = asyncio.get_running_loop()

        def drain(number: int, frame: Any) -> None:
            self.draining = True
            loop.call_soon_threadsafe(loop.call_later, self.settings.drain, usual, number, frame)

        signal.signal(signal.SIGTERM, drain)

    @property
    def farewell(self) -> dict[str, str]:
        """Return the headers that ask the client to close its connection, if this process is ending."""
        return {"connection": "close"} if self.draining else {}

    async def body(self, receive: Callable[[], Any], headers: dict[bytes, bytes]) -> bytes:
        """Read the body of a request. Raises RefusedError if it is too large or does not arrive."""
        limit = self.settings.max_body
        announced = headers.get(b"content-length")
        if announced is not None and int(announced) > limit:
            raise RefusedError(f"the body has {int(announced)} bytes; at most {limit} are taken", 413)
        parts, size, more = [], 0, True
        async with asyncio.timeout(PATIENCE):  # uvicorn itself waits without limit, also for the first byte
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError("the client has gone", 499)
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise RefusedError(f"the body has more than {limit} bytes", 413)
                more = message.get("more_body", False)
        body: bytes = b"".join(parts)
        if encoding := headers.get(b"content-encoding"):
            return protocol.inflate(body, encoding.decode("latin-1"), limit)
        return body

    def check_name(self, name: str, version: str | None) -> None:
        """Raise RefusedError unless this is the model that is served."""
        if name != self.name:
            raise RefusedError(f"there is no model {name}, only {self.name}", 404)
        if version not in (None, protocol.VERSION):
            raise RefusedError(f"there is no version {version} of {name}, only {protocol.VERSION}", 404)


class Infer:
    """``POST /v2/models/{model}/infer`` as middleware: it is called for every image of a busy camera."""

    PATH: Final = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service
        self._observe = _SECONDS.labels("infer").observe
        self._good = _REQUESTS.labels("infer", "200").inc

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on to the other routes."""
        asked = self.PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if asked is None:
            await self.app(scope, receive, send)
            return
        begin = perf_counter()
        service, batcher = self.service, self.service.batcher
        held = 0
        try:
            batcher.admit()
            held = 1
            if scope["method"] != "POST":
                raise HTTPException(405, headers={"Allow": "POST"})
            service.check_name(asked["model"], asked["version"])
            headers = dict(scope["headers"])
            length = headers.get(protocol.LENGTH.encode())
            body = await service.body(receive, headers)
            request = protocol.parse(body, None if length is None else length.decode("latin-1"))
            more = len(request.faces) - 1
            if more >= batcher.capacity:
                raise RefusedError(f"{more + 1} images; at most {batcher.capacity} are taken at once", 413)
            batcher.admit(more)
            held += more
            rows = await batcher.submit(request.faces)
            answer, size = protocol.respond(service.name, request, rows)
            kind = b"application/json" if size is None else b"application/octet-stream"
            told = [(b"content-type", kind), (b"content-length", b"%d" % len(answer))]
            if size is not None:
                told.append((protocol.LENGTH.encode(), b"%d" % size))
            if service.draining:
                told.append((b"connection", b"close"))
            self._good()
        except Exception as error:
            refusal = _refusal(error, service)
            _REQUESTS.labels("infer", str(refusal.status_code)).inc()
            await refusal(scope, receive, send)
            return
        finally:
            batcher.release(held)
            self._observe(perf_counter() - begin)
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": answer})


def create(settings: Settings) -> FastAPI:
    """The ASGI application. Raises as ``Predictor`` and ``FaceFinder`` do."""
    service = Service(settings)
    app = FastAPI(
        title="fertools",
        version=__version__,
        summary=f"Facial expressions by {service.predictor.info.name} {service.predictor.info.precision}",
        lifespan=service.running,
        docs_url=None,  # FastAPI's own pages load scripts from other servers
        redoc_url=None,
    )
    app.state.service = service
    for error in (FertoolsError, RequestValidationError, HTTPException):
        app.add_exception_handler(error, lambda request, raised: _refusal(raised, service))
    app.add_middleware(Infer, service=service)
    app.include_router(_protocol(service))

    @app.post(
        "/predict",
        summary="The expression on a picture",
        description="Send the file as the body (curl --data-binary @face.jpg) or as a form's part `file`"
        " (curl -F file=@face.jpg). It must show one face, cropped, and the answer is label, confidence and"
        " probabilities. With ?find_faces=1 it is any photo, and the answer is the list of its faces, each"
        " with these, the box and what the detector says.",
        response_model=schema.Prediction | schema.Faces,
        responses=schema.REFUSALS,
        openapi_extra={"requestBody": schema.PICTURE},
        tags=["For people"],
    )
    async def predict(request: Request, find_faces: bool = False) -> JSONResponse:
        return await _predict(request, find_faces, service)

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response, tags=["For operators"])
    async def metrics() -> Response:
        registry = _REGISTRY
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # several workers
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()))

    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document["paths"].setdefault("/v2/models/{model}/infer", {"post": schema.INFER})
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _protocol(service: Service) -> APIRouter:
    """The Open Inference Protocol, without what ``Infer`` answers."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], responses={"4XX": schema.ERROR})

    @router.get("", summary="Name, version and extensions of the server")
    async def server() -> dict[str, Any]:
        return protocol.SERVER

    @router.get("/health/live", summary="Whether the server is alive")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Whether the server takes requests", responses=schema.ENDING)
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": not service.draining}, 503 if service.draining else 200)

    @router.get("/models/{model}", summary="Inputs and outputs of the model")
    @router.get("/models/{model}/versions/{version}", include_in_schema=False)
    async def model_metadata(model: str, version: str | None = None) -> dict[str, Any]:
        service.check_name(model, version)
        return protocol.metadata(model)

    @router.get("/models/{model}/ready", summary="Whether the model is loaded", responses=schema.ENDING)
    @router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(model: str, version: str | None = None) -> JSONResponse:
        service.check_name(model, version)
        return JSONResponse({"name": model, "ready": not service.draining}, 503 if service.draining else 200)

    return router


def from_environment() -> FastAPI:
    """Create the application of a worker, as configured by ``fertools.serving.serve``."""
    return create(Settings.from_environment())


def _refusal(error: Exception, service: Service) -> JSONResponse:
    """Return the answer to a failed request, whatever the error; one that nobody foresaw is logged."""
    headers, reason = service.farewell, str(error)
    if isinstance(error, RefusedError):
        status = error.status
    elif isinstance(error, FullError):
        status, headers = 503, headers | {"retry-after": RETRY}
    elif isinstance(error, ImageError):
        status = 422
    elif isinstance(error, TimeoutError):
        status, reason = 408, f"the body did not arrive within {PATIENCE:.0f} s"
    elif isinstance(error, HTTPException):
        headers = headers | dict(error.headers or {})
        status, reason = error.status_code, str(error.detail)
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        status, reason = 400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    elif isinstance(error, NetworkError):
        status = 500
    else:
        _LOG.error("a request failed", exc_info=error)
        status, reason = 500, "the server failed: its log says why"
    reason = reason.encode(errors="replace").decode()  # may quote half a surrogate pair of the request
    return JSONResponse({"error": reason}, status, headers)


async def _predict(request: Request, find_faces: bool, service: Service) -> JSONResponse:
    """Answer ``POST /predict`` and count it."""
    begin, batcher = perf_counter(), service.batcher
    status = 500  # until there is an answer
    held = 0
    try:
        batcher.admit()
        held = 1
        _check_query(request)
        picture = await _picture(request, service)
        if find_faces and service.finder is None:
            raise RefusedError("find_faces needs OpenCV here: pip install 'fertools[faces]'", 501)
        finder = service.finder if find_faces else None
        crops, found = await asyncio.get_running_loop().run_in_executor(
            service.decoding, _faces, picture, finder, service.settings.max_pixels
        )
        more = max(0, len(crops) - 1)
        if more >= batcher.capacity:  # waiting would not help
            raise RefusedError(f"{more + 1} faces; at most {batcher.capacity} are taken at once", 413)
        batcher.admit(more)
        held += more
        rows = (await batcher.submit(crops)).tolist() if len(crops) else []
        predictor = service.predictor
        predictions = [Prediction.of(predictor.labels, row) for row in rows]
        if find_faces:
            faces = zip(found, predictions, strict=True)
            said = {"faces": [describe(face, prediction, predictor.info) for face, prediction in faces]}
        else:
            said = predictions[0].to_dict()
        status = 200
        return JSONResponse(said, headers=service.farewell)
    except Exception as error:
        refusal = _refusal(error, service)
        status = refusal.status_code
        return refusal
    finally:
        batcher.release(held)
        _REQUESTS.labels("predict", str(status)).inc()
        _SECONDS.labels("predict").observe(perf_counter() - begin)


def _check_query(request: Request) -> None:
    """Raise RefusedError if there is a parameter that would be ignored."""
    for name in request.query_params:
        if name != "find_faces":
            raise RefusedError(f"there is no parameter {name}, only find_faces")


async def _picture(request: Request, service: Service) -> bytes:
    """Return the picture of a request, from its body or a form."""
    headers = dict(request.scope["headers"])
    body = await service.body(request.receive, headers)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):

        async def whole() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async with Request(request.scope, whole).form(max_files=1, max_fields=8) as form:
            file = next((value for value in form.values() if isinstance(value, UploadFile)), None)
            if file is None:
                raise RefusedError("the form has no file")
            body = await file.read()
    if not body:
        raise RefusedError("the body is empty: send a picture")
    return body


def _faces(picture: bytes, finder: FaceFinder | None, max_pixels: int) -> tuple[Any, list[Face]]:
    """Return the faces of a picture, uint8 (n, 48, 48), and where they were found.

    Without a finder the picture is the face. Raises ImageError and RefusedError.
    """
    try:
        with quietly(), Image.open(BytesIO(picture)) as opened:  # only the header is read
            pixels = decoded_pixels(opened)
    except Image.DecompressionBombError as error:
        raise RefusedError(f"too many pixels; at most {max_pixels:,} are taken", 413) from error
    except Exception as error:  # decoders raise all kinds of errors on broken files
        raise ImageError("not an image file that Pillow can read") from error
    if pixels > max_pixels:
        raise RefusedError(f"{pixels:,} pixels; at most {max_pixels:,} are taken", 413)
    if finder is None:
        return to_face(picture)[None], []
    found = finder.find(picture)
    return np.stack([face.crop for face in found]) if found else [], found


def _page(document: dict[str, Any]) -> str:
    """Render the OpenAPI document as a page that loads nothing else."""
    parts = []
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            head = f"{method.upper()} {path}"
            text = told.get("description") or ""
            parts.append(
                f"<h2><code>{html.escape(head)}</code></h2><p>{html.escape(told.get('summary', ''))}. "
                f"{html.escape(text)}</p>"
            )
    info = document["info"]
    title = html.escape(f"{info['title']} {info['version']}: {info['summary']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:1rem/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "h2{font-size:1rem;margin:1.5rem 0 0}p{margin:.25rem 0}</style>"
        f'<h1>{title}</h1><p>For programs: <a href="/openapi.json">openapi.json</a></p>'
        f"{''.join(parts)}</html>"
    )
