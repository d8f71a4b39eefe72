"""Where the time of an int8 file goes, and what other ways to run the same file would take.

    python benchmarks/tuning.py exported/sequential/model.int8.onnx

Tables for each batch size. The first has the microseconds an image of every layer, in onnxruntime and,
where it is installed (the extra ``bench``), in OpenVINO, on one thread, the best of the calls, as each
engine's own profile says. The second has ways to run the file in onnxruntime, in turns, as ratios to the time
of the way that `Predictor` takes; all give the same answers, which is checked. The last has single images that
come at a camera's pace, and the processor time that each costs: with several threads, onnxruntime's workers
spin for some milliseconds after a call, lest they sleep when the next one comes. Needs the extra ``train``.
"""

import argparse
import collections
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fertools.contract import IMAGE_SIZE, INPUT_NAME
from fertools.processor import int8_features, processor
from fertools.runtime.threads import usable_cpus
from fertools.verification.timing import in_turns, typical

Run = Callable[[np.ndarray], np.ndarray]
#: Calls of the profiled sessions, and the channels that the image is padded to for the stem.
PROFILED_CALLS = 30
PADDED = 4
#: Seconds between the images of a camera, and how many a round.
PAUSE = 0.05
FRAMES = 20
SPINNING = "session.intra_op.allow_spinning"


def session(
    model: bytes, threads: int = 1, *, spinning: bool = True, **settings: Any
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry(SPINNING, str(int(spinning)))
    options.log_severity_level = 3
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def as_run(opened: onnxruntime.InferenceSession) -> Run:
    return lambda images: opened.run(None, {INPUT_NAME: images})[0]


def onnxruntime_layers(model: bytes, images: np.ndarray) -> dict[str, float]:
    """Layer -> seconds, the best of the calls; what has no layer's name counts as its operator."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder, "profile"))
        opened = session(model, enable_profiling=True, profile_file_prefix=prefix)
        for _ in range(PROFILED_CALLS):
            as_run(opened)(images)
        events = json.loads(Path(opened.end_profiling()).read_text())
    found = collections.defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            found[layer(event["name"], event["args"]["op_name"])].append(event["dur"] / 1e6)
    return added(found)


def openvino_layers(file: Path, images: np.ndarray) -> dict[str, float]:
    """As `onnxruntime_layers`; raises ImportError where OpenVINO is not installed."""
    import openvino

    core = openvino.Core()
    graph = core.read_model(file)
    graph.reshape(list(images.shape))
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    found = collections.defaultdict(list)
    for _ in range(PROFILED_CALLS):
        request.infer([images])
        for node in request.profiling_info:
            if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                found[layer(node.node_name, node.node_type)].append(node.real_time.total_seconds())
    return added(found)


def layer(name: str, operator: str) -> str:
    """The Keras layer of a node (``conv1`` of ``sequential_1/conv1_1/BiasAdd``), else its operator."""
    parts = name.split("/")
    return parts[1].removesuffix("_1") if len(parts) > 2 else operator


def added(found: dict[str, list[float]]) -> dict[str, float]:
    """The least time of a call; a layer of several nodes has several times a call, in a fixed order."""
    sums = {}
    for name, seconds in found.items():
        nodes = len(seconds) // PROFILED_CALLS
        sums[name] = sum(min(seconds[node::nodes]) for node in range(nodes))
    return sums


def padded(serialized: bytes) -> bytes:
    """The image padded to four channels of zeros, and the stem's kernels too: same sums, wider loads."""
    model = onnx.load_from_string(serialized)
    graph = model.graph
    for tensor in graph.initializer:
        kernel = onnx.numpy_helper.to_array(tensor)
        if kernel.ndim == 4 and kernel.shape[1] == 1:
            wide = np.zeros((len(kernel), PADDED, *kernel.shape[2:]), kernel.dtype)
            wide[:, :1] = kernel
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    # The one consumer of the image is the Reshape from (n, 48, 48, 1) to (n, 1, 48, 48).
    place, reshape = next((place, node) for place, node in enumerate(graph.node) if INPUT_NAME in node.input)
    if reshape.op_type != "Reshape":
        raise SystemExit(f"the image goes into {reshape.op_type}, not Reshape: nothing to pad")
    graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([0] * 7 + [PADDED - 1], np.int64), "padding")
    )
    graph.node.remove(reshape)
    graph.node.insert(place, onnx.helper.make_node("Pad", [INPUT_NAME, "padding"], ["padded"]))
    graph.node.insert(
        place + 1, onnx.helper.make_node("Transpose", ["padded"], [*reshape.output], perm=[0, 3, 1, 2])
    )
    return model.SerializeToString()


