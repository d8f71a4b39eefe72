"""How much a network computes, and how much this machine can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fertools.errors import MissingExtraError, ModelError
from fertools.runtime.session import load_onnxruntime

#: Rows, columns and depth of the matrix product that stands for the peak.
SIZE = 768


def multiply_adds(file: Path) -> int:
    """Multiply-adds of an image in the convolutions and matrix products of an ONNX file.

    Raises MissingExtraError without the onnx package, ModelError if the shapes of the graph are not known.
    """
    onnx = _onnx()
    graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
    shapes = {array.name: list(array.dims) for array in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]  # the batch is 1
    total = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        output, weights = shapes.get(node.output[0]), shapes.get(node.input[1])
        if output is None or weights is None:
            raise ModelError(f"{file}: the shapes at {node.name} are not known")
        if node.op_type == "Conv":  # (filters, depth / groups, height, width), at each place of the output
            total += int(np.prod(output[2:])) * int(np.prod(weights))
        else:
            total += int(np.prod(weights))
    return total


def matrix_product(precision: str, threads: int) -> Callable[[], object]:
    """A call that computes ``SIZE ** 3`` multiply-adds, as onnxruntime does it in float32 or in int8."""
    onnx, onnxruntime = _onnx(), load_onnxruntime()
    kinds = {"float32": (np.float32, np.float32, "MatMul"), "int8": (np.uint8, np.int8, "MatMulInteger")}
    left, right, operator = kinds[precision]
    tensor = onnx.TensorProto
    random = np.random.default_rng(0)
    weights = random.integers(-63, 64, (SIZE, SIZE)).astype(right)
    product = tensor.FLOAT if precision == "float32" else tensor.INT32
    given = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(left))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["a", "b"], ["c"])],
        "peak",
        [onnx.helper.make_tensor_value_info("a", given, [SIZE, SIZE])],
        [onnx.helper.make_tensor_value_info("c", product, [SIZE, SIZE])],
        [onnx.numpy_helper.from_array(weights, "b")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    feed = {"a": random.integers(0, 128, (SIZE, SIZE)).astype(left)}
    return lambda: session.run(None, feed)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
        import onnx.shape_inference
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "train") from error
    return onnx
