"""Run predictors on processors that QEMU emulates."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

import fertools
from fertools.errors import ConfigError, ModelError
from fertools.files import replacing, replacing_folder

#: The same versions on every processor.
PACKAGES = ("numpy", "onnxruntime")

WORKER = """
import sys
import numpy as np
from numpy._core._multiarray_umath import __cpu_features__ as features
from fertools.runtime import Predictor
images, file, answers = sys.argv[1:]
predictor = Predictor(file, providers="cpu", threads=1)
probabilities = np.concatenate([predictor.probabilities(image[None]) for image in np.load(images)])
np.savez(answers, probabilities=probabilities, features=[name for name, found in features.items() if found])
"""


@dataclass(frozen=True)
class Processor:
    """A processor that QEMU emulates, and its features: older QEMUs silently leave out those they lack."""

    #: Name in QEMU.
    name: str
    machine: str
    note: str
    #: Instruction sets, by numpy's names.
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    #: ARM's Main ID Register, which onnxruntime looks up in /proc/cpuinfo to choose its kernels.
    midr: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.note})"


_ALL = (
    Processor("Nehalem", "x86_64", "SSE4.2, no AVX", ("SSE42",), ("AVX",)),
    Processor("Haswell", "x86_64", "AVX2, no VNNI", ("AVX2",), ("AVX512VNNI",)),
    Processor("cortex-a53", "aarch64", "Raspberry Pi 3", ("ASIMD",), ("ASIMDDP",), 0x410FD034),
    Processor("cortex-a72", "aarch64", "Raspberry Pi 4", ("ASIMD",), ("ASIMDDP",), 0x410FD083),
    Processor("cortex-a76", "aarch64", "Raspberry Pi 5, dotprod", ("ASIMDDP",), ("SVE",), 0x414FD0B1),
    Processor("max", "aarch64", "dotprod, i8mm, SVE", ("ASIMDDP", "SVE"), (), 0x000F0510),
)
PROCESSORS = {item.name: item for item in _ALL}


class Emulator:
    """Runs model files on processors and keeps the answers.

    Arguments:
        work: folder for the answers and the ARM system; made if missing.
        images: uint8 (n, 48, 48), the images to predict.
        say: receives progress messages.
    """

    def __init__(self, work: Path, images: np.ndarray, say: Callable[[str], None]) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work.resolve()
        self.say = say
        self.versions = {name: metadata.version(name) for name in PACKAGES}
        self.images = self.work / f"{digest(images.tobytes())}.npy"
        with replacing(self.images) as path:
            np.save(path, images)

    def answers(self, file: Path, processor: Processor | None) -> np.ndarray:
        """Return the probabilities, float32 (n, 7), of a Predictor with one thread, image by image.

        Arguments:
            file: a model file of fertools.
            processor: where to run; None for this machine.

        Raises:
            ConfigError: a program is not installed, or QEMU does not emulate the requested processor.
            ModelError: the Predictor fails there.
        """
        if processor is None:
            answers = self.work / "native.npz"
            self._run([sys.executable], file, answers, "this processor")
        else:
            key = json.dumps([self.images.stem, processor.name, qemu_version(processor), self.versions])
            answers = self.work / f"{digest(file.read_bytes(), key.encode())}.npz"
            if not answers.exists():
                self.say(f"{file} on {processor}")
                with replacing(answers) as path:
                    self._run(self.python(processor), file, path, str(processor))
                    with np.load(path) as stored:
                        check_features(processor, {*stored["features"]})
        with np.load(answers) as stored:
            return stored["probabilities"]

    def _run(self, python: list[str], file: Path, answers: Path, where: str) -> None:
        command = [*python, "-B", "-c", WORKER, str(self.images), str(file.resolve()), str(answers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"{file}: fails on {where}: {last} (exit code {done.returncode})")

    def python(self, processor: Processor) -> list[str]:
        """Return the command of an emulated Python that has numpy, onnxruntime and fertools."""
        emulator = [f"qemu-{processor.machine}", "-cpu", processor.name]
        if processor.machine == platform.machine():
            # numpy's OpenBLAS, which the models do not use, chooses AVX for a Nehalem emulated on an AMD.
            return [*emulator, "-E", "OPENBLAS_CORETYPE=Prescott", sys.executable]
        root = self._arm_folder()
        (root / "proc" / "cpuinfo").write_text(cpuinfo(processor.midr))
        package = root / "site" / "fertools"
        package.unlink(missing_ok=True)
        package.symlink_to(Path(fertools.__file__).resolve().parent)
        return [*emulator, "-L", str(root), "-E", f"PYTHONPATH={root}/site", f"{root}/usr/bin/python3"]

    def _arm_folder(self) -> Path:
        """Return a folder with Python, numpy and onnxruntime for 64-bit ARM, unpacked if needed."""
        suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
        root = self.work / "-".join(["arm64", suite, *(f"{name}{self.versions[name]}" for name in PACKAGES)])
        if not root.exists():
            self.say(f"unpacking {root}")
            with replacing_folder(root) as folder:
                unpack(folder, suite, [f"{name}=={version}" for name, version in self.versions.items()])
        return root


def unpack(folder: Path, suite: str, packages: list[str]) -> None:
    """Fill ``folder`` with Debian's or Ubuntu's Python and ``site/`` with packages, for 64-bit ARM."""
    program(
        *("mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64"),
        "--include=base-files,python3,libstdc++6",  # base-files links /lib to /usr/lib
        *(suite, str(folder)),
        package="mmdebstrap",
    )
    version = (folder / "usr" / "bin" / "python3").readlink().name.removeprefix("python")
    program(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={folder / 'site'}"),
        *("--only-binary=:all:", "--platform=manylinux_2_28_aarch64", f"--python-version={version}"),
        *packages,
    )
    # Where the folder has no file, QEMU shows the program the host's, and onnxruntime crashes on an x86-64's
    # description.
    (folder / "proc").mkdir(exist_ok=True)
    cpus = folder / "sys" / "devices" / "system" / "cpu"
    cpus.mkdir(parents=True)
    for name in ("possible", "present"):
        (cpus / name).write_text("0\n")


def program(*command: str, package: str = "") -> str:
    """Return what a program prints. Raises ConfigError if it fails or is missing (naming the package)."""
    if shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]} is not installed: apt-get install {package}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command)} fails: {done.stderr.strip()}")
    return done.stdout


def qemu_version(processor: Processor) -> str:
    """Return QEMU's version, e.g. "7.2.22". Raises ConfigError if there is no QEMU for that machine."""
    return program(f"qemu-{processor.machine}", "--version", package="qemu-user").split()[2]


def check_features(processor: Processor, found: set[str]) -> None:
    """Raise ConfigError unless the instruction sets that numpy found are those of the processor."""
    wrong = sorted({*processor.has} - found | {*processor.lacks} & found)
    if wrong:
        raise ConfigError(
            f"this QEMU does not emulate {processor.name} ({', '.join(wrong)}): use 7.2 or newer"
        )


def cpuinfo(midr: int) -> str:
    """Return Linux's /proc/cpuinfo of one ARM processor with this Main ID Register."""
    return (
        "processor\t: 0\n"
        f"CPU implementer\t: {midr >> 24:#04x}\n"
        "CPU architecture: 8\n"
        f"CPU variant\t: {midr >> 20 & 0xF:#x}\n"
        f"CPU part\t: {midr >> 4 & 0xFFF:#05x}\n"
        f"CPU revision\t: {midr & 0xF}\n\n"
    )


def digest(*parts: bytes) -> str:
    """Return a file name for what is derived from these parts."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
