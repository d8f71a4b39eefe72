"""Finding one's way in an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

#: Operators that move values without changing them. A Concat counts if it copies one tensor.
MOVES = ("Reshape", "Transpose", "Concat")


def readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that read a tensor."""
    return [node for node in graph.node if name in node.input]


def factor(graph: onnx.GraphProto, product: onnx.NodeProto) -> NDArray[np.float32] | None:
    """The number, float32 (), that a Mul multiplies by; None if it multiplies by none."""
    import onnx

    for tensor in graph.initializer:
        if tensor.name in product.input:
            array: NDArray[np.float32] = onnx.numpy_helper.to_array(tensor)
            return array.reshape(()) if array.size == 1 else None
    return None
