"""A trained network as a folder of files for devices, verified before it appears."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertools import contract
from fertools.data import Dataset, Split
from fertools.errors import ConfigError, ModelError, RunError
from fertools.evaluation import confusion_figure, evaluate, in_batches
from fertools.evaluation.measurement import Network
from fertools.evaluation.metrics import calibration_error
from fertools.evaluation.stress import Stress, stress
from fertools.export.card import model_card
from fertools.export.ort_format import write_ort
from fertools.export.passes import WEIGHTED, first_layers
from fertools.export.quantization import QuantizeConfig, quantize_within_gates
from fertools.export.subject import FinishedRun, Subject, read_origin
from fertools.export.temperature_scaling import TemperatureScaling, rescaled, scale_temperature
from fertools.export.triton import write_repository
from fertools.files import check_place, file_facts, replacing_folder, write_json, write_text
from fertools.runtime import Predictor
from fertools.runtime.location import model_files
from fertools.runtime.metadata import BLANK, CHECKSUM_KEY, METADATA_KEY, ModelInfo, add_checksum
from fertools.training import Run
from fertools.verification import BrokenGateError, Gate, Report, State, verify
from fertools.verification.gates import stress_gate
from fertools.verification.report import gate_values
from fertools.web import Page, PageParts, WebConfig, gather, write_page

if TYPE_CHECKING:
    import keras
    import onnx


SCHEMA_VERSION = 2
#: Test images that are made worse, unless the caller says how many: a few minutes for the reference network.
#: fertools stress uses all images.
STRESS_IMAGES = 1024
#: The target that adds a page for browsers to the ONNX files.
WEB = "web"
#: Formats of an export: ONNX; onnxruntime's own format for phones and reduced builds; ONNX with a model
#: repository of Triton Inference Server; ONNX with a page for browsers.
TARGETS = ("onnx", "ort", "triton", WEB)
#: The packages that decide what an exported file looks like, by their import names: what is installed as
#: onnxruntime-gpu is imported as onnxruntime.
PACKAGES = ("fertools", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class Export:
    """An export that was written: its folder and what was measured.

    ``training`` is what the report says of the training (see ``Subject``); ``page`` is there if the target is
    "web".
    """

    folder: Path
    report: Report
    temperature_scaling: TemperatureScaling
    training: dict[str, Any]
    page: Page | None = None


def export(run: Run, dataset: Dataset, folder: Path, **options: Any) -> Export:
    """Write ``run``'s best network to ``folder``; see ``export_subject``, which takes the same options.

    Raises:
        RunError: also if the run is not finished.
    """
    return export_subject(FinishedRun(run), dataset, folder, **options)


def export_subject(
    subject: Subject,
    dataset: Dataset,
    folder: Path,
    *,
    quantization: QuantizeConfig | None = None,
    target: str = TARGETS[0],
    web: WebConfig | None = None,
    stress_images: int | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> Export:
    """Write a trained network to ``folder`` as Keras, ONNX and, if wanted, int8 files.

    The target "ort" writes .ort files instead of ONNX files, and the list of the operators that they need:
    see ``ort_format``. "triton" adds a model repository: see ``triton``. "web" adds a page that runs the int8
    file: see ``fertools.web``.

    First the temperature is fitted, unless the network has one already, so that all files have it. The int8
    graph is judged on the validation split. Then the files are written to a temporary folder, each with its
    accuracy inside, and these bytes are verified on the test split. If no gate is broken, the temporary
    folder replaces ``folder``; otherwise an earlier export stays.

    Arguments:
        subject: the network, and where it comes from.
        dataset: the data it was trained on. Its train split calibrates int8, its validation split the
            confidence; int8 is judged there too. Everything is verified on its test split.
        folder: the folder to write.
        quantization: how to quantize, or None for no int8 file.
        target: "onnx", "ort", "triton" or "web".
        web: the parts of the page besides the network, for the target "web".
        stress_images: how many test images are made worse, at most; None for ``STRESS_IMAGES``.
        force: replace an export that was made from other data.
        say: is told what is being done.

    Raises:
        RunError: ``folder`` is in the way, is the subject's own or cannot be written, or the data is not what
            the network was trained on.
        DataError: the data lacks images.
        ConfigError: there is no such target, or Keras runs on another backend than TensorFlow.
        BrokenGateError: a gate is broken, on the validation split or, with the report, on the test split.
        ModelError: a file does not answer as it did when its accuracy was taken.
    """
    if target not in TARGETS:
        raise ConfigError(f"target={target!r}: choose one of {', '.join(TARGETS)}")
    if target == WEB and quantization is None:
        raise ConfigError("target='web' is for int8 files: say how to quantize")
    if stress_images is None:
        stress_images = STRESS_IMAGES
    if stress_images < 1:
        raise ConfigError(f"stress_images={stress_images}: at least one")
    check_out(subject, folder, force=force)
    if subject.data["fingerprint"] != dataset.fingerprint:
        raise RunError(
            f"{subject.folders[0]}: it was trained on other data than {dataset.name};"
            " name its training data with --data"
        )
    for name in ("validation", "test"):
        dataset.split(name)
    if quantization is not None:
        quantization = quantization.resolved(len(dataset.split("train")))
    parts = gather(web or WebConfig(), say=say) if target == WEB else None
    try:
        return _export(subject, dataset, folder, quantization, target, parts, stress_images, say)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _export(
    subject: Subject,
    dataset: Dataset,
    folder: Path,
    quantization: QuantizeConfig | None,
    target: str,
    parts: PageParts | None,
    stress_images: int,
    say: Callable[[str], None],
) -> Export:
    from fertools.export.graph import to_onnx

    network = subject.network(dataset)
    validation, test = dataset.split("validation"), dataset.split("test")
    scaling = subject.scaling
    if scaling is None:
        say(f"calibrating the confidence on {len(validation)} validation images")
        scaling = scale_temperature(network, validation)
    say(f"converting {subject.name} to ONNX")
    models: dict[str, onnx.ModelProto] = {contract.ONNX_FILE: to_onnx(network)}
    judged: list[Gate] = []
    if quantization is not None:
        say(f"quantizing, calibrated on {quantization.images} training images")
        models[contract.INT8_FILE], quantization, judged = quantize_within_gates(
            models[contract.ONNX_FILE], dataset.split("train").images, validation, quantization, say
        )
        if broken := [gate for gate in judged if gate.state is State.BROKEN]:
            raise BrokenGateError(broken, f"nothing written to {folder}: on the validation split ")
    info = _info(subject, network)
    with replacing_folder(folder) as temporary:
        network.save(temporary / contract.KERAS_FILE)
        write_text(temporary / contract.ARCHITECTURE_FILE, network.to_json(indent=2) + "\n")
        # Measured twice, because the files contain their accuracy: what ships is what was verified, byte for
        # byte.
        _write_models(temporary, models, target, info)
        say(f"measuring on {min(stress_images, len(test)):,} test images made worse")
        stressed = _stressed(network, temporary, dataset, stress_images)
        fragile = _stress_gates(stressed)
        if broken := [gate for gate in fragile if gate.state is State.BROKEN]:
            raise BrokenGateError(broken, f"nothing written to {folder}: on worse test images ")
        say("verifying on the test split" + _figures(judged))
        found = _accuracies(temporary, test, stressed)
        _write_models(temporary, models, target, info, found)
        report = verify(temporary, dataset)
        report.check(f"nothing written to {folder}: ")
        _check_accuracies(report, target, found)
        if target == "triton":
            write_repository(temporary, temporary / contract.TRITON_FOLDER)
        training = subject.training(dataset)
        ece = _test_ece(report, test, scaling, ensemble="members" in training)
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "target": target,
            "model": info.to_dict() | {"precision": sorted(_precision(file) for file in models)},
            "training": training,
            "temperature_scaling": scaling.to_dict() | {"test_ece": ece},
            "quantization": None
            if quantization is None
            else quantization.to_dict() | _quantized(models[contract.ONNX_FILE], quantization, judged),
            "verification": report.to_dict(),
            "stress": {
                "forms": {name: each.to_dict() for name, each in stressed.items()},
                "gates": [gate_values(gate) for gate in fragile],
            },
        }
        smallest = report.rows[-1]
        title = f"{info.name}, {smallest.model}, {dataset.name}, {report.split} split"
        confusion_figure(smallest.evaluation, temporary / contract.CONFUSION_FILE, title)
        write_text(temporary / contract.CARD_FILE, model_card(document))
        page = None
        if parts is not None:
            page = write_page(
                parts,
                temporary / contract.INT8_FILE,
                temporary / contract.WEB_FOLDER,
                other_data=training.get("other_data", ()),
            )
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        document["files"] = {file.relative_to(temporary).as_posix(): file_facts(file) for file in files}
        write_json(temporary / contract.REPORT_FILE, document)
    return Export(folder, report, scaling, document["training"], page)


def _test_ece(
    report: Report, test: Split, scaling: TemperatureScaling, *, ensemble: bool
) -> dict[str, dict[str, float]]:
    """Return each form's calibration error on the test split, a share, without and with the temperature.

    An ensemble has only the one with it: each member was scaled before they were joined.
    """
    found = {row.model: {"with": row.evaluation.ece} for row in report.rows}
    if not ensemble:
        for row in report.rows:
            unscaled = rescaled(row.probabilities, 1 / scaling.temperature)
            found[row.model]["without"] = calibration_error(unscaled, test.labels)
    return found


def _info(subject: Subject, network: keras.Model) -> ModelInfo:
    """Return the metadata that all files have in common, before they are measured."""
    from fertools.models.inference import weights_sha256

    return ModelInfo(
        name=subject.name,
        precision="float32",
        parameters=int(network.count_params()),
        data={key: subject.data[key] for key in ("name", "fingerprint")},
        versions={name: str(import_module(name).__version__) for name in PACKAGES},
        weights_sha256=weights_sha256(network),
    )


def _write_models(
    folder: Path,
    models: dict[str, onnx.ModelProto],
    target: str,
    info: ModelInfo,
    accuracies: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Write the files for the device; ``accuracies`` go into those of these precisions."""
    blanks = {}
    for file, model in models.items():
        precision = _precision(file)
        measured = {} if accuracies is None else accuracies[precision]
        blanks[file] = blank(model, dataclasses.replace(info, precision=precision, accuracy=measured))
    if target == "ort":
        write_ort(folder, blanks)
    else:
        for file, data in blanks.items():
            (folder / file).write_bytes(add_checksum(data))


