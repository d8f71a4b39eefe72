"""The kit: a zip of images and expected answers for a device, and the gate on the device's result.

::

    KIT.zip (stored, not compressed, so that a browser or a few lines of C read it)
      check.py                         runs the check with numpy and onnxruntime alone
      kit.json                         what is in the kit: model, files with their SHA-256, images, limit
      images.u8                        uint8 (n, 48, 48), raw
      model.int8.onnx, ...             the files of the export
      model.int8.onnx.f32, ...         the answers of each file here: float32 (n, 7), little-endian, raw

``check.py`` writes result.json with the device's own answers. They are compared here with the current answers
of the export's files; the device's own verdict is not relied on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertools import contract
from fertools.data import Dataset, synthetic
from fertools.errors import DataError, GateError, ModelError, WriteError
from fertools.evaluation import in_batches
from fertools.files import replacing
from fertools.processor import processor
from fertools.reading import read_text, reason
from fertools.runtime import Predictor
from fertools.runtime.location import model_files
from fertools.tables import text_table
from fertools.verification.check import SCHEMA
from fertools.verification.gates import agreement, largest_difference

#: Share of the images on which a device must predict the same class as the machine that made the export. File
#: and images are the same, so only rounding is left: in 300 images, one close call.
DEVICE_AGREEMENT = 0.995
IMAGES = 300
KIT_FILE = "kit.json"
IMAGES_FILE = "images.u8"
SCRIPT = Path(__file__).with_name("check.py")


@dataclass(frozen=True)
class DeviceRow:
    """One file on one device. ``agreement`` is a share, ``difference`` the largest of a probability."""

    file: str
    agreement: float
    difference: float
    #: The device's own median at batch 1.
    milliseconds: float

    @property
    def passed(self) -> bool:
        """Whether the device predicts the same classes."""
        return self.agreement >= DEVICE_AGREEMENT


@dataclass(frozen=True)
class DeviceReport:
    """The result of a device."""

    processor: str
    machine: str
    onnxruntime: str
    provider: str
    threads: int
    images: int
    rows: tuple[DeviceRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every file passed."""
        return all(row.passed for row in self.rows)

    def check(self, prefix: str = "") -> None:
        """Raise GateError, its message beginning with ``prefix``, unless every file passed."""
        failed = [row for row in self.rows if not row.passed]
        if failed:
            found = ", ".join(f"{row.file} {row.agreement:.2%}" for row in failed)
            raise GateError(
                f"{prefix}the same class on less than {DEVICE_AGREEMENT:.1%} of {self.images} images:"
                f" {found}; the device's onnxruntime or its execution provider computes something else"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "processor": self.processor,
            "machine": self.machine,
            "onnxruntime": self.onnxruntime,
            "provider": self.provider,
            "threads": self.threads,
            "images": self.images,
            "passed": self.passed,
            "files": [
                {
                    "file": row.file,
                    "agreement": row.agreement,
                    "difference": row.difference,
                    "milliseconds": row.milliseconds,
                    "passed": row.passed,
                }
                for row in self.rows
            ],
        }

    def to_text(self) -> str:
        """A table for a terminal."""
        head = (
            f"{self.processor} ({self.machine}), onnxruntime {self.onnxruntime}, {self.provider},"
            f" {self.threads} thread{'s' if self.threads > 1 else ''}, {self.images} images"
        )
        rows = [
            (
                *(row.file, f"{row.agreement:.2%}", f"{row.difference:.1e}", f"{row.milliseconds:.2f}"),
                "" if row.passed else "BROKEN",
            )
            for row in self.rows
        ]
        heads = ("", "same class", "largest difference", "ms/image", "")
        return f"{head}\n\n{text_table(heads, rows, left=(0, 4))}"


