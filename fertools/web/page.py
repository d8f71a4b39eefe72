"""The page's folder: page and scripts, onnxruntime-web, a model, perhaps a face detector, licences."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fertools
from fertools import contract
from fertools.errors import ConfigError, ModelError, WebError
from fertools.faces.detectors import YuNet
from fertools.faces.finder import DETECTOR_VARIABLE, HAAR
from fertools.faces.framing import CLOSE_TEMPLATE
from fertools.files import check_place, replacing_folder
from fertools.intended_use import data_notes, limits
from fertools.reading import read_text
from fertools.runtime import Predictor
from fertools.runtime.session import load_onnxruntime
from fertools.web import onnxruntime_web

SCHEMA_VERSION: Final = 1

#: The page reads this first: its files, and what is known of the model besides the model's own metadata.
PAGE_FILE: Final = "page.json"
DETECTOR_FILE: Final = "detector.onnx"
LICENCES: Final = "licences"
#: The service worker, which keeps the page for offline use. It starts with the files' digest and their list.
WORKER_FILE: Final = "sw.js"

_STATIC = Path(__file__).resolve().parent / "static"
_PACKAGE = Path(fertools.__file__).resolve().parent

#: Strides of YuNet's outputs, which end their names (Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face
#: Detector").
_STRIDES: Final = (8, 16, 32)


#: How the page finds and frames faces: as ``fertools.faces`` does.
FRAMING: Final = {"score": YuNet.MIN_CONFIDENCE, "overlap": YuNet.OVERLAP, "template": CLOSE_TEMPLATE}


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    """The parts of a page besides the model."""

    #: The npm package onnxruntime-web or its ``dist`` folder; see ``onnxruntime_web.read_files``.
    onnxruntime_web: Path | None = None
    #: A YuNet detector (.onnx), so that the page finds faces by itself; None for the file that the
    #: environment variable ``FERTOOLS_DETECTOR`` names, if any.
    detector: Path | None = None


@dataclass(frozen=True)
class PageParts:
    """The contents of a page besides the model, read and checked: path in the folder -> content."""

    ours: dict[str, bytes]
    others: dict[str, bytes]
    detector: dict[str, Any] | None
    #: Notes for whoever publishes the page.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A page that was written."""

    #: The model's file in it.
    model: str
    #: Bytes of our own files and the model, and of those of others: onnxruntime-web, the detector.
    ours: int
    others: int
    #: See ``PageParts``.
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """Bytes of the folder."""
        return self.ours + self.others


def gather(config: WebConfig, *, say: Callable[[str], None] = lambda message: None) -> PageParts:
    """Read and check everything that a page needs besides the model, before any long work.

    Raises:
        ConfigError: a given folder or file is not what it should be.
        WebError: onnxruntime-web cannot be found or fetched.
        MissingExtraError: onnxruntime, whose licences go along, is not installed.
    """
    ours = {file.name: file.read_bytes() for file in sorted(_STATIC.iterdir()) if file.is_file()}
    ours[f"{LICENCES}/fertools.txt"] = _own_licence()
    others = onnxruntime_web.read_files(config.onnxruntime_web, say=say) | _onnxruntime_licences()
    file = _chosen_detector(config.detector)
    if file is None:
        return PageParts(ours, others, None, ("Without a face detector; --detector adds one.",))
    others[DETECTOR_FILE] = _detector(file)
    licence = _licence_beside(file)
    detector = {"file": DETECTOR_FILE, **FRAMING}
    if licence is None:
        note = f"No LICENSE beside {file}: add the detector's terms to {LICENCES}/ before publishing."
        return PageParts(ours, others, detector, (note,))
    others[f"{LICENCES}/detector.txt"] = licence
    return PageParts(ours, others, detector)


