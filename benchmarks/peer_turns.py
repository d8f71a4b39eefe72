"""Run one export in all engines, in turns, each turn in its own process."""

import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peer_engines import ENGINES, Engine
from peer_files import ANSWERS, CALIBRATION, IMAGES, sized
from peer_report import Model, Row, Speed, standings

from fertools.benchmark.start import first_line
from fertools.contract import REPORT_FILE
from fertools.data import Dataset, Split
from fertools.errors import FertoolsError, MissingExtraError, ModelError
from fertools.evaluation import accuracy
from fertools.export.quantization import QuantizeConfig, calibration_images
from fertools.verification.gates import agreement
from fertools.verification.timing import typical

HERE = Path(__file__).resolve().parent
#: The engine that agreement is measured against.
REFERENCE = "Keras predict"
#: Keeps engines from using a GPU, logging, and sending telemetry.
ENVIRONMENT = {
    **os.environ,
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ORT_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",
}


@dataclass(frozen=True)
class Settings:
    """Thread counts, batch sizes and number of rounds of the measurement."""

    threads: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int


@dataclass(frozen=True)
class Turn:
    """Measurements of one process; times in seconds."""

    threads: int
    start: float
    peak_bytes: int | None
    #: Batch size -> the time of each call.
    calls: dict[int, list[float]]


def compare(
    folder: Path, dataset: Dataset, test: Split, settings: Settings, say: Callable[[str], None]
) -> Model:
    """Run the export ``folder`` in all engines.

    Arguments:
        folder: what ``fertools export`` wrote.
        dataset: the training data; its train split calibrates int8.
        test: the images that accuracy is measured on.
        settings: what is timed.
        say: receives progress messages.

    Raises ModelError if no engine can run it, DataError without train images.
    """
    quantization = json.loads((folder / REPORT_FILE).read_text())["quantization"]
    config = QuantizeConfig.from_report(quantization) if quantization else QuantizeConfig()
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        np.save(work / CALIBRATION, calibration_images(dataset.split("train").images, config))
        np.save(work / IMAGES, test.images)
        for name, engine in ENGINES.items():
            say(f"{folder.name}: {name}")
            try:
                files[name] = find_file(engine, folder, work, settings)
            except FertoolsError as error:
                left_out[name] = str(error)
        turns, answers = take_turns(files, work, settings, left_out, say)
        rows = tuple(make_row(name, files[name], turns[name], answers, test) for name in answers)
    if not rows:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ModelError(f"{folder}: no engine can run it: {reasons}")
    return Model(folder.name, rows, tuple(standings(rows)), left_out)


def take_turns(
    files: dict[str, Path],
    work: Path,
    settings: Settings,
    left_out: dict[str, str],
    say: Callable[[str], None],
) -> tuple[dict[str, list[Turn]], dict[str, np.ndarray]]:
    """Run all rounds: engine -> its turns, and its answers. Engines that fail go to ``left_out``."""
    turns: dict[str, list[Turn]] = {name: [] for name in files}
    answers: dict[str, np.ndarray] = {}
    for number in range(settings.rounds):
        say(f"round {number + 1} of {settings.rounds}")
        for threads in settings.threads:
            for name in rotated([*files], number):
                if name in left_out:
                    continue
                answer = number == 0 and threads == settings.threads[-1]
                try:
                    turns[name].append(take_turn(name, files[name], work, threads, settings.batches, answer))
                except ModelError as error:
                    left_out[name] = str(error)
                    continue
                if answer:
                    answers[name] = np.load(work / ANSWERS)
    return turns, {name: answers[name] for name in files if name not in left_out}


def find_file(engine: Engine, folder: Path, work: Path, settings: Settings) -> Path:
    """Return the file that an engine loads, made in ``work`` if the export does not have it.

    Raises MissingExtraError without the engine's packages, ModelError if there is no file.
    """
    for package in engine.packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "bench")
    if engine.maker:
        run("peer_files.py", engine.maker, folder, work, *settings.batches)
        return work / engine.file
    if not (folder / engine.file).is_file():
        raise ModelError(f"the export has no {engine.file}")
    return folder / engine.file


def take_turn(
    name: str, file: Path, work: Path, threads: int, batches: tuple[int, ...], answer: bool
) -> Turn:
    """Run an engine's process to its end. Raises ModelError if it fails."""
    job = {"engine": name, "file": str(file), "work": str(work), "threads": threads, "batches": batches}
    start, (peak, calls) = run("peer_engines.py", json.dumps({**job, "answer": answer}))
    return Turn(
        threads, start, json.loads(peak), {int(size): each for size, each in json.loads(calls).items()}
    )


def run(script: str, *arguments: object) -> tuple[float, list[str]]:
    """Run a script of this folder, see ``first_line``."""
    return first_line([sys.executable, str(HERE / script), *map(str, arguments)], ENVIRONMENT)


def rotated(names: list[str], by: int) -> list[str]:
    """Rotate: move the first ``by`` names to the end."""
    return [names[(place + by) % len(names)] for place in range(len(names))]


def make_row(name: str, file: Path, turns: list[Turn], answers: dict[str, np.ndarray], test: Split) -> Row:
    """Summarize the turns of one engine."""
    engine, answer, reference = ENGINES[name], answers[name], answers.get(REFERENCE)
    fewest = [turn for turn in turns if turn.threads == turns[0].threads]
    peaks = [turn.peak_bytes for turn in fewest if turn.peak_bytes is not None]
    speeds = []
    for threads in dict.fromkeys(turn.threads for turn in turns):
        for batch in turns[0].calls:
            rounds = [turn.calls[batch] for turn in turns if turn.threads == threads]
            medians = tuple(statistics.median(calls) * 1e3 for calls in rounds)
            speeds.append(Speed(threads, batch, typical(rounds) * 1e3, medians))
    graph = sized(file, min(turns[0].calls))
    return Row(
        engine=name,
        family=engine.family,
        precision=engine.precision,
        dtype=engine.dtype,
        # OpenVINO's weights are in a file beside the graph.
        bytes=sum(part.stat().st_size for part in (graph, graph.with_suffix(".bin")) if part.is_file()),
        accuracy=accuracy(answer, test.labels),
        agreement=None if reference is None else agreement(reference, answer),
        start_seconds=statistics.median(turn.start for turn in fewest),
        peak_bytes=int(statistics.median(peaks)) if peaks else None,
        speeds=tuple(speeds),
    )
