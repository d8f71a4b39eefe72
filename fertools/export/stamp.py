"""Write into an ONNX model what it says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertools.runtime.metadata import METADATA_KEY, ModelInfo
from fertools.runtime.seal import BLANK, SEAL_KEY, seal

if TYPE_CHECKING:
    import onnx


def stamp(model: onnx.ModelProto, info: ModelInfo) -> bytes:
    """Return the bytes of ``model`` with ``info`` and the seal as its only metadata."""
    return seal(blank(model, info))


def blank(model: onnx.ModelProto, info: ModelInfo) -> bytes:
    """The same before it is sealed."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json(), SEAL_KEY: BLANK})
    data: bytes = model.SerializeToString(deterministic=True)
    return data
