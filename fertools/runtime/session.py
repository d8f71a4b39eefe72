"""onnxruntime sessions: open a model on the requested execution provider, or fail.

A session belongs to the process that opened it: a fork copies its memory, but not its threads.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fertools.contract import IMAGE_SIZE, INPUT_NAME, LABELS, OUTPUT_NAME
from fertools.errors import ForkError, MissingExtraError, ModelError, ProviderError, ProviderWarning
from fertools.reading import is_utf8
from fertools.runtime.arguments import MOST_THREADS, whole_number
from fertools.runtime.providers import (
    AUTO,
    CPU,
    NVIDIA,
    PROVIDERS,
    THREADED,
    has_nvidia_gpu,
    options,
    preload,
    resolve,
)
from fertools.runtime.threads import usable_cpus


def check_process(process: int, what: str) -> None:
    """Check that an object, e.g. a "Predictor", is used in the process that made it.

    Arguments:
        process: id of the process that made it.
        what: the kind of object, for the message.

    Raises:
        ForkError: this is another process.
    """
    if (here := os.getpid()) != process:
        raise ForkError(
            f"this {what} was made in process {process} and does not survive the fork to process {here}: "
            "make one in each process"
        )


class Session:
    """An ``onnxruntime.InferenceSession`` that only the process that opened it uses and destroys."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._process = os.getpid()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """Run the model, as ``InferenceSession.run`` does.

        Raises:
            ForkError: this process was forked from the one that opened the session.
        """
        check_process(self._process, "Predictor")
        results: list[Any] = self._session.run(outputs, inputs)
        return results

    def __del__(self) -> None:
        if os.getpid() != self._process:
            # Its destructor would wait for the threads of its pool, which a forked process lacks: that
            # crashes or hangs (onnxruntime#31961). An extra reference prevents the call.
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
        # Uninstalling one of two distributions leaves a folder without files behind.
        raise ProviderError(
            "the installed onnxruntime is broken, as after uninstalling one of onnxruntime and "
            "onnxruntime-gpu: uninstall both, then pip install one of 'fertools[cpu]' and 'fertools[gpu]'"
        )
    if telemetry_off:
        # for an onnxruntime that was imported earlier, or that ignores the variable
        onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module


def thread_count(threads: int | None) -> int:
    """Return the size of the thread pool: ``threads``, or all processors that this process may use.

    Raises:
        ConfigError: ``threads`` is not a positive integer, or absurdly large.
    """
    if threads is None:
        return usable_cpus()
    return whole_number("threads", threads, MOST_THREADS)


_INPUT = (INPUT_NAME, "tensor(uint8)", [IMAGE_SIZE, IMAGE_SIZE, 1])
_OUTPUT = (OUTPUT_NAME, "tensor(float)", [len(LABELS)])

#: Provider -> the process that was the first to open a session on it.
_started: dict[str, int] = {}


def open_session(path: Path, providers: str | Sequence[str], threads: int) -> Any:
    """Open a model file.

    Arguments:
        path: an .onnx or .ort file whose checksum has been checked.
        providers: ``"auto"`` (the best that works, see ``fertools.runtime.providers``), or one or several
            providers in order of preference, by their short names in ``PROVIDERS`` or onnxruntime's own.
        threads: the size of the pool that works on one operator.

    Returns:
        An ``onnxruntime.InferenceSession`` with our input and output that runs on the requested provider. On
        other providers than the CPU it has run once. With ``"auto"``, a ``ProviderWarning`` names each
        provider that failed, and why.

    Raises:
        ProviderError: a provider is unknown, not part of the installed onnxruntime, fails to start or in its
            first run, runs no part of this file, cannot be told from the CPU (before onnxruntime 1.24), or
            was started in a process that this one was forked from.
        ModelError: onnxruntime cannot load the file, or its graph is not ours.
    """
    ort = load_onnxruntime()
    available = ort.get_available_providers()
    if providers != "auto":
        return _open(ort, path, resolve(providers, available), threads)
    session, failures = None, []
    for name in AUTO:
        if session is None and name in available and _obstacle(name, path) is None:
            try:
                session = _open(ort, path, (name,), threads)
            except ProviderError as error:
                failures.append(f"auto goes on without {name}: {error}")
    if session is None:
        session = _open(ort, path, (CPU,), threads)
    for failure in failures:  # reported only now that the file is known to be good
        warnings.warn(failure, ProviderWarning, stacklevel=3)  # where the Predictor is made
    return session


def try_providers(path: Path) -> dict[str, str | None]:
    """Run a model file on each provider of ``PROVIDERS``; those that compile take a while.

    Returns:
        Short name -> None if it works, else the reason.

    Raises:
        ModelError: onnxruntime cannot load the file.
    """
    ort = load_onnxruntime()
    available = ort.get_available_providers()
    found: dict[str, str | None] = {}
    for short, (name, source) in PROVIDERS.items():
        found[short] = _obstacle(name, path) if name in available else f"not installed: {source}"
        if found[short] is None:
            try:
                _open(ort, path, (name,), 1)
            except ProviderError as error:
                found[short] = str(error)
    return found


def _obstacle(provider: str, path: Path) -> str | None:
    """Return why a provider of the installed onnxruntime cannot work; None if it may."""
    forked = _started.get(provider, os.getpid()) != os.getpid()  # the driver does not answer then, either
    if provider in NVIDIA and not forked and not has_nvidia_gpu():
        return "there is no NVIDIA GPU, or its driver does not answer"
    if provider != CPU and path.suffix == ".ort":
        return f"{path.name} is made for the CPU: take the .onnx file"
    return None


def _open(ort: ModuleType, path: Path, wanted: tuple[str, ...], threads: int) -> Any:
    if path.suffix == ".ort" and {*wanted} != {CPU}:
        raise ProviderError(
            f"{path}: made for the CPU, not for {', '.join(wanted)}: take the .onnx file, or ask for 'auto'"
        )
    if not is_utf8(str(path)):
        raise ModelError(f"{path}: onnxruntime cannot open a name that is not UTF-8: rename it")
    _check_fork(wanted)
    hint = preload(wanted, ort)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    if THREADED & {*wanted}:
        # onnxruntime's advice for XNNPACK: no threads besides its own, and no spinning.
        settings.intra_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.inter_op_num_threads = 1  # the graph is a chain: there are no branches to run side by side
    settings.log_severity_level = 3  # errors; the warnings are hints for onnxruntime's own developers
    if wanted[0] != CPU:
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # With its fallback, onnxruntime prints to stdout and continues on the CPU when a provider fails.
        session = ort.InferenceSession(
            str(path),
            settings,
            providers=[*wanted],
            provider_options=[options(name, threads) for name in wanted],
            enable_fallback=0,
        )
    except Exception as error:  # onnxruntime's exceptions share no base class
        if wanted == (CPU,):
            raise ModelError(f"{path}: onnxruntime {ort.__version__} cannot load it: {error}") from error
        raise ProviderError(f"{', '.join(wanted)} failed to start: {_line(error)}{hint}") from error
    # A provider whose libraries are missing is left out without an exception (onnxruntime#25145).
    missing = [name for name in wanted if name not in session.get_providers()]
    if missing:
        raise ProviderError(
            f"{', '.join(missing)} could not start, and onnxruntime would silently use "
            f"{', '.join(session.get_providers())}: ask for 'auto' if that will do{hint}"
        )
    _check_graph(session, path)
    if wanted[0] != CPU:
        _check_provider(session, wanted[0], hint)
    return session


def _check_fork(providers: Sequence[str]) -> None:
    """Raise ProviderError if this process was forked from one that has started one of the providers.

    Only the CPU's can be opened again: OpenVINO's global state would wait forever for threads that do not
    exist in a forked process, and a GPU's context is lost.
    """
    here = os.getpid()
    for name in providers:
        if name != CPU and (process := _started.setdefault(name, here)) != here:
            raise ProviderError(
                f"{name} was started in process {process} and does not survive the fork to process {here}: "
                "start processes by 'spawn', or ask for 'cpu'"
            )


def _check_graph(session: Any, path: Path) -> None:
    """Raise ModelError unless the graph is uint8 (batch, 48, 48, 1) -> float32 (batch, 7), any batch."""
    for kind, found, (name, dtype, shape) in (
        ("input", session.get_inputs(), _INPUT),
        ("output", session.get_outputs(), _OUTPUT),
    ):
        described = [(item.name, item.type, item.shape[1:]) for item in found]
        if described != [(name, dtype, shape)] or isinstance(found[0].shape[0], int):
            actual = ", ".join(f"{item.name} {item.type} {item.shape}" for item in found)
            raise ModelError(f"{path}: its {kind} must be {name} {dtype} {['batch', *shape]}, not {actual}")


def _check_provider(session: Any, provider: str, hint: str) -> None:
    """Raise ProviderError unless the provider runs a part of the graph and the first run succeeds."""
    parts = getattr(session, "get_provider_graph_assignment_info", None)
    if parts is None:
        raise ProviderError(
            f"{provider} cannot be told from the CPU by an onnxruntime before 1.24: install a later one, or "
            "ask for 'cpu'"
        )
    if provider not in {part.ep_name for part in parts()}:
        raise ProviderError(f"{provider} has no operator of this network: the CPU would do all of it")
    try:
        image = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)
        (probabilities,) = session.run([OUTPUT_NAME], {INPUT_NAME: image})
    except Exception as error:
        raise ProviderError(f"{provider} failed in its first run: {_line(error)}{hint}") from error
    if not abs(probabilities.sum() - 1) < 1e-3:  # NaN, too
        raise ProviderError(f"{provider} gives wrong answers: probabilities that do not sum to 1")


def _line(error: Exception) -> str:
    """Return the message of an onnxruntime exception, which may span lines, as one line."""
    return " ".join(str(error).split())