def _stressed(network: keras.Model, folder: Path, dataset: Dataset, images: int) -> dict[str, Stress]:
    """Measure "keras" and, if there is one, "int8" on so many test images made worse."""
    from fertools.models.inference import probabilities

    networks: dict[str, Network] = {"keras": partial(probabilities, network)}
    int8 = model_files(folder).get("int8")
    if int8 is not None:
        networks["int8"] = partial(in_batches, Predictor(int8, precision="int8", providers="cpu", threads=1))
    return stress(networks, dataset, "test", images=images)


def _stress_gates(stressed: Mapping[str, Stress]) -> list[Gate]:
    return [stress_gate(stressed["keras"].hits, stressed["int8"].hits)] if "int8" in stressed else []


def _accuracies(folder: Path, test: Split, stressed: Mapping[str, Stress]) -> dict[str, dict[str, Any]]:
    """Return the accuracies that the file of each precision will contain."""
    found = {}
    for precision, file in model_files(folder).items():
        rows = in_batches(Predictor(file, precision=precision, providers="cpu", threads=1), test.images)
        by_size = stressed["int8" if precision == "int8" else "keras"]
        found[precision] = {
            "split": "test",
            "images": len(test),
            "value": evaluate(rows, test.labels).accuracy,
            "by_face_pixels": by_size.by_face_pixels,
            "by_face_pixels_images": by_size.images,
        }
    return found


