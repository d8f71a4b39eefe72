"""The layers of a network as plain values: what they compute, and which reads which."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

FLOAT_BYTES = 4
#: Bytes that the outputs of all layers, and that the largest of them, may take.
KEPT_BYTES = 4 * 2**30
LARGEST_BYTES = 2**28


@dataclass(frozen=True)
class LayerFacts:
    """One layer."""

    name: str
    #: Its Keras class.
    kind: str
    #: Of its output, without the batch.
    shape: tuple[int, ...]
    #: Of a convolution: filters, kernel height and width; of a dense layer: units; else none.
    size: tuple[int, ...]
    #: Of a convolution, along both axes.
    stride: int
    parameters: int
    #: Of one image.
    multiply_adds: int
    #: The layers it reads, by name.
    reads: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def structure(network: keras.Model) -> list[LayerFacts]:
    """The layers of ``network``, each after those that it reads; its input is the first."""
    return [_facts(node) for node in _nodes(network)]


def _nodes(network: keras.Model) -> list[Any]:
    import keras

    graph = network._functional if isinstance(network, keras.Sequential) else network
    depths = sorted(graph._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in graph._nodes_by_depth[depth]]


def images_at_once(network: keras.Model, *, kept: bool = False) -> int:
    """Return how many images ``network`` may take per call without running out of memory on usual machines.

    Networks that enlarge the image need tens of times as much per image as the others.

    Arguments:
        network: how it runs without gradients.
        kept: whether the outputs of all layers are kept until the end, as a direct call does, or only the
            largest counts, as in a compiled one.
    """
    # A dimension that is not known counts once: there is none in ours.
    shapes = [tensor.shape[1:] for node in _nodes(network) for tensor in node.outputs]
    sizes = [FLOAT_BYTES * math.prod(size or 1 for size in shape) for shape in shapes]
    return int(max(KEPT_BYTES // sum(sizes) if kept else LARGEST_BYTES // max(sizes), 1))


def _facts(node: Any) -> LayerFacts:
    from keras import layers

    layer = node.operation
    shape = tuple(node.outputs[0].shape[1:])
    size: tuple[int, ...] = ()
    stride, work = 1, 0
    if isinstance(layer, layers.Conv2D):
        size, stride = (layer.filters, *layer.kernel_size), layer.strides[0]
        work = math.prod(shape[:-1]) * math.prod(layer.kernel.shape)
    elif isinstance(layer, layers.Dense):
        size = (layer.units,)
        work = math.prod(layer.kernel.shape)
    return LayerFacts(
        name=layer.name,
        kind=type(layer).__name__,
        shape=shape,
        size=size,
        stride=stride,
        parameters=layer.count_params(),
        multiply_adds=work,
        reads=tuple(dict.fromkeys(parent.operation.name for parent in node.parent_nodes)),
    )
