"""Run the kit of an export on emulated devices, as on a real one, and judge the results.

    apt-get install qemu-user mmdebstrap
    python benchmarks/devices.py exported/compact --work devices

``fertools verify EXPORT --kit`` writes the kit; its check.py runs in a bare virtual environment here (numpy
and onnxruntime alone), and on the processors that QEMU emulates; ``fertools verify EXPORT --device`` judges
each result. Emulation is slow: the milliseconds say nothing about the device. The exit code is 1 if a gate
breaks.
"""

import argparse
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
from processor_emulation import PACKAGES, PROCESSORS, Emulator, program

from fertools.errors import FertoolsError, ModelError
from fertools.files import replacing_folder
from fertools.verification.kit import IMAGES, read_result, write_kit


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def bare(work: Path) -> list[str]:
    """Return the command of a Python that has only numpy and onnxruntime."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    folder = work / "-".join(["bare", *(f"{name}{version}" for name, version in versions.items())])
    if not folder.exists():
        say(f"installing {' and '.join(PACKAGES)} into {folder}")
        with replacing_folder(folder) as temporary:
            venv.create(temporary, with_pip=True)
            packages = [f"{name}=={version}" for name, version in versions.items()]
            program(str(temporary / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages)
    return [str(folder / "bin" / "python"), "-I"]


def pythons(work: Path, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each place and the command of its Python."""
    yield "bare environment", bare(work)
    emulator = Emulator(work, np.zeros((1, 48, 48), np.uint8), say)
    for name in names:
        yield str(PROCESSORS[name]), emulator.python(PROCESSORS[name])


def main() -> None:
    """Make the kit, run it everywhere, print a table for each place."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--work", type=Path, default=Path("devices"), help="kept between runs")
    parser.add_argument(
        "--processors", nargs="*", choices=tuple(PROCESSORS), default=["Haswell", "cortex-a72", "cortex-a76"]
    )
    options = parser.parse_args()
    work = options.work.resolve()
    kit = work / "kit"
    work.mkdir(parents=True, exist_ok=True)
    write_kit(options.export, work / "kit.zip", images=options.images)
    with zipfile.ZipFile(work / "kit.zip") as archive:
        archive.extractall(kit)
    good = True
    for place, python in pythons(work, options.processors):
        result = work / f"{place.partition(' ')[0]}.json"
        result.unlink(missing_ok=True)
        done = subprocess.run(
            [*python, str(kit / "check.py"), "--out", str(result)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1) or not result.exists():  # 1 with a result: a file fails
            raise ModelError(
                f"check.py fails on {place}: {done.stderr.strip()} (exit code {done.returncode})"
            )
        report = read_result(options.export, result)
        print(f"{place}\n{report.to_text()}\n", flush=True)
        good &= report.passed
    sys.exit(not good)


if __name__ == "__main__":
    try:
        main()
    except FertoolsError as error:
        sys.exit(f"error: {error}")
