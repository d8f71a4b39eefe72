"""The Keras backend and the device that a run really uses."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fertools.errors import MissingExtraError, ProviderError

#: Processor flags of units that multiply bfloat16 (x86 and ARM names).
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Device:
    """Where a run's steps are computed."""

    backend: str
    kind: str  # "cpu" or "gpu"
    name: str
    has_bfloat16: bool


def import_keras() -> ModuleType:
    """Import Keras without its backend's start-up chatter. Raises MissingExtraError."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras
    except ImportError as error:
        # keras imports its backend at once: name the one that is missing.
        raise MissingExtraError((error.name or "keras").partition(".")[0], "train") from error
    return keras


def select_device(wanted: str) -> Device:
    """Make Keras use ``wanted`` ("auto", "cpu", "gpu") and say what that is.

    Raises ProviderError where a GPU is asked for and the backend sees none.
    """
    backend = import_keras().backend.backend()
    gpu = _gpu_name(backend, hide=wanted == "cpu")
    if wanted == "gpu" and gpu is None:
        raise ProviderError(
            f"device=gpu: the {backend} backend sees no GPU here; use --device cpu, or install its CUDA parts"
            " (pip install 'fertools[train-gpu]')"
        )
    if gpu is not None:
        return Device(backend, "gpu", gpu, has_bfloat16=True)
    name, flags = processor()
    return Device(backend, "cpu", name, has_bfloat16=bool(BFLOAT16_FLAGS & flags))


def _gpu_name(backend: str, *, hide: bool) -> str | None:
    """The first GPU of the backend, or None; with ``hide`` the backend is told to leave it alone."""
    if backend == "tensorflow":
        import tensorflow as tf

        if hide:
            tf.config.set_visible_devices([], "GPU")
        gpus = tf.config.get_visible_devices("GPU")
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else None
    if backend == "jax":
        import jax

        if hide:
            jax.config.update("jax_platforms", "cpu")
        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    import torch

    if hide:
        raise ProviderError("device=cpu: hide the GPU from the torch backend with CUDA_VISIBLE_DEVICES=''")
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def processor() -> tuple[str, frozenset[str]]:
    """The processor's name and instruction-set flags, as Linux tells them; else a generic name."""
    import platform

    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
    return name, flags
