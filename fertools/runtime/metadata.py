"""What an exported model says about itself, as JSON inside the ONNX file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from fertools.contract import BATCH_NAME, IMAGE_SIZE, INPUT_NAME, LABELS, PIXEL_MAX
from fertools.errors import ModelError

#: Version of the JSON document. Any change of its fields, additions too, makes a new one.
SCHEMA_VERSION: Final = 1

#: Key of the document in the ONNX file's ``metadata_props``.
METADATA_KEY: Final = "fertools"

#: Values of `ModelInfo.precision`.
PRECISIONS: Final = ("float32", "int8")

#: What the graph takes, as written into every file.
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
    """The facts that travel inside a model file.

    Raises `ModelError` when a field makes no sense.
    """

    #: The architecture, e.g. ``"sequential"``.
    name: str
    #: ``"float32"`` or ``"int8"``.
    precision: str
    #: Class names in the order of the outputs.
    labels: tuple[str, ...] = LABELS
    #: Number of parameters of the trained network.
    parameters: int
    #: Measured accuracy and its protocol: ``{"split": "test", "images": 3589, "value": 0.66}``; may be empty.
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
        _require(_is_object(self.accuracy), "accuracy", "an object")
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
        """The document to store under `METADATA_KEY`: ASCII, the same text for equal models.

        Raises:
            ModelError: `accuracy` or `data` holds what JSON cannot, e.g. NaN or a numpy number.
        """
        document = {"schema": SCHEMA_VERSION, "input": INPUT_CONTRACT, **self.to_dict()}
        try:
            return json.dumps(document, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's metadata cannot be written as JSON: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Read a document written by `to_json`.

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


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
