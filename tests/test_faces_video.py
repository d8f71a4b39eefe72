"""Videos: files, pipes and live sources; tracks; the command."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import tiny_export

from fertools.cli import main
from fertools.contract import LABELS
from fertools.errors import ConfigError, DataError
from fertools.faces import Detection, FaceFinder, Tracker, Video
from fertools.faces.tracking import follow
from fertools.faces.video import Writer
from fertools.runtime import Predictor

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (the extra faces)")
skimage_data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")

WIDTH, HEIGHT, RATE = 320, 240, 25
#: The portrait's face in the frame that is shown at (0, 0).
FACE = (88, 33, 47, 47)


@pytest.fixture(autouse=True)
def no_detector_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERTOOLS_DETECTOR", raising=False)


def frames(count: int, gap: range = range(0)) -> list[np.ndarray]:
    """A portrait that moves to the right by a pixel a frame, in noise; nobody in the frames of the gap."""
    random = np.random.default_rng(0)
    portrait = cv2.resize(skimage_data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)[:240]
    found = []
    for index in range(count):
        frame = np.full((HEIGHT, WIDTH, 3), 90.0)
        if index not in gap:
            x = index % 64
            frame[:, x : x + 256] = portrait
        found.append((frame + random.normal(0, 3, frame.shape)).clip(0, 255).astype(np.uint8))
    return found


def write(path: Path, pictures: list[np.ndarray]) -> Path:
    writer = Writer(path, (WIDTH, HEIGHT), RATE)
    for index, picture in enumerate(pictures):
        writer.write(index / RATE, picture)
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("video")


@pytest.fixture(scope="module")
def video(folder) -> Path:
    """40 frames with a gap of 15, 0.6 seconds."""
    return write(folder / "moving.avi", frames(40, range(15, 30)))


@pytest.fixture(scope="module")
def export(folder) -> Path:
    return tiny_export(folder / "export")


@pytest.fixture(params=["haar", "yunet"])
def detector(request) -> str:
    return "haar" if request.param == "haar" else request.getfixturevalue("yunet")


def run(*arguments, **options):
    return CliRunner().invoke(main, ["watch", *map(str, arguments)], **options)


# Tracks


def at(*boxes):
    """A finder that always sees these boxes."""
    return FaceFinder(lambda pixels: list(boxes))


def test_a_track_keeps_its_number_through_a_second_without_detection(export):
    pictures = frames(60)
    seen = iter([[FACE], [], [], [], [], [(FACE[0] + 25, *FACE[1:])]])
    tracker = Tracker(FaceFinder(lambda pixels: next(seen)), Predictor(export), every=5)
    for index in range(30):
        faces = tracker.update(index / RATE, pictures[index])
        assert [face.track for face in faces] == [1]
    assert tracker.count == 1
    assert abs(faces[0].box[0] - FACE[0] - 29) <= 2


def test_a_face_that_is_gone_is_not_told_of_and_comes_back_as_itself(export):
    pictures = frames(60, range(10, 25))
    empty = set(range(10, 25))
    index = 0

    def see(pixels):
        return [] if index in empty else [(FACE[0] + index, *FACE[1:])]

    tracker = Tracker(FaceFinder(see), Predictor(export), every=5)
    told = []
    for index in range(40):
        told.append([face.track for face in tracker.update(index / RATE, pictures[index])])
    assert told[:10] == [[1]] * 10
    assert told[10:25] == [[]] * 15
    assert told[25:] == [[1]] * 15


@pytest.mark.parametrize(("rate", "every"), [(3, 5), (25, 30)])
def test_a_track_outlives_the_time_between_two_searches(export, rate, every):
    pictures = frames(60)
    index = 0
    finder = FaceFinder(lambda pixels: [(FACE[0] + index, *FACE[1:])])
    tracker = Tracker(finder, Predictor(export), every=every)
    for index in range(60):
        assert [face.track for face in tracker.update(index / rate, pictures[index])] == [1]


def test_after_more_than_a_second_it_is_a_new_face(export):
    pictures = frames(60)
    index = 0

    def see(pixels):
        return [] if 5 <= index < 35 else [FACE]

    tracker = Tracker(FaceFinder(see), Predictor(export), every=5)
    numbers = []
    for index in range(45):
        numbers += [face.track for face in tracker.update(index / RATE, pictures[index])]
    assert set(numbers) == {1, 2}
    assert tracker.count == 2


def test_two_faces_keep_apart(export):
    left, right = (20, 60, 60, 60), (200, 60, 60, 60)
    answers = iter([[left, right], [right, left], [left], [right, left]])
    tracker = Tracker(FaceFinder(lambda pixels: next(answers)), Predictor(export), every=1)
    pictures = frames(1) * 4
    for index, picture in enumerate(pictures):
        boxes = {face.track: face.box for face in tracker.update(index / RATE, picture)}
        assert boxes == {1: left, 2: right}
    assert tracker.count == 2


@pytest.mark.parametrize(("dx", "dy", "scale", "angle"), [(5, -3, 1, 0), (0, 0, 1.05, 0), (2, 2, 0.97, 4)])
def test_flow_follows_shift_scale_and_turn(dx, dy, scale, angle):
    from fertools.faces.framing import Frame

    before = cv2.cvtColor(frames(1)[0], cv2.COLOR_RGB2GRAY)
    x, y, side, _ = FACE
    matrix = cv2.getRotationMatrix2D((x + side / 2, y + side / 2), -angle, scale)
    matrix[:, 2] += dx, dy
    after = cv2.warpAffine(before, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    moved = follow(before, after, Frame(complex(x, y), complex(side)))
    assert moved is not None
    turn = matrix[0, 0] + 1j * matrix[1, 0]
    corner = complex(x, y) * turn + complex(matrix[0, 2], matrix[1, 2])
    assert abs(moved.corner - corner) < 1.5
    assert abs(moved.side - side * turn) < 1.5


def test_flow_gives_up_where_the_face_is_gone():
    from fertools.faces.framing import Frame

    before, after = (cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (frames(1)[0], frames(1, range(1))[0]))
    assert follow(before, after, Frame(88 + 33j, 47 + 0j)) is None
    assert follow(before, before, Frame(400 + 33j, 47 + 0j)) is None


def test_probabilities_are_an_exponential_mean(export):
    predictor = Predictor(export)
    pictures = frames(8)
    tracker = Tracker(at(FACE), predictor, every=1, smoothing=0.2)
    mean = None
    for index, picture in enumerate(pictures):
        (face,) = tracker.update(index / RATE, picture)
        x, y, width, height = FACE
        now = predictor.predict(picture[y : y + height, x : x + width])
        assert face.momentary.label == now.label
        row = np.array([score for _, score in now.scores])
        mean = row if mean is None else mean + (1 - np.exp(-1 / RATE / 0.2)) * (row - mean)
        assert np.allclose([score for _, score in face.prediction.scores], mean, atol=1e-6)
    tracker = Tracker(at(FACE), predictor, every=1, smoothing=0)
    for index, picture in enumerate(pictures):
        (face,) = tracker.update(index / RATE, picture)
        assert face.prediction == face.momentary


def test_smoothing_takes_flicker_down(export):
    """The tiny model answers noise with all classes, so its labels flip as much as any."""
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (100, 100, 3), dtype=np.uint8) for _ in range(50)]

    def flips(smoothing):
        tracker = Tracker(at((10, 10, 60, 60)), Predictor(export), every=1, smoothing=smoothing)
        labels = [tracker.update(i / RATE, one)[0].prediction.label for i, one in enumerate(noise)]
        return sum(a != b for a, b in itertools.pairwise(labels))

    assert flips(0.5) < 0.6 * flips(0)


@pytest.mark.parametrize("arguments", [{"every": 0}, {"smoothing": -1}, {"memory": float("nan")}])
def test_senseless_arguments(export, arguments):
    with pytest.raises(ConfigError):
        Tracker(at(FACE), Predictor(export), **arguments)


# Sources


def test_a_number_that_no_camera_has():
    with pytest.raises(DataError, match="camera 99999999999: there is none"):
        Video("99999999999")


def test_every_frame_of_a_file_with_its_time(video):
    with Video(str(video)) as source:
        assert source.size == (WIDTH, HEIGHT)
        assert source.rate == RATE
        assert not source.live
        told = [(moment, pixels.shape) for moment, pixels in source]
    assert [moment for moment, _ in told] == pytest.approx([index / RATE for index in range(40)], abs=0.002)
    assert {shape for _, shape in told} == {(HEIGHT, WIDTH, 3)}
    assert source.failure is None
    assert source.dropped == 0


def test_without_with_the_iteration_opens_and_closes(video):
    """In a process of its own: what waits for ever is ended there."""
    code = """
