"""Check on this device that the model files answer as they did where the kit was made.

Run it by ``python check.py``. It needs Python 3.8, numpy and onnxruntime, nothing else. It runs every image
of the kit through every model file, compares the answers with those in the kit, prints a table and writes
result.json, which ``fertools verify EXPORT --device result.json`` reads. The exit code is 1 if a file fails.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

SCHEMA = 1
WARM_UP = 10
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
NVIDIA = (CUDA, "TensorrtExecutionProvider")


class CheckError(Exception):
    """The check cannot be made, or a file is not the kit's."""


def main(arguments: list[str] | None = None) -> int:
    """Run the check and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, default=Path(__file__).resolve().parent, help="the unpacked kit")
    parser.add_argument("--files", type=Path, help="folder of the model files  [default: the kit]")
    parser.add_argument("--threads", type=int, default=1, help="threads of a prediction  [default: 1]")
    parser.add_argument(
        "--provider",
        default=CPU,
        help=f"onnxruntime's name  [default: {CPU}]",
    )
    parser.add_argument("--out", type=Path, default=Path("result.json"), help="[default: result.json]")
    options = parser.parse_args(arguments)
    try:
        result = check(options.kit, options.files or options.kit, options.provider, options.threads)
    except CheckError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    device = result["device"]
    print(
        f"{result['model']}, {result['images']['count']} images, {device['processor']}, {device['machine']},"
    )
    print(f"onnxruntime {device['onnxruntime']}, {result['provider']}, {result['threads']} thread(s)\n")
    print(f"{'file':<20}{'same class':>11}{'largest difference':>20}{'ms/image':>10}")
    for row in result["files"]:
        verdict = "" if row["agreement"] >= result["limit"] else f"  FAILS: less than {result['limit']:.1%}"
        print(
            f"{row['file']:<20}{row['agreement']:>11.2%}{row['largest_difference']:>20.1e}"
            f"{row['milliseconds']:>10.2f}{verdict}"
        )
    print(f"\nWrote {options.out}. Next, where the model was made:")
    print(f"  fertools verify EXPORT --device {options.out}")
    return int(any(row["agreement"] < result["limit"] for row in result["files"]))


def check(kit: Path, files: Path, provider: str, threads: int) -> dict[str, Any]:
    """Compare the answers of all model files with the kit's; returns the document of result.json."""
    try:
        import numpy as np
        import onnxruntime
    except ImportError as error:
        raise CheckError(f"{error.name} is missing: pip install numpy onnxruntime") from error
    text = read(kit, "kit.json")
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise CheckError("kit.json: altered or cut short; copy the kit again") from error
    if facts["schema"] != SCHEMA:
        raise CheckError(
            f"the kit has schema {facts['schema']} and this script reads {SCHEMA}: use the kit's own"
        )
    size = facts["images"]["size"]
    pixels = read(kit, "images.u8")
    if hashlib.sha256(pixels).hexdigest() != facts["images"]["sha256"]:
        raise CheckError("images.u8: altered or cut short; copy the kit again")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, size, size, 1)
    if provider in NVIDIA:
        preload(onnxruntime)
    rows = []
    for fact in facts["files"]:
        path = files / fact["file"]
        session = open_session(onnxruntime, path, fact, facts, provider, threads)
        answers_there = read(kit, fact["expected"])
        if len(answers_there) != len(images) * len(facts["labels"]) * 4:
            raise CheckError(f"{fact['expected']}: altered or cut short; copy the kit again")
        expected = np.frombuffer(answers_there, "<f4").reshape(len(images), -1)
        milliseconds, found = [], []
        for number, image in enumerate([images[0]] * WARM_UP + list(images)):
            start = time.perf_counter()
            (answer,) = session.run([facts["output"]], {facts["input"]: image[None]})
            if number >= WARM_UP:
                milliseconds.append((time.perf_counter() - start) * 1e3)
                found.append(answer[0])
        answers = np.stack(found).astype("<f4")
        same = answers.argmax(axis=1) == expected.argmax(axis=1)
        finite = np.isfinite(answers).all(axis=1)
        rows.append(
            {
                "file": fact["file"],
                "sha256": fact["sha256"],
                "agreement": float((same & finite).mean()),
                "largest_difference": float(np.nan_to_num(np.abs(answers - expected), nan=1.0).max()),
                "milliseconds": round(statistics.median(milliseconds), 4),
                "answers": base64.b64encode(answers.tobytes()).decode(),
            }
        )
    return {
        "schema": SCHEMA,
        "kit": hashlib.sha256(text).hexdigest(),
        "model": facts["model"],
        "images": facts["images"],
        "limit": facts["limit"],
        "device": {**device(), "onnxruntime": onnxruntime.__version__},
        "provider": provider,
        "threads": threads,
        "files": rows,
    }


