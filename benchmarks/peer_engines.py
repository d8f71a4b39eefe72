"""The engines that benchmarks/peers.py compares, and the process that runs one of them.

    python benchmarks/peer_engines.py JOB

JOB is JSON: "engine" (a name in ENGINES), its "file", "work" (the folder with the images), "threads",
"batches", and whether to "answer" all images. Prints two lines: after the first prediction the peak memory
in bytes, and at the end batch size -> seconds of each call. Before the first prediction little more than
numpy and the engine is imported. The process is pinned to as many processors as it has threads.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peer_files import ANSWERS, IMAGES, LITERT_FILE, LITERT_INT8_FILE, MNN_FILE, NNCF_FILE, sized

from fertools.contract import IMAGE_SIZE, INPUT_NAME, INT8_FILE, KERAS_FILE, ONNX_FILE, OUTPUT_NAME, PIXEL_MAX
from fertools.memory import peak_memory

#: Maximum number of timed calls per process.
CALLS = 200
SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 1)

#: (batch, 48, 48, 1) -> float32 (batch, 7).
Network = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Engine:
    """A way to run the network."""

    family: str
    precision: str
    #: The file to load: one of the export folder, or one made from these.
    file: str
    #: (file, threads, batch) -> the network for batches of that size.
    open: Callable[[str, int, int], Network]
    #: Packages that it needs besides those of the extra ``train``.
    packages: tuple[str, ...] = ()
    #: The function of ``peer_files`` that makes the file, if the export has none.
    maker: str | None = None
    #: Type of its input images: uint8 0..255, or float32 0..1 if it accepts nothing else.
    dtype: str = "uint8"

    def natural(self, images: np.ndarray) -> np.ndarray:
        """Convert uint8 (n, 48, 48) to the engine's input (n, 48, 48, 1); this is not timed."""
        pixels = images[..., None]
        return pixels if self.dtype == "uint8" else pixels.astype(np.float32) / np.float32(PIXEL_MAX)


def open_fertools(file: str, threads: int, batch: int) -> Network:
    from fertools.runtime import Predictor

    return Predictor(file, providers="cpu", threads=threads).probabilities


def open_onnxruntime(file: str, threads: int, batch: int) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]


def keras_network(file: str, threads: int) -> Any:
    from fertools.backend import import_keras
    from fertools.models.inference import load

    import_keras()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return load(Path(file))


def open_keras_predict(file: str, threads: int, batch: int) -> Network:
    network = keras_network(file, threads)
    return lambda images: network.predict(images, batch_size=batch, verbose=0)


def open_tf_function(file: str, threads: int, batch: int) -> Network:
    network = keras_network(file, threads)
    import tensorflow as tf

    signature = [tf.TensorSpec((batch, *SHAPE), tf.float32)]
    function = tf.function(lambda images: network(images, training=False), input_signature=signature)
    concrete = function.get_concrete_function()
    return lambda images: concrete(tf.constant(images)).numpy()


