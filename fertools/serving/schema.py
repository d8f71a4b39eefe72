"""What the OpenAPI document says beyond what FastAPI derives: bodies, answers and refusals."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from fertools.contract import LABELS


class Prediction(BaseModel):
    """The expression of one face."""

    label: str = Field(json_schema_extra={"enum": [*LABELS]})
    confidence: float = Field(description="Probability of the label, 0..1.")
    probabilities: dict[str, float] = Field(description="Of all labels; they sum to 1.")


class AccuracyAtSize(BaseModel):
    """The accuracy of the model on faces of about that size."""

    pixels: int
    accuracy: float


class Face(Prediction):
    """A face of a photo, and its expression."""

    box: tuple[int, int, int, int] = Field(description="Left, top, width and height in pixels.")
    face_confidence: float = Field(description="How sure the detector is of the face, 0..1.")
    small: bool = Field(description="Whether the picture has fewer than 48 pixels of the face each way.")
    landmarks: list[tuple[float, float]] | None = Field(
        description="The eye at the picture's left, the eye at its right, the tip of the nose, the mouth's"
        " corner at the left and at the right; null if the detector has none."
    )
    accuracy_at_size: AccuracyAtSize | None = Field(None, description="Only of small faces, if measured.")


class Faces(BaseModel):
    """The faces of a photo, the largest first."""

    faces: list[Face]


class Error(BaseModel):
    """Why there is no answer."""

    error: str


#: What ``POST /predict`` answers instead, by status.
REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Error, "description": why}
    for status, why in {
        400: "An unknown or wrong parameter, a form without a file, an empty body",
        408: "The body did not arrive in time",
        413: "More bytes, pixels or faces than the server takes",
        415: "An unknown Content-Encoding",
        422: "The picture cannot be read",
        500: "The network or the server failed; its log says why",
        501: "The server has no OpenCV, so it cannot find faces",
        503: "The server is full; Retry-After says when to try again",
    }.items()
}

#: Any refusal.
ERROR: Final[dict[str, Any]] = {
    "description": "Why not",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}

#: The state between SIGTERM and the end.
ENDING: Final[dict[int | str, dict[str, Any]]] = {503: {"description": "The server is ending"}}

#: The body of ``POST /predict``.
PICTURE: Final = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }
        },
    },
}

#: ``POST /v2/models/{model}/infer``, which is none of FastAPI's routes.
INFER: Final = {
    "summary": "Probabilities of prepared faces",
    "description": "The Open Inference Protocol's infer: input `image`, UINT8 [n, 48, 48, 1]; output"
    " `probabilities`, FP32 [n, 7]; as JSON, or with binary tensors as tritonclient.http sends them.",
    "tags": ["Open Inference Protocol"],
    "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
    "requestBody": {"required": True, "content": {"application/json": {}, "application/octet-stream": {}}},
    "responses": {
        "200": {
            "description": "The probabilities",
            "content": {"application/json": {}, "application/octet-stream": {}},
        },
        "4XX": ERROR,
        "5XX": ERROR,
    },
}