def write_kit(folder: Path, path: Path, dataset: Dataset | None = None, *, images: int = IMAGES) -> int:
    """Write the kit of the export ``folder`` to ``path``.

    Arguments:
        folder: an export.
        path: the zip to write; an earlier kit there is replaced.
        dataset: whose test images travel; None for drawn faces, which are nobody's picture.
        images: how many, at most all of the test split; drawn evenly from it by a fixed seed.

    Returns:
        The number of images in it.

    Raises:
        ModelError: the export is missing or damaged.
        DataError: the data has no test split.
        WriteError: ``path`` cannot be written, or holds something else than a kit.
    """
    if path.exists() and not _is_kit(path):
        raise WriteError(f"{path}: is there and no kit, so it is not replaced; choose another name")
    faces, source = _images(dataset, images)
    files = model_files(folder)
    if not files:
        raise ModelError(f"{folder}: holds no model file: write one with 'fertools export'")
    parts: dict[str, bytes] = {IMAGES_FILE: faces.tobytes()}
    facts, info = [], None
    for precision, file in files.items():
        predictor = Predictor(file, providers="cpu", threads=1)
        info = predictor.info
        answers = _one_by_one(predictor, faces)
        expected = f"{file.name}.f32"
        parts[file.name] = file.read_bytes()
        parts[expected] = answers.astype("<f4").tobytes()
        facts.append(
            {
                "file": file.name,
                "precision": precision,
                "sha256": _sha256(parts[file.name]),
                "expected": expected,
            }
        )
    assert info is not None
    document = {
        "schema": SCHEMA,
        "model": info.name,
        "weights_sha256": info.weights_sha256,
        "versions": dict(info.versions),
        "input": contract.INPUT_NAME,
        "output": contract.OUTPUT_NAME,
        "labels": list(info.labels),
        "limit": DEVICE_AGREEMENT,
        "images": {
            "count": len(faces),
            "size": contract.IMAGE_SIZE,
            "sha256": _sha256(parts[IMAGES_FILE]),
            **source,
        },
        "files": facts,
        "made_on": processor()[0],
    }
    parts = {
        KIT_FILE: (json.dumps(document, indent=1) + "\n").encode(),
        "check.py": SCRIPT.read_bytes(),
        **parts,
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            entry = zipfile.ZipInfo(name)  # no time of day: the same bytes for the same kit
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return len(faces)


def read_result(folder: Path, result: Path, dataset: Dataset | None = None) -> DeviceReport:
    """Compare the answers of a device with those of the files of ``folder`` on this machine.

    Arguments:
        folder: the export that the kit was made of.
        result: the file that check.py wrote.
        dataset: the kit's data, if it was not drawn faces.

    Differing answers do not raise: see ``DeviceReport.check``.

    Raises:
        DataError: ``result`` is damaged, of another export, or of other images.
        ModelError: the export is missing or damaged.
    """
    document = _document(result)
    try:
        facts, device = document["images"], document["device"]
        faces = _again(facts, dataset, result)
        rows = []
        for row in document["files"]:
            file = folder / Path(row["file"]).name
            if not file.is_file() or _sha256(file.read_bytes()) != row["sha256"]:
                raise DataError(
                    f"{result}: is about another version of {file.name} than the one in {folder};"
                    " make a new kit"
                )
            answers = np.frombuffer(base64.b64decode(row["answers"], validate=True), "<f4")
            answers = answers.reshape(len(faces), len(contract.LABELS))
            here = _one_by_one(Predictor(file, providers="cpu", threads=1), faces)
            finite = np.where(np.isfinite(answers), answers, -1)
            rows.append(
                DeviceRow(
                    file=file.name,
                    agreement=agreement(here, finite),
                    difference=largest_difference(here, finite),
                    milliseconds=float(row["milliseconds"]),
                )
            )
        if not rows:
            raise ValueError("no files")
        return DeviceReport(
            processor=str(device["processor"]),
            machine=str(device["machine"]),
            onnxruntime=str(device["onnxruntime"]),
            provider=str(document["provider"]),
            threads=int(document["threads"]),
            images=len(faces),
            rows=tuple(rows),
        )
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise DataError(f"{result}: not a whole result of check.py ({error}); run the check again") from error


def _is_kit(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return KIT_FILE in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _images(dataset: Dataset | None, count: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Return images of the test split, uint8 (n, 48, 48), and how to find them again."""
    if dataset is None:
        faces = synthetic.generate(0, 0, count).images
        return faces, {"source": synthetic.NAME, "seed": 0}
    images = dataset.split("test").images
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:count])
    return images[chosen], {"source": dataset.name, "fingerprint": dataset.fingerprint, "seed": 0}


def _again(facts: dict[str, Any], dataset: Dataset | None, result: Path) -> NDArray[np.uint8]:
    """The images of the kit."""
    count = int(facts["count"])
    if not 0 < count <= 1_000_000:
        raise ValueError(f"{count} images")
    if "fingerprint" not in facts:
        dataset = None  # drawn
    elif dataset is None or dataset.fingerprint != facts["fingerprint"]:
        raise DataError(f"{result}: its images are of {facts['source']}; name that data with --data")
    faces, _ = _images(dataset, count)
    if _sha256(faces.tobytes()) != facts["sha256"]:
        raise DataError(
            f"{result}: its images are none that this fertools draws from {facts['source']}; new kit"
        )
    return faces


def _one_by_one(predictor: Any, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities, float32 (n, 7), computed image by image as on the device."""
    return np.concatenate([in_batches(predictor, face[None]) for face in faces])


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a result of check.py: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise DataError(f"{path}: not a result of check.py that this fertools reads")
    return document


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
