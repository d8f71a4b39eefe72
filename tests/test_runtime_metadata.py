import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_bytes, tiny_info, tiny_proto

from fertools.errors import ModelError
from fertools.runtime import ModelInfo
from fertools.runtime.metadata import BLANK, SCHEMA_VERSION, add_checksum, verify_checksum

WHOLE = tiny_bytes()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_round_trip():
    info = tiny_info("int8")
    assert ModelInfo.from_json(info.to_json()) == info
    assert ModelInfo.from_json(info.to_json()).to_json() == info.to_json()


def test_document():
    assert json.loads(tiny_info("int8", versions={"onnx": "1.19.0"}, weights_sha256="0" * 64).to_json()) == {
        "schema": SCHEMA_VERSION,
        "name": "tiny",
        "precision": "int8",
        "labels": ["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"],
        "parameters": 16135,
        "accuracy": {"split": "test", "images": 100, "value": 0.5},
        "data": {"name": "drawn", "fingerprint": "f" * 64},
        "versions": {"onnx": "1.19.0"},
        "weights_sha256": "0" * 64,
        "input": {
            "name": "image",
            "dtype": "uint8",
            "shape": ["batch", 48, 48, 1],
            "layout": "NHWC",
            "color": "grey",
            "range": [0, 255],
        },
    }


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"precision": "float16"},
        {"labels": ("Happy", "Sad")},
        {"labels": ("Happy",) * 7},
        {"parameters": 0},
        {"parameters": True},
        {"accuracy": [0.5]},
        {"accuracy": {"split": "test"}},
        {"accuracy": {"value": "0.5"}},
        {"accuracy": {"value": 50}},
        {"accuracy": {"value": float("nan")}},
        {"accuracy": {"value": 0.5, "by_face_pixels": [0.5]}},
        {"accuracy": {"value": 0.5, "by_face_pixels": {"small": 0.5}}},
        {"accuracy": {"value": 0.5, "by_face_pixels": {"24": None}}},
        {"data": {"name": "drawn"}},
        {"versions": {"onnx": 1}},
        {"weights_sha256": "F" * 64},
    ],
)
def test_fields_are_checked(change):
    with pytest.raises(ModelError, match=next(iter(change))):
        tiny_info(**change)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ModelError, match="JSON"):
        tiny_info(accuracy={"value": 0.5, "images": value}).to_json()


def test_newer_schema_says_to_upgrade():
    document = {**json.loads(tiny_info().to_json()), "schema": SCHEMA_VERSION + 1, "new": 1}
    with pytest.raises(ModelError, match="upgrade"):
        ModelInfo.from_json(json.dumps(document))


def test_other_input_is_refused():
    document = json.loads(tiny_info().to_json())
    document["input"]["range"] = [0, 1]
    with pytest.raises(ModelError, match="input"):
        ModelInfo.from_json(json.dumps(document))


def test_bottomless_json_is_a_model_error():
    with pytest.raises(ModelError, match="not JSON"):
        ModelInfo.from_json("[" * 100_000)


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_a_model_error(text):
    with pytest.raises(ModelError):
        ModelInfo.from_json(text)


@settings(deadline=None)
@given(st.sampled_from(sorted(json.loads(tiny_info().to_json()))), json_values, st.booleans())
def test_any_field_of_another_kind_is_read_or_a_model_error(key, value, remove):
    document = json.loads(tiny_info().to_json())
    document[key] = value
    if remove:
        del document[key]
    with contextlib.suppress(ModelError):
        assert isinstance(ModelInfo.from_json(json.dumps(document)), ModelInfo)
        assert not remove


def test_a_file_with_its_checksum_passes():
    assert len(WHOLE) == len(tiny_proto().SerializeToString())
    verify_checksum(WHOLE, "model.onnx")


@settings(deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_flipped_byte_is_a_model_error(index, mask):
    broken = bytearray(WHOLE)
    broken[index] ^= mask
    with pytest.raises(ModelError, match=r"^model\.onnx: "):
        verify_checksum(bytes(broken), "model.onnx")


@settings(deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_any_truncation_is_a_model_error(length):
    with pytest.raises(ModelError, match=r"^model\.onnx: "):
        verify_checksum(WHOLE[:length], "model.onnx")


@given(st.binary(min_size=1, max_size=20))
def test_anything_appended_is_a_model_error(tail):
    with pytest.raises(ModelError, match="altered"):
        verify_checksum(WHOLE + tail, "model.onnx")


@pytest.mark.parametrize(
    "entry",
    [
        b"\r\0\0\0fertools.seal\0\0\0@\0\0\0%s\0\0\0\0",
        b"@\0\0\0%s\0\0\0\0\r\0\0\0fertools.seal\0\0\0",
    ],
    ids=["key first", "value first"],
)
def test_flatbuffers_of_any_compiler_get_a_checksum(entry):
    whole = add_checksum(b"ORTM" + bytes(100) + entry % BLANK.encode() + bytes(100))
    assert BLANK.encode() not in whole
    verify_checksum(whole, "model.ort")
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1
        with pytest.raises(ModelError):
            verify_checksum(bytes(broken), "model.ort")
    with pytest.raises(ModelError, match="64 zeros"):
        add_checksum(whole)


def test_only_blank_entries_get_a_checksum():
    for data in (WHOLE, b"", WHOLE[:-100], tiny_proto().SerializeToString() * 2):
        with pytest.raises(ModelError, match="64 zeros"):
            add_checksum(data)
    assert BLANK.encode() not in WHOLE
