import gc
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle, islice

import numpy as np
import pytest
from tiny_model import tiny_export, tiny_reference

from fertools.errors import ImageError, ProviderError
from fertools.runtime import Prediction, Predictor

FACES = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)
BAD = np.zeros((48, 48), np.int64)

#: Seconds after which something hangs.
HANGS = 120


class Recording(Predictor):
    """Notes the sizes of the batches."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.batches = []

    def probabilities(self, images):
        self.batches.append(len(images))
        return super().probabilities(images)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"), "float32")


@pytest.fixture
def predictor(export):
    return Recording(export)


@pytest.fixture(autouse=True)
def in_time():
    """Whatever waits for ever fails."""

    def hangs(*_):
        raise TimeoutError("this hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def until(condition):
    end = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "fertools-stream"]


@pytest.fixture(autouse=True)
def no_thread_is_left(in_time):
    yield
    until(lambda: not readers())


def rows(outcomes):
    return np.array([[*outcome.probabilities.values()] for outcome in outcomes])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("max_delay", [0, 0.02, 60])
@pytest.mark.parametrize("queue_size", [1, 32])
def test_one_result_a_frame_in_order(predictor, batch_size, max_delay, queue_size):
    options = {"batch_size": batch_size, "max_delay": max_delay, "queue_size": queue_size}
    outcomes = list(predictor.predict_stream(iter(FACES), **options))
    np.testing.assert_allclose(rows(outcomes), tiny_reference(FACES), atol=1e-5)
    assert sum(predictor.batches) == 20
    assert max(predictor.batches) <= batch_size


def test_frames_are_anything_that_predict_takes(predictor):
    color = np.repeat(FACES[1][:, :, None], 3, axis=2)
    frames = [FACES[0], color, FACES[2] / 255, FACES[3].repeat(2, axis=0)]
    expected = [predictor.predict(frame) for frame in frames]
    assert list(predictor.predict_stream(frames, batch_size=1)) == expected
    assert list(predictor.predict_stream([])) == []
    assert len(list(predictor.predict_stream(FACES))) == 20


def test_a_bad_frame_does_not_end_the_stream(predictor):
    frames = [FACES[0], BAD, FACES[1], "missing.png", b"", FACES[2]]
    outcomes = list(predictor.predict_stream(frames))
    kinds = [Prediction, ImageError, Prediction, ImageError, ImageError, Prediction]
    assert [type(outcome) for outcome in outcomes] == kinds
    np.testing.assert_allclose(rows(outcomes[i] for i in (0, 2, 5)), tiny_reference(FACES[:3]), atol=1e-5)
    assert str(outcomes[1]).startswith("image 1: pixels of dtype int64")
    assert str(outcomes[3]) == "missing.png: no such file"
    assert str(outcomes[4]).startswith("image 4: ")
    # An error that is kept must not keep the frame.
    assert (outcomes[1].__traceback__, outcomes[1].__context__) == (None, None)


def test_bad_frames_alone(predictor):
    outcomes = list(predictor.predict_stream([BAD] * 20))
    assert [type(outcome) for outcome in outcomes] == [ImageError] * 20
    assert predictor.batches == []


@pytest.mark.parametrize("error", [OSError("unplugged"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_of_the_source_comes_after_the_frames_before(predictor, error):
    def source():
        yield from FACES[:5]
        raise error

    stream = predictor.predict_stream(source())
    assert len(list(islice(stream, 5))) == 5
    with pytest.raises(type(error)) as caught:
        next(stream)
    assert caught.value is error
    assert list(stream) == []


def test_an_error_of_the_network_ends_the_stream(predictor, monkeypatch):
    def broken(images):
        raise ProviderError("out of memory")

    stream = predictor.predict_stream(cycle(FACES))
    next(stream)
    monkeypatch.setattr(predictor, "probabilities", broken)
    with pytest.raises(ProviderError, match="out of memory"):
        list(stream)


def test_a_frame_does_not_wait_for_the_rest_of_its_batch(predictor):
    seen = threading.Event()

    def camera():
        yield FACES[0]
        assert seen.wait(HANGS)
        yield FACES[1]

    stream = predictor.predict_stream(camera(), batch_size=2, max_delay=0.01)
    next(stream)
    seen.set()
    next(stream)
    assert predictor.batches == [1, 1]
    assert list(stream) == []


def test_frames_wait_for_others(predictor):
    def camera():
        for face in FACES[:10]:
            yield face
            time.sleep(0.01)

    assert len(list(predictor.predict_stream(camera(), batch_size=4, max_delay=60))) == 10
    assert predictor.batches == [4, 4, 2]


def test_a_frame_that_has_waited_already_waits_no_more(predictor, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fertools.runtime.stream.monotonic", lambda: now[0])
    asked, stop = threading.Event(), threading.Event()

    def camera():
        yield from FACES[:4]
        asked.set()
        stop.wait(HANGS)

    stream = predictor.predict_stream(camera(), batch_size=3, max_delay=10 * HANGS)
    next(stream)  # of the first three; the fourth waits in the queue for as long as these are looked at
    assert asked.wait(HANGS)
    now[0] += 10 * HANGS
    assert len(list(islice(stream, 3))) == 3
    stop.set()
    assert list(stream) == []
    assert predictor.batches == [3, 1]


def test_the_source_is_not_read_ahead_without_limit(predictor):
    numbers = count(1)
    read = []

    def camera():
        for number, face in zip(numbers, cycle(FACES), strict=False):
            read.append(number)
            yield face

    stream = predictor.predict_stream(camera(), batch_size=1, queue_size=5)
    for taken in (1, 2, 3):
        next(stream)
        until(lambda: len(read) == taken + 5)  # noqa: B023  called at once
        time.sleep(0.05)
        assert len(read) == taken + 5
    stream.close()
    until(lambda: not readers())
    assert len(read) == 8


def test_an_endless_source(predictor):
    stream = predictor.predict_stream(cycle(FACES), batch_size=1)
    reference = tiny_reference(FACES)
    for index, outcome in enumerate(islice(stream, 200)):
        np.testing.assert_allclose([*outcome.probabilities.values()], reference[index % 20], atol=1e-5)


@pytest.mark.parametrize("how", ["break", "close", "drop", "cycle"])
def test_the_thread_ends_with_the_generator(predictor, how):
    ended = threading.Event()

    def camera():
        try:
            yield from cycle(FACES)
        finally:
            ended.set()

    stream = predictor.predict_stream(camera(), queue_size=2)
    assert readers() == []  # it starts with the first result
    for _ in stream:
        assert len(readers()) == 1
        break
    if how == "close":
        stream.close()
        assert list(stream) == []
    elif how == "cycle":
        knot = [stream]
        knot.append(knot)
        del knot
    del stream
    gc.collect()
    assert ended.wait(HANGS)  # the source is closed, too: nothing else holds it
    until(lambda: not readers())


def test_closing_does_not_wait_for_a_blocked_source(predictor):
    blocked, goes_on = threading.Event(), threading.Event()

    def camera():
        yield FACES[0]
        blocked.set()
        assert goes_on.wait(HANGS)
        yield FACES[1]
        raise AssertionError("read after it was closed")

    stream = predictor.predict_stream(camera(), max_delay=0)
    next(stream)
    assert blocked.wait(HANGS)
    stream.close()
    assert len(readers()) == 1
    goes_on.set()
    until(lambda: not readers())


def test_the_source_may_use_one_array_for_all_frames(predictor):
    def camera():
        frame = np.empty((48, 48), np.uint8)
        for face in FACES:
            frame[:] = face
            yield frame

    outcomes = list(predictor.predict_stream(camera(), batch_size=20, max_delay=60))
    np.testing.assert_allclose(rows(outcomes), tiny_reference(FACES), atol=1e-5)


def test_threads_share_a_predictor(predictor):
    def work(shift):
        faces = np.roll(FACES, shift, axis=0)
        outcomes = list(predictor.predict_stream(islice(cycle(faces), 100), batch_size=4, queue_size=3))
        return rows(outcomes), np.tile(tiny_reference(faces), (5, 1))

    with ThreadPoolExecutor(4) as pool:
        for found, expected in pool.map(work, range(4)):
            np.testing.assert_allclose(found, expected, atol=1e-5)
