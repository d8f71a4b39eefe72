"""Rounding of weights one after the other, so that each makes up for the errors of those before it.

The nearest value on the grid is best for a weight alone, not for what a layer answers: the inputs of a
convolution are alike, and the errors of their weights add up. So the weights of an output are rounded in
turn, and after each the rest move to where they answer best for the calibration images (Frantar et al. 2023,
"GPTQ", arXiv:2210.17323, after the Optimal Brain Surgeon of Hassibi and Stork 1993). docs/quantization.md
has what it gains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fertools.export.graph import in_batches

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float64]

BATCH: Final = 32
#: Inputs of a layer that are looked at per batch; a convolution has one for each pixel of its answer.
INPUTS: Final = 4096
#: Layers of more weights per output are left to the nearest value: the inverse takes minutes and gigabytes.
MOST_WEIGHTS: Final = 8192
#: Share of the mean square of the inputs that is added to each, so that there is an inverse; from GPTQ.
DAMPING: Final = 0.01
#: Weights per output that are rounded before the rest learn of the errors, for speed alone; from GPTQ.
BLOCK: Final = 128


def round_weights(
    model: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    images: NDArray[np.uint8],
    levels: int,
    *,
    per_channel: bool,
) -> None:
    """Move the weights of ``nodes`` onto the grid that onnxruntime's symmetric quantization takes, in place.

    The largest weight of a grid is left where it is, so that it spans the same grid again. Grouped and
    dilated convolutions, weights that several nodes read and layers of more than ``MOST_WEIGHTS`` weights per
    output stay as they are.

    Arguments:
        model: a graph in float32 whose input is ours.
        nodes: nodes of it; those other than Conv and Gemm are passed over.
        images: calibration images, uint8 (n, 48, 48).
        levels: the largest integer of the grid, -levels..levels.
        per_channel: each output has a grid of its own, else the layer has one.
    """
    import onnx
    from threadpoolctl import threadpool_limits

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    read = [name for node in model.graph.node for name in node.input]
    layers = [
        layer
        for layer in map(Layer, nodes)
        if layer.supported
        and layer.weights in constants
        and read.count(layer.weights) == 1
        and layer.outputs_first(onnx.numpy_helper.to_array(constants[layer.weights])).shape[1] <= MOST_WEIGHTS
    ]
    # On a busy machine, threads of BLAS wait for each other: 2 s instead of 0.03 for a factor of 1,152.
    with threadpool_limits(1, "blas"):
        for layer, squares in zip(layers, input_squares(model, layers, images), strict=True):
            tensor = constants[layer.weights]
            weights = onnx.numpy_helper.to_array(tensor)
            rows = layer.outputs_first(weights).astype(np.float64)
            rounded = round_rows(rows, squares, _scales(rows, levels, per_channel=per_channel), levels)
            moved = np.ascontiguousarray(layer.as_stored(rounded, weights.shape), np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))


def round_rows(weights: Floats, squares: Floats, scales: Floats, levels: int) -> Floats:
    """Return ``weights`` on the grids ``scales * (-levels..levels)``, close in what they answer.

    Arguments:
        weights: (outputs, inputs).
        squares: the sum of x xᵀ over input vectors x, (inputs, inputs).
        scales: (outputs,), the step of each output's grid. Where it is 0, the weights are 0.
        levels: the largest integer.
    """
    damping = DAMPING * np.mean(np.diag(squares))
    if damping == 0:  # a layer whose inputs are all 0 answers the same with any weights
        return weights
    # The inputs that matter most come first, while there are others to make up for their errors.
    order = np.argsort(-np.diag(squares), kind="stable")
    # Row i holds how the weights after i answer for an error of weight i, those before it being fixed.
    upper = _inverse_factor(squares[np.ix_(order, order)] + damping * np.eye(len(order)))
    rest = weights[:, order]
    spans = np.abs(rest) == np.abs(rest).max(axis=1, keepdims=True)
    spans &= np.abs(rest) >= (levels - 0.5) * scales[:, None]  # of a common grid, not each output has one
    largest = np.sign(rest) * levels
    steps = np.where(scales == 0, 1, scales)
    rounded = np.empty_like(rest)
    for start in range(0, len(order), BLOCK):
        block = slice(start, min(start + BLOCK, len(order)))
        errors = np.empty_like(rest[:, block])
        for index in range(block.start, block.stop):
            nearest = np.clip(np.rint(rest[:, index] / steps), -levels, levels)
            rounded[:, index] = np.where(spans[:, index], largest[:, index], nearest) * scales
            error = (rest[:, index] - rounded[:, index]) / upper[index, index]
            rest[:, index : block.stop] -= np.outer(error, upper[index, index : block.stop])
            errors[:, index - start] = error
        rest[:, block.stop :] -= errors @ upper[block, block.stop :]
    placed: Floats = rounded[:, np.argsort(order)]
    return placed


def _inverse_factor(matrix: Floats) -> Floats:
    """Return the upper triangular U of inv(matrix) = UᵀU, for a positive definite ``matrix``."""
    from scipy.linalg.lapack import dtrtri

    # With the order reversed, Cholesky's factor is upper: matrix = RRᵀ, and U is R's inverse.
    factor = np.linalg.cholesky(matrix[::-1, ::-1])[::-1, ::-1]
    inverse: Floats = dtrtri(factor)[0]
    return inverse


def _scales(weights: Floats, levels: int, *, per_channel: bool) -> Floats:
    """Return the step of each output's grid, (outputs,), as onnxruntime chooses it for (outputs, inputs)."""
    largest: Floats = np.abs(weights).max(axis=1)
    return (largest if per_channel else np.full_like(largest, largest.max())) / levels


