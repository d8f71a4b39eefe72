"""onnxruntime's execution providers: their names, how to install them, and their options.

``auto`` takes the first of these that works, else the CPU:

1. CUDA, if there is an NVIDIA GPU: nobody installs onnxruntime-gpu for another reason.
2. OpenVINO, which comes in an onnxruntime of its own: it runs our int8 files in int8, with the answers of the
CPU.

The others are used only on request. TensorRT builds an engine for the first image, and again for each larger
batch, which takes seconds to minutes; and its int8 has no zero points, which our activations have. CoreML has
neither QuantizeLinear nor DequantizeLinear, so an int8 file is split into pieces; it compiles its part at
each start, and may compute in float16. XNNPACK is made for float32, while we ship int8, which the CPU
provider runs well.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import sys
from collections.abc import Sequence
from types import ModuleType

from fertools.errors import ProviderError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
COREML = "CoreMLExecutionProvider"
XNNPACK = "XnnpackExecutionProvider"

#: Short name -> (onnxruntime's name, how to get it).
PROVIDERS = {
    "cpu": (CPU, "pip install 'fertools[cpu]'"),
    "cuda": (CUDA, "pip uninstall onnxruntime, then pip install 'fertools[gpu]'"),
    "tensorrt": (TENSORRT, "pip uninstall onnxruntime, then pip install 'fertools[gpu]' tensorrt"),
    "openvino": (OPENVINO, "pip uninstall onnxruntime, then pip install onnxruntime-openvino"),
    "coreml": (COREML, "it is part of onnxruntime on macOS only"),
    "xnnpack": (XNNPACK, "it needs an onnxruntime built with --use_xnnpack"),
}

#: Providers that ``auto`` tries before the CPU, see above.
AUTO = (CUDA, OPENVINO)

#: Providers of NVIDIA's GPUs.
NVIDIA = frozenset((CUDA, TENSORRT))

#: Providers with threads of their own, which onnxruntime's threads would only disturb.
THREADED = frozenset((OPENVINO, XNNPACK))


def resolve(providers: str | Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Return onnxruntime's names of the requested providers, all of them in the installed build.

    Raises:
        ProviderError: there is none, or one is unknown or not in the build.
    """
    names = (providers,) if isinstance(providers, str) else tuple(providers)
    if not names:
        raise ProviderError(f"no provider was named: choose from auto, {', '.join(PROVIDERS)}")
    hints = dict(PROVIDERS.values())
    if "auto" in names:
        raise ProviderError("'auto' stands alone, without other providers: pass the text 'auto'")
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


def options(provider: str, threads: int) -> dict[str, str]:
    """Return the options of a provider: its number of threads, and no less than float32 for what is float32.

    Arguments:
        provider: onnxruntime's name.
        threads: for the providers that have threads of their own.
    """
    if provider == XNNPACK:
        return {"intra_op_num_threads": str(threads)}
    if provider == OPENVINO:  # by default it takes all processors, and may take bfloat16
        properties = {"INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": "f32"}
        return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}
    if provider == CUDA:  # by default it rounds the inputs of convolutions to TF32's 10 bits
        return {"use_tf32": "0"}
    return {}


def preload(providers: Sequence[str], ort: ModuleType) -> str:
    """Load the libraries of NVIDIA's wheels, which the dynamic linker does not find (onnxruntime#21684).

    Returns:
        A hint for error messages: which libraries are missing, and how to install them; "" for other
        providers.
    """
    if not NVIDIA & {*providers}:
        return ""
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(said):  # it reports missing libraries by print
            ort.preload_dlls()
    lines = [line.partition(": ")[0] for line in said.getvalue().splitlines()]
    wheels = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    if TENSORRT in providers:
        wheels += " and the TensorRT that it was built for"
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt_libs")  # loads all that it holds
    needs = "; ".join([f"needs NVIDIA's driver, and {wheels}", *lines])
    return f" ({needs})"


def has_nvidia_gpu() -> bool:
    """Whether NVIDIA's driver answers and has a device.

    Checked before ``auto`` tries a GPU: without one, onnxruntime-gpu logs errors in red that nobody needs.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