def _check_accuracies(report: Report, target: str, found: Mapping[str, dict[str, Any]]) -> None:
    """Raise ModelError unless the accuracies inside the files are those that were verified."""
    for precision, inside in found.items():
        row = report.row(precision if precision == "int8" else "ort" if target == "ort" else "onnx")
        if row.evaluation.accuracy != inside["value"]:
            raise ModelError(
                f"{row.model}: {inside['value']:.4%} of the test images are right, and when run again"
                f" {row.evaluation.accuracy:.4%}; nothing was written: please report this with what fertools"
                " info prints"
            )


def _figures(gates: Sequence[Gate]) -> str:
    """Return the validation figures of int8 in brackets; empty without int8."""
    if not gates:
        return ""
    lost, share = gates[:2]
    return f" (int8 on validation: top-1 agreement {share.measured:.2%}, {lost.measured:.2g} points lost)"


def _quantized(
    model: onnx.ModelProto, quantization: QuantizeConfig, judged: Sequence[Gate]
) -> dict[str, Any]:
    """Return what became of a quantization, for the report.

    These are the number of layers at the front that stayed in float, of all members of an ensemble together
    (none in a network that begins with a dense layer), and the int8 gates on the validation split.
    """
    front = first_layers(model, quantization.float_layers)
    return {
        "front_in_float": sum(node.op_type in WEIGHTED for node in front),
        "validation": [gate_values(gate) for gate in judged],
    }


