"""The metadata of an exported model: a JSON document inside the ONNX file, and a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeGuard

from fertools.contract import BATCH_NAME, IMAGE_SIZE, INPUT_NAME, LABELS, PIXEL_MAX
from fertools.errors import ModelError

#: Version of the JSON document. Any change of its fields, additions too, makes a new one.
SCHEMA_VERSION: Final = 1

#: Key of the document in the ONNX file's ``metadata_props``.
METADATA_KEY: Final = "fertools"

#: Values of ``ModelInfo.precision``.
PRECISIONS: Final = ("float32", "int8")

#: The input of the graph, as written into every file.
INPUT_CONTRACT: Final[Mapping[str, Any]] = {
    "name": INPUT_NAME,
    "dtype": "uint8",
    "shape": [BATCH_NAME, IMAGE_SIZE, IMAGE_SIZE, 1],
    "layout": "NHWC",
    "color": "grey",
    "range": [0, int(PIXEL_MAX)],
}

_OBJECTS = ("accuracy", "data", "versions")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The facts about a model that are inside its file.

    Raises:
        ModelError: a field makes no sense.
    """

    #: The architecture, e.g. ``"sequential"``.
    name: str
    #: ``"float32"`` or ``"int8"``.
    precision: str
    #: Class names in the order of the outputs.
    labels: tuple[str, ...] = LABELS
    #: Number of parameters of the trained network.
    parameters: int
    #: Measured accuracy, 0 to 1, and its protocol: ``{"split": "test", "images": 3589, "value": 0.66}``,
    #: and by the size of faces if measured, on so many images: ``"by_face_pixels": {"24": 0.62}``,
    #: ``"by_face_pixels_images": 1024``. May be empty.
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    #: The training data: ``{"name": ..., "fingerprint": ...}``.
    data: Mapping[str, Any]
    #: Package -> version that made the file.
    versions: Mapping[str, str] = field(default_factory=dict)
    #: SHA-256 of the weights as exported, 64 lower-case hexadecimal digits.
    weights_sha256: str

    def __post_init__(self) -> None:
        labels = self.labels
        _require(_is_text(self.name), "name", "a text")
        _require(self.precision in PRECISIONS, "precision", " or ".join(PRECISIONS))
        _require(
            isinstance(labels, tuple) and len({*filter(_is_text, labels)}) == len(labels) == len(LABELS),
            "labels",
            f"{len(LABELS)} different texts",
        )
        _require(type(self.parameters) is int and self.parameters > 0, "parameters", "a positive integer")
        _require(
            _is_accuracy(self.accuracy),
            "accuracy",
            "empty or an object with value, 0 to 1, and such values by pixels as by_face_pixels, if any",
        )
        _require(
            _is_object(self.data) and all(_is_text(self.data.get(key)) for key in ("name", "fingerprint")),
            "data",
            "an object with the texts name and fingerprint",
        )
        _require(
            _is_object(self.versions) and all(map(_is_text, self.versions.values())),
            "versions",
            "an object of texts",
        )
        _require(
            isinstance(self.weights_sha256, str)
            and re.fullmatch("[0-9a-f]{64}", self.weights_sha256) is not None,
            "weights_sha256",
            "64 lower-case hexadecimal digits",
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "labels": list(self.labels), **{key: dict(values[key]) for key in _OBJECTS}}

    def to_json(self) -> str:
        """The document to store under ``METADATA_KEY``: ASCII, the same text for equal models.

        Raises:
            ModelError: ``accuracy`` or ``data`` holds what JSON cannot, e.g. NaN or a numpy number.
        """
        document = {"schema": SCHEMA_VERSION, "input": INPUT_CONTRACT, **self.to_dict()}
        try:
            return json.dumps(document, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's metadata cannot be written as JSON: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Read a document written by ``to_json``.

        Raises:
            ModelError: the text is not such a document, was written by a newer fertools, or describes a
                graph with another input.
        """
        try:
            document = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the model's metadata is not JSON: {error}") from error
        _require(isinstance(document, dict), "document", "an object")
        version = document.pop("schema", None)
        _require(type(version) is int and version > 0, "schema", "a positive integer")
        if version > SCHEMA_VERSION:
            raise ModelError(
                f"the model's metadata has schema {version} and this fertools reads up to {SCHEMA_VERSION}: "
                "upgrade with pip install --upgrade fertools"
            )
        if document.pop("input", None) != INPUT_CONTRACT:
            raise ModelError(f"the model takes another input than {INPUT_CONTRACT}: export it again")
        expected, found = {item.name for item in fields(cls)}, set(document)
        if found != expected:
            raise ModelError(
                "the model's metadata lacks or has unknown fields: " + ", ".join(sorted(found ^ expected))
            )
        if isinstance(document["labels"], list):
            document["labels"] = tuple(document["labels"])
        return cls(**document)


def _require(holds: bool, name: str, wanted: str) -> None:
    if not holds:
        raise ModelError(f"the model's metadata: {name} must be {wanted}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_accuracy(value: object) -> bool:
    if not _is_object(value):
        return False
    by_size = value.get("by_face_pixels", {})
    if not (_is_object(by_size) and all(re.fullmatch("[0-9]{1,4}", pixels) for pixels in by_size)):
        return False
    return not value or all(map(_is_share, [value.get("value"), *by_size.values()]))


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


#: Key of the checksum in the file's ``metadata_props``. It keeps its first name, which is in published files.
CHECKSUM_KEY: Final = "fertools.seal"

#: The value before the checksum is filled in.
BLANK: Final = "0" * 64

_KEY = CHECKSUM_KEY.encode()

# The bytes around the key and the value. An .onnx file is a protobuf: field 2 (0x12) of 64 (0x40) bytes.
# An .ort file is a flatbuffer: a string is its length in four bytes, its own bytes, and one to four zeros up
# to a multiple of four. Which of the two comes first depends on the compiler that built onnxruntime, because
# both are created in the arguments of one call.
_LENGTH = b"\x40\0\0\0"
_KEY_THEN_VALUE = (b"\x12\x40", b"\0\0\0" + _LENGTH)
_VALUE_THEN_KEY = b"\0\0\0\0\x0d\0\0\0"

# How a tensor of an .onnx file begins to name the file that its values are in (onnx.proto): field 13 (0x6a),
# a message of so many bytes, its field 1 "location". Our metadata cannot hold that, since JSON escapes the
# newline. An .ort file has all inside: onnxruntime's converter puts it there.
_EXTERNAL = 0x6A
_LOCATION = b"\x0a\x08location"


def add_checksum(data: bytes) -> bytes:
    """Fill in the checksum of a model, ONNX or .ort, whose ``metadata_props[CHECKSUM_KEY]`` is ``BLANK``.

    Raises:
        ModelError: the model has no such entry, more than one, or one that is not blank, or has external
            data.
    """
    start = _find(data)
    if start is None or data[start : start + 64] != BLANK.encode():
        raise ModelError(f"the model must have one metadata entry {CHECKSUM_KEY!r} of 64 zeros")
    if _has_external_data(data):
        raise ModelError("the model has external data; all of it must be in the one file")
    return data[:start] + _digest(data, start) + data[start + 64 :]


def verify_checksum(data: bytes, path: str | os.PathLike[str]) -> None:
    """Check the bytes of a model file; ``path`` names it in the message.

    Raises:
        ModelError: the file is empty, has no checksum, differs from its checksum, or has external data.
    """
    name = os.fspath(path)
    if not data:
        raise ModelError(f"{name}: the file is empty: copy or export it again")
    start = _find(data)
    if start is None:
        # The entry is among the last bytes of a file, so a truncated file has lost it, too.
        raise ModelError(f"{name}: not a model exported by fertools, or its end is missing: export it again")
    if data[start : start + 64] != _digest(data, start):
        raise ModelError(f"{name}: truncated or altered since its export: copy or export it again")
    if _has_external_data(data):
        raise ModelError(f"{name}: has weights in another file, which nothing protects: export it again")


def _find(data: bytes) -> int | None:
    """Return the offset of the 64 characters of the only checksum, or None."""
    starts = []
    for key in _places(data, _KEY):
        end = key + len(_KEY)
        starts += [end + len(between) for between in _KEY_THEN_VALUE if data.startswith(between, end)]
        behind = key - len(_VALUE_THEN_KEY)
        start = max(behind - 64, 0)
        if data.endswith(_LENGTH, 0, start) and data[behind:key] == _VALUE_THEN_KEY:
            starts.append(start)
    return starts[0] if len(starts) == 1 else None


def _has_external_data(data: bytes) -> bool:
    """Whether a tensor names another file. The length before the name takes one byte or two."""
    return any(_EXTERNAL in (data[place - 2], data[place - 3]) for place in _places(data, _LOCATION))


def _places(data: bytes, what: bytes) -> Iterator[int]:
    place = data.find(what)
    while place >= 0:
        yield place
        place = data.find(what, place + 1)


def _digest(data: bytes, start: int) -> bytes:
    view = memoryview(data)  # slices without copies: the file may be large and the device small
    digest = hashlib.sha256(view[:start])
    digest.update(BLANK.encode())
    digest.update(view[start + 64 :])
    return digest.hexdigest().encode()
