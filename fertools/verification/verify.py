"""Run the forms of an export on the test split, side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import KERAS_FILE, ONNX_FILE, ORT_FILE, PIXEL_MAX
from fertools.data import Dataset
from fertools.errors import ModelError
from fertools.evaluation import accuracy, evaluate, in_batches
from fertools.processor import int8_features, processor
from fertools.runtime.location import model_files
from fertools.runtime.metadata import PRECISIONS
from fertools.runtime.views import averaged, stacked
from fertools.verification.gates import (
    Gate,
    Probabilities,
    agreement,
    float_gates,
    int8_gates,
    largest_difference,
)
from fertools.verification.report import Report, Row
from fertools.verification.timing import can_pin, interleaved, one_processor

if TYPE_CHECKING:
    from fertools.runtime import Predictor


def verify(folder: Path, dataset: Dataset) -> Report:
    """Measure Keras, ONNX and, if there is one, int8 of the export ``folder`` on the test split.

    Each is measured with a single view, which the gates look at, and its accuracy with flip views too. The
    float32 file is called by its format: "onnx", or "ort" if that is what the folder holds.

    Raises ModelError if a file is missing or damaged, DataError without a test split. Broken gates
    do not raise: the report says so.
    """
    from fertools.backend import import_keras
    from fertools.models.prediction import load, probabilities
    from fertools.runtime import Predictor

    keras, files = folder / KERAS_FILE, model_files(folder)
    missing = [] if keras.is_file() else [KERAS_FILE]
    missing += [] if "float32" in files else [f"{ONNX_FILE} or {ORT_FILE}"]
    if missing:
        raise ModelError(f"{folder}: not an export folder (no {missing[0]}); 'fertools export' makes one")
    split, unseen = dataset.split("test"), dataset.is_unseen("test")
    # By the names that they have in the table.
    float32 = files["float32"].suffix.removeprefix(".")
    predictors = {
        float32 if precision == "float32" else precision: Predictor(
            files[precision], precision=precision, providers="cpu", threads=1
        )
        for precision in PRECISIONS
        if precision in files
    }
    forms = {"keras": keras, **{name: predictor.path for name, predictor in predictors.items()}}
    views = stacked(split.images, "flip")
    # On a GPU Keras would round convolutions to TF32, break the gates, and win the timing.
    with import_keras().device("cpu:0"):
        network = load(keras)
        answers: dict[str, Probabilities] = {"keras": probabilities(network, views)}
        answers |= {name: in_batches(predictor, views) for name, predictor in predictors.items()}
        times = _milliseconds(network, predictors, split.images[:1])

    measured = {name: rows[: len(split)] for name, rows in answers.items()}
    flipped = {name: averaged(rows, "flip") for name, rows in answers.items()}

    def accuracy_unseen(rows: Probabilities) -> float | None:
        return accuracy(rows[unseen], split.labels[unseen]) if unseen.any() else None

    gates: list[Gate] = float_gates(measured["keras"], measured[float32], float32)
    if "int8" in measured:
        gates += int8_gates(measured["keras"], measured["int8"], split.labels)
    return Report(
        split="test",
        images=len(split),
        images_unseen=int(unseen.sum()),
        data={"name": dataset.name, "fingerprint": dataset.fingerprint},
        trained_on={key: predictors[float32].info.data[key] for key in ("name", "fingerprint")},
        rows=tuple(
            Row(
                model=name,
                evaluation=evaluate(rows, split.labels),
                accuracy_unseen=accuracy_unseen(rows),
                accuracy_flip=accuracy(flipped[name], split.labels),
                accuracy_flip_unseen=accuracy_unseen(flipped[name]),
                agreement=agreement(measured["keras"], rows),
                difference=largest_difference(measured["keras"], rows),
                bytes=forms[name].stat().st_size,
                milliseconds=times.get(name),
                probabilities=rows,
            )
            for name, rows in measured.items()
        ),
        gates=tuple(gates),
        environment={
            "processor": processor()[0],
            "int8_features": int8_features(),
            "timing": "batch 1, one thread, forms in turn, median",
        },
    )


def _milliseconds(
    network: Any, predictors: dict[str, Predictor], image: NDArray[np.uint8]
) -> dict[str, float]:
    """Milliseconds an image of each form. Without pinning Keras would use more threads: left out."""
    calls: dict[str, Callable[[], object]] = {
        name: lambda predictor=predictor: predictor.probabilities(image)  # type: ignore[misc]
        for name, predictor in predictors.items()
    }
    if not can_pin():
        return interleaved(calls)
    scaled = image[..., None].astype(np.float32) / np.float32(PIXEL_MAX)
    with one_processor():
        return interleaved({"keras": lambda: network.predict_on_batch(scaled), **calls})
