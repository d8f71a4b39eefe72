"""Faces found, cut out and predicted: in one public-domain portrait, in scenes made of it, by the command."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont, ImageOps
from tiny_model import tiny_export

from fertools.cli import main
from fertools.contract import LABELS
from fertools.errors import ConfigError, ImageError, MissingExtraError, ModelError
from fertools.faces import Detection, FaceFinder, draw
from fertools.faces.detectors import Haar, YuNet, merge
from fertools.faces.framing import CLOSE_TEMPLATE, CLOSER, TEMPLATE, Frame
from fertools.faces.picture import Picture
from fertools.runtime import Predictor, to_face

pytest.importorskip("cv2", reason="OpenCV is not installed (the extra faces)")
skimage_data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
#: The face of the portrait, as the cascade of OpenCV 4 boxes it.
FACE = (177, 66, 95, 95)


@pytest.fixture(autouse=True)
def no_detector_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERTOOLS_DETECTOR", raising=False)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """uint8 (512, 512, 3)."""
    return skimage_data.astronaut()


@pytest.fixture(scope="module", params=["haar", "yunet"])
def finder(request: pytest.FixtureRequest) -> FaceFinder:
    return FaceFinder("haar" if request.param == "haar" else request.getfixturevalue("yunet"))


@pytest.fixture(scope="module")
def haar() -> FaceFinder:
    return FaceFinder("haar")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("export"))


def iou(one, other) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# The portrait


def test_one_happy_face_in_the_portrait(finder, portrait):
    (face,) = finder.find(portrait)
    assert iou(face.box, FACE) >= 0.6
    assert 0.5 <= face.confidence <= 1
    assert face.crop.shape == (48, 48)
    assert face.crop.dtype == np.uint8
    assert not face.small
    for model in ("sequential", "compact"):
        assert Predictor(model).predict(face.crop).label == "Happy"
    assert (face.landmarks is None) == (finder.name == "haar")
    if face.landmarks:
        eyes, mouth = face.landmarks[:2], face.landmarks[3:]
        assert eyes[0][0] < eyes[1][0]
        assert mouth[0][0] < mouth[1][0]
        assert max(y for _, y in eyes) < min(y for _, y in mouth)


def test_a_haar_box_is_the_frame(haar, portrait):
    (face,) = haar.find(portrait)
    x, y, width, height = face.box
    assert np.array_equal(face.crop, to_face(portrait[y : y + height, x : x + width]))


def test_every_form_of_the_picture_gives_the_same_face(haar, portrait, tmp_path):
    picture = Image.fromarray(portrait)
    path = tmp_path / "portrait.png"
    picture.save(path)
    (expected,) = haar.find(portrait)
    clear = picture.convert("RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6
    for form in (
        *(path, path.read_bytes(), picture, clear, (portrait / 255).astype(np.float32)),
        encoded(picture.transpose(Image.Transpose.ROTATE_90), exif=turned),
    ):
        (face,) = haar.find(form)
        assert face.box == expected.box
        assert np.array_equal(face.crop, expected.crop)
    grey = np.asarray(picture.convert("L"))
    for form in (grey, grey[:, :, None], Image.fromarray(grey.astype(np.uint16) * 257)):
        (face,) = haar.find(form)
        assert face.box == expected.box
        assert np.array_equal(face.crop, expected.crop)


def test_a_face_of_few_pixels_is_marked(finder, portrait):
    small = np.asarray(Image.fromarray(portrait).resize((200, 200), Image.Resampling.BILINEAR))
    (face,) = finder.find(small)
    assert face.small
    assert face.frame.pixels < 48
    assert face.to_dict()["small"] is True
    assert face.crop.shape == (48, 48)


def test_a_face_that_the_border_cuts_has_its_box_inside(portrait, yunet):
    cut = portrait[80:, 188:]
    (face,) = FaceFinder(yunet).find(cut)
    x, y, width, height = face.box
    assert min(x, y) == 0
    assert iou(face.box, (0, 0, 84, 90)) >= 0.6
    whole = cut[y : y + height, x : x + width]
    assert whole.shape == (height, width, 3)


def test_beyond_the_border_its_pixels_are_repeated(portrait):
    (face,) = FaceFinder(lambda pixels: [(-20, -10, 100, 100)]).find(portrait)
    assert face.box == (0, 0, 80, 90)
    padded = np.pad(portrait[:90, :80], ((10, 0), (20, 0), (0, 0)), mode="edge")
    assert np.array_equal(face.crop, to_face(padded))


def test_the_largest_is_first(finder, portrait):
    half = np.asarray(Image.fromarray(portrait).resize((256, 256), Image.Resampling.BILINEAR))
    both = np.full((512, 768, 3), 128, np.uint8)
    both[:256, :256] = half
    both[:, 256:] = portrait
    first, second = finder.find(both)
    assert iou(first.box, (177 + 256, *FACE[1:])) >= 0.6
    assert iou(second.box, [value / 2 for value in FACE]) >= 0.5


def test_a_picture_larger_than_the_detector_sees(portrait, yunet):
    finder = FaceFinder(yunet)
    large = np.asarray(Image.fromarray(portrait).resize((2048, 2048), Image.Resampling.BICUBIC))
    (face,) = finder.find(large)
    assert iou(face.box, [value * 4 for value in FACE]) >= 0.6
    (plain,) = finder.find(portrait)
    assert np.abs(face.crop.astype(int) - plain.crop).mean() < 12


def test_no_face_is_no_answer(finder):
    assert finder.find(skimage_data.coffee()) == []
    assert finder.find(np.zeros((480, 640), np.uint8)) == []
    assert finder.find(np.zeros((1, 1), np.uint8)) == []


def test_tiny_pictures_do_not_reach_yunet(yunet):
    """OpenCV sometimes answers them with uninitialized memory, and never a face."""

    class Net:
        def setInputSize(self, size):  # noqa: N802  # OpenCV's name
            self.size = size

        def detect(self, pixels):
            assert pixels.shape == (*self.size[::-1], 3)
            rows = np.full((3, 15), 20, np.float32)
            rows[1, 2:4] = 0
            rows[2, 0] = np.inf
            return 1, rows

    detector = YuNet(yunet)
    detector._net = net = Net()
    for height, width in ((1, 1), (3, 600), (64, 64)):
        (face,) = detector(np.zeros((height, width, 3), np.uint8))
        assert face.box == (20, 20, 20, 20)
        assert net.size == (max(width, 64), max(height, 64))


def test_min_confidence(portrait, yunet):
    assert FaceFinder(yunet, min_confidence=0.99).find(portrait) == []
    assert FaceFinder("haar", min_confidence=1).find(portrait) == []


def test_a_low_min_confidence_lets_doubtful_boxes_through(portrait, monkeypatch):
    monkeypatch.setattr(Haar, "MIDDLE", 100.0)  # every box is doubtful
    assert FaceFinder("haar").find(portrait) == []
    assert FaceFinder("haar", min_confidence=0).find(portrait)


def test_an_opencv_without_cascades_is_explained(monkeypatch):
    monkeypatch.delattr("cv2.data")
    with pytest.raises(MissingExtraError, match="without cascades"):
        FaceFinder("haar")


def test_a_cascade_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("cv2.data.haarcascades", f"{tmp_path}/")
    with pytest.raises(ConfigError, match=r"haarcascade_frontalface_default\.xml: OpenCV cannot read"):
        FaceFinder("haar")


def test_shared_by_threads_and_pickled(finder, portrait):
    from concurrent.futures import ThreadPoolExecutor

    forms = [portrait[:256], portrait[:300, 100:], portrait[:200, 100:300]] * 2
    expected = [[face.box for face in finder.find(form)] for form in forms]
    with ThreadPoolExecutor(3) as pool:
        assert [[face.box for face in faces] for faces in pool.map(finder.find, forms)] == expected
    again = pickle.loads(pickle.dumps(finder))
    assert [face.box for face in again.find(forms[0])] == expected[0]
    assert repr(again) == repr(finder)


# Scenes


def test_faces_in_a_scene(finder, portrait):
    """Where a scene has them, of the size and turn that it has; nothing is found in an empty one."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import scenes
    finally:
        sys.path.remove(str(BENCHMARKS))
    x, y, width, height = FACE
    faces = np.repeat(to_face(portrait[y : y + height, x : x + width])[None], 12, axis=0)
    found = seen = 0
    for scene in scenes.scenes(faces, seed=3):
        answers = finder.find(scene.pixels)
        for frame in scene.frames:
            seen += 1
            best = max(answers, key=lambda face: scenes.overlap(face.frame, frame), default=None)
            found += best is not None and scenes.overlap(best.frame, frame) >= 0.5
    assert seen == 12
    assert found >= (10 if finder.name == "yunet" else 8)


