"""The Open Inference Protocol, version 2, as far as a model with one input and one output needs it.

Messages as in https://github.com/kserve/open-inference-protocol and, for binary tensors, in Triton's
extension_binary_data.md: a JSON document, whose length is in a header, followed by the bytes of the tensors.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fertools import __version__
from fertools.contract import IMAGE_SIZE, INPUT_NAME, LABELS, OUTPUT_NAME
from fertools.errors import FertoolsError

#: Header with the length of the JSON document in front of binary tensors; absent without binary tensors.
LENGTH: Final = "inference-header-content-length"

#: The only version of the served model.
VERSION: Final = "1"

SERVER: Final = {"name": "fertools", "version": __version__, "extensions": ["binary_tensor_data"]}

_IMAGE: Final = IMAGE_SIZE * IMAGE_SIZE


class RefusedError(FertoolsError):
    """A request that cannot be answered; ``status`` is the HTTP status."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request for predictions."""

    #: uint8 (n, 48, 48), n at least 1.
    faces: Any
    #: The client's name of the request, returned with the answer.
    id: str | None
    #: Whether the answer is wanted as bytes.
    binary: bool


def metadata(name: str) -> dict[str, Any]:
    """Return the metadata of the model: its input and output."""
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, IMAGE_SIZE, IMAGE_SIZE, 1]}],
        "outputs": [{"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, len(LABELS)]}],
    }


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Unpack a compressed body ("gzip" or "deflate") to at most ``limit`` bytes. Raises RefusedError."""
    if encoding not in ("gzip", "deflate"):
        raise RefusedError(f"Content-Encoding {encoding}: send gzip, deflate or plain bytes", 415)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header
    try:
        plain = unpacker.decompress(body, limit)
    except zlib.error as error:
        raise RefusedError(f"the body is no {encoding}: {error}") from error
    if unpacker.unconsumed_tail:
        raise RefusedError(f"the body unpacks to more than {limit} bytes", 413)
    if not unpacker.eof:
        raise RefusedError(f"the {encoding} body is cut short")
    return plain


def parse(body: bytes, length: str | None) -> Request:
    """Read a request.

    Arguments:
        body: what the client sent.
        length: the header ``LENGTH``, None if it was not there.

    Raises:
        RefusedError: the request is not of the protocol or not for this model.
    """
    size = len(body)
    if length is not None:
        # Python refuses to read thousands of digits.
        if not length.isdecimal() or len(length) > 20 or int(length) > size:
            raise RefusedError(f"the header {LENGTH} must be a length within the body, not {length}")
        size = int(length)
    try:
        document = json.loads(body[:size])
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the body is not JSON: {error}") from error
    try:
        (tensor,) = document["inputs"]
        name, kind, shape = tensor["name"], tensor["datatype"], tensor["shape"]
    except (TypeError, KeyError, ValueError) as error:
        raise RefusedError("the request must have one input with name, datatype and shape") from error
    if name != INPUT_NAME or kind != "UINT8":
        raise RefusedError(f"the input must be {INPUT_NAME} of UINT8, not {name} of {kind}")
    if not _is_shape(shape):
        raise RefusedError(f"{INPUT_NAME} must have the shape [n, 48, 48, 1] with n at least 1, not {shape}")
    count = shape[0]
    if count > len(body):  # perhaps of so many digits that Python refuses to write their number of bytes
        raise RefusedError("the shape tells more images than the body has bytes")
    parameters = tensor.get("parameters")
    if isinstance(parameters, dict) and (sent := parameters.get("binary_data_size")) is not None:
        if type(sent) is not int or sent != count * _IMAGE or len(body) - size != sent:
            there = len(body) - size
            raise RefusedError(f"{count} images are {count * _IMAGE} bytes, not {sent} told and {there} sent")
        faces = np.frombuffer(body, np.uint8, sent, size)
    else:
        faces = _pixels(tensor.get("data"), count * _IMAGE)
    request_id = document.get("id")
    return Request(
        faces.reshape(count, IMAGE_SIZE, IMAGE_SIZE),
        request_id if isinstance(request_id, str) else None,
        _wants_bytes(document),
    )


def respond(name: str, request: Request, rows: Any) -> tuple[bytes, int | None]:
    """Return the answer's body, and the length of its JSON document if binary data follows it.

    Arguments:
        name: of the model.
        request: that is answered.
        rows: probabilities, float32 (n, 7).
    """
    document: dict[str, Any] = {"model_name": name, "model_version": VERSION}
    if request.id is not None:
        document["id"] = request.id
    tensor: dict[str, Any] = {"name": OUTPUT_NAME, "datatype": "FP32", "shape": [*rows.shape]}
    document["outputs"] = [tensor]
    if not request.binary:
        tensor["data"] = rows.reshape(-1).tolist()
        return json.dumps(document).encode(), None
    data = np.ascontiguousarray(rows, "<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps(document).encode()
    return head + data, len(head)


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and shape[1:] in ([IMAGE_SIZE, IMAGE_SIZE, 1], [IMAGE_SIZE, IMAGE_SIZE])
        and type(shape[0]) is int
        and shape[0] > 0
    )


def _pixels(values: Any, count: int) -> Any:
    """Return the pixels of a JSON list, flat or nested."""
    if values is None:
        raise RefusedError(f"{INPUT_NAME} has neither data nor binary data")
    wanted = f"data must be {count} whole numbers, as the shape tells, in lists of equal lengths"
    try:
        # Not the dtype that fits: one long text among many numbers would make all as long, terabytes of it.
        pixels = np.asarray(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise RefusedError(wanted) from error
    if pixels.size != count:
        raise RefusedError(wanted)
    if not (pixels.min() >= 0 and pixels.max() <= 255):  # so that NaN is neither
        raise RefusedError("data must be pixels, 0..255")
    levels = pixels.astype(np.uint8)
    if (levels != pixels).any():
        raise RefusedError(wanted)
    return levels


def _wants_bytes(document: dict[str, Any]) -> bool:
    outputs, parameters = document.get("outputs"), document.get("parameters")
    everything = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    if not outputs:
        return everything
    try:
        (output,) = outputs
        name, wishes = output["name"], output.get("parameters") or {}
        binary, classes = wishes.get("binary_data", everything), wishes.get("classification")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise RefusedError(f"the outputs asked for must be {OUTPUT_NAME} alone") from error
    if name != OUTPUT_NAME:
        raise RefusedError(f"there is no output {name}, only {OUTPUT_NAME}")
    if classes is not None:
        raise RefusedError("the classification extension is not offered: see /predict for labels")
    return binary is True