def split(serialized: bytes, threads: int) -> Run:
    """The batch cut into as many pieces as there are threads, all run by one one-thread session."""
    run = as_run(session(serialized))
    pool = ThreadPoolExecutor(threads)
    return lambda images: np.concatenate([*pool.map(run, np.array_split(images, threads))])


def ways(model: bytes, threads: int, images: np.ndarray) -> dict[str, Run]:
    """Name -> a way to run the file on `threads` threads, the runtime's own first."""
    levels = onnxruntime.GraphOptimizationLevel
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "optimized.onnx")
        session(model, threads, optimized_model_filepath=str(file))
        optimized = file.read_bytes()
    found = {
        "as the runtime does": as_run(session(model, threads)),
        "optimization level extended": as_run(
            session(model, threads, graph_optimization_level=levels.ORT_ENABLE_EXTENDED)
        ),
        "optimization level basic": as_run(
            session(model, threads, graph_optimization_level=levels.ORT_ENABLE_BASIC)
        ),
        "optimized ahead of time": as_run(
            session(optimized, threads, graph_optimization_level=levels.ORT_DISABLE_ALL)
        ),
        "no memory pattern": as_run(session(model, threads, enable_mem_pattern=False)),
        "no memory arena": as_run(session(model, threads, enable_cpu_mem_arena=False)),
        f"image padded to {PADDED} channels": as_run(session(padded(model), threads)),
    }
    if threads > 1:
        found["workers do not spin"] = as_run(session(model, threads, spinning=False))
    if threads > 1 and len(images) >= threads:
        found["batch split over one-thread calls"] = split(model, threads)
    expected, *others = (run(images) for run in found.values())
    for name, answers in zip([*found][1:], others, strict=True):
        if not np.allclose(answers, expected, atol=1e-6):
            raise SystemExit(f"{name}: other answers, by up to {np.abs(answers - expected).max():.2g}")
    return found


def print_layers(file: Path, images: np.ndarray) -> None:
    ours = onnxruntime_layers(file.read_bytes(), images)
    try:
        theirs = openvino_layers(file, images)
    except ImportError:
        print("OpenVINO is not installed: pip install 'fertools[bench]'")
        theirs = {}
    print(f"\n| layer, batch {len(images)}, 1 thread | onnxruntime us | OpenVINO us |\n|---|---|---|")
    for name in [*ours, *(theirs.keys() - ours.keys())]:
        cells = (
            f"{table[name] / len(images) * 1e6:.1f}" if name in table else "" for table in (ours, theirs)
        )
        print(f"| {name} | {' | '.join(cells)} |")
    totals = (f"{sum(table.values()) / len(images) * 1e6:.0f}" if table else "" for table in (ours, theirs))
    print(f"| all | {' | '.join(totals)} |")


def print_ways(model: bytes, images: np.ndarray, threads: int, rounds: int) -> None:
    calls = {name: lambda run=run: run(images) for name, run in ways(model, threads, images).items()}
    times = {name: typical(found) for name, found in in_turns(calls, rounds).items()}
    base = next(iter(times.values()))
    print(f"\n| way, batch {len(images)}, {threads} threads | us an image | time |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds / len(images) * 1e6:.1f} | {seconds / base:.2f} |")


def print_frames(model: bytes, threads: int, rounds: int) -> None:
    """Latency and processor time of images that come one by one."""
    runs = {"1 thread": as_run(session(model))}
    for count in {threads} - {1}:
        runs[f"{count} threads"] = as_run(session(model, count))
        runs[f"{count} threads that do not spin"] = as_run(session(model, count, spinning=False))
    image = np.random.default_rng(0).integers(0, 256, (1, IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.uint8)
    latencies: dict[str, list[float]] = {name: [] for name in runs}
    costs: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            spent = time.process_time()
            for _ in range(FRAMES):
                time.sleep(PAUSE)
                start = time.perf_counter()
                run(image)
                latencies[name].append(time.perf_counter() - start)
            costs[name].append((time.process_time() - spent) / FRAMES)
    print(f"\n| {1 / PAUSE:g} images a second | ms until the answer | ms of processor time |\n|---|---|---|")
    for name in runs:
        latency, cost = statistics.median(latencies[name]), statistics.median(costs[name])
        print(f"| {name} | {latency * 1e3:.2f} | {cost * 1e3:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="INT8_FILE")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, usable_cpus()}))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{processor()[0]} ({', '.join(int8_features())}), onnxruntime {onnxruntime.__version__}")
    for size in options.batch:
        shape = (size, IMAGE_SIZE, IMAGE_SIZE, 1)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        print_layers(options.file, images)
        for threads in options.threads:
            print_ways(options.file.read_bytes(), images, threads, options.rounds)
    print_frames(options.file.read_bytes(), max(options.threads), options.rounds)



if __name__ == "__main__":
    main()
