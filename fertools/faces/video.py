"""Frames of video files, cameras and pipes, and annotated video files."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from errno import EIO
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from fertools.errors import ConfigError, DataError
from fertools.faces.detectors import open_name, opencv, quiet

Pixels = npt.NDArray[np.uint8]

#: The name of standard input.
STDIN: Final = "-"

#: Seconds without a frame after which a live source counts as lost.
PATIENCE: Final = 10.0

#: Frames per second of a source that does not say how many it has.
USUAL_RATE: Final = 25.0

#: Least share of the told frames in a whole file: some containers only estimate their number.
WHOLE: Final = 0.9


class Video:
    """The frames of a source, read by a thread of its own; a context manager.

    Iterated outside of its ``with`` statement, it is opened and closed by the iteration.

    A live source never queues up: a frame that has not been taken when the next one arrives is dropped and
    counted. Other sources give every frame.

    Arguments:
        source: a video file, the number of a camera, the URL of a stream, or ``"-"`` for raw RGB24 on stdin.
        size: width and height of the frames on stdin.
        rate: frames per second on stdin, which give the time of each frame.
        live: whether stdin is live; cameras and streams always are, a file never is.

    Raises:
        ConfigError: an argument makes no sense.
        DataError: there is no such camera, or the file is no video.
        MissingExtraError: OpenCV is not installed.
    """

    #: Width and height in pixels.
    size: tuple[int, int]
    #: Frames per second, as told by the source.
    rate: float
    live: bool

    def __init__(
        self,
        source: str,
        *,
        size: tuple[int, int] | None = None,
        rate: float | None = None,
        live: bool = False,
    ) -> None:
        #: Number of dropped frames of a live source.
        self.dropped = 0
        #: Why the source ended early; None if it did not.
        self.failure: str | None = None
        self._stop = False
        #: Closes the source, unless the thread is still in it.
        self._close: Callable[[], None] = lambda: None
        #: Frames, with their times if the source has them.
        self._next: Callable[[], Iterator[tuple[float | None, Pixels]]] = self._stdin
        if source == STDIN:
            if size is None or min(size) < 1:
                raise ConfigError("frames on stdin are raw RGB24: say their size, as 640x480")
            self.size, self.rate, self.live = size, rate or USUAL_RATE, live
        else:
            if size is not None or rate is not None:
                raise ConfigError(
                    f"{source}: has a size and a rate of its own; those are for frames on stdin"
                )
            self.live = source.isdecimal() or "://" in source
            if live and not self.live:
                raise ConfigError(f"{source}: a file is not live")
            self._open(source)
        self._slot: queue.Queue[tuple[float, Pixels] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._read, name="fertools-video", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(2)
        if not self._thread.is_alive():
            self._close()

    def stop(self) -> None:
        """End the iteration at the next frame; safe to call from a signal handler."""
        self._stop = True

    def __iter__(self) -> Iterator[tuple[float, Pixels]]:
        """Iterate over seconds since the first frame, and frames uint8 (h, w, 3), RGB."""
        if self._thread.ident is not None:
            yield from self._frames()
            return
        with self:
            yield from self._frames()

    def _frames(self) -> Iterator[tuple[float, Pixels]]:
        last = time.monotonic()
        while not self._stop:
            try:
                item = self._slot.get(timeout=0.1)
            except queue.Empty:
                if not self._thread.is_alive() and self._slot.empty():
                    return  # an earlier iteration has taken all
                if self.live and time.monotonic() - last > PATIENCE:
                    self.failure = f"no frame has come for {PATIENCE:.0f} seconds"
                    return
                continue
            if item is None:
                return
            yield item
            last = time.monotonic()

    def _read(self) -> None:
        """Put every frame into the slot; runs in the thread."""
        try:
            start = None
            for index, (moment, pixels) in enumerate(self._next()):
                if self.live:
                    start = time.monotonic() if start is None else start
                    self._put_newest((time.monotonic() - start, pixels))
                elif not self._put((moment if moment is not None else index / self.rate, pixels)):
                    return
                if self._stop:
                    return
        except Exception as error:  # whatever a decoder raises, the earlier frames are good
            self.failure = f"{error}"
        self._put(None)

    def _put(self, item: tuple[float, Pixels] | None) -> bool:
        """Wait until the slot is free; False if it will never be."""
        while not self._stop:
            try:
                self._slot.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _put_newest(self, item: tuple[float, Pixels]) -> None:
        while True:
            try:
                self._slot.put_nowait(item)
                return
            except queue.Full:
                try:
                    self._slot.get_nowait()
                    self.dropped += 1
                except queue.Empty:
                    pass

    def _open(self, source: str) -> None:
        cv2 = opencv()
        camera = source.isdecimal()
        if not camera and "://" not in source and not Path(source).is_file():
            raise DataError(f"{source}: no such video file; a camera is named by its number, stdin by -")
        try:
            with quiet(cv2):
                capture = cv2.VideoCapture(int(source) if camera else open_name(source))
                first = capture.read()[1] if capture.isOpened() else None
        except (cv2.error, OverflowError) as error:  # a number that no camera can have
            raise DataError(f"camera {source}: there is none") from error
        if first is None:
            capture.release()
            if camera:
                raise DataError(f"camera {source}: there is none, it is in use, or it gives no frames")
            raise DataError(f"{source}: not a video that OpenCV can read")
        self.size = (int(first.shape[1]), int(first.shape[0]))
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 1 <= rate <= 1000 else USUAL_RATE
        self._close = capture.release
        self._next = lambda: self._captured(cv2, capture, first)

    def _captured(self, cv2: Any, capture: Any, first: Any) -> Iterator[tuple[float | None, Pixels]]:
        """Read frames of a file, camera or stream, with the file's own times."""
        expected = 0 if self.live else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        count, frame, offset, last = 0, first, None, -1.0
        while frame is not None and not self._stop:
            moment = None
            if not self.live:
                moment = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
                offset = moment if offset is None else offset
                moment -= offset
                if moment <= last:  # the container does not say
                    moment = last + 1 / self.rate if count else 0.0
                last = moment
            yield moment, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            count += 1
            good, frame = capture.read()
            frame = frame if good else None
        if self.live and not self._stop:
            self.failure = "the source stopped giving frames"
        elif not self._stop and count < WHOLE * expected:
            self.failure = f"ends after {count} of {expected} frames: the file is truncated or damaged"

    def _stdin(self) -> Iterator[tuple[float | None, Pixels]]:
        """Read frames of raw RGB24."""
        width, height = self.size
        whole = width * height * 3
        # By the file descriptor: a thread that waits in sys.stdin would hold its lock when Python exits.
        descriptor = sys.stdin.fileno()
        while True:
            data = bytearray()
            while len(data) < whole:
                piece = os.read(descriptor, min(whole - len(data), 1 << 20))
                if not piece:
                    break
                data += piece
            if len(data) < whole:
                if data:
                    share = f"{len(data):,} of {whole:,} bytes"
                    self.failure = f"ends within a frame ({share}): is its size {width}x{height}?"
                return
            yield None, np.frombuffer(bytes(data), np.uint8).reshape(height, width, 3)


