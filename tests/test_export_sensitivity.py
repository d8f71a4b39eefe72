import numpy as np
import pytest
from small_run import lopsided, run_onnxruntime

from fertools.data import Split
from fertools.export import QuantizeConfig
from fertools.export.graph import to_onnx
from fertools.export.passes import WEIGHTED
from fertools.export.quantization import quantize_within_gates
from fertools.models.inference import load

CONFIG = QuantizeConfig(images=35)


@pytest.fixture(scope="module")
def model(small_run):
    return to_onnx(load(small_run / "best.keras"))


def float_kernels(model):
    """Count the layers with kernels in float."""
    names = {tensor.name for tensor in model.graph.initializer if tensor.data_type == 1}
    return sum(node.op_type in WEIGHTED and node.input[1] in names for node in model.graph.node)


def test_close_answers_are_left_alone(model, small_data):
    """The images that it was calibrated on, on which the small network is confident."""
    train = small_data.split("train")
    chosen = run_onnxruntime(model, train.images).max(axis=1) > 0.9
    sure = Split(train.images[chosen], train.labels[chosen])
    said = []
    int8, config, gates = quantize_within_gates(model, train.images, sure, CONFIG, said.append)
    assert len(sure) > 100
    assert (config, said) == (CONFIG, [])
    assert all(gate.passed for gate in gates)
    assert gates[1].counts["images"] == len(sure)
    assert float_kernels(int8) == 2  # the first and the last


def test_layers_stay_in_float_until_the_answers_are_close(small_run, small_data):
    """One channel is so large that int8 loses the others; only one layer stays in int8."""
    model = to_onnx(lopsided(load(small_run / "best.keras")))
    said = []
    train, validation = small_data.split("train").images, small_data.split("validation")
    int8, config, gates = quantize_within_gates(model, train, validation, CONFIG, said.append)
    assert config.float_layers == 2
    assert float_kernels(int8) == 3
    assert [text.rpartition(": ")[2] for text in said] == [
        "quantizing again, with the first 2 layers in float"
    ]
    found, expected = (run_onnxruntime(each, validation.images).argmax(axis=1) for each in (int8, model))
    assert gates[1].measured == np.mean(found == expected)
