"""The work of a network, and the peak of this machine."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertools.errors import MissingExtraError
from fertools.runtime.session import load_onnxruntime

#: Rows, columns and depth of the matrix product that stands for the peak.
SIZE = 768


def multiply_adds(file: Path) -> int:
    """Multiply-adds of an image in the convolutions and matrix products of an .onnx or .ort file.

    They are counted in onnxruntime's profile of a run, which has the shapes of all operators of the file, not
    optimized any further: QLinearConv is a convolution, FusedGemm a matrix product.
    """
    total = 0
    for operator, inputs, (output, *_) in _operators(file):
        if "Conv" in operator:  # the weights, (filters, depth / groups, height, width), at each place
            filters = next(shape for shape in inputs[1:] if len(shape) > 2)
            total += math.prod(output) * math.prod(filters[1:])
        elif "Gemm" in operator or "MatMul" in operator:
            total += math.prod(output) * inputs[0][-1]
    return total


def _operators(file: Path) -> Iterator[tuple[str, list[list[int]], list[list[int]]]]:
    """Return the operators of a run on one image: type, shapes of the inputs, shapes of the outputs."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    # Weights that are brought into another layout are not recorded.
    options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        session.run(None, {item.name: _zeros(item) for item in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    for event in events:
        if event["name"].endswith("_kernel_time"):
            facts = event["args"]
            inputs, outputs = (
                [shape for each in facts[f"{side}_type_shape"] for shape in each.values()]
                for side in ("input", "output")
            )
            yield facts["op_name"], inputs, outputs


def _zeros(item: Any) -> NDArray[Any]:
    """What an input of a session takes, a batch of one."""
    kind = np.uint8 if item.type == "tensor(uint8)" else np.float32
    return np.zeros([size if isinstance(size, int) else 1 for size in item.shape], kind)


def matrix_product(precision: str, threads: int) -> Callable[[], object]:
    """Return a call that computes ``SIZE ** 3`` multiply-adds by onnxruntime, in float32 or in int8."""
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
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "train") from error
    return onnx