class Writer:
    """Writes RGB frames as a video file at a constant rate; of late frames the last one counts.

    Frames of another size are scaled: a camera or a stream may change it.

    Raises:
        ConfigError: OpenCV cannot write such a file, or such frames.
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        self._cv2 = cv2 = opencv()
        codec = "MJPG" if path.suffix.lower() == ".avi" else "mp4v"
        # MPEG-4 has 16 bits for the ticks of a second, which are as many as the digits of the rate ask for.
        rate = round(rate, 2 if rate < 655 else 1)
        with quiet(cv2):
            self._writer = cv2.VideoWriter(open_name(path), cv2.VideoWriter_fourcc(*codec), rate, size)
        if not self._writer.isOpened():
            raise ConfigError(
                f"*{path.suffix}: OpenCV cannot write such a video of {size[0]}x{size[1]} pixels at {rate:g}"
                " frames per second; name it .mp4 or .avi"
            )
        self.path = path
        self.size = size
        self.rate = rate
        self._count = 0
        #: The newest frame, BGR, which only the next one or the end shows; None before the first.
        self._newest: Any = None

    def write(self, moment: float, pixels: Pixels) -> None:
        """Show a frame, uint8 (h, w, 3), RGB, from ``moment`` on, in seconds; the first from the start on."""
        frame = np.ascontiguousarray(pixels[:, :, ::-1])
        if frame.shape[1::-1] != self.size:  # OpenCV would leave it out without a word
            frame = self._cv2.resize(frame, self.size)
        shown = frame if self._newest is None else self._newest
        while self._count < round(moment * self.rate):
            self._writer.write(shown)
            self._count += 1
        self._newest = frame

    def close(self) -> None:
        """Show the last frame and complete the file."""
        if self._newest is not None:
            self._writer.write(self._newest)
            self._count += 1
            self._newest = None
        self._writer.release()

    def check(self) -> None:
        """Read what the closed file says of itself. OpenCV writes to a full disk without an error.

        Raises:
            OSError: frames are missing.
        """
        with quiet(self._cv2):
            written = self._cv2.VideoCapture(open_name(self.path))
            count = int(written.get(self._cv2.CAP_PROP_FRAME_COUNT))
            written.release()
        if count < WHOLE * self._count:
            raise OSError(EIO, f"{max(count, 0):,} of {self._count:,} frames were kept")