def write_page(
    parts: PageParts,
    model: Path,
    folder: Path,
    precision: str = "auto",
    *,
    other_data: Sequence[Mapping[str, str]] = (),
) -> Page:
    """Write the page of ``model`` to ``folder``, whole or not at all; an earlier page is replaced.

    Arguments:
        parts: what ``gather`` read.
        model: an .onnx file of an export, of any name: in the page it is model.onnx or model.int8.onnx.
        folder: may be missing or empty, or hold a page.
        precision: what the file must hold: "float32", "int8" or "auto" for either.
        other_data: name and fingerprint of what its first weights and teachers were trained on, if on other
            data than the file names.

    Raises:
        ModelError: the model cannot be used, is an .ort file, or is of another precision.
        WebError: ``folder`` holds something else.
        WriteError: it cannot be written.
    """
    if model.suffix != ".onnx":
        raise ModelError(f"{model}: a page takes an .onnx file: export it again with --target web")
    info = Predictor(model, precision=precision, providers="cpu", threads=1).info
    check_replaceable(folder)
    note = " ".join(data_notes([info.data, *other_data]))
    # Not the file's own name, which may be that of another file of the page, or mean something in an address.
    file = contract.INT8_FILE if info.precision == "int8" else contract.ONNX_FILE
    ours = {**parts.ours, file: model.read_bytes(), f"{LICENCES}/model.txt": _model_terms(note)}
    page = {
        "schema": SCHEMA_VERSION,
        "fertools": fertools.__version__,
        "model": file,
        "detector": parts.detector,
        "limits": limits(),
        "data": note,
        "licences": sorted(name for name in {**ours, **parts.others} if name.startswith(LICENCES)),
    }
    page["files"] = sorted({*ours, *parts.others, PAGE_FILE})
    ours[PAGE_FILE] = (json.dumps(page, indent=2) + "\n").encode()
    ours[WORKER_FILE] = _worker(ours[WORKER_FILE], {**ours, **parts.others})
    with replacing_folder(folder) as temporary:
        for name, content in {**ours, **parts.others}.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(content)
    return Page(file, sum(map(len, ours.values())), sum(map(len, parts.others.values())), parts.notes)


def check_replaceable(folder: Path) -> None:
    """Check, before any work, that a page can be written there.

    Raises:
        WebError: ``folder`` holds anything but a page, which would be destroyed.
        WriteError: it is the current folder or a mount point.
    """
    check_place(folder)
    if folder.exists() and not folder.is_dir():
        raise WebError(f"{folder}: is a file; choose another folder")
    if not folder.exists():
        return
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    try:
        written = json.loads(read_text(folder / PAGE_FILE))["files"] if found else []
        others = sorted(found.difference(written))
    except (OSError, ValueError, KeyError, TypeError):
        others = sorted(found)
    if others:
        named = ", ".join(others[:3])
        raise WebError(f"{folder}: holds other things than a page ({named}); choose another folder")


def _worker(script: bytes, files: dict[str, bytes]) -> bytes:
    """Return the service worker with the list of files that it keeps and a digest of their contents."""
    kept = sorted(name for name in files if name != WORKER_FILE and not name.startswith(LICENCES))
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in kept}
    version = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
    head = f'const VERSION = "{version}";\nconst FILES = {json.dumps(["./", *kept])};\n'
    return head.encode() + script


def _model_terms(note: str) -> bytes:
    text = "The code that made this model is under the MIT licence. The data's terms hold for its weights."
    return f"{note}\n\n{text}\n".encode()


def _own_licence() -> bytes:
    """Return our licence: in a wheel it is in the package, in a checkout beside it."""
    files = (root / "LICENSE" for root in (_PACKAGE, _PACKAGE.parent))
    return next(file for file in files if file.is_file()).read_bytes()


def _onnxruntime_licences() -> dict[str, bytes]:
    """Return the licences of onnxruntime and its parts, which its Python package contains for all builds."""
    folder = Path(str(load_onnxruntime().__file__)).parent
    texts = {"onnxruntime.txt": "LICENSE", "onnxruntime-third-party.txt": "ThirdPartyNotices.txt"}
    try:
        return {f"{LICENCES}/{name}": (folder / source).read_bytes() for name, source in texts.items()}
    except OSError as error:
        raise WebError(f"{folder}: onnxruntime's licence cannot be read: {error.strerror}") from error


def _chosen_detector(named: Path | None) -> Path | None:
    """Return the file of the page's detector: as ``FaceFinder`` chooses, but the page has no cascade."""
    if named is None:
        variable = os.environ.get(DETECTOR_VARIABLE) or HAAR
        return None if variable == HAAR else Path(variable)
    if str(named) == HAAR:
        raise ConfigError(f"{HAAR}: is inside OpenCV; a page takes only a YuNet, by its ONNX file")
    return named


def _detector(path: Path) -> bytes:
    """Return the bytes of a YuNet file, after checking that onnxruntime opens it."""
    try:
        content = path.read_bytes()
        session = load_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ModelError(f"{path}: not an ONNX file: {str(error).splitlines()[0]}") from error
    wanted = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES}
    if wanted != {output.name for output in session.get_outputs()}:
        raise ModelError(f"{path}: not a YuNet face detector, whose outputs are cls_8 to kps_32")
    return content


def _licence_beside(path: Path) -> bytes | None:
    files = sorted(file for file in path.absolute().parent.glob("LICENSE*") if file.is_file())
    return files[0].read_bytes() if files else None
