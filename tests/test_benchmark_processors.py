"""The processors benchmark: its figures, its runs here and on an emulated processor, and its page."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import tiny_export, tiny_reference

from fertools.contract import INT8_FILE
from fertools.errors import ConfigError, ModelError

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
FACES = np.random.default_rng(0).integers(0, 256, (4, 48, 48), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def module(name: str) -> Any:
    """Import a file of the benchmark, which is importable only in a test."""
    return importlib.import_module(name)


def one_hot(*classes: int) -> np.ndarray:
    """Probabilities, float32 (n, 7)."""
    return np.eye(7, dtype=np.float32)[[*classes]]


def a_row(**changes: Any) -> Any:
    """A row of figures without any loss."""
    report = module("processor_report")
    same = one_hot(0, 1, 2, 3)
    values = {
        "model": "tiny",
        "file": "model.int8.onnx",
        "sha256": "0" * 64,
        "processor": "Haswell",
        "limited": True,
        **report.compare(same, same, same, np.arange(4)),
    }
    return report.Row(**{**values, **changes})


def a_report(*rows: Any) -> Any:
    """A report of these rows."""
    return module("processor_report").Report(
        processor="EPYC",
        int8_features=("avx2",),
        versions={"numpy": "2.4.6", "QEMU": "7.2.22"},
        data={"name": "faces.csv", "fingerprint": "f" * 64},
        images=1200,
        rows=rows,
    )


def test_the_figures_of_a_row() -> None:
    native, labels = one_hot(0, 1, 2, 3, 4), np.array([0, 1, 2, 3, 6], np.uint8)
    found = one_hot(0, 1, 2, 5, 4)
    found[0] = (0.75, 0.25, 0, 0, 0, 0, 0)
    figures = module("processor_report").compare(found, native, one_hot(0, 1, 0, 3, 6), labels)
    assert figures == {
        "accuracy": 0.6,
        "points_lost": 20,
        "agreement": 0.8,
        "difference": 1,
        "float_accuracy": 0.8,
        "float_agreement": 0.4,
        "float_difference": 1,
    }
    gentle = module("processor_report").compare(found[:3], native[:3], native[:3], labels[:3])
    assert (gentle["agreement"], gentle["difference"]) == (1, 0.25)


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"points_lost": 0.5, "agreement": 0.985}, True),
        ({"points_lost": -3.0}, True),
        ({"points_lost": 0.51}, False),
        ({"agreement": 0.984}, False),
        ({"agreement": 0.5, "points_lost": 9.0, "limited": False}, True),
        ({"points_lost": float("nan")}, False),
    ],
)
def test_what_a_processor_may_cost(changes: dict[str, Any], passed: bool) -> None:
    report = a_report(a_row(), a_row(processor="cortex-a72", **changes))
    assert report.passed is passed
    *table, verdict = report.to_text().splitlines()
    assert [line for line in table if line.endswith("BROKEN")] == [
        line for line in table if line.startswith("cortex-a72") and not passed
    ]
    assert verdict.endswith("kept by the int8 files everywhere" if passed else "BROKEN by tiny on cortex-a72")


def test_the_table() -> None:
    report = a_report(
        a_row(accuracy=0.675, float_accuracy=0.68),
        a_row(file="control", limited=False, difference=0.1758, float_accuracy=0.68),
        a_row(model="other", sha256="abcdef" + "0" * 58, agreement=0.9975, float_accuracy=0.7),
    )
    text = report.to_text()
    assert text.startswith(
        "the first 1,200 test images of faces.csv; here: EPYC (avx2)\nnumpy 2.4.6, QEMU 7.2.22"
    )
    assert text.count("same file here") == 3
    assert "sha256 abcdef000000" in text
    lines = [line.split() for line in text.splitlines() if line.startswith("Haswell")]
    assert lines == [
        ["Haswell", "67.50%", "100.00%", "0", "100.00%", "0"],
        ["Haswell", "100.00%", "100.00%", "0.18", "100.00%", "0"],
        ["Haswell", "100.00%", "99.75%", "0", "100.00%", "0"],
    ]
    assert "float32 here: tiny 68.00%, other 70.00%" in text
    assert type(report).from_dict(json.loads(json.dumps(report.to_dict()))).to_text() == text


@pytest.fixture
def said() -> list[str]:
    """The messages of an emulator."""
    return []


@pytest.fixture
def emulator(tmp_path: Path, said: list[str]) -> Any:
    """An emulator that shows `FACES`."""
    return module("processor_emulation").Emulator(tmp_path / "work", FACES, said.append)


def test_a_run_here(emulator: Any, tmp_path: Path) -> None:
    for seed in range(2):
        file = tiny_export(tmp_path / "export", "int8", seed=seed) / INT8_FILE
        np.testing.assert_allclose(emulator.answers(file, None), tiny_reference(FACES, seed), atol=1e-6)


def test_a_run_that_fails(emulator: Any, tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.onnx: fails on this processor: .*not a model exported"):
        emulator.answers(file, None)


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed")
def test_a_run_on_an_emulated_processor(emulator: Any, tmp_path: Path, said: list[str]) -> None:
    processor = module("processor_emulation").PROCESSORS["Nehalem"]
    for seed in (0, 1, 0):
        file = tiny_export(tmp_path / "export", "int8", seed=seed) / INT8_FILE
        np.testing.assert_allclose(emulator.answers(file, processor), tiny_reference(FACES, seed), atol=1e-6)
    assert said == [f"{file} on Nehalem (SSE4.2, no AVX)"] * 2  # the third run's answers were kept


def test_an_emulation_that_is_not_what_it_is_called() -> None:
    emulation = module("processor_emulation")
    haswell = emulation.PROCESSORS["Haswell"]
    emulation.check_features(haswell, {"SSE42", "AVX2"})
    with pytest.raises(ConfigError, match=r"does not emulate Haswell \(AVX2\): use 7.2"):
        emulation.check_features(haswell, {"SSE42"})  # QEMU 6.2
    with pytest.raises(ConfigError, match=r"Haswell \(AVX512VNNI\)"):
        emulation.check_features(haswell, {"AVX2", "AVX512VNNI"})


def test_programs_that_are_missing_or_fail() -> None:
    emulation = module("processor_emulation")
    with pytest.raises(ConfigError, match=r"^qemu-vax is not installed: apt-get install qemu-user$"):
        emulation.program("qemu-vax", "--version", package="qemu-user")
    with pytest.raises(ConfigError, match="fails: no such suite"):
        emulation.program(sys.executable, "-c", "import sys; sys.exit('no such suite')")


def test_a_raspberry_pi_4_by_its_cpuinfo() -> None:
    emulation = module("processor_emulation")
    lines = emulation.cpuinfo(emulation.PROCESSORS["cortex-a72"].midr).splitlines()
    values = dict(line.replace("\t", "").split(": ") for line in lines if line)
    # As on a Raspberry Pi 4.
    assert values == {
        "processor": "0",
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": "0xd08",
        "CPU revision": "3",
    }


def test_the_script(small_run: Path, small_export: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "page.json"
    page.write_text("before\n<!-- begin table -->\nold\n<!-- end table -->\nafter\n")
    source = small_run.with_suffix(".npz")
    command = [sys.executable, BENCHMARKS / "processors.py", source, "--models", small_export, "--processors"]
    command += ["--images", "25", "--work", tmp_path / "work", "--json", figures, "--page", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(figures.read_text())
    assert document["images"] == 25
    assert document["versions"].keys() == {"numpy", "onnxruntime"}
    assert [(row["file"], row["processor"], row["limited"]) for row in document["rows"]] == [
        (INT8_FILE, "here", True),
        ("control: 8-bit weights", "here", False),
    ]
    shipped, control = document["rows"]
    assert shipped["sha256"] == hashlib.sha256((small_export / INT8_FILE).read_bytes()).hexdigest()
    assert control["sha256"] != shipped["sha256"]
    for row in document["rows"]:
        assert (row["agreement"], row["difference"]) == (1, 0)
        assert 0 < row["float_difference"] < 0.2
        assert row["float_agreement"] > 0.9
    assert page.read_text(encoding="utf-8") == (
        f"before\n<!-- begin table -->\n```text\n{done.stdout}```\n<!-- end table -->\nafter\n"
    )


def test_the_script_without_an_int8_file(small_run: Path, small_export: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small_export, tmp_path / "export", ignore=shutil.ignore_patterns("*.int8.*"))
    command = [
        sys.executable,
        BENCHMARKS / "processors.py",
        small_run.with_suffix(".npz"),
        "--models",
        folder,
    ]
    command += ["--work", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {folder}: has no model.int8.onnx: 'fertools export --quantize' makes one\n"
    )


def test_the_script_where_answers_are_wrong(
    small_run: Path,
    small_export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    processors = module("processors")

    class Wrong(processors.Emulator):
        def answers(self, file: Path, processor: Any) -> np.ndarray:
            right = super().answers(file, None)
            return right if processor is None else np.roll(right, 1, axis=1)

    monkeypatch.setattr(processors, "Emulator", Wrong)
    monkeypatch.setattr(processors, "qemu_version", lambda processor: "7.2")
    arguments = [small_run.with_suffix(".npz"), "--models", small_export, "--images", 25]
    arguments += ["--processors", "max", "--work", tmp_path]
    monkeypatch.setattr(sys, "argv", ["processors.py", *map(str, arguments)])
    assert processors.main() == 1
    assert "BROKEN by small on max (dotprod, i8mm, SVE)\n" in capsys.readouterr().out


def test_the_page_shows_the_figures_of_the_models_that_ship() -> None:
    page = (ROOT / "docs" / "processors.md").read_text(encoding="utf-8")
    report = module("processor_report").Report.from_dict(
        json.loads((ROOT / "docs" / "processors.json").read_bytes())
    )
    assert module("processors").renewed(page, report) == page
    assert report.passed
    hashes = {row.model: row.sha256 for row in report.rows if row.limited}
    assert hashes == {
        name: hashlib.sha256((ROOT / "exported" / name / INT8_FILE).read_bytes()).hexdigest()
        for name in ("sequential", "compact")
    }, "run the command on docs/processors.md again"
