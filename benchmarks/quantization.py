"""Compare ways to quantize a network: size, agreement with Keras, accuracy, speed.

    python benchmarks/quantization.py runs/sequential-001/best.keras fer2013.csv

Calibrates on the train split and measures on the validation split: the test split is only for the chosen
way. Agreement and difference are over the images, their mirror images and their shifts by a pixel, six times
as many: a tenth of a percent of the images alone would be a handful. Accuracy is that of the images. Times
are milliseconds at batch 1 on one thread, measured in turns, also as a ratio to float32. Needs the extra
``train``.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fertools import data
from fertools.backend import import_keras
from fertools.data import Split
from fertools.evaluation import accuracy
from fertools.export.quantization import DEFAULT_IMAGES, QuantizeConfig
from fertools.processor import int8_features, processor
from fertools.tables import text_table
from fertools.verification.gates import agreement, largest_difference
from fertools.verification.timing import can_pin, interleaved, one_processor

import_keras()

from fertools.export.graph import to_onnx  # noqa: E402  Keras must be imported quietly first
from fertools.export.quantization import quantize  # noqa: E402
from fertools.models.inference import load, probabilities  # noqa: E402

DEFAULT = QuantizeConfig(images=DEFAULT_IMAGES)
VARIANTS = {
    f"per channel, 7 bits, minmax of {DEFAULT_IMAGES}": DEFAULT,
    "nearest weights": dataclasses.replace(DEFAULT, error_feedback=False),
    "first convolution too": dataclasses.replace(DEFAULT, float_layers=0),
    "per tensor": dataclasses.replace(DEFAULT, per_channel=False),
    "8 bits": dataclasses.replace(DEFAULT, reduce_range=False),
    "per tensor, 8 bits": dataclasses.replace(DEFAULT, per_channel=False, reduce_range=False),
    "minmax of 2048": dataclasses.replace(DEFAULT, images=2048),
    "minmax of 32": dataclasses.replace(DEFAULT, images=32),
    "percentile of 256": dataclasses.replace(DEFAULT, images=256, method="percentile"),
}
BATCH = 64

Network = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant; agreement and accuracy are shares, the time ratio is to the float32 file."""

    variant: str
    bytes: int
    agreement: float
    difference: float
    accuracy: float
    milliseconds: float
    time_ratio: float


def open_graph(serialized: bytes) -> Network:
    """Return a function uint8 (n, 48, 48) -> float32 (n, 7) on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images[..., None]})[0]


def versions(images: np.ndarray) -> np.ndarray:
    """Return uint8 (6 n, 48, 48): the images, mirrored, and shifted by a pixel in four directions."""
    edged = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    size = images.shape[1]
    shifts = ((0, 1), (2, 1), (1, 0), (1, 2))
    shifted = [edged[:, top : top + size, left : left + size] for top, left in shifts]
    return np.concatenate([images, images[:, :, ::-1], *shifted])


def measure(file: Path, train: Split, validation: Split) -> list[Row]:
    """Return a row for float32 and for each variant."""
    network = load(file)
    model = to_onnx(network)
    serialized = {"float32": model.SerializeToString()}
    for name, config in VARIANTS.items():
        count = min(config.images or 0, len(train))
        quantized = quantize(model, train.images, dataclasses.replace(config, images=count))
        serialized[name] = quantized.SerializeToString()
    graphs = {name: open_graph(graph) for name, graph in serialized.items()}
    face = validation.images[:1]
    calls = {name: lambda graph=graph: graph(face) for name, graph in graphs.items()}
    if can_pin():
        with one_processor():
            times = interleaved(calls)
    else:
        times = interleaved(calls)

    images = versions(validation.images)
    reference = probabilities(network, images)
    rows = []
    for name, graph in graphs.items():
        starts = range(0, len(images), BATCH)
        found = np.concatenate([graph(images[start : start + BATCH]) for start in starts])
        rows.append(
            Row(
                name,
                len(serialized[name]),
                agreement(reference, found),
                largest_difference(reference, found),
                accuracy(found[: len(validation)], validation.labels),
                times[name],
                times[name] / times["float32"],
            )
        )
    return rows


def print_table(rows: list[Row], images: int) -> None:
    print(f"{processor()[0]} ({', '.join(int8_features())}), {images:,} validation images")
    heads = ("", "MB", "agreement", "max diff", "accuracy", "ms", "time")
    cells = (
        (
            *(row.variant, f"{row.bytes / 1e6:.2f}", f"{row.agreement:.2%}", f"{row.difference:.3f}"),
            *(f"{row.accuracy:.2%}", f"{row.milliseconds:.2f}", f"{row.time_ratio:.2f}"),
        )
        for row in rows
    )
    print(text_table(heads, cells))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="KERAS_FILE")
    parser.add_argument("source", metavar="SRC", help="the data set that the network was trained on")
    parser.add_argument("--limit", type=int, help="use at most N images of each split, for a trial run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dataset = data.load(options.source)
    train, validation = (dataset.split(name) for name in ("train", "validation"))
    if options.limit:
        train, validation = (
            Split(split.images[: options.limit], split.labels[: options.limit])
            for split in (train, validation)
        )
    rows = measure(options.file, train, validation)
    if options.json:
        environment = {"processor": processor()[0], "int8_features": int8_features()}
        document = {"environment": environment, "images": len(validation), "seed": DEFAULT.seed}
        print(json.dumps({**document, "rows": [dataclasses.asdict(row) for row in rows]}, indent=2))
    else:
        print_table(rows, len(validation))


if __name__ == "__main__":
    main()
