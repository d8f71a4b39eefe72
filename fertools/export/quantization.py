"""Static int8 quantization, calibrated on training images."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from errno import ENOSPC
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import INPUT_NAME
from fertools.data import Split
from fertools.errors import ConfigError, DataError
from fertools.export.graph import in_batches
from fertools.export.passes import (
    first_layers,
    image_is_first_tensor,
    members,
    offset_kernels,
    pool_before_relu,
)
from fertools.export.rounding import round_weights
from fertools.files import working_folder
from fertools.runtime.session import load_onnxruntime
from fertools.verification.gates import (
    CALIBRATION_HINT,
    INT8_AGREEMENT,
    INT8_POINTS_LOST,
    Gate,
    int8_gates,
)

if TYPE_CHECKING:
    import onnx


#: More images stretch the ranges to activations that hardly occur; docs/quantization.md has the results.
DEFAULT_IMAGES = 512
#: onnxruntime's entropy calibration is not among them: its histogram has no more bins than the int8 grid has
#: steps, so it finds the ranges of minmax.
METHODS = ("minmax", "percentile")
#: Histogram calibration keeps every activation of every image in memory (onnxruntime#11928).
HISTOGRAM_IMAGES = 256
CALIBRATION_BATCH = 32
#: Most calibration images that the rounding of weights looks at; each is many inputs of a convolution.
ROUNDING_IMAGES = 256
QUANTIZED = ("Conv", "Gemm", "MaxPool", "Reshape", "Transpose", "Relu")


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """How a graph is quantized. Raises ConfigError for bad values."""

    #: Number of training images that calibrate the ranges of the activations; None is ``DEFAULT_IMAGES``, or
    #: all if there are fewer.
    images: int | None = None
    #: "minmax" covers all values of an activation, "percentile" cuts off outliers.
    method: str = "minmax"
    #: A scale for each output channel of a kernel instead of one for all.
    per_channel: bool = True
    #: Weights of 7 bits: on x86 without VNNI, 8-bit products saturate and give wrong answers
    #: (onnxruntime#6004); 7-bit ones, -64..64, cannot, and run at the same speed.
    reduce_range: bool = True
    #: Round each weight so that it makes up for the errors of those before it, see ``round_weights``, and not
    #: to the nearest value.
    error_feedback: bool = True
    #: How many of the first layers stay in float, see ``passes.first_layers``.
    float_layers: int = 1
    #: Give the kernels another zero point than 0, with which onnxruntime uses AMX: see
    #: ``passes.offset_kernels``. With AMX it is faster, without it slower. The answers are the same, but for
    #: x86 without VNNI, where 7 bits are not enough for a kernel with one more step.
    amx: bool = False
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
        """Return the configuration with a number of images, given how many are available.

        Raises:
            DataError: there are too few.
        """
        if self.images is None:
            wanted = DEFAULT_IMAGES if self.method == "minmax" else HISTOGRAM_IMAGES
            return replace(self, images=min(wanted, available))
        if available < self.images:
            raise DataError(
                f"calibration asks for {self.images} training images and the data has {available}:"
                f" ask for at most {available}"
            )
        return self

    @classmethod
    def from_report(cls, document: dict[str, Any]) -> QuantizeConfig:
        """Read the configuration from the quantization entry of an export's report."""
        known = {"error_feedback": False, "amx": False} | document  # what older ones were made without
        return cls(**{field.name: known[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def quantize(model: onnx.ModelProto, images: NDArray[np.uint8], config: QuantizeConfig) -> onnx.ModelProto:
    """Return an int8 copy of ``model`` in QDQ form: uint8 activations, int8 weights.

    The first convolution stays in float, with the pooling that follows it (see ``passes``). So do the last
    layer and the softmax: quantized, the probabilities would not sum to 1, and there would be ties. In a
    network that begins with a dense layer, the uint8 image itself is the first quantized tensor, so nothing
    is rounded there.

    Arguments:
        model: a graph of ``to_onnx``.
        images: training images, uint8 (n, 48, 48); ``config.images`` of them are drawn by the seed.
        config: how to quantize.

    Raises:
        DataError: there are fewer images than ``config.images``.
    """
    import onnx

    load_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
    }
    chosen = calibration_images(images, config)
    # Histograms are gathered from batches of equal size alone.
    batch = CALIBRATION_BATCH if config.method == "minmax" else math.gcd(len(chosen), CALIBRATION_BATCH)
    # Histogram calibration reports its progress by print.
    with working_folder() as folder, _whole_files(), redirect_stdout(io.StringIO()):
        # From a file, because quantize_static moves the weights out of a model that it is given in memory.
        source, target = folder / "float32.onnx", folder / "int8.onnx"
        prepared = onnx.ModelProto()
        prepared.CopyFrom(model)
        last = [layers[-1] for layers in members(prepared)]
        front = first_layers(prepared, config.float_layers)
        pool_before_relu(prepared, front)
        kept = [node.name for node in (*last, *front)]
        if config.error_feedback:
            _round_weights(prepared, kept, chosen, config)
        # The graph is already folded and its shapes inferred; suppress the advice to do so.
        add_pre_process_metadata(prepared)
        onnx.save(prepared, source)
        quantize_static(
            source,
            target,
            _CalibrationImages(chosen, batch),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*QUANTIZED],
            per_channel=config.per_channel,
            reduce_range=config.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            calibrate_method=methods[config.method],
        )
        quantized = onnx.load(target)
    del quantized.metadata_props[:]
    image_is_first_tensor(quantized)
    if config.amx:
        offset_kernels(quantized)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _round_weights(
    model: onnx.ModelProto, kept: list[str], images: NDArray[np.uint8], config: QuantizeConfig
) -> None:
    """Round the weights of all nodes but ``kept``, in place, to what onnxruntime's quantizer then finds."""
    nodes = [node for node in model.graph.node if node.name not in kept]
    levels = 64 if config.reduce_range else 127
    # From all of them: in a folder of images, the first have the first labels.
    some = images[:: math.ceil(len(images) / ROUNDING_IMAGES)]
    round_weights(model, nodes, some, levels, per_channel=config.per_channel)


@contextmanager
def _whole_files() -> Iterator[None]:
    """Give the OSError of a full disk for a model file that it cut short: onnxruntime writes on silently."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        yield
    except DecodeError as error:
        raise OSError(ENOSPC, os.strerror(ENOSPC)) from error


def calibration_images(images: NDArray[np.uint8], config: QuantizeConfig) -> NDArray[np.uint8]:
    """Return the images of ``images``, (n, 48, 48), that ``config`` draws, in their order.

    Raises:
        DataError: there are fewer images than ``config.images``.
    """
    config = config.resolved(len(images))
    chosen = np.random.default_rng(config.seed).permutation(len(images))[: config.images]
    return images[np.sort(chosen)]


class _CalibrationImages:
    """Feeds images to onnxruntime's calibration, a batch at a time, and can be rewound."""

    def __init__(self, images: NDArray[np.uint8], batch: int) -> None:
        self.images = images
        self.batch = batch
        self.batches: Iterator[dict[str, Any]] = iter(())
        self.rewind()

    def rewind(self) -> None:
        """Start again."""
        starts = range(0, len(self.images), self.batch)
        self.batches = ({INPUT_NAME: self.images[start : start + self.batch, ..., None]} for start in starts)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None."""
        return next(self.batches, None)


#: How much more agreement is required on the validation split than on the test split, where the final proof
#: is: one and a half times the standard error of such a share on FER2013's 3,589 images.
MARGIN = 0.003
#: Most layers at the front that may stay in float. A network that needs more gains too little from int8.
MOST = 3
BATCH = 64


def quantize_within_gates(
    model: onnx.ModelProto,
    train: NDArray[np.uint8],
    validation: Split,
    config: QuantizeConfig,
    say: Callable[[str], None] = lambda message: None,
) -> tuple[onnx.ModelProto, QuantizeConfig, list[Gate]]:
    """Quantize ``model``, and again with one more layer in float while its answers differ too much.

    Errors of the first layers grow in the layers after them. Small networks, whose probabilities are close to
    each other, are the ones that need more layers in float.

    Arguments:
        model: a graph of ``to_onnx``.
        train: training images for the calibration, uint8 (n, 48, 48).
        validation: the images on which both graphs are compared.
        config: the first configuration to try.
        say: is told what is being done.

    Returns:
        The int8 graph, its configuration, and the gates of int8 against ``model`` on ``validation``. If no
        graph is close enough, it is the last that was tried.
    """
    expected = _answers(model, validation.images)
    most = min(MOST, *(len(layers) - 2 for layers in members(model)))  # one in int8, and the last in float
    while True:
        quantized = quantize(model, train, config)
        gates = int8_gates(
            expected, _answers(quantized, validation.images), validation.labels, CALIBRATION_HINT
        )
        lost, share = (gate.measured for gate in gates[:2])
        # Judged by the measured value, even on a small split: this is a choice, not a claim.
        close = share >= INT8_AGREEMENT + MARGIN and lost <= INT8_POINTS_LOST
        if close or config.float_layers >= most:
            return quantized, config, gates
        config = replace(config, float_layers=config.float_layers + 1)
        say(
            f"int8 agrees with float32 on {share:.2%} of the validation images and loses {lost:.2g} points:"
            f" quantizing again, with the first {config.float_layers} layers in float"
        )


def _answers(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 (n, 7) for uint8 (n, 48, 48)."""
    return np.concatenate([*in_batches(model, images, BATCH)])
