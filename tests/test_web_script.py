"""The page's script, run by Node: what it makes of pictures and model files is what Python makes of them."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_faces import FILE, SIZES, golden
from tiny_model import tiny_bytes, tiny_info, tiny_proto

import fertools.web
from fertools.runtime import Prediction, to_face
from fertools.runtime.metadata import METADATA_KEY, add_checksum

STATIC = Path(fertools.web.__file__).parent / "static"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node to run the script")


def run_script(**request: Any) -> dict[str, Any]:
    """What ``web_faces.mjs`` answers."""
    request["module"] = STATIC.as_uri()
    command = ["node", str(Path(__file__).with_name("web_faces.mjs"))]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_golden_values() -> None:
    kept = json.loads(FILE.read_text())
    assert [golden(*size) for size in SIZES] == kept
    assert run_script(golden=kept)["golden"] == kept


def test_faces_are_those_of_python_bit_for_bit() -> None:
    random = np.random.default_rng(7)
    pictures = []
    for _ in range(60):
        height, width = random.integers(1, 300, 2)
        channels = random.choice([1, 3])
        smooth = random.random((height, width, channels)).cumsum(axis=1)
        pictures.append((255 * (smooth / smooth.max())).astype(np.uint8))
    pictures.append(random.integers(0, 256, (1500, 2000, 3), dtype=np.uint8))
    request = [
        {"width": one.shape[1], "height": one.shape[0], "data": encoded(one.tobytes())} for one in pictures
    ]
    faces = run_script(pictures=request)["faces"]
    for one, face in zip(pictures, faces, strict=True):
        assert base64.b64decode(face) == to_face(one).tobytes(), one.shape


def test_alpha_is_not_looked_at() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (50, 60, 4), dtype=np.uint8)
    (face,) = run_script(pictures=[{"width": 60, "height": 50, "data": encoded(rgba.tobytes())}])["faces"]
    assert base64.b64decode(face) == to_face(np.ascontiguousarray(rgba[:, :, :3])).tobytes()


@pytest.mark.parametrize(("x", "y", "size"), [(10, 5, 30), (-7, -9, 50), (40, 30, 40), (90, 90, 10)])
def test_a_frame_repeats_the_pixels_at_the_edge(x: int, y: int, size: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    request = {"width": 60, "height": 50, "data": encoded(picture.tobytes())}
    (face,) = run_script(pictures=[request | {"frame": {"x": x, "y": y, "size": size}}])["faces"]
    rows = np.clip(np.arange(y, y + size), 0, 49)
    columns = np.clip(np.arange(x, x + size), 0, 59)
    assert base64.b64decode(face) == to_face(picture[rows][:, columns]).tobytes()


def test_digests() -> None:
    random = np.random.default_rng(2)
    texts = [random.bytes(length) for length in (0, 1, 55, 56, 63, 64, 65, 1000, 70_000)]
    digests = run_script(digests=[encoded(text) for text in texts])["digests"]
    assert digests == [hashlib.sha256(text).hexdigest() for text in texts]


def test_a_model_tells_about_itself() -> None:
    info = tiny_info("int8")
    (read,) = run_script(models=[encoded(tiny_bytes("int8"))])["models"]
    assert read == info.to_dict()


def test_bad_models_are_told() -> None:
    good = tiny_bytes()
    altered = bytearray(good)
    altered[2000] ^= 1
    newer = tiny_proto()
    document = json.loads(tiny_info().to_json()) | {"schema": 2}
    foreign = json.loads(tiny_info().to_json())
    foreign["input"]["color"] = "rgb"
    files = [b"", good[:-100], good[: len(good) // 2], bytes(altered), b"hello, I am a text file\n" * 9]
    for changed in (document, foreign):
        newer.metadata_props[0].value = json.dumps(changed)
        assert newer.metadata_props[0].key == METADATA_KEY
        files.append(add_checksum(newer.SerializeToString()))
    said = [
        *("the file is empty", "its end is missing", "its end is missing", "truncated or altered"),
        *("not a model exported by fertools", "has schema 2", "takes another input"),
    ]
    answers = run_script(models=[encoded(file) for file in files])["models"]
    for answer, words in zip(answers, said, strict=True):
        assert answer["expected"], answer
        assert answer["message"].startswith("m.onnx: ")
        assert words in answer["message"]


def test_a_prediction_has_pythons_fields() -> None:
    scores = [("Angry", 0.1), ("Happy", 0.4), ("Sad", 0.4), ("Neutral", 0.1)]
    prediction = Prediction(tuple(scores))
    answer = run_script(scores=scores)
    assert answer["prediction"] == prediction.to_dict()
    assert [tuple(score) for score in answer["top"]] == list(prediction.top(2))


def test_landmarks_are_fitted_by_least_squares() -> None:
    random = np.random.default_rng(3)
    points, noise = random.random((5, 2)) * 48, random.normal(0, 1, (5, 2))
    turn = np.array([[1.2, -0.5], [0.5, 1.2]])
    targets = points @ turn.T + [30, -4] + noise
    fit = run_script(similarity=[points.tolist(), targets.tolist()])["similarity"]
    # x' = a x - b y + x0, y' = b x + a y + y0, as one linear system.
    (x, y), one, zero = points.T, np.ones(5), np.zeros(5)
    system = np.block([[np.c_[x, -y, one, zero]], [np.c_[y, x, zero, one]]])
    expected = np.linalg.lstsq(system, targets.T.ravel(), rcond=None)[0]
    assert [fit[name] for name in "abxy"] == pytest.approx(expected.tolist(), abs=1e-9)
