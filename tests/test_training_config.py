import dataclasses
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fertools.errors import ConfigError
from fertools.models import BUILDERS
from fertools.training import AUGMENTATIONS, RECIPES, TrainConfig
from fertools.training.config import BALANCES, DEVICES, OPTIMIZERS, PRECISIONS, SCHEDULES

VALUES = {
    "model": st.sampled_from([*BUILDERS]),
    "epochs": st.integers(1, 100_000),
    "batch_size": st.integers(2, 65_536),
    "optimizer": st.sampled_from(OPTIMIZERS),
    "learning_rate": st.floats(1e-9, 100),
    "schedule": st.sampled_from(SCHEDULES),
    "warmup_epochs": st.integers(0, 1000),
    "plateau_factor": st.floats(1e-6, 0.999),
    "plateau_patience": st.integers(1, 1000),
    "weight_decay": st.floats(0, 1),
    "label_smoothing": st.floats(0, 0.9),
    "augmentation": st.sampled_from([*AUGMENTATIONS]),
    "mixup": st.floats(0, 10),
    "class_balance": st.sampled_from(BALANCES),
    "early_stopping": st.integers(0, 100_000),
    "ema": st.floats(0, 0.99999),
    "precision": st.sampled_from(PRECISIONS),
    "device": st.sampled_from(DEVICES),
    "seed": st.integers(0, 2**31 - 1),
}


def test_every_field_is_tested():
    assert [*VALUES] == [field.name for field in dataclasses.fields(TrainConfig)]


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_good_values_survive_json(fields):
    config = TrainConfig(**fields)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


ANYTHING = st.none() | st.booleans() | st.text() | st.floats() | st.integers() | st.binary()


@settings(deadline=None)
@given(st.sampled_from([*VALUES]), ANYTHING)
def test_any_other_value_is_a_config_error(name, value):
    with suppress(ConfigError):
        config = TrainConfig(**{name: value})
        assert type(getattr(config, name)) in (type(getattr(TrainConfig(), name)), int)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs=0: must lie between 1 and 100000"),
        ({"epochs": 2.0}, "epochs=2.0: must be a whole number"),
        ({"epochs": True}, "epochs=True: must be a whole number"),
        ({"batch_size": 1}, "batch_size=1: must lie between"),
        ({"learning_rate": 0}, "learning_rate=0: must lie between"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: must lie between"),
        ({"learning_rate": "0.1"}, "learning_rate='0.1': must be a number"),
        ({"ema": 1.0}, "ema=1.0: must lie between"),
        ({"optimizer": "lion"}, "optimizer='lion': choose one of sgd, adam, adamw"),
        ({"model": ["sequential"]}, r"model=\['sequential'\]: choose one of"),
    ],
)
def test_messages(fields, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**fields)


def test_unknown_fields():
    with pytest.raises(ConfigError, match="unknown training options: dropout, lr"):
        TrainConfig.from_dict({"lr": 1, "dropout": 2, "epochs": 3})


def test_recipes():
    assert RECIPES["default"] == TrainConfig()
    original = RECIPES["original"]
    assert (original.optimizer, original.learning_rate, original.schedule) == ("adam", 0.00035, "plateau")
    assert (original.ema, original.weight_decay, original.label_smoothing) == (0, 0, 0)
    assert original.precision == "float32"


@pytest.mark.parametrize(("images", "steps"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2)])
def test_steps_per_epoch(images, steps):
    assert TrainConfig(batch_size=10).steps_per_epoch(images) == steps