class Layer:
    """A Conv or a Gemm, seen as a matrix of weights (outputs, inputs) that its input vectors go through."""

    def __init__(self, node: onnx.NodeProto) -> None:
        import onnx

        self.kind = node.op_type
        self.attributes: dict[str, Any] = {
            attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
        }
        self.input = node.input[0] if node.input else ""
        self.weights = node.input[1] if len(node.input) > 1 else ""

    @property
    def supported(self) -> bool:
        """Whether ``vectors`` knows how the weights are applied."""
        attributes = self.attributes
        if self.kind == "Conv":
            padding = attributes.get("auto_pad", b"NOTSET")
            dense = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
            return dense and padding == b"NOTSET" and len(attributes.get("kernel_shape", [])) == 2
        return self.kind == "Gemm" and not attributes.get("transA", 0)

    def outputs_first(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Return the weights as (outputs, inputs)."""
        if self.kind == "Conv":
            return weights.reshape(len(weights), -1)
        return weights if self.attributes.get("transB", 0) else weights.T

    def as_stored(self, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The opposite of ``outputs_first``."""
        if self.kind == "Conv":
            return rows.reshape(shape)
        return rows if self.attributes.get("transB", 0) else rows.T

    def vectors(self, tensor: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
        """Return the input vectors (n, inputs) in the layer's input tensor, at most ``INPUTS`` of them.

        A Gemm has one for each image, a Conv one for each pixel of its answer, of which some are drawn.
        """
        if self.kind == "Gemm":
            return tensor
        top, left, bottom, right = self.attributes.get("pads", [0, 0, 0, 0])
        padded = np.pad(tensor, ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, self.attributes["kernel_shape"], axis=(2, 3)
        )
        rows, columns = self.attributes.get("strides", [1, 1])
        windows = windows[:, :, ::rows, ::columns]  # (batch, channels, height, width, kernel's two)
        places = (windows.shape[0], *windows.shape[2:4])
        chosen = generator.permutation(np.prod(places))[:INPUTS]
        image, row, column = np.unravel_index(chosen, places)
        return windows[image, :, row, column].reshape(len(chosen), -1)


def input_squares(model: onnx.ModelProto, layers: list[Layer], images: NDArray[np.uint8]) -> Iterator[Floats]:
    """Yield for each layer the sum of x xᵀ over its inputs, (inputs, inputs), in the model as it is given."""
    import onnx

    given = onnx.ModelProto()
    given.CopyFrom(model)
    for layer in layers:  # one at a time: the matrices of all would not fit
        generator = np.random.default_rng(0)
        total: Any = 0.0
        for tensor in in_batches(_up_to(given, layer.input), images, BATCH):
            vectors = layer.vectors(tensor, generator)
            total = total + (vectors.T @ vectors).astype(np.float64)
        yield total


def _up_to(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the part of a model that computes a tensor."""
    from onnx import ValueInfoProto, helper

    needed, nodes = {name}, []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node.input)
    graph = helper.make_graph(
        nodes[::-1],
        "part",
        model.graph.input,
        [ValueInfoProto(name=name)],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
