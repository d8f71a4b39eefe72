"""Write into an ONNX model what it says about itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from fertools.runtime.metadata import METADATA_KEY, ModelInfo
from fertools.runtime.seal import BLANK, SEAL_KEY, seal

if TYPE_CHECKING:
    import keras
    import onnx


def stamp(model: onnx.ModelProto, info: ModelInfo) -> bytes:
    """Return the bytes of ``model`` with ``info`` and the seal as its only metadata."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json(), SEAL_KEY: BLANK})
    return seal(model.SerializeToString(deterministic=True))


def weights_sha256(network: keras.Model) -> str:
    """SHA-256 over the bytes of all weights in Keras' order, as float32, little-endian."""
    digest = hashlib.sha256()
    for array in network.get_weights():
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()
