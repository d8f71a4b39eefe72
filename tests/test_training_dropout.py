"""Less dropout than the network's own."""

import dataclasses

import numpy as np
import pytest
import tiny_training
from tiny_training import config, create, dataset

from fertools.backend import import_keras
from fertools.errors import ConfigError
from fertools.models import NETWORKS, build

keras = import_keras()

from fertools.training.network import scale_dropout  # noqa: E402
from fertools.training.trainer import train  # noqa: E402


def dropout_rates(network):
    return [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]


def build_without():
    kept = [layer for layer in tiny_training.build().layers if not isinstance(layer, keras.layers.Dropout)]
    return keras.Sequential([keras.Input((48, 48, 1)), *kept], name="dry")


@pytest.fixture
def dry(monkeypatch):
    """The tiny network without its dropout, by name."""
    network = dataclasses.replace(tiny_training.NETWORK, name="dry", build=build_without)
    monkeypatch.setitem(NETWORKS, "dry", network)
    return "dry"


@pytest.fixture
def start(tmp_path):
    """Weights to start from, of a network that is nobody's."""
    config()  # makes the tiny network known
    network = build("tiny")
    network.name = "start"
    network.save(tmp_path / "start.keras")
    return tmp_path / "start.keras"


def trained(path, start, **changes):
    run = train(create(path, config(epochs=1, precision="float32", **changes), weights=start), dataset())
    return keras.saving.load_model(run.best)


def test_scale_0_trains_as_if_the_network_had_no_dropout(tmp_path, start, dry):
    without = trained(tmp_path / "without", start, model=dry).get_weights()
    scaled = trained(tmp_path / "scaled", start, dropout_scale=0.0).get_weights()
    usual = trained(tmp_path / "usual", start).get_weights()
    for one, other in zip(without, scaled, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(without, usual, strict=True))


def test_the_saved_network_keeps_its_rates(tmp_path, start):
    assert dropout_rates(trained(tmp_path / "run", start, dropout_scale=0.5)) == [0.25]


def test_all_rates_are_scaled():
    network = build("sequential")
    scale_dropout(network, 0.4)
    assert dropout_rates(network) == pytest.approx([0.1] * 6)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_network_without_dropout_drops_nothing_and_is_as_it_was_published(tmp_path, scale):
    assert create(tmp_path / "run", config(model="compact", dropout_scale=scale)).path.is_dir()


def test_a_network_without_dropout_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"dropout_scale=0\.5: compact has no dropout"):
        create(tmp_path / "run", config(model="compact", dropout_scale=0.5))
    assert not (tmp_path / "run").exists()
