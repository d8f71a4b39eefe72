"""Find the file of a model: in an export folder, named directly, or shipped with the package."""

from __future__ import annotations

import os
from pathlib import Path

import fertools
from fertools.contract import INT8_FILE, INT8_ORT_FILE, KERAS_FILE, ONNX_FILE, ORT_FILE
from fertools.errors import ModelError
from fertools.reading import reason
from fertools.runtime.arguments import choice
from fertools.runtime.arguments import path as as_path

#: Precision -> its files in an export folder, one a format; both in the order of preference. Every provider
#: runs an .onnx file, the CPU's alone an .ort file.
FILES = {"int8": (INT8_FILE, INT8_ORT_FILE), "float32": (ONNX_FILE, ORT_FILE)}

#: The shipped models; the first is the default.
SHIPPED = ("sequential", "compact")
DEFAULT = SHIPPED[0]

_PACKAGE = Path(fertools.__file__).resolve().parent


def shipped_model(name: str = DEFAULT) -> Path | None:
    """Return the folder of a shipped model, in a wheel or beside the package in a checkout."""
    for root in (_PACKAGE, _PACKAGE.parent):
        folder = root / "exported" / name
        if model_files(folder):
            return folder
    return None


def locate(model: Path | None) -> Path:
    """Return ``model``, or a shipped model's folder: the default's for None, else that of its name.

    Raises:
        ModelError: that model does not ship with this copy of fertools.
    """
    if model is not None and (str(model) not in SHIPPED or model.exists()):
        return model
    name = DEFAULT if model is None else str(model)
    shipped = shipped_model(name)
    if shipped is None:
        raise ModelError(
            f"{name}: does not ship with this copy of fertools: pass a model, e.g. a folder that 'fertools"
            " export' wrote"
        )
    return shipped


def model_files(folder: Path) -> dict[str, Path]:
    """Return precision -> file for the files of an export folder, in the order of preference."""
    found = {}
    for precision, names in FILES.items():
        files = [folder / name for name in names if (folder / name).is_file()]
        if files:
            found[precision] = files[0]
    return found


def keras_file(folder: Path) -> Path:
    """Return the ``.keras`` file of an export folder. Raises ModelError if it has none."""
    file = folder / KERAS_FILE
    if not file.is_file():
        raise ModelError(
            f"{folder}: has no {KERAS_FILE} (wheels bring the int8 files alone); pass an export folder that"
            " has one"
        )
    return file


def find_model(model: str | os.PathLike[str] | None, precision: str) -> tuple[Path, str | None]:
    """Return the file to load and the precision that it must have (None for any).

    Arguments:
        model: an export folder, an .onnx or .ort file, a name in ``SHIPPED`` (if there is no such path), or
            None for the first of these.
        precision: ``"auto"`` (int8 if the folder has it), ``"int8"`` or ``"float32"``.

    Raises:
        ConfigError: ``precision`` is none of these, or ``model`` is not a path.
        ModelError: there is no such file, or its folder cannot be read.
    """
    choice("precision", precision, ("auto", *FILES))
    path = None if model is None else as_path("model", model)
    try:
        return _find(path, precision)
    except OSError as error:  # a folder that may not be searched, or a name that is too long
        raise ModelError(f"{path}: cannot be read: {reason(error)}") from error


def _find(model: Path | None, precision: str) -> tuple[Path, str | None]:
    path = locate(model)
    if path.suffix == ".keras" and path.is_file():
        raise ModelError(
            f"{path}: a Keras file: pass the .onnx or .ort file beside it, or the folder; 'fertools export'"
            " writes them"
        )
    if path.is_file():
        return path, None if precision == "auto" else precision
    if not path.is_dir():
        raise ModelError(
            f"{path}: no such model: pass an export folder, an .onnx or .ort file, or a model that ships:"
            f" {' or '.join(SHIPPED)}"
        )
    found = model_files(path)
    if not found:
        names = " nor ".join(name for names in FILES.values() for name in names)
        raise ModelError(f"{path}: holds neither {names}: write one with 'fertools export'")
    chosen = next(iter(found)) if precision == "auto" else precision
    if chosen not in found:
        raise ModelError(
            f"{path}: has no {chosen} model ({' or '.join(FILES[chosen])}), only {' and '.join(found)}"
        )
    return found[chosen], chosen
