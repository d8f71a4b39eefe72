import dataclasses
import math

import numpy as np
import pytest
from tiny_training import build, config

from fertools.backend import import_keras
from fertools.training import Epoch
from fertools.training.optimizer import epoch_rate, is_over, plateau_rate
from fertools.training.run import best_epoch

keras = import_keras()

from fertools.training.callbacks import copy_weights  # noqa: E402
from fertools.training.optimizer import build_optimizer, ema_momentum  # noqa: E402


def epochs(losses=None, accuracies=None):
    count = len(losses or accuracies)
    rows = zip(losses or [1.0] * count, accuracies or [0.5] * count, strict=True)
    return [Epoch(number, 1.0, 0.5, *row, 0.1, 1.0) for number, row in enumerate(rows, 1)]


def test_cosine_with_warm_up():
    settings = config(epochs=100, warmup_epochs=3, learning_rate=0.1)
    rate = build_optimizer(settings, 10)._learning_rate
    values = [float(rate(step)) for step in (0, 15, 30, 515, 1000)]
    assert values == pytest.approx([0, 0.05, 0.1, 0.05, 0], abs=1e-6)
    quarter = float(rate(30 + 970 // 4))
    assert quarter == pytest.approx(0.05 * (1 + math.cos(math.pi * (970 // 4) / 970)), rel=1e-5)


def test_warm_up_is_cut_to_a_tenth():
    rate = build_optimizer(config(epochs=10, warmup_epochs=3, learning_rate=0.1), 10)._learning_rate
    assert float(rate(10)) == pytest.approx(0.1)
    assert float(rate(55)) == pytest.approx(0.05)


def test_no_warm_up():
    rate = build_optimizer(config(epochs=10, warmup_epochs=0, learning_rate=0.1), 10)._learning_rate
    assert float(rate(0)) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", ["plateau", "constant"])
def test_other_schedules_start_at_the_rate(schedule):
    optimizer = build_optimizer(config(schedule=schedule, learning_rate=0.2), 10)
    assert float(optimizer.learning_rate) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("losses", "power"),
    [
        ([], 0),
        ([1.0, 0.9, 0.8], 0),
        ([1.0, 1.1], 0),
        ([1.0, 1.1, 1.2], 1),
        ([1.0, 1.1, 0.9, 1.0], 0),
        ([1.0, 1.1, 1.2, 0.9], 1),
        ([1.0, 1.1, 1.2, 1.3], 1),
        ([1.0, 1.1, 1.2, 1.3, 1.4], 2),
        ([1.0, 0.99995, 0.99992], 1),
    ],
)
def test_plateau_lowers_the_rate(losses, power):
    settings = config(schedule="plateau", plateau_factor=0.1, plateau_patience=2, learning_rate=0.3)
    assert plateau_rate(settings, epochs(losses) if losses else []) == pytest.approx(0.3 * 0.1**power)


@pytest.mark.parametrize(("done", "factor"), [(0, 1), (1, 1), (2, 0.5), (3, 0.5), (4, 0.1), (9, 0.1)])
def test_steps_lower_the_rate(done, factor):
    history = epochs([1.0 - 0.1 * number for number in range(done)]) if done else []
    for schedule in ("constant", "plateau"):
        settings = config(schedule=schedule, learning_rate_steps="2:0.5,4:0.1", learning_rate=0.2)
        assert epoch_rate(settings, history) == pytest.approx(0.2 * factor)


def test_steps_and_plateau_multiply():
    settings = config(
        schedule="plateau",
        plateau_patience=2,
        plateau_factor=0.5,
        learning_rate_steps="2:0.1",
        learning_rate=0.4,
    )
    assert epoch_rate(settings, epochs([1.0, 1.0, 1.0])) == pytest.approx(0.4 * 0.5 * 0.1)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_time_based_decay(name):
    """The rate of earlier Keras' ``decay``, and it can still be set between epochs."""
    settings = config(
        optimizer=name, schedule="plateau", learning_rate=0.5, learning_rate_decay=0.25, weight_decay=0.0,
        ema=0.0, **({"momentum": 0.0} if name == "sgd" else {}),
    )  # fmt: skip
    optimizer, plain = (
        build_optimizer(each, 10)
        for each in (settings, dataclasses.replace(settings, learning_rate_decay=0.0))
    )
    moved, free = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    for step in range(4):
        if step == 2:
            optimizer.learning_rate = 0.1
        base = 0.5 if step < 2 else 0.1
        assert float(optimizer.learning_rate) == pytest.approx(base / (1 + 0.25 * step))
        plain.learning_rate = base / (1 + 0.25 * step)
        for each, variable in ((optimizer, moved), (plain, free)):
            each.apply([keras.ops.convert_to_tensor([0.5, -1.0])], [variable])
    np.testing.assert_allclose(moved.numpy(), free.numpy(), rtol=1e-6)
    assert np.abs(moved.numpy() - [1.0, 2.0]).min() > 0.1


def test_momentum():
    optimizer = build_optimizer(config(momentum=0.0), 10)
    assert (optimizer.momentum, optimizer.nesterov) == (0.0, False)
    optimizer = build_optimizer(config(), 10)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


@pytest.mark.parametrize(
    ("accuracies", "over"),
    [
        ([0.1], False),
        ([0.1, 0.1, 0.1], True),
        ([0.3, 0.1, 0.2], True),
        ([0.3, 0.1, 0.4], False),
        ([0.3, 0.1, 0.4, 0.4], False),
    ],
)
def test_early_stopping(accuracies, over):
    history = epochs(accuracies=accuracies)
    assert is_over(config(epochs=9, early_stopping=2), history) is over
    assert is_over(config(epochs=9, early_stopping=0), history) is False
    assert is_over(config(epochs=len(history), early_stopping=0), history) is True


def test_a_new_run_is_not_over():
    assert not is_over(config(early_stopping=1), [])


def test_best_epoch_is_the_first_of_the_best():
    assert best_epoch(epochs(accuracies=[0.1, 0.4, 0.4, 0.2])).epoch == 2


@pytest.mark.parametrize(("steps", "momentum"), [(5, 0.0), (1000, 0.99), (100_000, 0.999)])
def test_averaging_reaches_back_a_tenth_of_the_run(steps, momentum):
    assert ema_momentum(config(ema=0.999), steps) == pytest.approx(momentum)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_decay_leaves_biases_and_normalization_alone(name):
    network = build()
    optimizer = build_optimizer(
        config(optimizer=name, schedule="constant", learning_rate=0.1, weight_decay=0.5, ema=0.0), 10
    )
    variables = network.trainable_variables
    for variable in variables:
        variable.assign(keras.ops.ones_like(variable))
    optimizer.apply([keras.ops.zeros_like(variable) for variable in variables], variables)
    values = {variable.path.rpartition("/")[2]: np.unique(variable.numpy()) for variable in variables}
    assert values.pop("kernel") == pytest.approx([0.95])
    assert [*map(list, values.values())] == [[1]] * 3


def test_no_decay_by_default_of_adam():
    assert build_optimizer(config("adam", weight_decay=0.0), 10).weight_decay is None


def test_averages_are_what_is_copied():
    trained, network = build(), build()
    optimizer = build_optimizer(config(epochs=100, ema=0.9, schedule="constant", weight_decay=0.0), 10)
    optimizer.build(trained.trainable_variables)
    expected = None
    for _ in range(3):
        gradients = [keras.ops.ones_like(value) for value in trained.trainable_variables]
        optimizer.apply(gradients, trained.trainable_variables)
        values = [np.array(variable.numpy()) for variable in trained.trainable_variables]
        old = expected or values
        expected = [0.9 * before + 0.1 * now for before, now in zip(old, values, strict=True)]
    trained.non_trainable_variables[0].assign_add(keras.ops.ones(4))
    copy_weights(optimizer, trained, network)
    for variable, average, raw in zip(network.trainable_variables, expected, values, strict=True):
        np.testing.assert_allclose(variable.numpy(), average, rtol=1e-5, atol=1e-6)
        assert np.abs(np.array(variable.numpy()) - raw).max() > 1e-3
    np.testing.assert_array_equal(
        network.layers[1].moving_mean.numpy(), trained.layers[1].moving_mean.numpy()
    )
