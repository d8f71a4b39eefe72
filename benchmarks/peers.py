"""The same weights in other engines and in ours, side by side: speed, start, memory, accuracy.

    python benchmarks/peers.py fer2013.csv --json docs/peers.json --plot docs/peers.png

Keras, tf.function and LiteRT run the model.keras of an export, MNN and OpenVINO its model.onnx, onnxruntime
and fertools its ONNX files. LiteRT and NNCF calibrate int8 on the images that calibrated ours. In each round
every engine runs once, in a different order each time: a process opens it, makes a first prediction and
times each batch size, on as many processors as it has threads. All get the same pixels in memory, as uint8
or, if they accept nothing else, as float32 made before the clock starts. Accuracy and agreement with Keras
are measured on the test split, in batches of the largest size.

Needs the extra ``bench``. An engine that is not installed or fails is left out, with the reason. The ratios
are reliable even if the machine's speed drifts; the times need an idle machine.
"""

import argparse
import contextlib
import shlex
import statistics
import sys
from importlib import metadata
from pathlib import Path

from peer_engines import ENGINES
from peer_figure import peers_figure
from peer_report import Report
from peer_turns import ENVIRONMENT, Settings, compare

from fertools import data
from fertools.benchmark.start import first_line
from fertools.contract import REPORT_FILE
from fertools.data import Split
from fertools.errors import FertoolsError, ModelError
from fertools.files import write_json
from fertools.processor import int8_features, processor
from fertools.runtime.location import SHIPPED, shipped_model
from fertools.runtime.threads import usable_cpus
from fertools.verification.timing import ROUNDS, can_pin

#: Besides those of the engines.
PACKAGES = ("fertools", "numpy", "keras", "tensorflow", "onnxruntime")
IMPORTS = ("onnxruntime", "fertools.runtime", "fertools.runtime, onnxruntime")


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def find_export(name: str) -> Path:
    """Find an export folder by its path or by the name of a shipped model."""
    folder = Path(name)
    if not folder.is_dir() and name in SHIPPED:
        folder = shipped_model(name) or folder
    if not (folder / REPORT_FILE).is_file():
        raise ModelError(f"{folder}: not an export folder (no {REPORT_FILE}); 'fertools export' makes one")
    return folder


def import_seconds(rounds: int) -> dict[str, float]:
    """Return modules -> median seconds that a fresh process takes to import them, in turns."""
    found: dict[str, list[float]] = {modules: [] for modules in IMPORTS}
    for _ in range(rounds):
        for modules, seconds in found.items():
            code = f"from time import perf_counter as now; t = now(); import {modules}; print(now() - t)"
            _, (answer,) = first_line([sys.executable, "-c", code], ENVIRONMENT)
            seconds.append(float(answer))
    return {modules: statistics.median(seconds) for modules, seconds in found.items()}


def versions() -> dict[str, str]:
    """Return package -> version of the installed packages."""
    found = {}
    others = (package for engine in ENGINES.values() for package in engine.packages)
    for package in dict.fromkeys((*PACKAGES, *others)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def command() -> str:
    """Return the command line without the folders of this machine."""
    words = (Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])
    return shlex.join(["python", "benchmarks/peers.py", *words])


def measure(options: argparse.Namespace) -> Report:
    folders = [find_export(name) for name in options.models]
    dataset = data.load(options.source)
    test = dataset.split("test")
    test = Split(test.images[: options.images], test.labels[: options.images])
    settings = Settings(
        *(tuple(sorted({*sizes})) for sizes in (options.threads, options.batches)), options.rounds
    )
    return Report(
        command=command(),
        processor=processor()[0],
        int8_features=tuple(int8_features()),
        processors=usable_cpus(),
        pinned=can_pin(),
        versions=versions(),
        data={"name": dataset.name, "fingerprint": dataset.fingerprint},
        images=len(test),
        rounds=settings.rounds,
        imports=import_seconds(settings.rounds),
        models=tuple(compare(folder, dataset, test, settings, say) for folder in folders),
    )


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="the data set that the networks were trained on")
    parser.add_argument(
        "--models", nargs="+", default=[*SHIPPED], help="export folders, or names of shipped ones"
    )
    parser.add_argument("--threads", nargs="+", type=positive, default=[1, 2])
    parser.add_argument("--batches", nargs="+", type=positive, default=[1, 64])
    parser.add_argument("--rounds", type=positive, default=ROUNDS)
    parser.add_argument("--images", type=positive, help="use only the first N test images; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy against latency as a PNG")
    options = parser.parse_args()
    try:
        report = measure(options)
    except FertoolsError as error:
        sys.exit(f"error: {error}")
    print(report.to_text())
    if options.json:
        write_json(options.json, report.to_dict())
    if options.plot:
        peers_figure(report, options.plot)


if __name__ == "__main__":
    main()