# Frames and parts


@settings(deadline=None, max_examples=50)
@given(
    st.floats(-500, 500),
    st.floats(-500, 500),
    st.floats(10, 2000),
    st.floats(-3, 3),
)
def test_a_frame_follows_its_landmarks(x, y, side, angle):
    turn = side / 48 * np.exp(1j * angle)
    points = np.asarray(CLOSE_TEMPLATE) @ np.array([1, 1j]) * turn + complex(x, y)
    frame = Frame.of_landmarks(np.stack([points.real, points.imag], axis=1))
    assert abs(frame.corner - complex(x, y)) < 1e-6 * (1 + side)
    assert abs(frame.side - 48 * turn) < 1e-6 * side
    assert frame.pixels == pytest.approx(side)


def test_a_turned_frame_gives_the_upright_face(portrait):
    x, y, width, _ = FACE
    expected = to_face(portrait[y : y + width, x : x + width])
    turned = Image.fromarray(portrait).rotate(20, Image.Resampling.BICUBIC)
    middle, centre = complex(x + width / 2, y + width / 2), complex(256, 256)
    side = width * np.exp(-1j * np.deg2rad(20))
    corner = centre + (middle - centre) * np.exp(-1j * np.deg2rad(20)) - side * (1 + 1j) / 2
    crop = Frame(corner, side).crop(Picture(turned))
    assert np.abs(crop.astype(int) - expected).mean() < 2


