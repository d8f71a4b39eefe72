"""Every network through the whole pipeline: train, evaluate, export, quantize, verify, predict."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_run import decisive, randomize, run_onnxruntime

from fertools.backend import import_keras
from fertools.cli import main
from fertools.data import Dataset, synthetic, write
from fertools.models import NETWORKS, build
from fertools.models.prediction import probabilities

keras = import_keras()

#: Those that take seconds, one of each kind that export has to know: raw pixels, convolutions without
#: padding, copied channels, residual blocks.
LIGHT = ("mlp", "cnn3", "shallow", "resnet18")
#: Those that no light one stands for: concatenated branches and scaled residuals, resized images.
CONVERTED = ("inception-resnet", "transfer-vgg16")
ALL = "FERTOOLS_TEST_ALL_NETWORKS"


def networks():
    for name in NETWORKS:
        marks = (
            ()
            if name in LIGHT
            else pytest.mark.skipif(ALL not in os.environ, reason=f"minutes each: {ALL}=1")
        )
        yield pytest.param(name, marks=marks)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Dataset:
    """An empty folder with a few faces; int8 gates off: so few steps leave every answer a close call."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fertools.verification.gates.INT8_AGREEMENT", 0.0)
    monkeypatch.setattr("fertools.verification.gates.INT8_POINTS_LOST", 100.0)
    faces = synthetic.generate(42, 7, 7)
    write(faces, "faces.npz")
    Image.fromarray(faces.split("test").images[0]).save("face.png")
    return faces


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", [*networks()])
def test_the_whole_way(here, name):
    tiny = ("--epochs", 1, "--batch-size", 14, "--data", "faces.npz")
    recipe = "original" if NETWORKS[name].recipes else "default"
    run("train", "--model", name, "--recipe", recipe, "--out", "run", *tiny)
    run("evaluate", "run", "--split", "validation")
    run("export", "run", "--quantize", "--out", "exported")
    report = json.loads(run("verify", "exported", "--data", "faces.npz", "--json"))
    rows = {row["model"]: row for row in report["rows"]}
    assert rows["onnx"]["difference"] <= 1e-4
    assert rows["int8"]["bytes"] < rows["onnx"]["bytes"]
    for precision in ("float32", "int8"):
        found = json.loads(
            run("predict", "face.png", "--model", "exported", "--precision", precision, "--json")
        )
        assert len(found) == 1


@pytest.mark.parametrize("name", [*LIGHT, *CONVERTED])
def test_conversion(name):
    """ONNX answers like Keras, from the same uint8 image, though the network resizes it; int8 nearly so."""
    from fertools.export.graph import to_onnx
    from fertools.export.quantization import QuantizeConfig, quantize

    keras.utils.set_random_seed(0)
    network = randomize(build(name))
    noise = np.random.default_rng(0).integers(0, 256, (1, 48, 48), dtype=np.uint8)
    faces = np.concatenate([synthetic.generate(7, 7, 7).images[:2], noise, np.zeros_like(noise)])
    decisive(network, faces)
    expected = probabilities(network, faces)
    assert np.ptp(expected, axis=0).max() > 0.3
    model = to_onnx(network)
    np.testing.assert_allclose(run_onnxruntime(model, faces), expected, atol=1e-4)
    int8 = quantize(model, faces, QuantizeConfig(images=len(faces)))
    np.testing.assert_allclose(run_onnxruntime(int8, faces), expected, atol=0.15)
