"""What can stand in the way of an export, found before the work begins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fertools import contract
from fertools.errors import ConfigError, ModelError, RunError
from fertools.export.subject import read_origin

#: All that an export folder may hold.
FILES = frozenset(
    (
        contract.ONNX_FILE,
        contract.INT8_FILE,
        contract.ORT_FILE,
        contract.INT8_ORT_FILE,
        contract.OPERATORS_FILE,
        contract.ARCHITECTURE_FILE,
        contract.KERAS_FILE,
        contract.REPORT_FILE,
        contract.CARD_FILE,
        contract.CONFUSION_FILE,
        contract.TRITON_FOLDER,
        contract.WEB_FOLDER,
    )
)


def check_folder(folder: Path, data: Mapping[str, str], *, force: bool = False) -> None:
    """Find what stands in the way of exporting to ``folder``.

    Arguments:
        folder: may be missing or empty, or hold an export made from the same data.
        data: name and fingerprint of the data that the network was trained on.
        force: let it hold an export made from other data, too.

    Raises RunError if ``folder`` is in the way or cannot be written, ConfigError on another Keras backend
    than TensorFlow.
    """
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise RunError(f"{parent}: is a file; choose another folder with --out")
    if not os.access(folder.absolute().parent if parent == folder else parent, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: cannot be written there; choose another folder with --out")
    if folder.exists() and any(folder.iterdir()):
        _check_replaceable(folder, data, force)
    _check_backend()


def _check_replaceable(folder: Path, data: Mapping[str, str], force: bool) -> None:
    """The whole folder will be replaced: nothing may be in it that an export has not made."""
    others = ", ".join(sorted({file.name for file in folder.iterdir()} - FILES)[:3])
    try:
        made_from = None if others else read_origin(folder).data
    except ModelError:
        made_from = None
    if made_from is None:
        raise RunError(
            f"{folder}: holds other things than an export{others and f' ({others})'};"
            " choose another folder with --out"
        )
    if made_from["fingerprint"] != data["fingerprint"] and not force:
        raise RunError(
            f"{folder}: holds an export made from {made_from['name']}, not {data['name']};"
            " replace it with --force, or choose another folder with --out"
        )


def _check_backend() -> None:
    """Conversion needs TensorFlow; the variable is read first, since that backend may not be installed."""
    from fertools.backend import import_keras

    backend = os.environ.get("KERAS_BACKEND") or import_keras().backend.backend()
    if backend != "tensorflow":
        raise ConfigError(
            f"export needs Keras on TensorFlow, not {backend}: unset KERAS_BACKEND, or set it to tensorflow"
        )
