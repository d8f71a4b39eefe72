"""The facts for a bug report: versions, processor, execution providers, devices and the model."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from fertools import __version__
from fertools.errors import FertoolsError
from fertools.processor import int8_features, processor
from fertools.runtime.location import shipped_model
from fertools.runtime.predictor import Predictor
from fertools.runtime.providers import AUTO, CPU, PROVIDERS
from fertools.runtime.session import load_onnxruntime, thread_count, try_providers
from fertools.runtime.threads import usable_cpus

#: Distributions whose versions matter, all optional.
PACKAGES = (
    "numpy",
    "pillow",
    "click",
    "rich",
    "onnx",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "tf2onnx",
    "pandas",
    "scikit-learn",
    "matplotlib",
)

#: All of these install the one package ``onnxruntime`` and overwrite each other's files (onnxruntime#26996).
ONNXRUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
    "onnxruntime-qnn",
    "onnxruntime-training",
)


def describe(model: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Describe this installation as a JSON document, without importing TensorFlow.

    Arguments:
        model: an export folder or model file to describe instead of the shipped model. The providers are
            tried on it.

    Returns:
        ``fertools``, ``python``, ``platform``, ``processor``, ``int8_features``, ``cpus`` (usable),
        ``threads`` (default), ``packages`` (name -> version), ``onnxruntime`` (distribution -> version),
        ``providers`` (what onnxruntime is built with), ``provider_status`` (short name -> whether it
        ``works`` on the model and the ``reason`` why not), ``auto`` (the provider that "auto" takes),
        ``devices``, ``model`` and ``warnings``. Without a model, ``provider_status`` is empty, and ``auto``
        and ``model`` are None.

    Raises:
        ModelError: ``model`` was given and cannot be used. A broken shipped model is a warning.
    """
    runtimes = _versions(ONNXRUNTIMES)
    warnings = []
    if len(runtimes) > 1:
        warnings.append(
            f"{' and '.join(runtimes)} are both installed and overwrite each other's files: "
            "uninstall all of them, then install one"
        )
    providers: list[str] = []
    devices: list[dict[str, str]] = []
    try:
        ort = load_onnxruntime()
        providers = ort.get_available_providers()
        devices = _devices(ort)
    except FertoolsError as error:
        warnings.append(str(error))
    described, reasons = None, {}
    try:
        if model is not None or shipped_model() is not None:
            predictor = Predictor(model, providers="cpu", threads=1)
            described, reasons = _model(predictor), try_providers(predictor.path)
    except FertoolsError as error:
        if model is not None:
            raise
        warnings.append(str(error))
    return {
        "fertools": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor()[0],
        "int8_features": int8_features(),
        "cpus": usable_cpus(),
        "threads": thread_count(None),
        "packages": _versions(PACKAGES),
        "onnxruntime": runtimes,
        "providers": providers,
        "provider_status": {
            name: {"works": reason is None, "reason": reason} for name, reason in reasons.items()
        },
        "auto": _auto(reasons),
        "devices": devices,
        "model": described,
        "warnings": warnings,
    }


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _devices(ort: Any) -> list[dict[str, str]]:
    if not hasattr(ort, "get_ep_devices"):  # onnxruntime before 1.23
        return []
    return [
        {"provider": item.ep_name, "type": item.device.type.name, "vendor": item.device.vendor}
        for item in ort.get_ep_devices()
    ]


def _auto(reasons: dict[str, str | None]) -> str | None:
    """Return the provider that "auto" takes, given which of them work."""
    working = [PROVIDERS[name][0] for name, reason in reasons.items() if reason is None]
    return next((name for name in (*AUTO, CPU) if name in working), None)


def _model(predictor: Predictor) -> dict[str, Any]:
    info = predictor.info
    return {
        "path": str(predictor.path),
        "bytes": predictor.path.stat().st_size,
        "name": info.name,
        "precision": info.precision,
        "parameters": info.parameters,
        "labels": [*info.labels],
        "accuracy": dict(info.accuracy),
        "data": dict(info.data),
        "weights_sha256": info.weights_sha256,
    }
