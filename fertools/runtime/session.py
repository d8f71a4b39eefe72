"""onnxruntime, and what of its sessions is ours to mind: processes and threads."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from fertools.errors import MissingExtraError, ProviderError
from fertools.runtime.arguments import MOST_THREADS, whole_number
from fertools.runtime.process import check_process
from fertools.runtime.threads import usable_cpus


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
        ConfigError: `threads` is not a positive integer, or beyond all measure.
    """
    if threads is None:
        return usable_cpus()
    return whole_number("threads", threads, MOST_THREADS)