import sys, threading
from fertools.faces import Video
whole = Video(sys.argv[1])
print(len([*whole]), len([*whole]))
for _ in (part := Video(sys.argv[1])):
    break
with Video(sys.argv[1]) as source:
    print(len([*source]), len([*source]))
print(threading.active_count())
"""
    command = [sys.executable, "-c", code, str(video)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("40 0\n40 0\n1\n", "")


def test_colours_are_rgb(tmp_path):
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[:, :, 0] = 200
    with Video(str(write(tmp_path / "red.avi", [red] * 3))) as source:
        (_, pixels), *_ = source
    assert pixels[:, :, 0].mean() > 150
    assert pixels[:, :, 1:].mean() < 50


def test_a_live_source_gives_the_newest_frame_and_counts_the_dropped(folder):
    """Ten frames come at once; whoever is slow gets the first and the last."""
    code = """
import sys, time
from fertools.faces import Video
with Video("-", size=(8, 4), live=True) as source:
    got = []
    for moment, pixels in source:
        got.append(int(pixels[0, 0, 0]))
        if len(got) == 1:
            print("first", flush=True)
            time.sleep(1.5)
    print(got, source.dropped, flush=True)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(bytes([0]) * 96)
        process.stdin.flush()
        assert process.stdout.readline() == b"first\n"
        for value in range(1, 11):
            process.stdin.write(bytes([value]) * 96)
        process.stdin.close()
        told = process.stdout.read().decode()
    assert told == "[0, 10] 9\n"


