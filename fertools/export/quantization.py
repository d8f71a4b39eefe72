"""Static int8 quantization, calibrated on training images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import INPUT_NAME, PIXEL_MAX
from fertools.errors import ConfigError, DataError

if TYPE_CHECKING:
    import onnx

#: The largest error of a probability falls from .136 with 32 images to .019 with 2048.
DEFAULT_IMAGES = 2048
METHODS = ("minmax", "entropy", "percentile")
#: Histogram calibration keeps every activation of every image in memory (onnxruntime#11928).
HISTOGRAM_IMAGES = 256
CALIBRATION_BATCH = 32
#: Operators that move values without changing them.
MOVES = ("Reshape", "Transpose")


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """How a graph is quantized. Raises ConfigError for bad values."""

    #: Training images that the ranges of the activations are taken from; None takes ``DEFAULT_IMAGES``,
    #: or all if there are fewer.
    images: int | None = None
    #: "minmax" measured best; "entropy" and "percentile" cut off outliers.
    method: str = "minmax"
    #: A scale for each output channel of a kernel instead of one for all.
    per_channel: bool = True
    #: Weights of 7 bits: on x86 without VNNI, 8-bit products saturate and give wrong answers
    #: (onnxruntime#6004); 7-bit ones cannot, and run at the same speed.
    reduce_range: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method={self.method!r}: choose one of {', '.join(METHODS)}")
        if self.images is not None and self.images < 1:
            raise ConfigError(f"images={self.images}: calibration needs at least one image")
        if self.method != "minmax" and (self.images or 0) > HISTOGRAM_IMAGES:
            raise ConfigError(
                f"method={self.method!r} keeps all activations in memory: at most {HISTOGRAM_IMAGES} images,"
                f" not {self.images}"
            )

    def resolved(self, available: int) -> QuantizeConfig:
        """The same with a number of images, given how many there are. Raises DataError if too few."""
        if self.images is None:
            wanted = DEFAULT_IMAGES if self.method == "minmax" else HISTOGRAM_IMAGES
            return replace(self, images=min(wanted, available))
        if available < self.images:
            raise DataError(
                f"calibration asks for {self.images} training images and the data has {available}:"
                f" ask for at most {available}"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def quantize(model: onnx.ModelProto, images: NDArray[np.uint8], config: QuantizeConfig) -> onnx.ModelProto:
    """Return an int8 copy of ``model`` in QDQ form: uint8 activations, int8 weights.

    The last Gemm and the softmax stay in float: quantized, the probabilities would not sum to 1 and
    would tie. The uint8 image itself is the first quantized tensor, so nothing is rounded at the input.

    Arguments:
        model: a graph of ``to_onnx``.
        images: training images, uint8 (n, 48, 48); ``config.images`` of them are drawn by the seed.
        config: how to quantize.

    Raises DataError if there are fewer images than ``config.images``.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    config = config.resolved(len(images))
    chosen = np.random.default_rng(config.seed).permutation(len(images))[: config.images]
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    last_gemm = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        # From a file: given the model itself, quantize_static moves its weights out of it.
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _CalibrationImages(images[np.sort(chosen)]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MaxPool", "Reshape", "Transpose", "Relu"],
            per_channel=config.per_channel,
            reduce_range=config.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[last_gemm.name],
            calibrate_method=methods[config.method],
        )
        quantized = onnx.load(target)
    image_is_first_tensor(quantized)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


class _CalibrationImages:
    """Feeds images to onnxruntime's calibration, a batch at a time, and can be rewound."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images
        self.batches: Iterator[dict[str, Any]] = iter(())
        self.rewind()

    def rewind(self) -> None:
        """Start again."""
        starts = range(0, len(self.images), CALIBRATION_BATCH)
        self.batches = (
            {INPUT_NAME: self.images[start : start + CALIBRATION_BATCH, ..., None]} for start in starts
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None."""
        return next(self.batches, None)


def image_is_first_tensor(model: onnx.ModelProto) -> None:
    """Replace Cast -> Mul(1/255) -> QuantizeLinear at the front by the uint8 image itself, in place.

    uint8 pixels with scale 1/255 and zero point 0 are already the quantized form of the 0..1 image.
    A Reshape or Transpose before the QuantizeLinear stays, and moves the uint8 pixels instead.
    A graph with another front is left as it is.
    """
    import onnx

    graph = model.graph
    path = _front(graph)
    if [node.op_type for node in path if node.op_type not in MOVES] != ["Cast", "Mul", "QuantizeLinear"]:
        return
    _, scale, zero_point = path[-1].input
    kept = [node for node in path if node.op_type in MOVES]
    source = INPUT_NAME
    for node in kept:
        node.input[0] = source
        source = node.output[0]
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == path[-1].output[0]:
                node.input[index] = source
    for node in path:
        if node not in kept:
            graph.node.remove(node)
    exact = {scale: np.array(1 / PIXEL_MAX, np.float32), zero_point: np.array(0, np.uint8)}
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
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1:
            break
        path += readers
        name = readers[0].output[0]
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's advice to pre-process the graph off the terminal; ours is folded already."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
