"""Arguments of any type: what makes no sense is refused by name, and numpy's numbers are numbers."""

import io
import pathlib

import numpy as np
import onnx
import pytest
from tiny_model import tiny_export, tiny_proto

from fertools.errors import ConfigError, FertoolsError, ImageError, ModelError
from fertools.runtime import Prediction, Predictor, to_face, to_faces
from fertools.runtime.metadata import add_checksum, verify_checksum

FACES = np.random.default_rng(0).integers(0, 256, (5, 48, 48), np.uint8)
SCORES = Prediction((("Happy", 0.5), ("Sad", 0.3), ("Fear", 0.2)))

#: What is neither a number nor a text.
ODD = (None, [], {}, b"x", object(), np.zeros(3), np.zeros((2, 2)), float("nan"), 2.5, "2", 1j, True)
HUGE = 10**12
NOT_COUNTS = (*ODD, 0, -1, HUGE)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def predictor(export):
    return Predictor(export, threads=1)


def odd(*, but=()):
    """The odd values as parameters, without those that an argument takes."""
    return [pytest.param(value, id=repr(value)[:20]) for value in NOT_COUNTS if not isinstance(value, but)]


@pytest.mark.parametrize("value", odd(but=type(None)))
def test_threads(export, value):
    with pytest.raises(ConfigError, match="threads must be"):
        Predictor(export, threads=value)


@pytest.mark.parametrize("name", ["views", "precision"])
@pytest.mark.parametrize("value", [*odd(), ["flip"], ("single", "flip"), b"flip"])
def test_views_and_precision(export, name, value):
    with pytest.raises(ConfigError, match=f"{name} must be"):
        Predictor(export, **{name: value})


@pytest.mark.parametrize("value", [*odd(but=(list, dict, str)), ["cpu", 3], [None], [b"cpu"]])
def test_providers(export, value):
    with pytest.raises(ConfigError, match="providers must be"):
        Predictor(export, providers=value)


@pytest.mark.parametrize("value", [[], (), "2", ["2"], {}])
def test_providers_that_are_none(export, value):
    with pytest.raises(FertoolsError, match="provider"):
        Predictor(export, providers=value)


@pytest.mark.parametrize(
    "value", [*odd(but=(str, type(None))), ["model"], "a\0b", io.BytesIO(b"x"), bytearray(b"x"), SCORES]
)
def test_models(value):
    with pytest.raises(ConfigError, match="model must be"):
        Predictor(value)


@pytest.mark.parametrize("name", ["", "2", ".", "x" * 300, pathlib.Path("none"), "a" * 5000, "model.onnx/"])
def test_models_that_are_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        Predictor(name)


@pytest.mark.parametrize("value", odd(but=()))
def test_batch_sizes(predictor, value):
    if value is HUGE:  # all in one batch
        assert len(predictor.predict_batch(FACES, batch_size=value)) == len(FACES)
        return
    with pytest.raises(ConfigError, match="batch_size must be a positive integer"):
        predictor.predict_batch(FACES, batch_size=value)
    with pytest.raises(ConfigError, match="batch_size must be a positive integer"):
        predictor.predict_stream(FACES, batch_size=value)


@pytest.mark.parametrize("value", odd())
def test_queue_sizes(predictor, value):
    with pytest.raises(ConfigError, match="queue_size must be"):
        predictor.predict_stream(FACES, queue_size=value)


@pytest.mark.parametrize("value", [*odd(but=(float, int)), True, float("nan"), -1, 10**12, float("inf")])
def test_delays(predictor, value):
    with pytest.raises(ConfigError, match="max_delay must be a number of seconds"):
        predictor.predict_stream(FACES, max_delay=value)


@pytest.mark.parametrize("value", odd())
def test_how_many_of_the_best(value):
    if value is HUGE:
        assert SCORES.top(value) == SCORES.scores
        return
    with pytest.raises(ConfigError, match="k must be a positive integer"):
        SCORES.top(value)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_numbers_of_numpy_are_numbers(export, predictor, kind):
    assert SCORES.top(kind(2)) == SCORES.scores[:2]
    assert predictor.predict_batch(FACES, batch_size=kind(2)) == predictor.predict_batch(FACES)
    assert len([*predictor.predict_stream(FACES, batch_size=kind(2), max_delay=np.float32(0))]) == len(FACES)
    assert Predictor(export, threads=kind(1), providers=np.array(["cpu"])).threads == 1


@pytest.mark.parametrize(
    "value", [*odd(but=np.ndarray), 3, "", "a\0b", b"", b"\0" * 9, memoryview(b""), "x" * 300]
)
def test_images(predictor, value):
    for use in (to_face, predictor.predict):
        with pytest.raises(ImageError):
            use(value)
    for several in (to_faces, predictor.predict_batch, predictor.predict_stream):
        if isinstance(value, list | dict):  # of no images
            continue
        with pytest.raises(ImageError, match="put it in a list"):
            several(value)
    with pytest.raises(ImageError):
        predictor.probabilities(value)


def external(tmp_path, location="weights.bin"):
    """A model whose weights lie in another file."""
    proto = tiny_proto()
    onnx.save(
        proto, tmp_path / "model.onnx", save_as_external_data=True, location=location, size_threshold=64
    )
    data = (tmp_path / "model.onnx").read_bytes()
    assert len(data) < 3000
    return data


@pytest.mark.parametrize("location", ["w", "weights.bin", "w" * 200])
def test_a_model_with_external_data_is_neither_written_nor_opened(tmp_path, monkeypatch, location):
    data = external(tmp_path, location)
    with pytest.raises(ModelError, match="external data"):
        add_checksum(data)
    monkeypatch.setattr("fertools.runtime.metadata._has_external_data", lambda data: False)
    whole = add_checksum(data)
    (tmp_path / "model.onnx").write_bytes(whole)
    Predictor(tmp_path / "model.onnx")  # onnxruntime would take it
    monkeypatch.undo()
    with pytest.raises(ModelError, match="weights in another file"):
        verify_checksum(whole, "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx: has weights in another file"):
        Predictor(tmp_path / "model.onnx")
