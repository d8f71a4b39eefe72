"""Which file a model is: in an export folder, named directly, or shipped with the package."""

from __future__ import annotations

import os
from pathlib import Path

import fertools
from fertools.contract import INT8_FILE, ONNX_FILE
from fertools.errors import ConfigError, ModelError

#: Precision -> its file in an export folder, in the order of preference.
FILES = {"int8": INT8_FILE, "float32": ONNX_FILE}

#: The models that ship, the one that is loaded if none is named first.
SHIPPED = ("sequential", "compact")
DEFAULT = SHIPPED[0]

_PACKAGE = Path(fertools.__file__).resolve().parent


def shipped_model(name: str = DEFAULT) -> Path | None:
    """The export folder `name` that comes with fertools, in a wheel or beside the package in a checkout."""
    for root in (_PACKAGE, _PACKAGE.parent):
        folder = root / "exported" / name
        if any((folder / file).is_file() for file in FILES.values()):
            return folder
    return None


def find_model(model: str | os.PathLike[str] | None, precision: str) -> tuple[Path, str | None]:
    """The file to load and the precision that it must have (None: whatever it has).

    Arguments:
        model: an export folder, an ONNX file, a name in `SHIPPED` (if nothing else is called so), or None
            for the first of these.
        precision: ``"auto"`` (int8 if the folder has it), ``"int8"`` or ``"float32"``.

    Raises:
        ConfigError: `precision` is none of these.
        ModelError: there is no such file.
    """
    if precision not in ("auto", *FILES):
        raise ConfigError(f"precision must be auto, {' or '.join(FILES)}, not {precision!r}")
    path = shipped_model() if model is None else Path(model)
    if path is not None and not path.exists() and str(model) in SHIPPED:
        path = shipped_model(str(model))
    if path is None:
        raise ModelError(
            "no model ships with this copy of fertools: pass one, e.g. a folder that 'fertools export' wrote"
        )
    if path.is_file():
        return path, None if precision == "auto" else precision
    if not path.is_dir():
        raise ModelError(
            f"{path}: no such model: pass an export folder, an .onnx file, or {' or '.join(SHIPPED)}"
        )
    found = [name for name in FILES if (path / FILES[name]).is_file()]
    if not found:
        raise ModelError(
            f"{path}: holds neither {' nor '.join(FILES.values())}: write one with 'fertools export'"
        )
    chosen = found[0] if precision == "auto" else precision
    if chosen not in found:
        raise ModelError(f"{path}: has no {chosen} model ({FILES[chosen]}), only {found[0]}")
    return path / FILES[chosen], chosen
