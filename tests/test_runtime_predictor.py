import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tiny_model import tiny_bytes, tiny_export, tiny_info, tiny_proto, tiny_reference

import fertools.runtime.location as location
from fertools.contract import INT8_FILE, LABELS, ONNX_FILE
from fertools.errors import ConfigError, ImageError, ModelError
from fertools.runtime import Prediction, Predictor
from fertools.runtime.metadata import add_checksum

FACES = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def predictor(export):
    return Predictor(export)


def test_probabilities_are_those_of_the_network(predictor):
    rows = predictor.probabilities(FACES)
    assert rows.dtype == np.float32
    assert rows.shape == (20, 7)
    np.testing.assert_allclose(rows, tiny_reference(FACES), atol=1e-5)
    np.testing.assert_array_equal(predictor.probabilities(FACES[..., None]), rows)
    np.testing.assert_array_equal(predictor.probabilities(np.asfortranarray(FACES)), rows)


def test_prediction(predictor):
    row = predictor.probabilities(FACES[:1])[0]
    prediction = predictor.predict(FACES[0])
    assert prediction.label == LABELS[int(row.argmax())]
    assert prediction.confidence == float(row.max())
    assert list(prediction.probabilities.items()) == list(zip(LABELS, row.tolist(), strict=True))
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_batch_is_its_images_in_any_form_and_size(predictor, tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(FACES[0]).save(path)
    assert predictor.predict_batch([path, path.read_bytes(), FACES[0]]) == [predictor.predict(FACES[0])] * 3
    whole = predictor.predict_batch(FACES)
    assert len(whole) == 20
    np.testing.assert_allclose(
        [[*item.probabilities.values()] for item in whole], tiny_reference(FACES), atol=1e-5
    )
    for size in (1, 7, 20, 64):
        pieces = predictor.predict_batch((face for face in FACES), batch_size=size)
        assert [item.label for item in pieces] == [item.label for item in whole]


@pytest.mark.parametrize("images", [[], iter(()), np.empty((0, 48, 48), np.uint8)])
def test_no_images(predictor, images):
    with pytest.raises(ImageError, match="no images"):
        predictor.predict_batch(images)


@pytest.mark.parametrize(
    "images",
    [
        np.empty((0, 48, 48), np.uint8),
        np.zeros((48, 48), np.uint8),
        np.zeros((2, 47, 48), np.uint8),
        np.zeros((2, 48, 48, 3), np.uint8),
        np.zeros((2, 48, 48), np.float32),
        [[0]],
    ],
)
def test_the_bare_path_is_checked(predictor, images):
    with pytest.raises(ImageError):
        predictor.probabilities(images)


def test_wrong_arguments(export, predictor):
    with pytest.raises(ConfigError, match="batch_size"):
        predictor.predict_batch(FACES, batch_size=0)
    with pytest.raises(ConfigError, match="precision"):
        Predictor(export, precision="fp16")
    with pytest.raises(ImageError, match="list"):
        predictor.predict_batch(FACES[0])


def test_threads_share_a_predictor(predictor, tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(FACES[0]).save(path)
    images = [path if index % 5 == 0 else face for index, face in enumerate(FACES)] * 10
    serial = [predictor.predict(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(predictor.predict, images)) == serial


def test_precision_chooses_the_file(export, tmp_path):
    assert Predictor(export).info.precision == "int8"
    assert Predictor(export).path == export / INT8_FILE
    assert Predictor(export, precision="float32").path == export / ONNX_FILE
    assert Predictor(export / ONNX_FILE).info == tiny_info()
    assert Predictor(str(export / INT8_FILE), precision="int8").info == tiny_info("int8")
    single = tiny_export(tmp_path, "float32")
    assert Predictor(single).info.precision == "float32"
    with pytest.raises(ModelError, match="no int8 model"):
        Predictor(single, precision="int8")
    with pytest.raises(ModelError, match="precision is float32, not int8"):
        Predictor(single / ONNX_FILE, precision="int8")
    (single / INT8_FILE).write_bytes(tiny_bytes("float32"))
    with pytest.raises(ModelError, match="precision is float32, not int8"):
        Predictor(single)


def test_shipped_model(tmp_path, monkeypatch):
    package = tmp_path / "checkout" / "fertools"
    monkeypatch.setattr(location, "_PACKAGE", package)
    with pytest.raises(ModelError, match="sequential: does not ship"):
        Predictor()
    beside = tiny_export(package.parent / "exported" / "sequential")
    assert Predictor().path == beside / INT8_FILE
    inside = tiny_export(package / "exported" / "sequential", "float32")
    assert Predictor().path == inside / ONNX_FILE


def test_shipped_model_by_name(tmp_path, monkeypatch):
    package = tmp_path / "checkout" / "fertools"
    monkeypatch.setattr(location, "_PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="compact: does not ship"):
        Predictor("compact")
    shipped = tiny_export(package / "exported" / "compact")
    assert Predictor("compact").path == shipped / INT8_FILE
    own = tiny_export(tmp_path / "compact", "float32")
    assert Predictor("compact").path == own.relative_to(tmp_path) / ONNX_FILE
    with pytest.raises(ModelError, match=r"or a model that ships: sequential or compact"):
        Predictor("tiny")


def test_missing_models(tmp_path):
    with pytest.raises(ModelError, match="no such model"):
        Predictor(tmp_path / "missing")
    with pytest.raises(ModelError, match="holds neither"):
        Predictor(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"of Keras")
    with pytest.raises(ModelError, match=r"model\.keras: a Keras file: pass the \.onnx or \.ort file beside"):
        Predictor(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"not a model", "not a model exported by fertools"),
        (tiny_bytes()[:-1], "truncated"),
        (tiny_bytes()[:1000], "its end is missing"),
        (tiny_bytes()[:500] + b"\xff" + tiny_bytes()[501:], "altered"),
        (add_checksum(b"garbage fertools.seal\x12\x40" + b"0" * 64), "cannot load"),
        (add_checksum(tiny_proto(input_name="x").SerializeToString()), "input must be image"),
        (add_checksum(tiny_proto(output_name="y").SerializeToString()), "output must be probabilities"),
        (add_checksum(tiny_proto(input_shape=(1, 48, 48, 1)).SerializeToString()), "input must be"),
        (add_checksum(tiny_proto(input_shape=("batch", 1, 48, 48)).SerializeToString()), "input must be"),
        (add_checksum(tiny_proto().SerializeToString().replace(b'"schema": 1', b'"schema": 2')), "upgrade"),
    ],
)
def test_broken_models_are_named(tmp_path, content, message):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        Predictor(path)
    assert str(caught.value).startswith(str(path))


def test_prediction_is_a_value(predictor):
    prediction = predictor.predict(FACES[3])
    assert pickle.loads(pickle.dumps(prediction)) == prediction
    assert {prediction, predictor.predict(FACES[3])} == {prediction}
    with pytest.raises(AttributeError):
        prediction.scores = ()
    with pytest.raises(TypeError):
        prediction.probabilities["Happy"] = 1.0


def test_top_and_dict():
    prediction = Prediction((("Sad", 0.25), ("Happy", 0.5), ("Fear", 0.25)))
    assert prediction.top(2) == (("Happy", 0.5), ("Sad", 0.25))
    assert prediction.top(99) == (("Happy", 0.5), ("Sad", 0.25), ("Fear", 0.25))
    assert prediction.to_dict() == {
        "label": "Happy",
        "confidence": 0.5,
        "probabilities": {"Sad": 0.25, "Happy": 0.5, "Fear": 0.25},
    }
    with pytest.raises(ConfigError):
        prediction.top(0)
    assert repr(prediction) == "Prediction(label='Happy', confidence=0.5000)"


def test_repr(predictor, export):
    assert repr(predictor).startswith(f"<Predictor tiny int8, {predictor.provider}, threads=")