def test_large_faces_are_not_aliased():
    """A pattern finer than the crop can show becomes its mean, however large the face."""
    stripes = np.zeros((3000, 3000), np.uint8)
    stripes[:, ::2] = 200
    for side in (600, 2400):
        for turn in (1, np.exp(0.3j)):
            crop = Frame(complex(1500 - side / 3, 1500 - side / 2), side * turn).crop(Picture(stripes))
            assert np.abs(crop.astype(int) - 100).max() <= 3


def test_a_frame_outside_is_none():
    picture = Picture(np.zeros((40, 60), np.uint8))
    assert Frame(100 + 0j, 20 + 0j).crop(picture) is None
    assert Frame(-100 - 100j, 20 + 0j).crop(picture) is None
    assert Frame(-10 - 10j, 20 + 0j).crop(picture) is not None


@pytest.mark.parametrize("orientation", range(10))
def test_parts_are_those_of_the_upright_picture(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 220, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    picture = Picture(data)
    assert (picture.height, picture.width) == upright.shape[:2]
    assert np.array_equal(picture.part(20, 30, 90, 120), upright[30:120, 20:90])
    assert np.array_equal(picture.part(-5, -5, 999, 999), upright)
    reduced = np.asarray(Image.fromarray(upright).reduce(2))
    assert np.array_equal(picture.part(0, 0, picture.width, picture.height, 2), reduced)


@pytest.mark.parametrize("kind", [1, 2, 7])
def test_an_orientation_of_another_type_is_no_turn(kind):
    """As BYTE, ASCII and UNDEFINED, where the standard has SHORT."""
    entry = struct.pack("<HHI4s", 0x0112, kind, 1 if kind == 1 else 2, b"6\0\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    picture = Picture(encoded(Image.fromarray(np.zeros((60, 90), np.uint8)), exif=exif))
    assert (picture.width, picture.height) == (90, 60)
    assert picture.part(0, 0, 90, 60).shape == (60, 90, 3)


def test_unusable_pictures_are_named(haar, tmp_path):
    whole = encoded(Image.fromarray(np.zeros((60, 60), np.uint8)), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"cut\.jpg: the image is truncated"):
        haar.find(tmp_path / "cut.jpg")
    with pytest.raises(ImageError, match=r"missing\.jpg: no such file"):
        haar.find("missing.jpg")
    with pytest.raises(ImageError, match="NoneType"):
        haar.find(None)
    with pytest.raises(ImageError, match="divide them by 255"):
        haar.find(np.full((60, 60), 200.0))


@pytest.mark.slow
@pytest.mark.parametrize("turn", [1, 6])
def test_fifty_megapixels_take_bounded_memory(tmp_path, portrait, turn):
    """At most 4 bytes a pixel and 100 MB more than a small picture, as `FaceFinder.find` promises."""
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(portrait).resize((8192, 6144), Image.Resampling.BILINEAR).save(
        tmp_path / "large.jpg", quality=85, exif=exif
    )
    code = """
import resource, sys
from fertools.faces import FaceFinder
finder = FaceFinder("haar")
import numpy as np
finder.find(np.zeros((960, 1280, 3), np.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
faces = finder.find(sys.argv[1])
print(len(faces), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "large.jpg")]
    found, kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(kib) * unit < 8192 * 6144 * 4 + 100e6
    assert (int(found) > 0) == (turn == 1)


# Detectors


def test_a_callable_in_the_detectors_place(portrait):
    seen = []

    def mine(pixels):
        seen.append(pixels.shape)
        return [(10, 20, 50, 50), Detection((100.0, 50.0, 40.0, 60.0), 0.5)]

    first, second = FaceFinder(mine, longest_side=256).find(portrait)
    assert seen == [(256, 256, 3)]
    assert first.box == (20, 40, 100, 100)
    assert first.confidence == 1
    assert np.array_equal(first.crop, to_face(portrait[40:140, 20:120]))
    assert second.box == (200, 100, 80, 120)
    assert np.array_equal(second.crop, to_face(portrait[110:210, 190:290]))  # the square of the mean side
    assert len(FaceFinder(mine, min_confidence=0.8).find(portrait)) == 1
    outside = FaceFinder(lambda pixels: [(600, 600, 50, 50)])
    assert outside.find(portrait) == []


def test_landmarks_of_a_callable_align(portrait):
    points = tuple((x * 2 + 100, y * 2 + 50) for x, y in TEMPLATE)
    finder = FaceFinder(lambda pixels: [Detection((0, 0, 10, 10), 1.0, points)])
    (face,) = finder.find(portrait)
    edge = 96 * (1 - CLOSER) / 2
    assert abs(face.frame.corner - complex(100 + edge, 50 + edge)) < 1e-6
    assert face.frame.pixels == pytest.approx(96 * CLOSER)
    inner = portrait[54:142, 104:192]  # on whole pixels, nearly
    assert np.abs(face.crop.astype(int) - to_face(inner)).mean() < 3


@pytest.mark.parametrize(
    "answer",
    [(1, 2, 3), (0, 0, 0, 5), "face", None, (0, 0, np.nan, 1), Detection((0, 0, 1, 1), 1.0, ((1, 2),))],
)
def test_what_is_no_box_is_refused(answer):
    with pytest.raises(ConfigError, match="four numbers"):
        FaceFinder(lambda pixels: [answer]).find(np.zeros((50, 50), np.uint8))


def test_merging_keeps_the_surest():
    boxes = [(0, 0, 10, 10), (1, 1, 10, 10), (20, 20, 10, 10), (2, 2, 3, 3)]
    found = [Detection(box, confidence) for box, confidence in zip(boxes, (0.7, 0.9, 0.6, 0.8), strict=True)]
    assert [one.box for one in merge(found)] == [(1, 1, 10, 10), (20, 20, 10, 10)]


def test_files_that_are_no_yunet(tmp_path, export):
    text = tmp_path / "notes.onnx"
    text.write_text("not a network")
    for path in (text, export / "model.onnx"):
        with pytest.raises(ModelError, match="YuNet") as caught:
            FaceFinder(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="no such detector file"):
        FaceFinder(tmp_path / "missing.onnx")
    for arguments in ({"min_confidence": 2}, {"longest_side": 10}):
        with pytest.raises(ConfigError):
            FaceFinder("haar", **arguments)


def test_the_environment_names_the_detector(monkeypatch, tmp_path, yunet):
    assert FaceFinder().name == "haar"
    monkeypatch.setenv("FERTOOLS_DETECTOR", yunet)
    assert FaceFinder().name == "yunet"
    assert FaceFinder("haar").name == "haar"


def test_without_opencv_it_says_what_to_install(tmp_path, portrait):
    Image.fromarray(portrait).save(tmp_path / "photo.png")
    blocked = "import sys; sys.modules['cv2'] = None; from fertools.cli import main; main()"
    command = [sys.executable, "-c", blocked, "predict", str(tmp_path / "photo.png"), "--find-faces"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "Error: opencv-python-headless is not installed: pip install 'fertools[faces]'"
    ]


def test_importing_it_does_not_import_opencv():
    code = "import fertools.faces, sys; assert 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_constants_are_those_of_the_training_images(yunet):
    """What benchmarks/framing.py prints, on fewer images: within a pixel of the 48."""
    import os

    source = os.environ.get("FERTOOLS_TEST_DATA")
    if not source:
        pytest.skip("FERTOOLS_TEST_DATA names no folder with FER2013")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import framing
    finally:
        sys.path.remove(str(BENCHMARKS))
    from fertools import data
    from fertools.faces.detectors import Haar

    images = framing.sample(data.read(str(Path(source) / "fer2013.npz")).split("train").images, 300)
    measured = framing.measure(YuNet(yunet), images)
    assert measured.found >= 0.9 * len(images)
    assert np.abs(measured.landmarks[1] - TEMPLATE).max() < 1
    measured = framing.measure(Haar(), images)
    assert measured.found >= 0.7 * len(images)
    assert np.abs(measured.box[1] - [0, 0, 48, 48]).max() < 1.5


# Drawing


@pytest.mark.parametrize("side", [400, 4000])
def test_boxes_and_texts_grow_with_the_picture(side):
    box = [side // 4, side // 4, side // 2, side // 2]
    drawn = np.asarray(draw(np.full((side, side), 50, np.uint8), [(box, "Happy", "Happy 98%")]))
    assert drawn.shape == (side, side, 3)
    middle = drawn[side // 2, : side // 2]
    line = (middle != 50).any(axis=1).sum()
    assert 0.002 * side <= line <= 0.02 * side
    plate = (drawn[: side // 4, side // 3] != 50).any(axis=1).sum()
    assert 0.02 * side <= plate <= 0.06 * side


def test_texts_stay_in_the_picture():
    grey = np.full((100, 120), 50, np.uint8)
    font = ImageFont.load_default(12)
    for box in ((0, 0, 120, 100), (100, 5, 19, 90), (0, 90, 10, 10), (-20, 40, 50, 30)):
        drawn, bare = (np.asarray(draw(grey, [(box, "Surprise", text)])) for text in ("Surprise 100%", ""))
        written = (drawn != bare).any(axis=2)
        down, across = np.nonzero(written)
        assert np.ptp(across) + 1 >= font.getlength("Surprise 100%")
        assert np.ptp(down) + 1 >= sum(font.getmetrics())
        assert len(np.unique(drawn[written], axis=0)) > 1


# The command


@pytest.fixture
def photos(tmp_path, monkeypatch, portrait):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(portrait).save("portrait.jpg", quality=95)
    Image.fromarray(skimage_data.coffee()).save("coffee.png")
    Path("cut.jpg").write_bytes(Path("portrait.jpg").read_bytes()[:3000])


def run(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_json(photos, export, haar):
    result = run("portrait.jpg", "coffee.png", "--find-faces", "--model", export, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    portrait, coffee = json.loads(result.stdout)
    assert coffee == {"path": "coffee.png", "faces": []}
    assert portrait["path"] == "portrait.jpg"
    (face,) = portrait["faces"]
    assert list(face) == [
        *("box", "face_confidence", "small", "landmarks", "label", "confidence", "probabilities"),
    ]
    assert iou(face["box"], FACE) >= 0.6
    (expected,) = haar.find("portrait.jpg")
    prediction = Predictor(export).predict(expected.crop)
    assert face["label"] == prediction.label
    assert face["confidence"] == prediction.confidence
    assert face["probabilities"] == dict(prediction.scores)
    assert list(face["probabilities"]) == list(LABELS)
    assert face["face_confidence"] == round(expected.confidence, 4)


def test_lines_and_drawn_photos(photos):
    result = run("portrait.jpg", "coffee.png", "--find-faces", "--draw", "drawn", "--model", "compact")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    path, box, label, probability = line.split("\t")
    assert (path, label) == ("portrait.jpg", "Happy")
    assert iou([*map(int, box.split(","))], FACE) >= 0.6
    assert float(probability) > 0.5
    assert result.stderr.splitlines() == ["coffee.png: no face found", "Drew the boxes into drawn."]
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["coffee.png", "portrait.jpg"]
    with Image.open("drawn/portrait.jpg") as drawn, Image.open("portrait.jpg") as plain:
        assert drawn.size == plain.size
        assert np.abs(np.asarray(drawn).astype(int) - np.asarray(plain)).max() > 50


def test_a_photo_on_stdin(photos, export):
    arguments = ["predict", "-", "--find-faces", "--draw", "drawn", "--model", str(export)]
    result = CliRunner().invoke(main, arguments, input=Path("portrait.jpg").read_bytes())
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("-\t")
    of_the_file = run("portrait.jpg", "--find-faces", "--draw", "file", "--model", export)
    assert result.stdout.removeprefix("-") == of_the_file.stdout.removeprefix("portrait.jpg")
    assert [path.name for path in Path("drawn").iterdir()] == ["stdin.png"]


def test_a_small_face_comes_with_the_accuracy_at_its_size(photos, portrait):
    Image.fromarray(portrait).resize((170, 170), Image.Resampling.BILINEAR).save("small.png")
    sizes = Predictor("compact").info.accuracy["by_face_pixels"]
    result = run("small.png", "--find-faces", "--model", "compact", "--json")
    (face,) = json.loads(result.stdout)[0]["faces"]
    assert face["small"]
    assert face["accuracy_at_size"] == {"pixels": 24, "accuracy": sizes["24"]}
    line = run("small.png", "--find-faces", "--model", "compact").stdout
    assert line.rstrip().endswith(f"small (accuracy {sizes['24']:.0%} on faces of 24 pixels)")


def test_bad_photos_do_not_stop_the_others(photos, export):
    result = run("cut.jpg", "missing.jpg", "portrait.jpg", "--find-faces", "--model", export, "--json")
    assert result.exit_code == 1
    cut, missing, good = json.loads(result.stdout)
    assert "truncated" in cut["error"]
    assert missing == {"path": "missing.jpg", "error": "missing.jpg: no such file"}
    assert len(good["faces"]) == 1
    assert len(result.stderr.splitlines()) == 2
    result = run("cut.jpg", "--find-faces", "--draw", "drawn", "--model", export)
    assert result.exit_code == 1
    assert not Path("drawn").exists()


def test_drawing_never_replaces_a_photo(photos, export, tmp_path):
    before = Path("portrait.jpg").read_bytes()
    result = run("portrait.jpg", "--find-faces", "--draw", ".", "--model", export)
    assert result.exit_code == 1
    assert "would be replaced" in result.stderr
    assert Path("portrait.jpg").read_bytes() == before
    Path("other").mkdir()
    Path("other/portrait.jpg").write_bytes(before)
    result = run("portrait.jpg", "other/portrait.jpg", "--find-faces", "--draw", "drawn", "--model", export)
    assert result.exit_code == 1
    assert "would be one file" in result.stderr


def test_what_is_plainly_no_crop_is_said_once(photos, export):
    Image.fromarray(np.zeros((60, 50), np.uint8)).save("crop.png")
    Path("again.png").write_bytes(Path("coffee.png").read_bytes())
    result = run("crop.png", "coffee.png", "again.png", "--model", export)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("coffee.png does not look like a cropped face")
    assert "--find-faces" in line
    assert len(result.stdout.splitlines()) == 3
    assert run("crop.png", "portrait.jpg", "--model", export).stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.png", "--detector", "x"),
        ("a.png", "--draw", "d"),
        ("a.png", "--find-faces", "--min-confidence", 2),
    ],
)
def test_usage_errors(arguments):
    assert run(*arguments).exit_code == 2


def test_a_detector_file_that_is_none(photos, export):
    for name, message in (("missing.onnx", "no such detector file"), ("coffee.png", "YuNet")):
        result = run("portrait.jpg", "--find-faces", "--detector", name, "--model", export)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"Error: {name}: ")
        assert message in line
