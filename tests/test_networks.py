"""Every network through the whole pipeline: train, evaluate, export, quantize, verify, predict."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_training
from click.testing import CliRunner
from PIL import Image
from small_run import MOST_WEIGHTS, barred_faces, decisive, randomize, run_onnxruntime, solve

from fertools.backend import import_keras
from fertools.cli import main
from fertools.data import Dataset, synthetic, write
from fertools.models import NETWORKS, build
from fertools.models.inference import load, probabilities
from fertools.runtime import Predictor

keras = import_keras()

#: Those that take seconds, one of each kind that export has to know: raw pixels, convolutions without
#: padding, copied channels, residual blocks.
LIGHT = ("mlp", "cnn3", "shallow")
#: Those that take up to a minute. tests/test_examples.py trains and exports sequential and compact.
SLOW = ("resnet18", "large", "mlp-scaled", "cnn3-sgd")
ALL = "FERTOOLS_TEST_ALL_NETWORKS"
#: How far ONNX may be from Keras. Untrained, and made decisive, what so many layers round adds up.
FLOAT = dict.fromkeys(("resnet50", "transfer-resnet50", "transfer-inceptionv3"), 2e-3)
#: How the logits of int8 must correlate with those of Keras; of so many untrained layers little is left.
INT8 = {"resnet50": 0.3, "transfer-resnet50": 0.3, "transfer-inceptionv3": 0.3}


def networks(*slow):
    """All of them; those that are neither light nor named here are tried on demand."""
    on_demand = pytest.mark.skipif(ALL not in os.environ, reason=f"tried on demand: set {ALL}=1")
    marks = dict.fromkeys(LIGHT, ()) | dict.fromkeys(slow, (pytest.mark.slow,))
    return [pytest.param(name, marks=marks.get(name, (pytest.mark.slow, on_demand))) for name in NETWORKS]


@pytest.fixture(autouse=True)
def quick_rounding(monkeypatch):
    monkeypatch.setattr("fertools.export.rounding.MOST_WEIGHTS", MOST_WEIGHTS)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Dataset:
    """An empty folder with a few faces."""
    monkeypatch.chdir(tmp_path)
    faces = barred_faces(42, 7, 7)
    write(faces, "faces.npz")
    Image.fromarray(faces.split("test").images[0]).save("face.png")
    return faces


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", networks(*SLOW))
def test_the_whole_way(here, name):
    rows = whole_way(here, name)
    assert rows["int8"]["bytes"] < rows["onnx"]["bytes"]


def test_a_network_from_outside_the_package_goes_the_whole_way(here, monkeypatch):
    """One object that is added to NETWORKS: no other line of the package knows it."""
    monkeypatch.setitem(NETWORKS, "tiny", tiny_training.NETWORK)
    monkeypatch.delitem(sys.modules, "fertools.cli.train", raising=False)  # reads NETWORKS when imported
    whole_way(here, "tiny")
    assert Predictor("exported").info.name == "tiny"


def whole_way(here, name):
    """Return the rows of `verify`. One epoch leaves close calls, so the last layer is solved for first."""
    tiny = ("--epochs", 1, "--batch-size", 14, "--data", "faces.npz")
    recipe = "original" if NETWORKS[name].recipes else "default"
    run("train", "--model", name, "--recipe", recipe, "--out", "run", *tiny)
    network = load(Path("run/best.keras"))
    solve(network, network.layers[-1], here.images, here.labels, 6.0)
    network.save("run/best.keras")
    run("evaluate", "run", "--split", "validation")
    run("export", "run", "--quantize", "--out", "exported")
    report = json.loads(run("verify", "exported", "--data", "faces.npz", "--json"))
    rows = {row["model"]: row for row in report["rows"]}
    assert rows["onnx"]["difference"] <= 1e-4
    assert rows["int8"]["agreement"] == 1
    for precision in ("float32", "int8"):
        found = json.loads(
            run("predict", "face.png", "--model", "exported", "--precision", precision, "--json")
        )
        assert len(found) == 1
    return rows


@pytest.mark.parametrize("name", networks("resnet50"))
def test_conversion(name):
    """ONNX answers like Keras, from the same uint8 image, though the network resizes it; int8 nearly so.

    For the slow ones, the whole way is enough.
    """
    from fertools.export.graph import to_onnx
    from fertools.export.quantization import QuantizeConfig, quantize
    from fertools.training.network import estimate_statistics

    keras.utils.set_random_seed(0)
    network = randomize(build(name))
    faces = synthetic.generate(7, 7, 7).images[:7]
    estimate_statistics(network, faces)  # or random offsets would hide what tells the faces apart
    expected = probabilities(decisive(network, faces), faces)
    assert np.ptp(expected, axis=0).max() > 0.3
    model = to_onnx(network)
    np.testing.assert_allclose(run_onnxruntime(model, faces), expected, atol=FLOAT.get(name, 1e-4))
    int8 = run_onnxruntime(quantize(model, faces, QuantizeConfig(images=len(faces))), faces)
    correlation = np.corrcoef(logits(expected).ravel(), logits(int8).ravel())[0, 1]
    assert correlation > INT8.get(name, 0.9)


def logits(rows):
    """Logits of probabilities, with the mean 0 in each row."""
    logarithms = np.log(rows)
    return logarithms - logarithms.mean(axis=1, keepdims=True)
