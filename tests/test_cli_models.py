import json

import pytest
from click.testing import CliRunner
from PIL import Image

from fertools.cli import main
from fertools.models import NETWORKS
from fertools.models import measured as module
from fertools.models.drawing import boxes
from fertools.models.measured import Measured, measured, write_measured
from fertools.models.structure import LayerFacts


def run(*arguments):
    return CliRunner().invoke(main, ["models", *map(str, arguments)])


@pytest.fixture
def one_run(tmp_path, monkeypatch):
    """A file of results with one training of cnn3."""
    monkeypatch.setattr(module, "FILE", tmp_path / "measured.json")
    found = Measured(recipe="original", epochs=15, validation=0.5512, test=0.5634)
    write_measured({"cnn3": [found]}, module.FILE)
    monkeypatch.setattr("fertools.cli.models.measured", lambda: measured(module.FILE))
    return found


def test_the_list(one_run):
    result = run()
    assert result.exit_code == 0, result.stderr
    header, *rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == [*NETWORKS]
    columns = [header.index(title) for title in ("input", "published", "measured")]
    for row, network in zip(rows, NETWORKS.values(), strict=True):
        assert f"{network.parameters:,}" in row
        assert f"{network.multiply_adds:,}" in row
        assert row[columns[0] :].startswith(network.input)
        assert (row[columns[1]] == "-") == (not network.published)
        measured = row[columns[2] :]
        assert measured == ("55.1% / 56.3% (15 epochs)" if network.name == "cnn3" else "-")
    ensemble = [row for row in rows if "72.8% PublicTest (ensemble), 73.8% PrivateTest (ensemble)" in row]
    assert len(ensemble) == 4
    assert header.endswith("measured here with its published recipe, validation / test")
    assert result.stderr.splitlines() == [
        "sequential and compact ship trained: fertools info --model NAME has their accuracy.",
        "Next: fertools models show NAME, or fertools train --model NAME",
    ]


def test_the_list_as_json(one_run):
    document = {each["name"]: each for each in json.loads(run("--json").stdout)}
    assert [*document] == [*NETWORKS]
    assert document["cnn3"]["measured"] == [one_run.to_dict()]
    assert document["mlp"] == {
        "name": "mlp",
        "text": NETWORKS["mlp"].text,
        "parameters": 2_639_623,
        "multiply_adds": 2_638_272,
        "input": "48x48x1, 0..255",
        "published": [{"accuracy": 0.25, "split": "PublicTest", "training": "15 epochs", "ensemble": ""}],
        "measured": [],
        "recipes": ["default", "original"],
    }


def test_nothing_measured(tmp_path):
    assert measured(tmp_path / "nothing.json") == {}


def test_a_network(one_run, tmp_path):
    picture = tmp_path / "cnn3.png"
    result = run("show", "cnn3", "--plot", picture)
    assert result.exit_code == 0, result.stderr
    for layer in ("conv1", "conv3_pool", "dense1_dropout", "probabilities"):
        assert layer in result.stdout
    assert "Total params: 2,470,151" in result.stdout
    assert result.stdout.splitlines()[-5:] == [
        "Three convolutions and three dense layers, dropout 0.2.",
        "Input: 48x48x1, 0..1. Multiply-adds: 15,832,640 per image.",
        "Published: 55.10% on PublicTest, 15 epochs, Adam.",
        "Measured: 55.12% on PublicTest, 56.34% on PrivateTest, 15 epochs, recipe original.",
        "Recipes: default, original.",
    ]
    assert result.stderr.splitlines() == [
        f"The picture is in {picture}.",
        "Next: fertools train --model cnn3 --recipe original",
    ]
    with Image.open(picture) as image:
        assert image.width > 600
        assert image.height > 600


def test_a_network_as_json():
    document = json.loads(run("show", "shallow", "--json").stdout)
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers["conv1"] == {
        "name": "conv1",
        "kind": "Conv2D",
        "shape": [48, 48, 8],
        "size": [8, 4, 4],
        "stride": 1,
        "parameters": 384,
        "multiply_adds": 48 * 48 * 384,
        "reads": ["three_channels"],
    }
    assert sum(layer["multiply_adds"] for layer in layers.values()) == document["multiply_adds"]


def test_an_unknown_network():
    result = run("show", "vgg")
    assert result.exit_code == 2
    assert "'vgg' is not one of" in result.stderr


def layer(name, kind, *reads, size=(), parameters=0):
    return LayerFacts(name, kind, (6, 6, 8), size, 1, parameters, 0, reads)


def test_boxes_of_a_picture():
    """Two equal residual blocks are one box; a layer without a kernel belongs to the one before it."""
    layers = [
        layer("image", "InputLayer"),
        layer("stem", "Conv2D", "image", size=(8, 3, 3), parameters=80),
        layer("stem_relu", "Activation", "stem"),
    ]
    before = "stem_relu"
    for number in (1, 2):
        name = f"block{number}"
        layers += [
            layer(f"{name}_conv1", "Conv2D", before, size=(4, 1, 1), parameters=36),
            layer(f"{name}_conv2", "Conv2D", f"{name}_conv1", size=(8, 3, 3), parameters=296),
            layer(f"{name}_add", "Add", before, f"{name}_conv2"),
            layer(f"{name}_relu", "Activation", f"{name}_add"),
        ]
        before = f"{name}_relu"
    layers += [
        layer("pool", "GlobalAveragePooling2D", before),
        layer("out", "Dense", "pool", size=(7,), parameters=63),
    ]
    found = boxes(layers)
    assert [(box.kind, box.name, box.parameters, box.count) for box in found] == [
        ("input", "image", 0, 1),
        ("convolution", "stem", 80, 1),
        ("branches", "block1 to block2", 332, 2),
        ("input", "pool", 0, 1),
        ("dense", "out", 63, 1),
    ]
    assert found[2].lines == ("• as it is", "• 1x1 to 4, 3x3 to 8", "add")
    assert sum(box.parameters * box.count for box in found) == sum(each.parameters for each in layers)
