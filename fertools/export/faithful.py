"""Quantizing until the answers are those of the float network, judged on the validation split alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fertools.contract import INPUT_NAME, OUTPUT_NAME
from fertools.data import Split
from fertools.export.front import WEIGHTED
from fertools.export.quantization import QuantizeConfig, last_layers, quantize
from fertools.verification.gates import (
    CALIBRATION_HINT,
    INT8_AGREEMENT,
    INT8_POINTS_LOST,
    Gate,
    int8_gates,
)

if TYPE_CHECKING:
    import onnx

#: The final proof is on the test split; this much more agreement is asked of the validation split, one and a
#: half times the standard error of such a share of FER2013's 3,589 images.
MARGIN = 0.003
#: Layers at the front that may stay in float. A network that needs more gains too little from int8.
MOST = 3
BATCH = 64


def quantize_faithfully(
    model: onnx.ModelProto,
    train: NDArray[np.uint8],
    validation: Split,
    config: QuantizeConfig,
    say: Callable[[str], None] = lambda message: None,
) -> tuple[onnx.ModelProto, QuantizeConfig, list[Gate]]:
    """Quantize ``model``, and anew with a further layer in float as long as it answers too differently.

    What is lost in the first layers grows in those behind. Small networks, whose answers are close to each
    other, are the ones that need it.

    Arguments:
        model: a graph of ``to_onnx``.
        train: training images for the calibration, uint8 (n, 48, 48).
        validation: on which both graphs are compared.
        config: how to begin.
        say: is told what is being done.

    Returns the int8 graph, how it was quantized, and the gates of int8 against ``model`` on ``validation``.
    The graph is the last that was tried if none is close enough.
    """
    expected = _answers(model, validation.images)
    layers = sum(node.op_type in WEIGHTED for node in model.graph.node) - len(last_layers(model))
    most = min(MOST, layers - 1)  # one layer at least in int8
    while True:
        quantized = quantize(model, train, config)
        gates = int8_gates(
            expected, _answers(quantized, validation.images), validation.labels, CALIBRATION_HINT
        )
        lost, share = (gate.measured for gate in gates[:2])
        # What was measured, though a small split proves little: it is a choice and no claim.
        close = share >= INT8_AGREEMENT + MARGIN and lost <= INT8_POINTS_LOST
        if close or config.float_layers >= most:
            return quantized, config, gates
        config = replace(config, float_layers=config.float_layers + 1)
        say(
            f"int8 agrees with float32 on {share:.2%} of the validation images and loses {lost:.2g} points:"
            f" quantizing anew, the first {config.float_layers} layers in float"
        )


def _answers(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 (n, 7) for uint8 (n, 48, 48)."""
    from fertools.runtime.session import load_onnxruntime

    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    batches = (images[start : start + BATCH, ..., None] for start in range(0, len(images), BATCH))
    return np.concatenate([session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0] for batch in batches])
