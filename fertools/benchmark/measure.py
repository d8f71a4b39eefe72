"""Run the files of an export side by side and time them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fertools.benchmark.report import Benchmark, FileFacts, Speed
from fertools.benchmark.start import first_prediction
from fertools.benchmark.work import SIZE, matrix_product, multiply_adds
from fertools.contract import IMAGE_SIZE
from fertools.errors import ConfigError, MissingExtraError, ModelError
from fertools.processor import int8_features, processor
from fertools.runtime import Predictor
from fertools.runtime.location import model_files
from fertools.runtime.metadata import PRECISIONS
from fertools.verification.timing import in_turns, typical


def benchmark(
    folder: Path,
    *,
    threads: int = 1,
    batches: Sequence[int] = (1, 64),
    rounds: int = 7,
    say: Callable[[str], None] = lambda message: None,
) -> Benchmark:
    """Time the ONNX (or .ort) files of the export ``folder`` on the CPU.

    Arguments:
        folder: what ``fertools export`` wrote.
        threads: threads that work on one call.
        batches: batch sizes.
        rounds: number of rounds, in each of which every call has its turn.
        say: receives progress messages.

    Raises:
        ModelError: there is no file to time or one is damaged.
        ConfigError: a batch size or ``rounds`` is less than 1.
    """
    if not batches or min(batches) < 1:
        raise ConfigError("batches must be sizes of at least 1")
    if rounds < 1:
        raise ConfigError(f"rounds={rounds}: at least 1")
    held = model_files(folder)
    files: dict[str, Path] = {precision: held[precision] for precision in PRECISIONS if precision in held}
    if not files:
        raise ModelError(f"{folder}: no file to time; 'fertools export' makes one")
    predictors = {
        precision: Predictor(file, precision=precision, providers="cpu", threads=threads)
        for precision, file in files.items()
    }
    work = multiply_adds(next(iter(files.values())))

    say("starting processes")
    facts = []
    for precision, file in files.items():
        seconds, peak = first_prediction(file, threads)
        provider = predictors[precision].provider
        facts.append(FileFacts(file.name, precision, provider, file.stat().st_size, seconds, peak))

    products = {}
    try:
        products = {f"matmul {precision}": matrix_product(precision, threads) for precision in files}
    except MissingExtraError as error:
        say(f"no share of matmul speed: {error}")
    say("timing, in turns")
    speeds = []
    for size in batches:
        faces = np.random.default_rng(0).integers(0, 256, (size, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
        calls = {
            precision: lambda predictor=predictor, faces=faces: predictor.probabilities(faces)
            for precision, predictor in predictors.items()
        }
        found = in_turns({**calls, **products}, rounds=rounds, threads=threads)
        medians = {name: typical(samples) for name, samples in found.items()}
        for name in files:
            seconds = medians[name]
            speeds.append(
                Speed(
                    file=files[name].name,
                    batch=size,
                    p50_milliseconds=seconds * 1e3,
                    p95_milliseconds=float(np.percentile(np.concatenate(found[name]), 95)) * 1e3,
                    images_per_second=size / seconds,
                    times_float32=medians["float32"] / seconds if "float32" in medians else None,
                    share_of_peak=_share(work * size / seconds, found.get(f"matmul {name}")),
                )
            )
    info = next(iter(predictors.values())).info
    return Benchmark(
        model=info.name,
        parameters=info.parameters,
        multiply_adds=work,
        processor=processor()[0],
        int8_features=tuple(int8_features()),
        threads=threads,
        files=tuple(facts),
        speeds=tuple(speeds),
    )


def _share(rate: float, product: Sequence[Sequence[float]] | None) -> float | None:
    """Return multiply-adds per second as a share of the fastest matrix product's, if it can be told.

    The fastest, because on a busy machine a median may be that of a disturbed product.
    """
    if product is None:
        return None
    share = rate * min(map(min, product)) / SIZE**3
    return share if share <= 1 else None
