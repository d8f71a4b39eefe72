"""Profile an int8 file, and time other ways to run the same file.

    python benchmarks/tuning.py exported/sequential/model.int8.onnx

First, ways to run the file in onnxruntime, in turns, as ratios to the time of the ``Predictor``'s way; all
must give the same answers. With AMX, one is the file that ``fertools export --amx`` would have written. Then
single images at a camera's pace, and the processor time of each: with several threads, onnxruntime's workers
spin for some milliseconds after a call, to be awake for the next one. Last, the microseconds per image of
every layer, in onnxruntime and, if installed (the extra ``bench``), in OpenVINO, on one thread, the best of
the calls, from each engine's own profile. Needs the extra ``train``.
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
from fertools.export.passes import offset_kernels
from fertools.processor import int8_features, processor
from fertools.runtime.threads import usable_cpus
from fertools.verification.timing import in_turns, typical

Run = Callable[[np.ndarray], np.ndarray]
#: Calls of the profiled sessions.
PROFILED_CALLS = 30
#: Seconds between the images of a camera, and images per round.
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
    """Return layer -> seconds, the best of the calls; nodes without a layer count as their operator."""
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
    """Like ``onnxruntime_layers``; raises ImportError if OpenVINO is not installed."""
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
    """Return the Keras layer of a node (``sequential_1/conv1_1/BiasAdd`` -> ``conv1``), else its operator."""
    parts = name.split("/")
    return parts[1].removesuffix("_1") if len(parts) > 2 else operator


def added(found: dict[str, list[float]]) -> dict[str, float]:
    """Return the least time per call; a layer of several nodes has several times per call, in order."""
    sums = {}
    for name, seconds in found.items():
        nodes = len(seconds) // PROFILED_CALLS
        sums[name] = sum(min(seconds[node::nodes]) for node in range(nodes))
    return sums


def for_amx(serialized: bytes) -> bytes:
    """Return the file that ``fertools export --amx`` would have written."""
    model = onnx.load_from_string(serialized)
    offset_kernels(model)
    return model.SerializeToString()


def split(serialized: bytes, threads: int) -> Run:
    """Split the batch over the threads, which share a single-threaded session."""
    run = as_run(session(serialized))
    pool = ThreadPoolExecutor(threads)
    return lambda images: np.concatenate([*pool.map(run, np.array_split(images, threads))])


def ways(model: bytes, threads: int, images: np.ndarray) -> dict[str, Run]:
    """Return name -> a way to run the file on ``threads`` threads, the runtime's own first."""
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
        "optimized ahead of time": as_run(
            session(optimized, threads, graph_optimization_level=levels.ORT_DISABLE_ALL)
        ),
        "no memory pattern": as_run(session(model, threads, enable_mem_pattern=False)),
        "no memory arena": as_run(session(model, threads, enable_cpu_mem_arena=False)),
    }
    if "amx_int8" in int8_features():
        found["exported with --amx"] = as_run(session(for_amx(model), threads))
    if threads > 1:
        found["workers do not spin"] = as_run(session(model, threads, spinning=False))
    if threads > 1 and len(images) >= threads:
        found["batch split over one-thread calls"] = split(model, threads)
    expected, *others = (run(images) for run in found.values())
    for name, answers in zip([*found][1:], others, strict=True):
        if not np.allclose(answers, expected, atol=1e-6):
            raise SystemExit(f"{name}: answers differ by up to {np.abs(answers - expected).max():.2g}")
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
    times = {name: typical(found) for name, found in in_turns(calls, rounds, threads=threads).items()}
    base = next(iter(times.values()))
    print(f"\n| way, batch {len(images)}, {threads} threads | us per image | time |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds / len(images) * 1e6:.1f} | {seconds / base:.2f} |")


def print_frames(model: bytes, threads: int, rounds: int) -> None:
    """Print latency and processor time of images that arrive one by one."""
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
                start = time.perf_counter()
                run(image)
                latencies[name].append(time.perf_counter() - start)
                time.sleep(PAUSE)  # afterwards, so that the workers that still spin count for this way
            costs[name].append((time.process_time() - spent) / FRAMES)
    print(f"\n| {1 / PAUSE:g} images/s | ms until the answer | ms of processor time |\n|---|---|---|")
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
    model = options.file.read_bytes()
    batches = [
        np.random.default_rng(0).integers(0, 256, (size, IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.uint8)
        for size in options.batch
    ]
    for images in batches:
        for threads in options.threads:
            print_ways(model, images, threads, options.rounds)
    print_frames(model, max(options.threads), options.rounds)
    for images in batches:  # last: OpenVINO decides where the threads of its process run
        print_layers(options.file, images)


if __name__ == "__main__":
    main()
