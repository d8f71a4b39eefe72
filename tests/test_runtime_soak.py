"""The soak benchmark on a tiny model: it runs, and it finds what it looks for."""

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_model import tiny_export

from fertools.runtime import Predictor

SOAK = Path(__file__).resolve().parent.parent / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"))


def benchmark():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # where dataclasses looks it up
    spec.loader.exec_module(module)
    return module


def run(*arguments):
    command = [sys.executable, "-W", "error", SOAK, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_callers_do_not_disturb_each_other(export):
    done = run(export, "--predictions", 4321, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["predictions"], document["callers"], document["wrong"]) == (4321, 8, 0)
    assert document["model"] == {"name": "tiny", "precision": "int8"}
    assert 0 < document["memory_end"] <= document["memory_max"]
    assert document["rate"] > 0
    assert min(document["single_rates"].values()) > 0


def test_several_threads_a_prediction(export):
    done = run(export, "--predictions", 1000, "--callers", 3, "--threads", 2)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("<Predictor tiny int8, CPUExecutionProvider, threads=2")
    assert [line.split("  ")[0] for line in lines[1:]] == ["predictions", "wrong", "per second", "memory"]
    assert "1,000 by 3 callers" in lines[1]
    assert "0 (compared bit for bit)" in lines[2]


class Shared(Predictor):
    """Keeps the image in itself, so that callers now and then answer for each other."""

    def predict(self, image):
        self.image = image
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait(0.001)
        return super().predict(self.image)


class Leaking(Predictor):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.kept = []

    def predict(self, image):
        self.kept.append(b"x" * 20_000)
        return super().predict(image)


@pytest.mark.parametrize("kind", [Shared, Leaking])
def test_it_finds_what_is_wrong(export, kind):
    """In a process of its own: one that has freed much memory, as this one has, hides what leaks."""
    code = (
        "import sys, test_runtime_soak as tests\n"
        "soak = tests.benchmark()\n"
        f"soak.Predictor = tests.{kind.__name__}\n"
        "sys.exit(soak.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, export, "--predictions", "3000", "--json"]
    done = subprocess.run(
        command, cwd=SOAK.parent.parent / "tests", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    growth = document["memory_max"] - document["memory_start"]
    assert (document["wrong"] > 0) == (kind is Shared)
    assert (growth > 16) == (kind is Leaking)
