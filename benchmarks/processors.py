"""Run the int8 files on other processors, emulated by QEMU: accuracy, and agreement with this one.

    apt-get install qemu-user mmdebstrap
    python benchmarks/processors.py fer2013.csv --json docs/processors.json --page docs/processors.md

Each file runs in ``fertools.runtime.Predictor``, image by image on one thread: here; in this Python as an
x86-64 that lacks the newest instructions; and in a Debian or Ubuntu Python for 64-bit ARM, with the same
versions of numpy and onnxruntime. A control runs beside the int8 file, the same network with 8-bit weights:
with AVX2 and without VNNI its products saturate (onnxruntime#6004), which a faithful emulation shows.

The exit code is 1 if an int8 file loses more accuracy on a processor, or agrees less with its run here, than
an export may against Keras. Answers are kept in ``--work``: an interrupted run continues, and after an
export only the new files run. Needs Debian or Ubuntu on x86-64, QEMU 7.2, the first with AVX2, and the extra
``train``.
"""

import argparse
import dataclasses
import hashlib
import json
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from processor_emulation import PROCESSORS, Emulator, Processor, digest, qemu_version
from processor_report import Report, Row, compare

from fertools import data
from fertools.contract import INT8_FILE, ONNX_FILE, REPORT_FILE
from fertools.data import Dataset, Split
from fertools.errors import ConfigError, FertoolsError, ModelError
from fertools.files import replacing, write_json, write_text
from fertools.processor import int8_features, processor
from fertools.runtime.location import SHIPPED, shipped_model

CONTROL = "control: 8-bit weights"
BLOCK = re.compile("(?<=<!-- begin table -->\n).*?(?=<!-- end table -->)", flags=re.DOTALL)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def control(folder: Path, dataset: Dataset, work: Path) -> Path:
    """Quantize the network of an export like its int8 file, but with 8-bit weights."""
    import onnx

    from fertools.export.exporter import stamp
    from fertools.export.quantization import QuantizeConfig, quantize
    from fertools.runtime.metadata import METADATA_KEY, ModelInfo

    recipe = json.loads((folder / REPORT_FILE).read_text())["quantization"]
    config = dataclasses.replace(QuantizeConfig.from_report(recipe), reduce_range=False)
    source = (folder / ONNX_FILE).read_bytes()
    key = digest(source, repr(config).encode(), dataset.fingerprint.encode())
    file = work / f"{folder.name}-8bit-{key}.onnx"
    if not file.exists():
        say(f"quantizing {folder} with 8-bit weights")
        model = onnx.load_from_string(source)
        facts = next(item.value for item in model.metadata_props if item.key == METADATA_KEY)
        info = dataclasses.replace(ModelInfo.from_json(facts), precision="int8", accuracy={})
        quantized = quantize(model, dataset.split("train").images, config)
        with replacing(file) as path:
            path.write_bytes(stamp(quantized, info))
    return file


def rows(
    folder: Path, dataset: Dataset, sample: Split, emulator: Emulator, processors: Sequence[Processor]
) -> list[Row]:
    """Measure an export's int8 file and its control, here and on each processor."""
    missing = [name for name in (ONNX_FILE, INT8_FILE, REPORT_FILE) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder}: has no {' and no '.join(missing)}: 'fertools export --quantize' makes one"
        )
    float32 = emulator.answers(folder / ONNX_FILE, None)
    found = []
    for name, file in {
        INT8_FILE: folder / INT8_FILE,
        CONTROL: control(folder, dataset, emulator.work),
    }.items():
        native = emulator.answers(file, None)
        for where in (None, *processors):
            answers = native if where is None else emulator.answers(file, where)
            found.append(
                Row(
                    model=folder.name,
                    file=name,
                    sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                    processor="here" if where is None else str(where),
                    limited=name == INT8_FILE,
                    **compare(answers, native, float32, sample.labels),
                )
            )
    return found


def measure(options: argparse.Namespace) -> Report:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ConfigError(f"this is {platform.system()} on {platform.machine()}: use Linux on x86_64")
    dataset = data.load(options.source)
    test = dataset.split("test")
    sample = Split(test.images[: options.images], test.labels[: options.images])
    processors = [PROCESSORS[name] for name in options.processors]
    emulator = Emulator(options.work, sample.images, say)
    found = []
    for folder in options.models or [shipped_model(name) for name in SHIPPED]:
        found += rows(folder, dataset, sample, emulator, processors)
    versions = dict(emulator.versions)
    if processors:
        versions["QEMU"] = qemu_version(processors[0])
    return Report(
        processor=processor()[0],
        int8_features=tuple(int8_features()),
        versions=versions,
        data={"name": dataset.name, "fingerprint": dataset.fingerprint},
        images=len(sample),
        rows=tuple(found),
    )


def renewed(page: str, report: Report) -> str:
    """Replace the table in the text of a page by that of a report."""
    return BLOCK.sub(lambda _: f"```text\n{report.to_text()}\n```\n", page)


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="the data set that the models were trained on")
    parser.add_argument(
        "--models", nargs="+", type=Path, metavar="FOLDER", help="exports; default: those that ship"
    )
    parser.add_argument(
        "--processors", nargs="*", choices=[*PROCESSORS], default=[*PROCESSORS], help="default: all"
    )
    parser.add_argument("--images", type=positive, default=200, help="the first N test images; default: 200")
    parser.add_argument("--work", type=Path, default=Path("build", "processors"), help="folder to work in")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--page", type=Path, metavar="FILE", help="update the table in a Markdown page")
    options = parser.parse_args()
    try:
        report = measure(options)
    except FertoolsError as error:
        sys.exit(f"error: {error}")
    print(report.to_text())
    if options.json:
        write_json(options.json, report.to_dict())
    if options.page:
        write_text(options.page, renewed(options.page.read_text(encoding="utf-8"), report))
    return int(not report.passed)


if __name__ == "__main__":
    sys.exit(main())
