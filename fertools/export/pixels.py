"""The uint8 image as the first quantized tensor of an int8 graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import INPUT_NAME
from fertools.export.nodes import MOVES, factor, readers

if TYPE_CHECKING:
    import onnx


def image_is_first_tensor(model: onnx.ModelProto) -> None:
    """Replace Cast (-> Mul(factor)) -> QuantizeLinear at the front by the uint8 image itself, in place.

    uint8 pixels with scale 1/255 and zero point 0 are already the quantized form of the 0..1 image, and so
    they are with any other factor, and with none. A Reshape, Transpose or copying Concat before the
    QuantizeLinear stays, and moves the uint8 pixels instead. A graph with another front is left as it is.
    """
    import onnx

    graph = model.graph
    path = _front(graph)
    computed = [node for node in path if node.op_type not in MOVES]
    match [node.op_type for node in computed]:
        case ["Cast", "QuantizeLinear"]:
            scaling = np.ones((), np.float32)
        case ["Cast", "Mul", "QuantizeLinear"] if (number := factor(graph, computed[1])) is not None:
            scaling = number
        case _:
            return
    _, scale, zero_point = path[-1].input
    kept = [node for node in path if node.op_type in MOVES]
    source, moved = INPUT_NAME, {INPUT_NAME, *(name for node in path for name in node.output)}
    for node in kept:
        node.input[:] = [source if name in moved else name for name in node.input]
        source = node.output[0]
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == path[-1].output[0]:
                node.input[index] = source
    for node in path:
        if node not in kept:
            graph.node.remove(node)
    exact: dict[str, NDArray[Any]] = {
        scale: scaling,
        zero_point: np.array(0, np.uint8),
    }
    for tensor in graph.initializer:
        if tensor.name in exact:
            tensor.CopyFrom(onnx.numpy_helper.from_array(exact[tensor.name], tensor.name))
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    del graph.value_info[:]  # the moved tensors are uint8 now


def _front(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes from the input to the first QuantizeLinear, as far as each has a single reader."""
    path: list[onnx.NodeProto] = []
    name = INPUT_NAME
    while not path or path[-1].op_type != "QuantizeLinear":
        behind = readers(graph, name)
        if len(behind) != 1 or (behind[0].op_type == "Concat" and {*behind[0].input} != {name}):
            break
        path += behind
        name = behind[0].output[0]
    return path
