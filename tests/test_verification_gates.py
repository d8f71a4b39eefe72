import numpy as np
import pytest

from fertools.verification.gates import float_gates, int8_gates


def sure(classes, certainty=0.9):
    """float32 (n, 7): so sure of these classes."""
    rows = np.full((len(classes), 7), (1 - certainty) / 6, np.float32)
    rows[np.arange(len(classes)), classes] = certainty
    return rows


def verdicts(gates):
    return [gate.passed for gate in gates]


def test_equal_outputs_pass():
    labels = (np.arange(70) % 7).astype(np.uint8)
    rows = sure(labels)
    assert verdicts(float_gates(rows, rows)) == [True, True]
    assert verdicts(int8_gates(rows, rows, labels)) == [True, True, True]


def test_float_difference():
    keras = sure(np.zeros(5, int))
    onnx = keras.copy()
    onnx[3, 0] -= 0.9e-4
    assert verdicts(float_gates(keras, onnx)) == [True, True]
    onnx[3, 0] -= 0.3e-4
    gates = float_gates(keras, onnx)
    assert verdicts(gates) == [False, True]
    assert gates[0].measured == pytest.approx(1.2e-4, rel=0.01)
    assert "(at most 0.0001); most at image 3;" in str(gates[0])


def test_swapped_classes_count_unless_keras_was_undecided():
    keras = sure(np.zeros(4, int), 0.4)
    keras[1, 1] = keras[1, 0] - 0.5e-4
    keras[2, 1] = keras[2, 0] - 1.5e-4
    onnx = keras.copy()
    onnx[:, 1] += 1.8e-4 * np.array([0, 1, 0, 0])
    assert verdicts(float_gates(keras, onnx))[1]
    onnx[:, 1] += 1.8e-4 * np.array([0, 0, 1, 0])
    gate = float_gates(keras, onnx)[1]
    assert not gate.passed
    assert gate.measured == 1
    assert "first image 2;" in str(gate)


@pytest.mark.parametrize(("wrong", "passes"), [(1, True), (2, False)])
def test_accuracy_may_fall_by_half_a_point(wrong, passes):
    labels = (np.arange(200) % 7).astype(np.uint8)
    taken = labels.copy()
    taken[:wrong] += 1
    gate = int8_gates(sure(labels), sure(taken), labels)[0]
    assert gate.measured == wrong / 2
    assert gate.passed is passes


def test_accuracy_may_rise():
    labels = np.zeros(100, np.uint8)
    gate = int8_gates(sure(np.ones(100, int)), sure(labels), labels)[0]
    assert gate.measured == -100
    assert gate.passed


@pytest.mark.parametrize(("other", "passes"), [(3, True), (4, False)])
def test_agreement_of_985_in_a_thousand(other, passes):
    taken = np.zeros(200, int)
    taken[:other] = 1
    gate = int8_gates(sure(np.zeros(200, int)), sure(taken), np.full(200, 6, np.uint8))[1]
    assert gate.measured == 1 - other / 200
    assert gate.passed is passes


def test_rows_must_sum_to_one():
    labels = np.zeros(9, np.uint8)
    int8 = sure(labels)
    int8[4] *= 1.0009
    assert verdicts(int8_gates(sure(labels), int8, labels))[2]
    int8[4] *= 1.0009
    gate = int8_gates(sure(labels), int8, labels)[2]
    assert not gate.passed
    assert "most at image 4;" in str(gate)


def test_nan_passes_no_gate_of_values():
    labels = np.zeros(3, np.uint8)
    rows = sure(labels)
    broken = rows.copy()
    broken[1] = np.nan
    assert verdicts(float_gates(rows, broken))[0] is False
    assert verdicts(int8_gates(rows, broken, labels))[2] is False
