"""Tiny real models for tests: one dense layer, a checksum, written in milliseconds with onnx alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fertools.contract import BATCH_NAME, IMAGE_SIZE, INPUT_NAME, INT8_FILE, LABELS, ONNX_FILE, OUTPUT_NAME
from fertools.runtime.metadata import BLANK, CHECKSUM_KEY, METADATA_KEY, ModelInfo, add_checksum

PIXELS = IMAGE_SIZE * IMAGE_SIZE


def tiny_weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 (2304, 7) and (7,) of the dense layer; blind to brightness, so that noise gives all classes."""
    random = np.random.default_rng(seed)
    weights = random.normal(0, 0.1, (PIXELS, len(LABELS)))
    weights -= weights.mean(axis=0)
    return weights.astype(np.float32), random.normal(0, 0.1, len(LABELS)).astype(np.float32)


def tiny_reference(faces: np.ndarray, seed: int = 0) -> np.ndarray:
    """Compute the expected answers with numpy: float32 (n, 7) of uint8 (n, 48, 48)."""
    weights, bias = tiny_weights(seed)
    logits = faces.reshape(-1, PIXELS).astype(np.float32) / np.float32(255) @ weights + bias
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def tiny_info(precision: str = "float32", seed: int = 0, **changes: Any) -> ModelInfo:
    """The metadata that a tiny model carries."""
    values: dict[str, Any] = {
        "name": "tiny",
        "precision": precision,
        "parameters": PIXELS * len(LABELS) + len(LABELS),
        "accuracy": {"split": "test", "images": 100, "value": 0.5},
        "data": {"name": "drawn", "fingerprint": "f" * 64},
        "versions": {"onnx": onnx.__version__},
        "weights_sha256": hashlib.sha256(tiny_weights(seed)[0].tobytes()).hexdigest(),
    }
    return ModelInfo(**{**values, **changes})


def tiny_proto(
    info: ModelInfo | None = None,
    *,
    seed: int = 0,
    input_shape: tuple[Any, ...] = (BATCH_NAME, IMAGE_SIZE, IMAGE_SIZE, 1),
    input_name: str = INPUT_NAME,
    output_name: str = OUTPUT_NAME,
) -> onnx.ModelProto:
    """The model without a checksum; the arguments after `seed` make graphs that break the contract."""
    weights, bias = tiny_weights(seed)
    constants = {
        "scale": np.float32(1 / 255),
        "flat": np.array([-1, PIXELS], np.int64),
        "weights": weights,
        "bias": bias,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [input_name], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "flat"], ["row"]),
            helper.make_node("Gemm", ["row", "weights", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], [output_name], axis=-1),
        ],
        "tiny",
        [helper.make_tensor_value_info(input_name, TensorProto.UINT8, input_shape)],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, (BATCH_NAME, len(LABELS)))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(
        model, {METADATA_KEY: (info or tiny_info(seed=seed)).to_json(), CHECKSUM_KEY: BLANK}
    )
    return model


def tiny_bytes(precision: str = "float32", *, seed: int = 0, **changes: Any) -> bytes:
    """A model file. The int8 one is the same graph under another name, which a runtime cannot notice."""
    return add_checksum(tiny_proto(tiny_info(precision, seed, **changes), seed=seed).SerializeToString())


def tiny_export(folder: Path, *precisions: str, seed: int = 0, **changes: Any) -> Path:
    """Write an export folder with these precisions (default: both), metadata changed, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for precision in precisions or ("float32", "int8"):
        name = {"float32": ONNX_FILE, "int8": INT8_FILE}[precision]
        (folder / name).write_bytes(tiny_bytes(precision, seed=seed, **changes))
    return folder
