"""The Keras backend, and the device that a run uses."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from fertools.errors import ConfigError, MissingExtraError, ProviderError
from fertools.memory import keep_memory
from fertools.processor import processor

#: The file descriptor of the process's stderr.
STDERR = 2

#: Keras' environment variable for the number of processes that train together.
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"

#: Processor flags (x86 and ARM names) for bfloat16 multiplication.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}

#: TensorFlow's oneDNN uses no instruction set above the one that the first of these environment variables
#: names; those below cannot multiply bfloat16.
#: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
WITHOUT_BFLOAT16 = ["sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"]


@dataclass(frozen=True)
class Device:
    """The device that computes a run's steps."""

    backend: str
    kind: str  # "cpu" or "gpu"
    name: str
    #: Whether it computes bfloat16 faster than float32.
    has_bfloat16: bool


def import_keras() -> ModuleType:
    """Import Keras and its backend without its start-up messages.

    The process then keeps freed memory, and its garbage collector leaves alone the objects there are by then.

    Raises:
        MissingExtraError: Keras or its backend is not installed.
        ProviderError: the backend is installed but does not load.
        ConfigError: KERAS_BACKEND names no backend.
    """
    keep_memory()  # here, because the backend allocates and starts threads from now on
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "avx2" in processor()[1]:
        # oneDNN keeps memory and is faster; by default TensorFlow uses it only with VNNI or similar.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # It warns about tracing one function per network, which several networks need.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if named := os.environ.get("KERAS_BACKEND"):
        _check_backend(named)  # before its package is missed
    try:
        with _quiet_stderr(), _uncollected():
            keras = import_module("keras")
    except ModuleNotFoundError as error:
        # keras imports its backend: name the missing package.
        raise MissingExtraError((error.name or "keras").partition(".")[0], "train") from error
    except ImportError as error:
        raise ProviderError(f"Keras' backend does not load: {error}; reinstall 'fertools[train]'") from error
    except ValueError as error:
        raise ConfigError(f"Keras does not start: {error}; set KERAS_BACKEND to tensorflow or jax") from error
    return keras


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector away from what an import makes, then and later.

    TensorFlow makes some 700,000 objects that live as long as the process. To go through them again and again
    takes a fifth of the import, some of each trace of a network, and over a second when the process ends.
    """
    if "keras" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _check_backend(name: str) -> None:
    if name not in GPU_NAMES:
        raise ConfigError(f"Keras' backend is {name}: set KERAS_BACKEND to {' or '.join(GPU_NAMES)}")


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back output to the process's stderr; show it if the block raises.

    TensorFlow's C++ libraries log straight to the file descriptor before they read their log level, so only
    redirecting the descriptor keeps them quiet.
    """
    try:
        kept = os.dup(STDERR)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)


def select_device(wanted: str, devices: str = "one") -> Device:
    """Make Keras use ``wanted`` ("auto", "cpu", "gpu") and return the device.

    With "all" ``devices`` of that kind, join the processes that Keras' own environment variables name, if any
    (docs/scaling.md).

    Raises:
        ProviderError: a GPU was requested and the backend sees none.
        ConfigError: for a backend other than TensorFlow and JAX, and on TensorFlow for more than one device.
    """
    keras = import_keras()
    backend = keras.backend.backend()
    _check_backend(backend)
    together = devices == "all" and PROCESSES in os.environ
    if together and backend == "jax" and not import_module("jax").distributed.is_initialized():
        keras.distribution.initialize()  # before anything else makes JAX look for devices
    gpu = GPU_NAMES[backend](wanted == "cpu")
    if wanted == "gpu" and gpu is None:
        raise ProviderError(
            f"device=gpu: the {backend} backend sees no GPU here; use device=cpu (--device cpu, or in a run's"
            " config.json), or install its CUDA parts (pip install 'fertools[train-gpu]')"
        )
    name, flags = processor()
    count = len(keras.distribution.list_devices()) if devices == "all" else 1
    if (count > 1 or together) and backend != "jax":
        raise ConfigError(
            f"devices=all: Keras cannot split batches over devices on {backend}; set KERAS_BACKEND to jax,"
            " or use --devices one"
        )
    several = f"{count} x " if count > 1 else ""
    if gpu is not None:
        return Device(backend, "gpu", several + gpu, has_bfloat16=True)
    return Device(backend, "cpu", several + name, _bfloat16_pays(backend, name, flags))


def _bfloat16_pays(backend: str, name: str, flags: frozenset[str]) -> bool:
    """On JAX bfloat16 is no faster on processors."""
    return backend == "tensorflow" and bfloat16_is_faster(name, flags) and not bfloat16_is_forbidden()


def bfloat16_is_faster(name: str, flags: frozenset[str]) -> bool:
    """Return whether a processor with this name and flags trains faster in bfloat16 than in float32.

    Having the instructions is not enough. With AVX512_BF16 the reference network trains 1.4 times as fast on
    two Zen 4 cores of AMD; on an Intel Xeon without AMX ``compact`` trains at 0.6 of float32's speed
    (``benchmarks/training.py --model compact``).
    """
    return bool(flags & {"amx_bf16", "bf16"}) or ("avx512_bf16" in flags and "AMD" in name)


def bfloat16_is_forbidden() -> bool:
    """Return whether an environment variable keeps oneDNN from using bfloat16 instructions."""
    limit = next((os.environ[variable] for variable in ISA_LIMITS if variable in os.environ), "")
    return limit.lower() in WITHOUT_BFLOAT16


def _tensorflow_gpu(hide: bool) -> str | None:
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    try:
        if hide:
            tf.config.set_visible_devices([], "GPU")
            return None
        for gpu in gpus:  # leave room for onnxruntime in the same process
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise ProviderError(f"TensorFlow already uses the GPU: {error}; start a new process") from error
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else None


def _jax_gpu(hide: bool) -> str | None:
    jax = import_module("jax")
    if hide:
        jax.config.update("jax_platforms", "cpu")
    device = jax.devices()[0]
    return None if device.platform == "cpu" else device.device_kind


#: Backend -> function that names its first GPU, if any; with True, it hides the GPUs from the backend.
GPU_NAMES: dict[str, Callable[[bool], str | None]] = {"tensorflow": _tensorflow_gpu, "jax": _jax_gpu}
