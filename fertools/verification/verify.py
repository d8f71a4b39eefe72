"""Run all files of an export on the test split, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import KERAS_FILE, ONNX_FILE, ORT_FILE, PIXEL_MAX
from fertools.data import Dataset
from fertools.errors import DataError, ModelError
from fertools.evaluation import accuracy, evaluate, in_batches
from fertools.evaluation.measurement import Network
from fertools.processor import int8_features, processor
from fertools.runtime import Predictor
from fertools.runtime.location import model_files
from fertools.runtime.metadata import PRECISIONS
from fertools.runtime.prediction import averaged, stacked
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


def verify(folder: Path, dataset: Dataset, *, other_data: bool = False) -> Report:
    """Measure Keras, ONNX and, if there is one, int8 of the export ``folder`` on the test split.

    Each is measured with a single view, which the gates look at, and its accuracy with flip views too. The
    float32 file is called by its format: "onnx", or "ort" if that is what the folder holds.

    Arguments:
        folder: an export.
        dataset: the data that the model was trained on.
        other_data: accept other data.

    Broken gates do not raise: the report says so.

    Raises:
        ModelError: a file is missing or damaged or was made from other weights than the rest.
        DataError: ``dataset`` has no test split, or is other data and ``other_data`` is false.
    """
    from fertools.backend import import_keras
    from fertools.models.inference import load, probabilities, weights_sha256

    keras, files = folder / KERAS_FILE, model_files(folder)
    missing = [] if keras.is_file() else [KERAS_FILE]
    missing += [] if "float32" in files else [f"{ONNX_FILE} or {ORT_FILE}"]
    if missing:
        raise ModelError(f"{folder}: not an export folder (no {missing[0]}); 'fertools export' makes one")
    # By the names that they have in the table.
    float32 = files["float32"].suffix.removeprefix(".")
    predictors = {
        float32 if precision == "float32" else precision: Predictor(
            files[precision], precision=precision, providers="cpu", threads=1
        )
        for precision in PRECISIONS
        if precision in files
    }
    trained_on = {key: predictors[float32].info.data[key] for key in ("name", "fingerprint")}
    if dataset.fingerprint != trained_on["fingerprint"] and not other_data:
        raise DataError(
            f"{dataset.name}: not the data that {folder} was trained on, {trained_on['name']} (fingerprint"
            f" {trained_on['fingerprint'][:16]}...); give that with --data, or accept this with --other-data"
        )
    split, once = dataset.split("test"), dataset.only_in("test")
    mirror_images = stacked(split.images, "flip")[len(split) :]
    forms = {"keras": keras, **{name: predictor.path for name, predictor in predictors.items()}}
    # On a GPU Keras would round convolutions to TF32, break the gates, and win the timing.
    with import_keras().device("cpu:0"):
        network = load(keras)
        _check_weights(weights_sha256(network), keras, predictors.values())
        networks: dict[str, Network] = {"keras": partial(probabilities, network)}
        networks |= {name: partial(in_batches, predictor) for name, predictor in predictors.items()}
        measured = {name: run(split.images) for name, run in networks.items()}
        mirrored = {name: run(mirror_images) for name, run in networks.items()}
        times = _milliseconds(network, predictors, split.images[:1])

    flipped = {
        name: averaged(np.concatenate([rows, mirrored[name]]), "flip") for name, rows in measured.items()
    }

    def accuracy_deduplicated(rows: Probabilities) -> float | None:
        return accuracy(rows[once], split.labels[once]) if once.any() else None

    gates: list[Gate] = float_gates(measured["keras"], measured[float32], float32)
    if "int8" in measured:
        gates += int8_gates(measured["keras"], measured["int8"], split.labels)
    return Report(
        split="test",
        images=len(split),
        images_deduplicated=int(once.sum()),
        data={"name": dataset.name, "fingerprint": dataset.fingerprint},
        trained_on=trained_on,
        rows=tuple(
            Row(
                model=name,
                evaluation=evaluate(rows, split.labels),
                accuracy_deduplicated=accuracy_deduplicated(rows),
                accuracy_flip=accuracy(flipped[name], split.labels),
                accuracy_flip_deduplicated=accuracy_deduplicated(flipped[name]),
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


def _check_weights(digest: str, keras: Path, predictors: Iterable[Predictor]) -> None:
    """Raise ModelError unless the files say that they were made from the weights with this SHA-256."""
    for predictor in predictors:
        if predictor.info.weights_sha256 != digest:
            raise ModelError(
                f"{keras}: holds other weights (sha256 {digest[:16]}...) than {predictor.path.name} was made"
                f" from ({predictor.info.weights_sha256[:16]}...); one of the two was replaced: export again"
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
