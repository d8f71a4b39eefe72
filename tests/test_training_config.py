import dataclasses
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fertools.errors import ConfigError
from fertools.models import NETWORKS
from fertools.training import AUGMENTATIONS, RECIPES, TrainConfig, recipe
from fertools.training.config import idle_options
from fertools.training.options import options_of

OPTIONS = options_of(TrainConfig)

VALUES = {
    "model": st.sampled_from([*NETWORKS]),
    "epochs": st.integers(1, 100_000),
    "batch_size": st.integers(2, 65_536),
    "optimizer": st.sampled_from([*OPTIONS["optimizer"].choices]),
    "momentum": st.floats(0, 0.99999),
    "learning_rate": st.floats(1e-9, 100),
    "schedule": st.sampled_from([*OPTIONS["schedule"].choices]),
    "learning_rate_decay": st.floats(0, 1),
    "learning_rate_steps": st.just(""),  # see test_steps
    "warmup_epochs": st.integers(0, 1000),
    "plateau_factor": st.floats(1e-6, 0.999),
    "plateau_patience": st.integers(1, 1000),
    "weight_decay": st.floats(0, 1),
    "label_smoothing": st.floats(0, 0.9),
    "augmentation": st.sampled_from([*AUGMENTATIONS]),
    "camera": st.floats(0, 1),
    "camera_kinds": st.just("light,defocus,motion,resolution,noise,jpeg"),  # see test_camera
    "camera_strength": st.just(1.0),
    "mixup": st.floats(0, 10),
    "dropout_scale": st.floats(0, 1),
    "class_balance": st.sampled_from([*OPTIONS["class_balance"].choices]),
    "early_stopping": st.integers(0, 100_000),
    "ema": st.floats(0, 0.99999),
    "start_share": st.floats(0, 0.99),
    "precision": st.sampled_from([*OPTIONS["precision"].choices]),
    "device": st.sampled_from([*OPTIONS["device"].choices]),
    "devices": st.sampled_from([*OPTIONS["devices"].choices]),
    "seed": st.integers(0, 2**31 - 1),
}


def test_every_field_is_tested():
    assert [*VALUES] == [field.name for field in dataclasses.fields(TrainConfig)]


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_good_values_survive_json(fields):
    idle = idle_options(TrainConfig().to_dict() | fields)
    config = TrainConfig(**{name: value for name, value in fields.items() if name not in idle})
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_camera():
    config = TrainConfig(camera=0.5, camera_kinds="jpeg,noise", camera_strength=0.5)
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
        ({"camera_kinds": "noise,rain", "camera": 0.5}, "camera_kinds='noise,rain': must be some of light,"),
        ({"camera_kinds": "noise,noise", "camera": 0.5}, "camera_kinds='noise,noise': must be some of"),
        ({"optimizer": "lion"}, "optimizer='lion': choose one of sgd, adam, adamw"),
        ({"learning_rate_steps": "5"}, "learning_rate_steps='5': must be EPOCH:FACTOR,EPOCH:FACTOR,..."),
        ({"learning_rate_steps": "0:1"}, "learning_rate_steps='0:1': must be"),
        ({"learning_rate_steps": "5:nan"}, "learning_rate_steps='5:nan': must be"),
        ({"learning_rate_steps": 5}, "learning_rate_steps=5: must be"),
        ({"learning_rate_steps": "5:0.1"}, "go with schedule=plateau or constant, not with cosine"),
        ({"model": ["sequential"]}, r"model=\['sequential'\]: choose one of"),
    ],
)
def test_messages(fields, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"optimizer": "adam", "momentum": 0.5}, "momentum=0.5: has no effect with optimizer=adam"),
        ({"optimizer": "adamw", "momentum": 0.0}, "momentum=0.0: has no effect with optimizer=adamw"),
        (
            {"schedule": "constant", "warmup_epochs": 0},
            "warmup_epochs=0: has no effect with schedule=constant",
        ),
        ({"schedule": "plateau", "warmup_epochs": 5}, "warmup_epochs=5: has no effect with schedule=plateau"),
        ({"plateau_factor": 0.5}, "plateau_factor=0.5: has no effect with schedule=cosine"),
        ({"schedule": "constant", "plateau_patience": 5}, "has no effect with schedule=constant"),
        ({"camera_kinds": "jpeg"}, "camera_kinds=jpeg: has no effect with camera=0.0"),
        ({"camera_strength": 0.5}, "camera_strength=0.5: has no effect with camera=0.0"),
    ],
)
def test_options_that_would_do_nothing(fields, why):
    with pytest.raises(ConfigError, match=why):
        TrainConfig(**fields)


def test_what_a_command_must_tell():
    assert {"momentum", "warmup_epochs"} <= TrainConfig().told().keys()
    assert not {"plateau_factor", "plateau_patience", "camera_strength"} & TrainConfig().told().keys()
    plain = TrainConfig(optimizer="adam", schedule="plateau", camera=0.5)
    assert not {"momentum", "warmup_epochs"} & plain.told().keys()
    assert TrainConfig(**plain.told()) == plain


def test_unknown_fields():
    with pytest.raises(ConfigError, match="unknown training options: dropout, lr"):
        TrainConfig.from_dict({"lr": 1, "dropout": 2, "epochs": 3})


def test_recipes():
    assert RECIPES == ("default", "original", "original-steps")
    assert recipe("default", "shallow") == TrainConfig(model="shallow")
    original = recipe("original", "sequential")
    assert (original.optimizer, original.learning_rate, original.schedule) == ("adam", 0.00035, "plateau")
    assert (original.ema, original.weight_decay, original.label_smoothing) == (0, 0, 0)
    assert original.precision == "float32"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_published_recipe_is_a_configuration(name):
    for each in NETWORKS[name].recipes:
        config = recipe(each, name)
        assert config.model == name
        # What they do not tell of, they did not use.
        assert (config.mixup, config.weight_decay, config.label_smoothing, config.ema) == (0, 0, 0, 0)
        assert (config.class_balance, config.dropout_scale) == ("none", 1)
    assert bool(NETWORKS[name].published) <= ("original" in NETWORKS[name].recipes)


def test_recipes_of_a_network_that_has_none():
    with pytest.raises(ConfigError, match="recipe='original': compact has only default"):
        recipe("original", "compact")
    with pytest.raises(ConfigError, match="unknown model 'vgg'"):
        recipe("default", "vgg")


def test_steps():
    config = TrainConfig(schedule="constant", learning_rate_steps="5:0.3,30:1e-1")
    assert config.rate_factors() == {5: 0.3, 30: 0.1}
    assert TrainConfig().rate_factors() == {}


@pytest.mark.parametrize(("images", "steps"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2)])
def test_steps_per_epoch(images, steps):
    assert TrainConfig(batch_size=10).steps_per_epoch(images) == steps
