"""Files of other people's networks, and of broken ones of ours: one line each, wherever they are given."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
import tiny_training
from click.testing import CliRunner

from fertools.backend import import_keras
from fertools.cli import main
from fertools.data import write
from fertools.errors import ModelError
from fertools.models import NETWORKS, build
from fertools.models.inference import load, load_as, probabilities

keras = import_keras()
layers = keras.layers


def functional(shape, outputs, *, inputs=1, dtype="float32", wrap=lambda values: values):
    """A network of so many inputs, with a softmax of so many classes for each output."""
    given = [keras.Input(shape, dtype=dtype, name=f"in{number}") for number in range(inputs)]
    flat = [layers.Flatten()(layers.Rescaling(1.0)(each)) for each in given]
    joined = layers.Concatenate()(flat) if inputs > 1 else flat[0]
    answers = [layers.Dense(classes, "softmax")(joined) for classes in outputs]
    return keras.Model(given, wrap(answers))


FACE = (48, 48, 1)
FOREIGN = {
    "a smaller image": lambda: functional((32, 32, 1), [7]),
    "colour": lambda: functional((48, 48, 3), [7]),
    "channels first": lambda: functional((1, 48, 48), [7]),
    "no channels": lambda: functional((48, 48), [7]),
    "eight classes": lambda: functional(FACE, [8]),
    "a single number": lambda: functional(FACE, [1]),
    "two inputs": lambda: functional(FACE, [7], inputs=2),
    "two outputs": lambda: functional(FACE, [7, 7]),
    "named outputs": lambda: functional(FACE, [7, 7], wrap=lambda both: {"a": both[0], "b": both[1]}),
    "whole numbers": lambda: functional(FACE, [7], dtype="uint8"),
    "a fixed batch": lambda: keras.Sequential(
        [keras.Input(batch_shape=(1, *FACE)), layers.Flatten(), layers.Dense(7)]
    ),
    "a picture": lambda: keras.Sequential([keras.Input(FACE), layers.Conv2D(7, 1)]),
    "never built": lambda: keras.Sequential([layers.Flatten(), layers.Dense(7)]),
    "no network": lambda: layers.Dense(7),
}


def tiny(change=lambda network: None):
    network = tiny_training.build()
    change(network)
    return network


def with_nan(network):
    weights = network.get_weights()
    weights[0].flat[0] = np.nan
    network.set_weights(weights)


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """An empty folder with a data set, and a network that trains in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("foreign"))
        patch.setitem(NETWORKS, "tiny", tiny_training.NETWORK)
        patch.setitem(
            NETWORKS, "sequential", dataclasses.replace(NETWORKS["sequential"], build=tiny_training.build)
        )
        write(tiny_training.dataset(), "tiny.npz")
        yield


def run(*arguments):
    return CliRunner().invoke(main, [*arguments, "--data", "tiny.npz"])


def commands(file):
    return (
        ["evaluate", file],
        ["distill", "--teachers", file, "--epochs", "1", "--out", "run"],
        ["train", "--weights", file, "--epochs", "1", "--out", "run"],
    )


def refused(file, message):
    for command in commands(file):
        result = run(*command)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 1
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"Error: {file}: ")
        assert message in last
    assert not tiny_training.Path("run").exists()
    return True


@pytest.mark.filterwarnings("ignore")  # Keras' own, about what is saved here
@pytest.mark.parametrize("kind", FOREIGN)
def test_networks_that_break_the_contract(kind):
    try:
        FOREIGN[kind]().save("foreign.keras")
    except AttributeError:  # Keras gives layers no such method
        keras.saving.save_model(FOREIGN[kind](), "foreign.keras")
    assert refused("foreign.keras", "foreign.keras: ")


def test_weights_that_are_no_numbers():
    tiny(with_nan).save("nan.keras")
    assert refused("nan.keras", "has weights that are NaN or infinite")


def test_answers_that_are_no_numbers():
    """Their weights are good, their arithmetic is not."""
    image = keras.Input(FACE)
    beyond = layers.Rescaling(1e38)(layers.Rescaling(1e38)(layers.Flatten()(image)))
    keras.Model(image, layers.Softmax()(layers.Dense(7)(beyond))).save("beyond.keras")
    result = run("evaluate", "beyond.keras")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "the network answers NaN or infinity for 35 of 35 images" in result.stderr


def test_answers_that_are_no_probabilities():
    keras.Sequential([keras.Input(FACE), layers.Flatten(), layers.Dense(7)]).save("logits.keras")
    result = run("evaluate", "logits.keras", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the network answers no probabilities for " in result.stderr


@pytest.mark.filterwarnings("ignore:The structure of")
@pytest.mark.parametrize("wrap", [lambda answers: {"a": answers[0]}, lambda answers: answers])
def test_a_foreign_network_that_keeps_the_contract_is_measured(wrap):
    """But is no teacher, and no start of one of ours."""
    functional(FACE, [7], wrap=wrap).save("good.keras")
    result = run("evaluate", "good.keras", "--json")
    assert result.exit_code == 0, result.stderr
    assert 0 <= json.loads(result.stdout)["official"]["accuracy"] <= 1
    for command, said in zip(
        commands("good.keras")[1:], ("not a network of fertools", "is not a seq"), strict=True
    ):
        result = run(*command)
        assert result.exit_code == 1
        assert f"Error: good.keras: {said}" in result.stderr


def test_another_network_of_the_same_shapes():
    build("mlp").save("mlp.keras")
    with pytest.raises(ModelError, match="is not a mlp-scaled network"):
        load_as("mlp-scaled", tiny_training.Path("mlp.keras"))


def test_another_network_under_the_name_of_ours():
    other = keras.Sequential([keras.Input(FACE), layers.Flatten(), layers.Dense(7, "softmax")], name="tiny")
    other.save("other.keras")
    with pytest.raises(ModelError, match="is not a tiny network"):
        load_as("tiny", tiny_training.Path("other.keras"))
    for command in commands("other.keras")[1:]:
        result = run(*command)
        assert result.exit_code == 1
        assert "Error: other.keras: is not a " in result.stderr


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", b"\x89HDF\r\n\x1a\n" + bytes(99)])
def test_junk(content):
    tiny_training.Path("junk.keras").write_bytes(content)
    assert refused("junk.keras", "not a Keras model that can be loaded")


def test_files_without_their_parts():
    tiny().save("whole.keras")
    with zipfile.ZipFile("whole.keras") as whole:
        names = whole.namelist()
        for missing in names:
            with zipfile.ZipFile("part.keras", "w") as part:
                for name in set(names) - {missing}:
                    part.writestr(name, whole.read(name))
            if missing != "metadata.json":  # which only tells of versions
                assert refused("part.keras", "not a Keras model that can be loaded")


def test_code_in_a_file_is_not_run():
    """Keras' safe mode refuses lambdas."""
    image = keras.Input(FACE)
    spy = layers.Lambda(lambda tensor: open("ran", "w") and tensor, output_shape=FACE)  # noqa: SIM115
    keras.Model(image, layers.Dense(7, "softmax")(layers.Flatten()(spy(image)))).save("code.keras")
    tiny_training.Path("ran").unlink(missing_ok=True)
    assert refused("code.keras", "not a Keras model that can be loaded")
    assert not tiny_training.Path("ran").exists()


def test_what_is_ours_is_loaded():
    tiny().save("ours.keras")
    images = tiny_training.dataset().split("test").images
    expected = probabilities(load(tiny_training.Path("ours.keras")), images)
    np.testing.assert_array_equal(
        probabilities(load_as("tiny", tiny_training.Path("ours.keras")), images), expected
    )
