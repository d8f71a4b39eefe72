"""What is told of a face as JSON: one shape for ``predict``, ``watch`` and the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fertools.faces.finder import Face
    from fertools.faces.tracking import TrackedFace
    from fertools.runtime import ModelInfo, Prediction


def where(face: Face | TrackedFace) -> dict[str, Any]:
    """Return where a face is and how sure the detector is of it, as JSON types."""
    return {"box": list(face.box), "face_confidence": round(face.confidence, 4), "small": face.small}


def describe(face: Face, prediction: Prediction, info: ModelInfo) -> dict[str, Any]:
    """Return a face and its prediction as JSON types.

    They are ``Face.to_dict``, ``Prediction.to_dict`` and, of a small face, ``accuracy_at_size`` if the
    model's was measured.
    """
    said = face.to_dict()
    if (measured := accuracy_at_size(face, info)) is not None:
        said["accuracy_at_size"] = {"pixels": measured[0], "accuracy": measured[1]}
    return {**said, **prediction.to_dict()}


def accuracy_at_size(face: Face, info: ModelInfo) -> tuple[int, float] | None:
    """Return the next smaller face size that was measured, or the smallest, and the accuracy there.

    None for a large face, and for a model without such measurements.
    """
    sizes = {int(pixels): float(value) for pixels, value in info.accuracy.get("by_face_pixels", {}).items()}
    if not face.small or not sizes:
        return None
    pixels = max((size for size in sizes if size <= face.frame.pixels), default=min(sizes))
    return pixels, sizes[pixels]
