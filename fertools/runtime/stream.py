"""Predictions for a stream of frames, e.g. from a camera."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import numpy as np

from fertools.errors import ImageError
from fertools.runtime.arguments import seconds, whole_number
from fertools.runtime.prediction import Prediction
from fertools.runtime.preprocessing import Face, check_several, place, to_face
from fertools.runtime.session import check_process

Outcome = Prediction | ImageError

#: Largest queue: hours of a camera's frames.
LONGEST_QUEUE = 1_000_000


def stream(
    predict: Callable[[Face], list[Prediction]],
    frames: Iterable[Any],
    *,
    batch_size: int,
    max_delay: float,
    queue_size: int,
) -> Generator[Outcome, None, None]:
    """Do the work of ``Predictor.predict_stream``, which describes the other arguments.

    ``predict`` takes uint8 (n, 48, 48), n at least 1, and returns n predictions.
    """
    batch_size = whole_number("batch_size", batch_size)
    max_delay = seconds("max_delay", max_delay, threading.TIMEOUT_MAX)
    queue_size = whole_number("queue_size", queue_size, LONGEST_QUEUE)
    check_several(frames)
    return _outcomes(predict, frames, batch_size, max_delay, queue_size)


def _outcomes(
    predict: Callable[[Face], list[Prediction]],
    frames: Iterable[Any],
    batch_size: int,
    max_delay: float,
    queue_size: int,
) -> Generator[Outcome, None, None]:
    reader = _Reader(frames, queue_size)
    try:
        while batch := reader.batch(batch_size, max_delay):
            faces = [face for face in batch if not isinstance(face, ImageError)]
            predictions = iter(predict(np.stack(faces)) if faces else ())
            for face in batch:
                yield face if isinstance(face, ImageError) else next(predictions)
        if reader.failure is not None:
            raise reader.failure
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class _Arrival:
    #: uint8 (48, 48), or the error if the frame cannot be used.
    face: Face | ImageError
    #: Time of arrival by the clock ``monotonic``.
    time: float


@dataclass(frozen=True, slots=True)
class _End:
    #: Exception of the source, None if it just ended.
    failure: BaseException | None


class _Reader:
    """Reads frames in a thread of its own, up to a limit ahead.

    It must not refer to the generator that reads from it, which could then never be garbage-collected. Both
    directions use a ``SimpleQueue``, because its ``put`` is reentrant, and the garbage collector may close
    the generator in the middle of another method of the same queue.
    """

    def __init__(self, frames: Iterable[Any], ahead: int) -> None:
        #: Exception of the source, once it has ended.
        self.failure: BaseException | None = None
        self._ended = False
        self._closed = False
        self._process = os.getpid()
        self._arrivals: SimpleQueue[_Arrival | _End] = SimpleQueue()
        #: One item per frame that may be read.
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(ahead):
            self._permits.put(None)
        threading.Thread(target=self._read, args=(frames,), name="fertools-stream", daemon=True).start()

    def batch(self, size: int, max_delay: float) -> list[Face | ImageError]:
        """Return the next frames, at most ``size`` of them; none if the source has ended.

        Waits for one, and then for others until the first has waited for ``max_delay`` seconds.

        Raises:
            ForkError: the thread does not exist in this process, so waiting would never end.
        """
        check_process(self._process, "stream of predictions")
        faces: list[Face | ImageError] = []
        until = None
        while len(faces) < size and not self._ended:
            try:
                arrival = self._arrivals.get(timeout=None if until is None else max(0, until - monotonic()))
            except Empty:
                break
            if isinstance(arrival, _End):
                self.failure, self._ended = arrival.failure, True
                break
            self._permits.put(None)
            faces.append(arrival.face)
            if until is None:
                until = arrival.time + max_delay
        return faces

    def close(self) -> None:
        """Let the thread end, once the source has returned the frame that it is waiting for."""
        self._closed = True
        self._permits.put(None)  # wakes the thread

    def _read(self, frames: Iterable[Any]) -> None:
        try:
            for index, frame in zip(self._turns(), frames, strict=False):
                self._arrivals.put(_Arrival(_face(frame, index), monotonic()))
        except BaseException as error:  # any exception is passed on to the reader of the stream
            self._arrivals.put(_End(error))
        else:
            self._arrivals.put(_End(None))

    def _turns(self) -> Iterator[int]:
        """Yield 0, 1, 2, ..., each when another frame may be read, until the reader is closed."""
        for index in count():
            self._permits.get()
            if self._closed:
                return
            yield index


def _face(frame: Any, index: int) -> Face | ImageError:
    """Return the network's input, or an error without references to the frame, not even by its traceback."""
    try:
        return to_face(frame).copy()  # the source may write the next frame into the same array
    except ImageError as error:
        return ImageError(f"{place(frame, index)}{error}")