@pytest.mark.parametrize(
    ("source", "arguments", "error", "message"),
    [
        ("missing.mp4", {}, DataError, "no such video file"),
        ("77", {}, DataError, "camera 77"),
        ("-", {}, ConfigError, "640x480"),
        ("text.mp4", {"size": (4, 4)}, ConfigError, "of its own"),
        ("text.mp4", {"live": True}, ConfigError, "not live"),
        ("text.mp4", {}, DataError, "not a video"),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, source, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("hello\n" * 100)
    with pytest.raises(error, match=message):
        Video(source, **arguments)


def greys(path: Path) -> list[int]:
    """Of the frames of a video, to the nearest 20."""
    with Video(str(path)) as source:
        return [20 * round(float(pixels.mean()) / 20) for _, pixels in source]


def test_the_first_frame_is_shown_from_the_start(tmp_path):
    writer = Writer(tmp_path / "video.avi", (WIDTH, HEIGHT), 10)
    for moment, grey in ((0.2, 60), (0.3, 180)):
        writer.write(moment, np.full((HEIGHT, WIDTH, 3), grey, np.uint8))
    writer.close()
    writer.close()
    assert greys(tmp_path / "video.avi") == [60, 60, 60, 180]


def test_frames_of_another_size_are_scaled(tmp_path):
    writer = Writer(tmp_path / "video.avi", (WIDTH, HEIGHT), 10)
    for index, shape in enumerate([(HEIGHT, WIDTH), (2 * HEIGHT, WIDTH), (8, 16)]):
        writer.write(index / 10, np.full((*shape, 3), 60 + 60 * index, np.uint8))
    writer.close()
    assert greys(tmp_path / "video.avi") == [60, 120, 180]


def test_a_late_frame_takes_the_place_of_those_before(tmp_path):
    writer = Writer(tmp_path / "late.avi", (WIDTH, HEIGHT), 10)
    for moment, grey in ((0, 20), (0.1, 60), (0.5, 100), (0.51, 140), (0.7, 180), (0.68, 220)):
        writer.write(moment, np.full((HEIGHT, WIDTH, 3), grey, np.uint8))
    writer.close()
    assert greys(tmp_path / "late.avi") == [20, 60, 60, 60, 60, 140, 140, 220]
    with pytest.raises(ConfigError, match=r"\.xyz"):
        Writer(tmp_path / "video.xyz", (WIDTH, HEIGHT), 10)


# The command


def test_lines_table_and_annotated_video(video, tmp_path, detector):
    drawn, table = tmp_path / "drawn.mp4", tmp_path / "table.csv"
    result = run(video, "--model", "compact", "--detector", detector, "--draw", drawn, "--csv", table)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    told = {line["frame"] for line in lines}
    assert told.issuperset({*range(12), *range(31, 40)})
    assert not told & {*range(16, 30)}  # nobody is there
    assert {line["track"] for line in lines} == {1}
    assert {line["label"] for line in lines} == {"Happy"}
    assert list(lines[0]) == [
        *("time", "frame", "track", "box", "face_confidence", "small", "label", "confidence"),
        "probabilities",
    ]
    for line in lines:
        x, y, width, height = line["box"]
        assert line["time"] == pytest.approx(line["frame"] / RATE, abs=0.002)
        assert abs(x + width / 2 - (FACE[0] + FACE[2] / 2 + line["frame"])) < 8
        assert abs(y + height / 2 - (FACE[1] + FACE[3] / 2)) < 12
        assert list(line["probabilities"]) == list(LABELS)
        assert line["confidence"] == line["probabilities"]["Happy"]
    summary = result.stderr.splitlines()
    assert summary[0].startswith("40 frames, 1.6 s of video, ")
    assert summary[0].endswith("1 face")
    assert summary[1] == f"track 1: {len(lines)} frames: Happy 100%"
    with table.open() as file:
        rows = [*csv.DictReader(file)]
    assert [int(row["frame"]) for row in rows] == [line["frame"] for line in lines]
    for name in ("face_confidence", "confidence"):
        assert [float(row[name]) for row in rows] == [line[name] for line in lines]
    assert float(rows[0]["Happy"]) == lines[0]["probabilities"]["Happy"]
    with Video(str(drawn)) as source:
        pictures = [pixels.astype(int) for _, pixels in source]
    assert len(pictures) == 40
    x, y, width, height = lines[5]["box"]
    yellow = pictures[5][y - 8 : y, x + 10 : x + width - 5].reshape(-1, 3).mean(axis=0)
    assert yellow[:2].min() > yellow[2] + 60  # the plate above the box
    assert not list(tmp_path.glob(".*"))


def test_raw_frames_on_stdin(export, tmp_path):
    pictures = frames(6)
    command = [sys.executable, "-m", "fertools", "watch", "-", "--size", f"{WIDTH}x{HEIGHT}"]
    command += ["--rate", "10", "--model", str(export)]
    raw = b"".join(picture.tobytes() for picture in pictures)
    done = subprocess.run(command, input=raw, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["time"] for line in lines] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    done = subprocess.run(command, input=raw[:-1000], capture_output=True, text=False, check=False)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 5
    assert b"Error: stdin: ends within a frame" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_whole_files(export, tmp_path, number):
    drawn, table = tmp_path / "drawn.mp4", tmp_path / "table.csv"
    command = [sys.executable, "-m", "fertools", "watch", "-", "--size", f"{WIDTH}x{HEIGHT}"]
    command += ["--model", str(export), "--draw", str(drawn), "--csv", str(table)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for picture in frames(3):
            process.stdin.write(picture.tobytes())
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(3)]  # the source is still open
        time.sleep(0.1)
        process.send_signal(number)
        rest, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    assert all(json.loads(line)["track"] == 1 for line in lines)
    assert rest == b""
    assert told.startswith(b"3 frames")
    assert b"Traceback" not in told
    with Video(str(drawn)) as source:
        assert len([*source]) == 3
    assert len(table.read_text().splitlines()) == 4


def test_a_broken_file_gives_what_it_has(folder, export, tmp_path):
    whole = write(tmp_path / "whole.avi", frames(40)).read_bytes()
    broken = tmp_path / "broken.avi"
    broken.write_bytes(whole[: len(whole) // 2])
    table = tmp_path / "table.csv"
    result = run(broken, "--model", export, "--csv", table)
    assert result.exit_code == 1
    count = len(result.stdout.splitlines())
    assert 5 < count < 35
    assert len(table.read_text().splitlines()) == count + 1
    assert f"Error: {broken}: ends after" in result.stderr.splitlines()[-1]
    assert "of 40 frames: the file is truncated or damaged" in result.stderr


def test_a_camera_that_vanishes_ends_cleanly(export, tmp_path, monkeypatch):
    """OpenCV's own capture, of a file, in the place of the camera."""
    path = write(tmp_path / "camera.avi", frames(5))
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: real(str(path)))
    result = run(0, "--model", export, "--csv", tmp_path / "table.csv")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: 0: the source stopped giving frames"
    assert len((tmp_path / "table.csv").read_text().splitlines()) >= 2


def test_a_reader_that_has_had_enough(video, export, tmp_path):
    command = [sys.executable, "-m", "fertools", "watch", str(video), "--model", str(export)]
    command += ["--csv", str(tmp_path / "table.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
    assert b"Traceback" not in told
    assert len((tmp_path / "table.csv").read_text().splitlines()) >= 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-",), 2),
        (("video.mp4", "--live"), 2),
        (("video.mp4", "--size", "640x480"), 2),
        (("-", "--size", "640"), 2),
        (("missing.mp4",), 1),
        (("77",), 1),
        (("text.mp4",), 1),
    ],
)
def test_bad_calls(tmp_path, monkeypatch, export, arguments, code):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("hello")
    result = run(*arguments, "--model", export)
    assert result.exit_code == code
    assert result.stdout == ""
    if code == 1:
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")


def test_opencv_says_nothing_itself(export, tmp_path):
    """In a process of its own: FFmpeg reads its level once."""
    (tmp_path / "text.mp4").write_text("hello")
    script = """
import cv2, sys
from pathlib import Path
from fertools.errors import FertoolsError
from fertools.faces import FaceFinder, Video
from fertools.faces.video import Writer
level = cv2.utils.logging.getLogLevel()
for kind, *given in (
    (Video, "text.mp4"), (Video, "77"), (Writer, Path("no/a.mp4"), (64, 64), 25), (FaceFinder, sys.argv[1])
):
    try:
        kind(*given)
    except FertoolsError:
        print(kind.__name__)
assert cv2.utils.logging.getLogLevel() == level
"""
    command = [sys.executable, "-c", script, str(export / "model.onnx")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["Video", "Video", "Writer", "FaceFinder"], "")


@pytest.mark.parametrize("option", ["--draw", "--csv"])
@pytest.mark.parametrize("name", ["video.avi", "./video.avi", "link.avi"])
def test_no_output_replaces_the_video(tmp_path, monkeypatch, option, name):
    (tmp_path / "video.avi").write_bytes(b"not even opened")
    (tmp_path / "link.avi").symlink_to("video.avi")
    monkeypatch.chdir(tmp_path)
    result = run("video.avi", option, name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {option} {Path(name)}: is the video itself")
    assert (tmp_path / "video.avi").read_bytes() == b"not even opened"


def test_two_outputs_are_two_files(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(video, "--csv", "new.mp4", "--draw", tmp_path / "new.mp4")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "are one file; name two" in result.stderr
    assert not [*tmp_path.iterdir()]


def test_a_file_that_cannot_be_written(video, export, tmp_path):
    for option, name in (("--draw", "video.xyz"), ("--csv", "no/such\0/file.csv")):
        result = run(video, "--model", export, option, tmp_path / name)
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_detections_may_carry_landmarks(export):
    from fertools.faces.framing import TEMPLATE

    points = tuple((x + 88, y + 33) for x, y in TEMPLATE)
    tracker = Tracker(at(Detection(FACE, 0.9, points)), Predictor(export))
    (face,) = tracker.update(0.0, frames(1)[0])
    assert face.box == FACE
    assert face.confidence == 0.9


@pytest.mark.parametrize("name", ["drawn.mp4", "drawn.avi"])
def test_a_full_disk_keeps_the_earlier_video(video, export, tmp_path, name):
    """OpenCV says nothing of what it could not write."""
    (tmp_path / name).write_text("earlier")
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", sys.executable, "-m", "fertools"]
    command = [*limited, "watch", video, "--model", export, "--draw", tmp_path / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Error: {tmp_path / name}: cannot be written (" in done.stderr.splitlines()[-1]
    assert "Wrote" not in done.stderr
    assert (tmp_path / name).read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("rate", [1, 59.94, 66.123, 119.913, 654.999, 655.36, 1000])
def test_any_rate_can_be_written(tmp_path, suffix, rate):
    path = tmp_path / f"video{suffix}"
    writer = Writer(path, (64, 48), rate)
    for index in range(5):
        writer.write(index / rate, np.zeros((48, 64, 3), np.uint8))
    writer.close()
    writer.check()
    assert Video(str(path)).rate == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize(
    "words",
    [
        ("watch", "odd.mp4"),
        ("watch", "video.avi", "--draw", "odd.mp4"),
        ("watch", "video.avi", "--detector", "odd.mp4"),
    ],
)
def test_a_name_that_opencv_would_crash_on(video, export, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"caf\xe9.mp4")
    try:
        shutil.copy(video, odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    shutil.copy(video, "video.avi")
    given = [odd if word == "odd.mp4" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "fertools", *given, "--model", export],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"OpenCV cannot open a name that is not UTF-8" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((odd, "video.avi"))