def read(kit: Path, name: str) -> bytes:
    """The content of a file of the kit."""
    try:
        return (kit / name).read_bytes()
    except OSError as error:
        raise CheckError(f"{name}: cannot be read ({error.strerror}); copy the kit again") from error


def preload(onnxruntime: Any) -> None:
    """Load the libraries of NVIDIA's wheels, which the dynamic linker does not find."""
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # it reports missing libraries by print
            onnxruntime.preload_dlls()


def open_session(
    onnxruntime: Any, path: Path, fact: dict[str, Any], facts: dict[str, Any], provider: str, threads: int
) -> Any:
    """A session of the very file that the kit describes, on the very provider that was asked for."""
    if not path.is_file():
        raise CheckError(f"{path}: no such file; --files names the folder of the model files")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if provider != CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    same = hashlib.sha256(path.read_bytes()).hexdigest() == fact["sha256"]
    try:
        session = start(onnxruntime, path, options, provider)
    except Exception as error:  # onnxruntime's exceptions share no base class
        kind = "cannot be loaded" if same else "altered since its export, and cannot be loaded"
        raise CheckError(f"{path}: {kind} on {provider}: {' '.join(str(error).split())}") from error
    if not same:
        about = json.loads(session.get_modelmeta().custom_metadata_map.get("fertools", "{}"))
        if (
            about.get("weights_sha256") == facts["weights_sha256"]
            and about.get("versions") == facts["versions"]
        ):
            raise CheckError(f"{path}: altered since its export; copy it again")
        raise CheckError(
            f"{path}: another version ({version(about)}) than the kit's ({version(facts)}); make a kit of"
            " this version, or copy the kit's file"
        )
    if session.get_providers()[0] != provider:
        raise CheckError(f"{provider} was asked for and {session.get_providers()[0]} is what runs")
    parts = getattr(session, "get_provider_graph_assignment_info", None)  # from onnxruntime 1.24 on
    if provider != CPU and parts is not None and provider not in {part.ep_name for part in parts()}:
        raise CheckError(f"{provider} has no operator of {path.name}: the CPU would do all of it")
    return session


def start(onnxruntime: Any, path: Path, options: Any, provider: str) -> Any:
    """Make a session, on CUDA without TF32, which rounds the inputs of convolutions to 10 bits."""

    def session(**settings: str) -> Any:
        # Its fallback prints to stdout and goes on with the CPU when a provider fails.
        return onnxruntime.InferenceSession(
            str(path), options, providers=[provider], provider_options=[settings], enable_fallback=0
        )

    try:
        return session(use_tf32="0") if provider == CUDA else session()
    except Exception as error:
        if "use_tf32" not in str(error):
            raise
        return session()  # an onnxruntime before 1.18 does not know the option


def version(about: dict[str, Any]) -> str:
    """The model, its weights and what exported it, from a file's metadata or the kit's."""
    name, weights = about.get("name") or about.get("model", "unknown"), about.get("weights_sha256", "unknown")
    return f"{name}, weights {weights[:12]}, fertools {about.get('versions', {}).get('fertools', 'unknown')}"


def device() -> dict[str, str]:
    """What this device is, as far as it says."""
    name, board = "", ""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key.lower() in ("model name", "hardware") and not name:
                name = value
        board = Path("/proc/device-tree/model").read_text(errors="replace").strip("\0\n ")
    except OSError:
        pass
    return {
        "processor": board or name or platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
