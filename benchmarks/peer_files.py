"""Make the files that engines other than onnxruntime load, from those of an export folder.

    python benchmarks/peer_files.py MAKER FOLDER WORK BATCH...

MAKER is a function below, FOLDER the export, WORK the folder for the files, with the images that calibrate
int8. Each runs in its own process, because converters print and may exit.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fertools.contract import IMAGE_SIZE, KERAS_FILE, ONNX_FILE, PIXEL_MAX

#: In the work folder: uint8 (n, 48, 48) to calibrate on and to measure on, and the answers, float32 (n, 7).
CALIBRATION, IMAGES, ANSWERS = "calibration.npy", "images.npy", "answers.npy"
#: Stands for the batch size in the name of a file with a fixed one.
BATCH = "{batch}"
LITERT_FILE, LITERT_INT8_FILE = f"litert-{BATCH}.tflite", f"litert-int8-{BATCH}.tflite"
NNCF_FILE, MNN_FILE = "nncf.xml", "mnn.mnn"


def sized(file: Path, batch: int) -> Path:
    """Return the file for batches of one size."""
    return file.with_name(file.name.replace(BATCH, str(batch)))


def litert(folder: Path, work: Path, batches: list[int]) -> None:
    for batch in batches:
        sized(work / LITERT_FILE, batch).write_bytes(litert_converter(folder, batch).convert())


def litert_int8(folder: Path, work: Path, batches: list[int]) -> None:
    """Quantize everything to int8 except the probabilities, float32 in steps of 1/256."""
    import tensorflow as tf

    images = np.load(work / CALIBRATION)
    for batch in batches:
        converter = litert_converter(folder, batch)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda batch=batch: scaled(images, batch)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        sized(work / LITERT_INT8_FILE, batch).write_bytes(converter.convert())


def litert_converter(folder: Path, batch: int) -> Any:
    """Convert with a fixed batch size: a free one needs operators that XNNPACK leaves to slower kernels."""
    from fertools.backend import import_keras
    from fertools.models.inference import load

    keras = import_keras()
    import tensorflow as tf

    network = load(folder / KERAS_FILE)
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), batch_size=batch)
    return tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, network(image)))


def scaled(images: np.ndarray, batch: int) -> Iterator[list[np.ndarray]]:
    """Yield batches as the network's input; the last one is padded with the first images."""
    for start in range(0, len(images), batch):
        piece = images.take(range(start, start + batch), axis=0, mode="wrap")
        yield [piece[..., None].astype(np.float32) / np.float32(PIXEL_MAX)]


def nncf(folder: Path, work: Path, batches: list[int]) -> None:
    """Quantize our float32 file with NNCF's post-training quantization and its defaults."""
    import nncf
    import openvino

    images = np.load(work / CALIBRATION)
    dataset = nncf.Dataset(list(images), lambda image: image[None, ..., None])
    model = openvino.Core().read_model(folder / ONNX_FILE)
    quantized = nncf.quantize(model, dataset, subset_size=len(images))
    openvino.save_model(quantized, work / NNCF_FILE, compress_to_fp16=False)


def mnn(folder: Path, work: Path, batches: list[int]) -> None:
    # Not MNN.tools.mnnconvert, which installs a package with pip and sends telemetry.
    import _tools

    source, target = str(folder / ONNX_FILE), str(work / MNN_FILE)
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", target])


MAKERS = {function.__name__: function for function in (litert, litert_int8, nncf, mnn)}

if __name__ == "__main__":
    maker, export, made, *sizes = sys.argv[1:]
    MAKERS[maker](Path(export), Path(made), [int(size) for size in sizes])
