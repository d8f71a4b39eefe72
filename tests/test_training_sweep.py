import json

import pytest
from tiny_training import dataset

from fertools.errors import ConfigError, RunError
from fertools.training import TrainConfig
from fertools.training.sweep import FILE, Sweep, grid, is_sweep


def configs(*rates, **options):
    return {f"learning_rate={rate}": TrainConfig(learning_rate=rate, **options) for rate in rates}


def test_the_grid_is_the_product():
    assert grid(["learning_rate=0.1,1e-6", "optimizer=sgd,adam"]) == {
        "learning_rate=0.1,optimizer=sgd": {"learning_rate": 0.1, "optimizer": "sgd"},
        "learning_rate=0.1,optimizer=adam": {"learning_rate": 0.1, "optimizer": "adam"},
        "learning_rate=1e-06,optimizer=sgd": {"learning_rate": 1e-6, "optimizer": "sgd"},
        "learning_rate=1e-06,optimizer=adam": {"learning_rate": 1e-6, "optimizer": "adam"},
    }


def test_values_have_the_type_of_their_option():
    (point,) = grid(["--batch-size=16", "learning-rate=1", "model=compact"]).values()
    assert point == {"batch_size": 16, "learning_rate": 1.0, "model": "compact"}
    assert [type(value) for value in point.values()] == [int, float, str]


def test_values_with_commas():
    (first, second) = grid(["learning_rate_steps=5:0.3,30:0.1;10:0.5"]).values()
    assert (first, second) == ({"learning_rate_steps": "5:0.3,30:0.1"}, {"learning_rate_steps": "10:0.5"})


def test_one_value_has_one_name():
    assert [*grid(["learning_rate= 0.10,.1,1e-1,0.010"])] == ["learning_rate=0.1", "learning_rate=0.01"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rate=0.1"], r"rate=0.1: unknown training option; choose one of model, epochs, .*, seed"),
        (["epochs=2,1.5"], r"epochs=2,1.5: the values of epochs are whole numbers"),
        (["ema=big"], r"ema=big: the values of ema are numbers"),
        (["epochs"], r"epochs: a value is missing; write epochs=value,value"),
        (["epochs=1,"], r"epochs=1,: a value is missing"),
        (["epochs=1", "epochs=2"], r"epochs=2: epochs is set twice; give all its values at once"),
    ],
)
def test_settings_that_make_no_grid(settings, message):
    with pytest.raises(ConfigError, match=message):
        grid(settings)


def test_a_sweep_is_found_again(tmp_path):
    wanted = configs(0.1, 0.01)
    assert not is_sweep(tmp_path)
    Sweep.create(tmp_path, wanted, dataset())
    assert is_sweep(tmp_path)
    sweep = Sweep(tmp_path)
    assert sweep.configs == wanted
    assert sweep.run("learning_rate=0.1").path == tmp_path / "learning_rate=0.1"
    assert sweep.points == {name: [name] for name in wanted}
    assert sweep.failures == {}


def test_seeds_are_runs_of_a_point(tmp_path):
    seeds = {f"ema=0.0/seed-{seed}": TrainConfig(ema=0.0, seed=seed) for seed in (3, 4)}
    assert Sweep.create(tmp_path, seeds, dataset()).points == {"ema=0.0": [*seeds]}


def test_values_may_be_added_and_failures_stay(tmp_path):
    sweep = Sweep.create(tmp_path, configs(0.1), dataset())
    sweep.note("learning_rate=0.1", "no memory")
    more = configs(0.01, 0.1)
    again = Sweep.create(tmp_path, more, dataset())
    assert again.configs == more
    assert again.failures == {"learning_rate=0.1": "no memory"}
    again.note("learning_rate=0.1", None)
    assert again.failures == {}


@pytest.mark.parametrize(
    ("again", "message"),
    [
        ({"configs": configs(0.01)}, "holds another grid, with learning_rate=0.1; values can be added"),
        ({"configs": configs(0.1, epochs=3, ema=0.0)}, "was made with epochs=60, not 3, ema=0.999, not 0.0;"),
        ({"dataset": dataset(seed=1)}, "made with other data than synthetic; give --data the same source"),
        ({"weights": "a.keras"}, "its runs start from random weights; give the same"),
    ],
)
def test_another_sweep_is_refused(tmp_path, again, message):
    first = {"configs": configs(0.1), "dataset": dataset(), "weights": None}
    Sweep.create(tmp_path, **first)
    before = (tmp_path / FILE).read_text()
    with pytest.raises(RunError, match=message):
        Sweep.create(tmp_path, **{**first, **again})
    assert (tmp_path / FILE).read_text() == before


def test_other_things_are_not_overwritten(tmp_path):
    (tmp_path / "note.txt").touch()
    for path in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(RunError, match="exists already and is no sweep; choose another folder"):
            Sweep.create(path, configs(0.1), dataset())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "incomplete"),
        ("{}", "incomplete"),
        (json.dumps({"data": {}, "weights": None, "failures": {}, "configs": {"a": {"x": 1}}}), "unknown"),
        (json.dumps({"data": {}, "weights": None, "failures": {}, "configs": [1]}), "restore it"),
    ],
)
def test_a_damaged_sweep(tmp_path, text, message):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=message):
        _ = Sweep(tmp_path).configs
