"""Graph passes: scaling into the first kernels, pooling before ReLU, the image as first tensor, AMX.

The first convolution (of each member of an ensemble) does a hundredth of the work and stays in float in int8
files. Quantized, its one input channel does not fill an int8 kernel (onnxruntime takes four times as long as
in float), and its 7-bit weights caused most of the disagreement with Keras: docs/quantization.md compares
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import INPUT_NAME

if TYPE_CHECKING:
    import onnx


#: Operators that move values without changing them. A Concat counts if it copies one tensor.
MOVES = ("Reshape", "Transpose", "Concat")


def readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that read a tensor."""
    return [node for node in graph.node if name in node.input]


def factor(graph: onnx.GraphProto, product: onnx.NodeProto) -> NDArray[np.float32] | None:
    """Return the constant, float32 (), that a Mul multiplies by; None if there is none."""
    import onnx

    for tensor in graph.initializer:
        if tensor.name in product.input:
            array: NDArray[np.float32] = onnx.numpy_helper.to_array(tensor)
            return array.reshape(()) if array.size == 1 else None
    return None


#: Operators with weights.
WEIGHTED = ("Conv", "Gemm", "MatMul")
#: Operators that belong to the layer before them.
TAIL = ("Relu", "MaxPool")


def fold_scaling(model: onnx.ModelProto) -> None:
    """Multiply the factor of Cast -> Mul(factor) into the kernels of the first convolutions, in place.

    A graph in which anything else reads the scaled image is left as it is.
    """
    import onnx

    graph = model.graph
    scaling = _scaling(graph)
    if scaling is None or not _only_convolutions(graph, scaling[0].output[0]):
        return
    product, source, number = scaling
    kernels = {node.input[1] for node in _users(graph, product.output[0])}
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name in kernels}
    if len(constants) < len(kernels):
        return
    for tensor in constants.values():
        kernel = onnx.numpy_helper.to_array(tensor) * number
        tensor.CopyFrom(onnx.numpy_helper.from_array(kernel.astype(np.float32), tensor.name))
    for node in graph.node:
        node.input[:] = [source if name == product.output[0] else name for name in node.input]
    graph.node.remove(product)
    unread = next(tensor for tensor in graph.initializer if tensor.name in product.input)
    if not readers(graph, unread.name):
        graph.initializer.remove(unread)


def first_layers(model: onnx.ModelProto, count: int = 1) -> list[onnx.NodeProto]:
    """Return the first ``count`` layers of every member, each with the ReLU and the pooling that follow it.

    All convolutions that read the image together are the first layer; in a graph without any, the first layer
    is empty. The other layers are those with weights, in the order of the graph.
    """
    if count < 1:
        return []
    graph = model.graph
    layers = [
        node
        for cast in readers(graph, INPUT_NAME)
        if cast.op_type == "Cast" and _only_convolutions(graph, cast.output[0])
        for node in _users(graph, cast.output[0])
    ]
    first = {node.name for node in layers}
    for member in members(model):
        behind = [node for node in member if node.name not in first]
        layers += [node for node in behind[: count - 1] if node not in layers]
    return [node for layer in layers for node in _with_tail(graph, layer)]


def members(model: onnx.ModelProto) -> list[list[onnx.NodeProto]]:
    """Return the layers with weights of each member of an ensemble, or of the one network, first to last."""
    makers = {name: node for node in model.graph.node for name in node.output}

    def behind(names: Iterable[str]) -> Iterator[onnx.NodeProto]:
        """The next layers with weights on the way back from tensors to the image."""
        for name in names:
            node = makers.get(name)  # the image and constants have none
            if node is not None and node.op_type in WEIGHTED:
                yield node
            elif node is not None:
                yield from behind(node.input)

    found = []
    for last in {node.name: node for node in behind(value.name for value in model.graph.output)}.values():
        names, waiting = {last.name}, [last]
        while waiting:
            new = [node for node in behind(waiting.pop().input) if node.name not in names]
            names |= {node.name for node in new}
            waiting += new
        found.append([node for node in model.graph.node if node.name in names])
    return found


def _with_tail(graph: onnx.GraphProto, layer: onnx.NodeProto) -> list[onnx.NodeProto]:
    found = [layer]
    while len(behind := readers(graph, found[-1].output[0])) == 1 and behind[0].op_type in TAIL:
        found += behind
    return found


def pool_before_relu(model: onnx.ModelProto, layers: list[onnx.NodeProto]) -> None:
    """Swap the ReLU and the MaxPool that follow ``layers``, in place. No value changes.

    onnxruntime moves a quantization that follows a MaxPool in front of it, to pool bytes. Outside its int8
    convolutions, channels first, that takes ten times as long as pooling floats.
    """
    graph = model.graph
    for relu in layers:
        behind = readers(graph, relu.output[0])
        if relu.op_type != "Relu" or len(behind) != 1 or behind[0].op_type != "MaxPool":
            continue
        pool = behind[0]
        pool.input[0], relu_output, pool_output = relu.input[0], relu.output[0], pool.output[0]
        pool.output[0], relu.input[0], relu.output[0] = relu_output, relu_output, pool_output
        graph.node.remove(relu)
        graph.node.insert(list(graph.node).index(pool) + 1, relu)
        del graph.value_info[:]  # the name between the two has the pooled shape now


def _scaling(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, str, NDArray[np.float32]] | None:
    """Return the Mul of the cast image by a constant, its input, and the constant; None without one."""
    for cast in readers(graph, INPUT_NAME):
        behind = readers(graph, cast.output[0])
        if cast.op_type == "Cast" and len(behind) == 1 and behind[0].op_type == "Mul":
            number = factor(graph, behind[0])
            if number is not None:
                return behind[0], cast.output[0], number
    return None


def _users(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that read a tensor, directly or after operators that only move its values."""
    found = []
    for node in readers(graph, name):
        moves = node.op_type in MOVES and (node.op_type != "Concat" or {*node.input} == {name})
        found += _users(graph, node.output[0]) if moves else [node]
    return found


def _only_convolutions(graph: onnx.GraphProto, name: str) -> bool:
    return all(node.op_type == "Conv" for node in _users(graph, name))


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


def offset_kernels(model: onnx.ModelProto) -> None:
    """Take one from the int8 kernels of convolutions and from their zero points, in place. No value changes.

    onnxruntime has a convolution for kernels whose zero point is 0, which knows no AMX; any other it runs as
    matrix products, which use it (``MlasGemmU8S8DispatchAmx``, onnxruntime#14042).
    """
    import onnx

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.output[0] not in weights:
            continue
        for name in (node.input[0], node.input[2]):
            array = onnx.numpy_helper.to_array(tensors[name])
            # Down: symmetric kernels begin at -127.
            tensors[name].CopyFrom(onnx.numpy_helper.from_array(array - np.int8(1), name))


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
