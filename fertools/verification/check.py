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
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

SCHEMA = 1
WARM_UP = 10
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
NVIDIA = (CUDA, TENSORRT)
#: Short name -> onnxruntime's name.
PROVIDERS = {
    "cpu": CPU,
    "cuda": CUDA,
    "tensorrt": TENSORRT,
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


class CheckError(Exception):
    """The check cannot be made, or a file is not the kit's."""


def main(arguments: list[str] | None = None) -> int:
    """Run the check and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, default=Path(__file__).resolve().parent, help="the unpacked kit")
    parser.add_argument("--files", type=Path, help="folder of the model files  [default: the kit]")
    parser.add_argument("--threads", type=positive, default=1, help="threads of a prediction  [default: 1]")
    parser.add_argument(
        "--provider",
        default="cpu",
        help=f"{', '.join(PROVIDERS)} or onnxruntime's own name  [default: cpu]",
    )
    parser.add_argument("--out", type=Path, default=Path("result.json"), help="[default: result.json]")
    options = parser.parse_args(arguments)
    try:
        if not options.out.parent.is_dir():
            raise CheckError(f"{options.out.parent}: no such folder; --out names a file in one that is there")
        result = check(options.kit, options.files or options.kit, options.provider, options.threads)
        try:
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckError(f"{options.out}: cannot be written ({error.strerror})") from error
    except CheckError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
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
    for file in result["left_out"]:
        print(f"{file:<20}not in {options.files}: not checked")
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
    facts = parse(text)
    size = facts["images"]["size"]
    pixels = read(kit, "images.u8")
    if hashlib.sha256(pixels).hexdigest() != facts["images"]["sha256"]:
        raise CheckError("images.u8: altered or cut short; copy the kit again")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, size, size, 1)
    provider = resolve(provider, onnxruntime.get_available_providers())
    if provider in NVIDIA:
        preload(onnxruntime)
    rows = []
    left_out = [fact["file"] for fact in facts["files"] if not (files / fact["file"]).is_file()]
    if left_out and files == kit:
        raise CheckError(f"{left_out[0]}: missing; copy the kit again")
    if len(left_out) == len(facts["files"]):
        raise CheckError(f"{files}: holds none of {', '.join(left_out)}; --files names their folder")
    for fact in facts["files"]:
        if fact["file"] in left_out:
            continue
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
        "left_out": left_out,
    }


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def parse(text: bytes) -> dict[str, Any]:
    """The content of kit.json, with all that this script reads of it."""
    try:
        facts: dict[str, Any] = json.loads(text)
        schema = facts["schema"]
        if schema == SCHEMA:
            needed = ("model", "weights_sha256", "versions", "input", "output", "labels", "limit")
            _ = [facts[name] for name in needed], facts["images"]["size"], facts["images"]["sha256"]
            _ = [fact[name] for fact in facts["files"] for name in ("file", "sha256", "expected")]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckError("kit.json: altered or cut short; copy the kit again") from error
    if schema != SCHEMA:
        raise CheckError(f"the kit has schema {schema} and this script reads {SCHEMA}: use the kit's own")
    return facts


def read(kit: Path, name: str) -> bytes:
    """The content of a file of the kit."""
    try:
        return (kit / name).read_bytes()
    except OSError as error:
        raise CheckError(f"{name}: cannot be read ({error.strerror}); copy the kit again") from error


def resolve(name: str, available: list[str]) -> str:
    """Onnxruntime's name of a provider that is in the installed build."""
    full = PROVIDERS.get(name, name)
    if full not in available:
        short = {full: name for name, full in PROVIDERS.items()}
        there = ", ".join(short.get(each, each) for each in available)
        raise CheckError(f"{name}: not in the installed onnxruntime, which has {there}")
    return full


def preload(onnxruntime: Any) -> None:
    """Load the libraries of NVIDIA's wheels, which the dynamic linker does not find."""
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # it reports missing libraries by print
            onnxruntime.preload_dlls()


def open_session(
    onnxruntime: Any, path: Path, fact: dict[str, Any], facts: dict[str, Any], provider: str, threads: int
) -> Any:
    """A session of the very file that the kit describes, on the very provider that was asked for."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if provider != CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    data = path.read_bytes()
    same = hashlib.sha256(data).hexdigest() == fact["sha256"]
    try:
        session = start(onnxruntime, path, options, provider)
    except Exception as error:  # onnxruntime's exceptions share no base class
        kind = "cannot be loaded" if same else "altered since its export, and cannot be loaded"
        raise CheckError(f"{path}: {kind} on {provider}: {' '.join(str(error).split())}") from error
    if not same:
        about = own_metadata(session, data)
        if about is None:
            raise CheckError(f"{path}: altered since its export; copy it again")
        raise CheckError(
            f"{path}: another export ({version(about)}) than the kit's ({version(facts)}); make a kit of"
            " this one, or copy the kit's file"
        )
    if session.get_providers()[0] != provider:
        raise CheckError(f"{provider} was asked for and {session.get_providers()[0]} is what runs")
    if provider != CPU:
        parts = getattr(session, "get_provider_graph_assignment_info", None)  # from onnxruntime 1.24 on
        if parts is None:
            working = profiled(onnxruntime, path, facts, provider)
        else:
            working = {part.ep_name for part in parts()}
        if provider not in working:
            raise CheckError(f"{provider} has no operator of {path.name}: the CPU would do all of it")
    return session


def own_metadata(session: Any, data: bytes) -> dict[str, Any] | None:
    """The metadata of a file of ours, None if the file differs from its own checksum.

    That is the SHA-256 of the file with 64 zeros in the checksum's place (``fertools.runtime.metadata``).
    """
    try:
        found = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        return None
    seal = found.get("fertools.seal", "").encode()
    if not seal or hashlib.sha256(data.replace(seal, b"0" * 64)).hexdigest().encode() != seal:
        return None
    about: dict[str, Any] = json.loads(found["fertools"])
    return about


def profiled(onnxruntime: Any, path: Path, facts: dict[str, Any], provider: str) -> set[str]:
    """The providers that computed an operator of one image."""
    import numpy as np

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    size = facts["images"]["size"]
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = start(onnxruntime, path, options, provider)
        session.run([facts["output"]], {facts["input"]: np.zeros((1, size, size, 1), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return {event.get("args", {}).get("provider", "") for event in events}


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
