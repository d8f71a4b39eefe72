"""A Keras network as an ONNX graph that takes uint8 faces, and its answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fertools.contract import BATCH_NAME, IMAGE_SIZE, INPUT_NAME, OUTPUT_NAME, PIXEL_MAX
from fertools.runtime.session import load_onnxruntime

if TYPE_CHECKING:
    import keras
    import onnx

#: Old enough for browsers and phones, new enough for per-channel quantization (13) and Reshape (14).
OPSET = 17


def to_onnx(network: keras.Model) -> onnx.ModelProto:
    """Convert ``network`` (float32 weights) with its scaling inside.

    Returns a graph uint8 ``image`` (batch, 48, 48, 1) -> float32 ``probabilities`` (batch, 7), checked by
    ONNX. Conversion goes through a ``tf.function``: ``from_keras`` fails on Sequential under Keras 3
    (tensorflow-onnx#2319, #2348).
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    from fertools.export.folding import fold
    from fertools.export.passes import fold_scaling

    # Otherwise it copies the graph with all weights before each optimization, to restore it if one fails.
    os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")
    folded = fold(network)
    signature = [tf.TensorSpec((None, IMAGE_SIZE, IMAGE_SIZE, 1), tf.uint8, name=INPUT_NAME)]

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        scaled = tf.cast(image, tf.float32) * (1 / PIXEL_MAX)
        return {OUTPUT_NAME: folded(scaled, training=False)}

    function = tf.function(serve, input_signature=signature)
    model: onnx.ModelProto = tf2onnx.convert.from_function(function, signature, opset=OPSET)[0]
    fuse_dense(model)
    fold_scaling(model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_NAME
    # tf2onnx also declares the ML operator set, and some runtimes refuse sets that they do not know.
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_operatorsetid("", OPSET))
    model.graph.name = network.name
    model.producer_name, model.producer_version = "fertools", ""
    onnx.checker.check_model(model, full_check=True)
    return model


def fuse_dense(model: onnx.ModelProto) -> None:
    """Join each MatMul and the Add of its bias into one Gemm, in place."""
    import onnx

    graph = model.graph
    constants = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for product in [node for node in graph.node if node.op_type == "MatMul"]:
        kernel, following = product.input[1], readers.get(product.output[0], [])
        if len(following) != 1 or following[0].op_type != "Add" or len(constants.get(kernel, ())) != 2:
            continue
        add = following[0]
        bias = next(name for name in add.input if name != product.output[0])
        if constants.get(bias) != constants[kernel][1:]:
            continue
        gemm = onnx.helper.make_node("Gemm", [product.input[0], kernel, bias], add.output, name=product.name)
        position = list(graph.node).index(product)
        graph.node.remove(product)
        graph.node.remove(add)
        graph.node.insert(position, gemm)


def in_batches(
    model: onnx.ModelProto, images: NDArray[np.uint8], batch: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the one output of a model for each ``batch`` of uint8 (n, 48, 48)."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for start in range(0, len(images), batch):
        yield session.run(None, {INPUT_NAME: images[start : start + batch, ..., None]})[0]
