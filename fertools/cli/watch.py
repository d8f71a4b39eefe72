"""``fertools watch``."""

from __future__ import annotations

import csv
import json
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import click

from fertools import files
from fertools.cli.common import model_option, precision_option, talk
from fertools.cli.photos import detector_option, make_finder, min_confidence_option
from fertools.contract import LABELS
from fertools.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fertools.faces import TrackedFace, Video


class _Size(click.ParamType):  # type: ignore[type-arg]
    """WIDTHxHEIGHT."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", str(value))
        if found is None:
            self.fail(f"{value!r} is not a size such as 640x480", param, ctx)
        return int(found[1]), int(found[2])


@click.command()
@click.argument("source", metavar="SRC")
@model_option
@precision_option
@detector_option
@min_confidence_option
@click.option(
    "--longest-side",
    type=click.IntRange(min=48),
    default=320,
    show_default=True,
    metavar="PIXELS",
    help="Longer side of the frames that the detector sees; larger finds smaller faces and takes longer.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Run the detector on every Nth frame, and track faces in between.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Time constant of the smoothing over a track's probabilities; 0 is no smoothing.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of the detector and of the network.",
)
@click.option("--size", type=_Size(), metavar="WIDTHxHEIGHT", help="Size of the frames on stdin.")
@click.option("--rate", type=click.FloatRange(min=1), help="Frames per second on stdin.  [default: 25]")
@click.option(
    "--live", is_flag=True, help="Stdin is live: drop the frames that arrive while one is being processed."
)
@click.option(
    "--draw", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Annotated video, .mp4."
)
@click.option(
    "--csv",
    "table",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write all lines as a CSV table, too.",
)
def command(
    source: str,
    model: str | None,
    precision: str,
    detector: str | None,
    min_confidence: float | None,
    longest_side: int,
    every: int,
    smooth: float,
    threads: int,
    size: tuple[int, int] | None,
    rate: float | None,
    live: bool,
    draw: Path | None,
    table: Path | None,
) -> None:
    """Predict the expressions in a video or from a camera.

    SRC is a video file, the number of a camera, the URL of a stream, or - for raw RGB24 frames on
    stdin. Prints one line of JSON for each face in each frame: time in seconds, frame, track (the
    same number for the same face), box (left, top, width, height in pixels), face_confidence (the
    detector's, 0..1), small (fewer than 48 pixels a side), and, smoothed over the track, label,
    confidence (the label's probability) and probabilities. At the end of the video or on Ctrl-C it
    prints a summary and completes the files. Needs the extra faces.
    """
    if source != "-" and (size or rate or live):
        raise click.UsageError("--size, --rate and --live are for frames on stdin (SRC -).")
    if source == "-" and size is None:
        raise click.UsageError("Frames on stdin need a size, e.g. --size 640x480.")
    _check_outputs(source, table, draw)
    finder = make_finder(detector, min_confidence, longest_side=longest_side)
    from fertools.faces import Tracker, Video
    from fertools.faces.detectors import opencv
    from fertools.runtime import Predictor

    opencv().setNumThreads(threads)
    predictor = Predictor(model, precision=precision, providers="cpu", threads=threads)
    tracker = Tracker(finder, predictor, every=every, smoothing=smooth)
    summary = Summary()
    with ExitStack() as stack:
        video = stack.enter_context(Video(source, size=size, rate=rate, live=live))
        outputs: list[Output] = [Lines()]
        if table is not None:
            outputs.append(stack.enter_context(_table(table)))
        if draw is not None:
            outputs.append(stack.enter_context(_drawing(draw, video)))
        stack.enter_context(_until_signal(video))
        if video.live:
            talk("Watching; Ctrl-C ends.")
        for index, (moment, pixels) in enumerate(video):
            faces = tracker.update(moment, pixels)
            summary.add(moment, faces)
            try:
                for output in outputs:
                    output.write(index, moment, pixels, faces)
            except BrokenPipeError:  # the reader has closed the pipe
                sys.stdout = None
                break
    summary.tell(video.dropped)
    for path in (table, draw):
        if path is not None:
            talk(f"Wrote {path}.")
    if video.failure is not None:
        raise DataError(f"{'stdin' if source == '-' else source}: {video.failure}")


def _check_outputs(source: str, table: Path | None, draw: Path | None) -> None:
    """Raise ConfigError if an output would replace the video or the other output, or has no usable name."""
    from fertools.faces.detectors import open_name

    if draw is not None:
        open_name(draw)
    for option, path in (("--csv", table), ("--draw", draw)):
        if path is not None and files.same_file(path, source):
            raise ConfigError(f"{option} {path}: is the video itself, which it would replace; name another")
    if table is not None and draw is not None and files.same_file(table, draw):
        raise ConfigError(f"--csv {table} and --draw {draw}: are one file; name two")


class Summary:
    """The summary of a video, for stderr."""

    def __init__(self) -> None:
        self.frames = 0
        self.start = monotonic()
        self.last = 0.0
        #: Track -> label -> frames.
        self.tracks: dict[int, Counter[str]] = {}

    def add(self, moment: float, faces: Sequence[TrackedFace]) -> None:
        """Count a frame."""
        self.frames += 1
        self.last = moment
        for face in faces:
            self.tracks.setdefault(face.track, Counter())[face.prediction.label] += 1

    def tell(self, dropped: int) -> None:
        """Say it on stderr."""
        seconds = monotonic() - self.start
        drops = f", {dropped:,} dropped" if dropped else ""
        rate = self.frames / max(seconds, 1e-9)
        faces = f"{len(self.tracks)} face{'' if len(self.tracks) == 1 else 's'}"
        video = f"{self.frames:,} frames{drops}, {self.last:.1f} s of video"
        talk(f"{video}, {rate:.1f} frames per second; {faces}")
        for track, labels in sorted(self.tracks.items()):
            total = labels.total()
            shares = ", ".join(f"{label} {count / total:.0%}" for label, count in labels.most_common())
            talk(f"track {track}: {total:,} frames: {shares}")


class Output(Protocol):
    """An output of frames and faces."""

    def write(self, index: int, moment: float, pixels: Any, faces: Sequence[TrackedFace]) -> None:
        """Take a frame: its number, its time in seconds, uint8 (h, w, 3), its faces."""


class Lines:
    """JSON lines on stdout."""

    def write(self, index: int, moment: float, pixels: Any, faces: Sequence[TrackedFace]) -> None:
        """Print one line per face, and flush them with the frame."""
        for face in faces:
            line = {"time": round(moment, 3), "frame": index, **face.to_dict()}
            sys.stdout.write(json.dumps(line) + "\n")
        if faces:
            sys.stdout.flush()


class _Table:
    FACTS = ("face_confidence", "small", "label", "confidence")

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        box = ("left", "top", "width", "height")
        writer.writerow(["time", "frame", "track", *box, *self.FACTS, *LABELS])

    def write(self, index: int, moment: float, pixels: Any, faces: Sequence[TrackedFace]) -> None:
        for face in faces:
            facts = face.to_dict() | {"small": int(face.small)}
            row = [round(moment, 3), index, face.track, *face.box, *(facts[name] for name in self.FACTS)]
            self.writer.writerow([*row, *facts["probabilities"].values()])


class _Drawing:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def write(self, index: int, moment: float, pixels: Any, faces: Sequence[TrackedFace]) -> None:
        import numpy as np

        from fertools.faces import draw

        marks = [
            (
                face.box,
                face.prediction.label,
                f"{face.track} {face.prediction.label} {face.prediction.confidence:.0%}",
            )
            for face in faces
        ]
        self.writer.write(moment, np.asarray(draw(pixels, marks)) if marks else pixels)


@contextmanager
def _table(path: Path) -> Iterator[_Table]:
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        yield _Table(csv.writer(file))


@contextmanager
def _drawing(path: Path, video: Video) -> Iterator[_Drawing]:
    from fertools.faces.video import Writer

    with files.replacing(path) as temporary:
        writer = Writer(temporary, video.size, video.rate)
        try:
            yield _Drawing(writer)
        finally:
            writer.close()
        writer.check()


@contextmanager
def _until_signal(video: Video) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the video instead of the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: video.stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