def open_litert(file: str, threads: int, batch: int) -> Network:
    """Open a graph of fixed shape; LiteRT uses XNNPACK by default."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(sized(Path(file), batch)), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(answer["index"])

    return run


def open_openvino(precision: str | None = None) -> Callable[[str, int, int], Network]:
    """Return an opener; ``precision`` is that of the float operations, by OpenVINO's name.

    None leaves it to OpenVINO, which uses bf16 where the processor has it, also for the float parts of int8.
    """

    def open_network(file: str, threads: int, batch: int) -> Network:
        import openvino

        core = openvino.Core()
        model = core.read_model(file)
        model.reshape([batch, *SHAPE])
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        if precision:
            config["INFERENCE_PRECISION_HINT"] = precision
        compiled = core.compile_model(model, "CPU", config)
        if precision and (got := compiled.get_property("INFERENCE_PRECISION_HINT").to_string()) != precision:
            raise RuntimeError(f"this processor computes in {got} instead")
        request = compiled.create_infer_request()
        return lambda images: request.infer([images], share_inputs=True, share_outputs=True)[0]

    return open_network


def open_mnn(file: str, threads: int, batch: int) -> Network:
    import MNN

    interpreter = MNN.Interpreter(file)
    session = interpreter.createSession({"backend": "CPU", "numThread": threads})
    given = interpreter.getSessionInput(session)
    interpreter.resizeTensor(given, (batch, *SHAPE))
    interpreter.resizeSession(session)
    answer = interpreter.getSessionOutput(session)
    layout = (MNN.Halide_Type_Uint8, MNN.Tensor_DimensionType_Tensorflow)

    def run(images: np.ndarray) -> np.ndarray:
        given.copyFrom(MNN.Tensor(images.shape, layout[0], images, layout[1]))
        interpreter.runSession(session)
        return answer.getNumpyData()

    return run


LITERT, OPENVINO = ("ai_edge_litert",), ("openvino",)

#: Name in the tables -> engine, in the order of the tables.
ENGINES = {
    "Keras predict": Engine("Keras", "float32", KERAS_FILE, open_keras_predict, dtype="float32"),
    "tf.function": Engine("tf.function", "float32", KERAS_FILE, open_tf_function, dtype="float32"),
    "MNN fp32": Engine("MNN", "float32", MNN_FILE, open_mnn, ("MNN",), "mnn"),
    "LiteRT fp32": Engine("LiteRT", "float32", LITERT_FILE, open_litert, LITERT, "litert", dtype="float32"),
    "LiteRT int8": Engine("LiteRT", "int8", LITERT_INT8_FILE, open_litert, LITERT, "litert_int8"),
    "OpenVINO fp32": Engine("OpenVINO", "float32", ONNX_FILE, open_openvino("f32"), OPENVINO),
    "OpenVINO bf16": Engine("OpenVINO", "bfloat16", ONNX_FILE, open_openvino("bf16"), OPENVINO),
    "OpenVINO int8 (NNCF)": Engine(
        "OpenVINO", "int8", NNCF_FILE, open_openvino(), (*OPENVINO, "nncf"), "nncf"
    ),
    "OpenVINO int8 (our file)": Engine("OpenVINO", "int8", INT8_FILE, open_openvino(), OPENVINO),
    "onnxruntime fp32": Engine("onnxruntime", "float32", ONNX_FILE, open_onnxruntime),
    "fertools fp32": Engine("fertools", "float32", ONNX_FILE, open_fertools),
    # A plain session.run, to show the overhead of our Python: the two run one after the other.
    "onnxruntime int8": Engine("onnxruntime", "int8", INT8_FILE, open_onnxruntime),
    "fertools int8": Engine("fertools", "int8", INT8_FILE, open_fertools),
}


def answers(engine: Engine, network: Network, images: np.ndarray, batch: int) -> np.ndarray:
    """Return the probabilities (n, 7) of all images; the last batch is padded."""
    rows = []
    for start in range(0, len(images), batch):
        piece = images[start : start + batch]
        given = engine.natural(np.resize(piece, (batch, *piece.shape[1:])))
        rows.append(np.array(network(given))[: len(piece)])  # a copy: engines may reuse the memory
    return np.concatenate(rows)


def main(job: dict[str, Any]) -> None:
    threads, file, work = job["threads"], job["file"], Path(job["work"])
    if hasattr(os, "sched_setaffinity"):  # before any thread starts
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    # From here on, what engines print goes to stderr.
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        engine = ENGINES[job["engine"]]
        opened, *_ = job["batches"]
        network = engine.open(file, threads, opened)
        network(engine.natural(np.zeros((opened, IMAGE_SIZE, IMAGE_SIZE), np.uint8)))
        print(json.dumps(peak_memory()), file=output, flush=True)

        from fertools.verification.timing import calls_a_round, seconds

        images = np.load(work / IMAGES)
        found = {}
        for batch in job["batches"]:
            if batch != opened:
                network = engine.open(file, threads, batch)
            given = engine.natural(np.resize(images, (batch, *images.shape[1:])))
            call = lambda network=network, given=given: network(given)  # noqa: E731
            found[batch] = [seconds(call) for _ in range(calls_a_round(call, CALLS))]
        if job["answer"]:
            np.save(work / ANSWERS, answers(engine, network, images, batch))
        print(json.dumps(found), file=output)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
