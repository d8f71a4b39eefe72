"""Several runs on a Ray cluster of several nodes on this machine, one of which is lost."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_training
from click.testing import CliRunner
from local_cluster import MARKS, PATIENCE, in_thread, wait_for

from fertools.cli import main
from fertools.data import write
from fertools.training import Run, spread

pytest.importorskip("ray", reason="needs the extra ray")

pytestmark = MARKS

#: Either command trains the same two runs into the folder ``ema=0.5``.
OPTIONS = (
    " --data tiny.npz --seeds 2 --model mlp --epochs 3 --batch-size 8 --learning-rate 1e-6"
    " --precision float32 --device cpu --engine ray"
)
COMMANDS = {
    "sweep": "sweep --set ema=0.5 --out ray",
    "seeds": "train --ema 0.5 --out ray/ema=0.5",
}
RUNS = ("ema=0.5/seed-0", "ema=0.5/seed-1")

complete_in_task = spread._complete_in_task


class Watched:
    """Notes the node of each epoch; from the second on, waits until that node may go on."""

    def __init__(self, run, node):
        self.note, self.go, self.noted = run.path.with_suffix(".epochs"), Path(f"go-{node}").absolute(), 0
        self.node = node

    def step(self, epoch, step, loss):
        if epoch == self.noted:
            return
        self.noted = epoch
        with self.note.open("a") as file:
            file.write(f"{epoch} {self.node}\n")
        while epoch > 1 and not self.go.exists():
            time.sleep(0.05)

    def epoch(self, row, best):
        pass


def watched(job, cpus):
    """The task of a run, watched."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    os.chdir(job.path.parents[2])

    def train(run, dataset):
        from fertools.training import trainer

        trainer.train(run, dataset, observer=Watched(run, node))

    complete = spread.complete
    spread.complete = lambda job: complete(job, train)
    try:
        return complete_in_task(job, cpus)
    finally:
        spread.complete = complete


def epochs(name):
    """Which epochs of a run were begun where: [(epoch, node)]."""
    note = Path("ray", name).with_suffix(".epochs")
    lines = note.read_text().splitlines() if note.exists() else []
    return [(int(epoch), node) for epoch, node in map(str.split, lines)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same runs in one process of its own, begun: gives what to wait for their folder with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write(tiny_training.dataset(), folder / "tiny.npz")
    # As many threads as a task has, which decides how sums are rounded.
    one_thread = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    command = COMMANDS["seeds"] + OPTIONS.replace("--engine ray", "--engine local")
    training = subprocess.Popen(
        [sys.executable, "-m", "fertools", *command.split()],
        cwd=folder,
        env=one_thread,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def wait():
        _, errors = training.communicate(timeout=PATIENCE)
        assert training.returncode == 0, errors
        return folder / "ray"

    return functools.cache(wait)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_run_goes_on_elsewhere(cluster, undisturbed, tmp_path, monkeypatch, command):
    """Its node is lost in its second epoch: nothing but that is done again, and the result is the same."""
    monkeypatch.chdir(tmp_path)
    write(tiny_training.dataset(), "tiny.npz")
    lost = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    (left,) = {node.node_id for node in cluster.worker_nodes} - {lost.node_id}
    monkeypatch.setattr(spread, "_complete_in_task", watched)
    wait = in_thread(lambda: CliRunner().invoke(main, (command + OPTIONS).split()))
    wait_for(lambda: all(len(epochs(name)) == 2 for name in RUNS))
    cluster.remove_node(lost, allow_graceful=False)
    Path(f"go-{left}").touch()
    result = wait()
    assert result.exit_code == 0, result.stderr
    there = lost.node_id
    moved, stayed = sorted((epochs(name) for name in RUNS), key=lambda found: found[0][1] != there)
    assert moved == [(1, there), (2, there), (2, left), (3, left)]
    assert stayed == [(1, left), (2, left), (3, left)]
    for name in RUNS:
        ray, here = Run(Path("ray", name)), Run(undisturbed() / name)
        assert tiny_training.comparable(ray) == tiny_training.comparable(here)
        assert ray.metrics | {"seconds": 0} == here.metrics | {"seconds": 0}
        with np.load(ray.state(3)) as one, np.load(here.state(3)) as other:
            assert one.files == other.files
            for array in one.files:
                np.testing.assert_array_equal(one[array], other[array])
