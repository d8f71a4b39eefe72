"""The threads that a Predictor really makes: as asked for, within a real quota, beside another Predictor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_export

from fertools.contract import ONNX_FILE
from fertools.runtime import Predictor
from fertools.runtime.threads import usable_cpus

FACES = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)
TASKS = Path("/proc/self/task")
CGROUPS = Path("/sys/fs/cgroup")

#: Prints what each of several Predictors calls its threads, and how many threads the process has gained.
CODE = """
import json, os, sys
from fertools.runtime import Predictor
import numpy
def tasks():
    return len(os.listdir("/proc/self/task"))
before = tasks()
kept = []
for threads in json.loads(sys.argv[2]):
    kept.append(Predictor(sys.argv[1], threads=threads))
    kept[-1].probabilities(numpy.zeros((3, 48, 48), numpy.uint8))
    print(kept[-1].threads, tasks() - before)
kept.clear()
print(tasks() - before)
"""

linux = pytest.mark.skipif(not TASKS.is_dir(), reason="the threads of a process cannot be counted here")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder."""
    return tiny_export(tmp_path_factory.mktemp("export"), "float32")


def pools(export: Path, threads: list[int | None], *before: str) -> list[str]:
    """What `CODE` prints for Predictors with these threads, one after another in one process."""
    command = [*before, sys.executable, "-W", "error", "-c", CODE, str(export), json.dumps(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@linux
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_caller_is_one_of_the_threads(export: Path, threads: int) -> None:
    assert pools(export, [threads]) == [f"{threads} {threads - 1}", "0"]


@linux
def test_predictors_side_by_side_have_threads_of_their_own(export: Path) -> None:
    assert pools(export, [3, 1, 2]) == ["3 2", "1 2", "2 3", "0"]


@pytest.fixture
def quota() -> Iterator[list[str]]:
    """The start of a command that runs with a quota of 1.5 processors, by a control group made for it."""
    group = CGROUPS / f"fertools-{os.getpid()}"
    limits = {"cpu.max": "150000 100000"}
    if not (CGROUPS / "cgroup.controllers").exists():  # version 1
        group = CGROUPS / "cpu" / group.name
        limits = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        for name, value in limits.items():
            (group / name).write_text(value)
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    except OSError as error:
        pytest.skip(f"no quota can be set here: {error.strerror}")
    finally:
        group.rmdir()


@linux
@pytest.mark.usefixtures("every_core")
def test_the_default_keeps_a_real_quota(export: Path, quota: list[str]) -> None:
    if usable_cpus() < 2:
        pytest.skip("one processor is within the quota anyhow")
    assert pools(export, [None, 2], *quota) == ["1 0", "2 1", "0"]


def test_predictors_side_by_side_answer_as_alone(tmp_path: Path) -> None:
    files = [tiny_export(tmp_path / str(seed), "float32", seed=seed) / ONNX_FILE for seed in range(2)]
    alone = [Predictor(file, threads=2).probabilities(FACES) for file in files]
    assert np.abs(alone[0] - alone[1]).max() > 0.1

    predictors = [Predictor(file, threads=2) for file in files]

    def work(index: int) -> bool:
        answers = (predictors[index].probabilities(FACES) for _ in range(200))
        return all(np.array_equal(found, alone[index]) for found in answers)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [0, 1, 0, 1]))
    del predictors[0]
    np.testing.assert_array_equal(predictors[0].probabilities(FACES), alone[1])
