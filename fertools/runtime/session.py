"""Opening a model in onnxruntime on the execution provider that was asked for, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fertools.errors import ConfigError, MissingExtraError, ModelError, ProviderError
from fertools.runtime.process import check_process
from fertools.runtime.threads import usable_cpus

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

#: Short name -> (onnxruntime's name, how to get it).
PROVIDERS = {
    "cpu": (CPU, "pip install 'fertools[cpu]'"),
    "cuda": (CUDA, "pip uninstall onnxruntime, then pip install 'fertools[gpu]'"),
    "tensorrt": (TENSORRT, "pip uninstall onnxruntime, then pip install 'fertools[gpu]' tensorrt"),
    "openvino": (
        "OpenVINOExecutionProvider",
        "pip uninstall onnxruntime, then pip install onnxruntime-openvino",
    ),
    "coreml": ("CoreMLExecutionProvider", "it is part of onnxruntime on macOS only"),
    "xnnpack": ("XnnpackExecutionProvider", "it needs an onnxruntime built with --use_xnnpack"),
}


class Session:
    """An ``onnxruntime.InferenceSession`` that only the process that opened it uses and destroys."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._process = os.getpid()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """onnxruntime's ``run``.

        Raises:
            ForkError: this process is another one, forked from that.
        """
        check_process(self._process, "Predictor")
        results: list[Any] = self._session.run(outputs, inputs)
        return results

    def __del__(self) -> None:
        if os.getpid() != self._process:
            # Its destructor would wait for the threads of its pool, which are not in a forked process: that
            # crashes or hangs (onnxruntime#31961). One reference too many keeps it from being called.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))


def load_onnxruntime() -> ModuleType:
    """Import onnxruntime, with its telemetry switched off unless ``$ORT_DISABLE_TELEMETRY`` is set already.

    Since 1.29, its official builds send facts about the machine and the models to Microsoft, and start a
    thread for it, which hangs the exit of a forked process (its Privacy.md, onnxruntime#27379).

    Raises:
        MissingExtraError: it is not installed.
        ProviderError: it is broken.
    """
    telemetry_off = os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1") == "1"  # read by the import
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "cpu") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What uninstalling one of two distributions leaves behind: a folder without its files.
        raise ProviderError(
            "the installed onnxruntime is broken, as after uninstalling one of onnxruntime and "
            "onnxruntime-gpu: uninstall both, then pip install one of 'fertools[cpu]' and 'fertools[gpu]'"
        )
    if telemetry_off:
        onnxruntime.disable_telemetry_events()  # where it was imported before, or does not read the variable
    module: ModuleType = onnxruntime
    return module


def thread_count(threads: int | None) -> int:
    """The size of the thread pool: `threads`, or all processors that this process may use.

    Raises:
        ConfigError: `threads` is not a positive integer.
    """
    if threads is None:
        return usable_cpus()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads must be a positive integer or None, not {threads!r}")
    return threads


def open_session(path: Path, providers: str | Sequence[str], threads: int) -> Any:
    """Open an ONNX file.

    Arguments:
        path: a file whose seal has been checked.
        providers: ``"auto"`` (CUDA if it works, else CPU), or one or several providers in order of
            preference, by their short names in `PROVIDERS` or onnxruntime's own.
        threads: the size of the pool that works on one operator.

    Returns:
        An ``onnxruntime.InferenceSession`` that runs on what was asked for.

    Raises:
        ProviderError: a provider is unknown, not part of the installed onnxruntime, or failed to start.
        ModelError: onnxruntime cannot load the file.
    """
    ort = load_onnxruntime()
    if providers != "auto":
        return _open(ort, path, _resolve(providers, ort.get_available_providers()), threads)
    if CUDA in ort.get_available_providers() and _has_nvidia_gpu():
        with contextlib.suppress(ProviderError):
            return _open(ort, path, (CUDA,), threads)
    return _open(ort, path, (CPU,), threads)


def _open(ort: ModuleType, path: Path, wanted: tuple[str, ...], threads: int) -> Any:
    hint = f" ({_preload(ort)})" if {CUDA, TENSORRT} & {*wanted} else ""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graph is a chain: there are no branches to run side by side
    options.log_severity_level = 3  # errors; the warnings are hints for onnxruntime's own developers
    try:
        # With its fallback, onnxruntime prints to stdout and goes on with the CPU when a provider fails.
        session = ort.InferenceSession(str(path), options, providers=[*wanted], enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no base class
        if wanted == (CPU,):
            raise ModelError(f"{path}: onnxruntime {ort.__version__} cannot load it: {error}") from error
        reason = " ".join(str(error).split())  # onnxruntime's messages span lines
        raise ProviderError(f"{', '.join(wanted)} failed to start: {reason}{hint}") from error
    # A provider whose libraries are missing is left out without an exception (onnxruntime#25145).
    missing = [name for name in wanted if name not in session.get_providers()]
    if missing:
        raise ProviderError(
            f"{', '.join(missing)} could not start, and onnxruntime would silently use "
            f"{', '.join(session.get_providers())}: ask for 'auto' if that will do{hint}"
        )
    return session


def _resolve(providers: str | Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """onnxruntime's names of the requested providers, all of them in the installed build."""
    names = (providers,) if isinstance(providers, str) else tuple(providers)
    if not names:
        raise ProviderError(f"no provider was named: choose from auto, {', '.join(PROVIDERS)}")
    hints = dict(PROVIDERS.values())
    full = tuple(PROVIDERS[name][0] if name in PROVIDERS else name for name in names)
    for name in full:
        if name not in hints and name not in available:
            raise ProviderError(
                f"unknown provider {name!r}: choose from auto, {', '.join(PROVIDERS)} "
                f"or what is installed: {', '.join(available)}"
            )
        if name not in available:
            raise ProviderError(
                f"{name} is not in the installed onnxruntime, which has {', '.join(available)}: {hints[name]}"
            )
    return full


def _preload(ort: ModuleType) -> str:
    """Load the CUDA and cuDNN libraries of NVIDIA's wheels (onnxruntime#21684).

    Returns:
        A hint for error messages: which libraries are missing, and where they come from.
    """
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(said):  # it reports missing libraries by print
            ort.preload_dlls()
    lines = [line.partition(": ")[0] for line in said.getvalue().splitlines()]
    return "; ".join(["needs NVIDIA's driver, and pip install 'onnxruntime-gpu[cuda,cudnn]'", *lines])


def _has_nvidia_gpu() -> bool:
    """Whether NVIDIA's driver answers and has a device.

    Asked before CUDA is tried unasked: without a GPU, onnxruntime-gpu logs errors in red that nobody needs.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