def _precision(file: str) -> str:
    return "int8" if file == contract.INT8_FILE else "float32"


def stamp(model: onnx.ModelProto, info: ModelInfo) -> bytes:
    """Return the bytes of ``model`` with ``info`` and the checksum as its only metadata."""
    return add_checksum(blank(model, info))


def blank(model: onnx.ModelProto, info: ModelInfo) -> bytes:
    """Return the bytes with 64 zeros instead of the checksum."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json(), CHECKSUM_KEY: BLANK})
    data: bytes = model.SerializeToString(deterministic=True)
    return data


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


def check_out(subject: Subject, folder: Path, *, force: bool = False) -> None:
    """Check, before any work, that ``subject`` can be exported to ``folder``, which must be none of its own.

    Raises:
        RunError: as ``check_folder``, or ``folder`` holds what is exported.
        ConfigError: as ``check_folder``.
    """
    if folder.exists() and any(map(folder.samefile, subject.folders)):
        raise RunError(f"{folder}: would replace what is exported; choose another folder with --out")
    check_folder(folder, subject.data, force=force)


def check_folder(folder: Path, data: Mapping[str, str], *, force: bool = False) -> None:
    """Check, before any work, that an export to ``folder`` is possible.

    Arguments:
        folder: may be missing or empty, or hold an export made from the same data.
        data: name and fingerprint of the data that the network was trained on.
        force: let it hold an export made from other data, too.

    Raises:
        RunError: ``folder`` is in the way or cannot be written.
        WriteError: it is the current folder or a mount point.
        ConfigError: Keras runs on another backend than TensorFlow.
    """
    check_place(folder)
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise RunError(f"{parent}: is a file; choose another folder with --out")
    if not os.access(folder.absolute().parent if parent == folder else parent, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: cannot be written there; choose another folder with --out")
    if folder.exists() and any(folder.iterdir()):
        _check_replaceable(folder, data, force)
    _check_backend()


def _check_replaceable(folder: Path, data: Mapping[str, str], force: bool) -> None:
    """Check that ``folder``, which will be replaced, holds nothing but an export."""
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
    """Check that Keras runs on TensorFlow; the variable is read first: its backend may not be installed."""
    from fertools.backend import import_keras

    backend = os.environ.get("KERAS_BACKEND") or import_keras().backend.backend()
    if backend != "tensorflow":
        raise ConfigError(
            f"export needs Keras on TensorFlow, not {backend}: unset KERAS_BACKEND, or set it to tensorflow"
        )
