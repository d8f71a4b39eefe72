"""Several runs as tasks of Ray: a node that is lost costs a run no more than its unfinished epoch."""

import os
import time
from pathlib import Path

import pytest
import tiny_training

from fertools.cluster import QUIET
from fertools.data import write
from fertools.training import Run, TrainConfig
from fertools.training.spread import Job, on_ray

pytest.importorskip("ray", reason="needs the extra ray")

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and log files to the garbage collector, and calls what it has itself deprecated.
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ),
]


def test_a_run_goes_on_where_its_node_is_lost(tmp_path, monkeypatch):
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    import ray
    from ray.cluster_utils import Cluster

    write(tiny_training.dataset(), tmp_path / "tiny.npz")
    config = TrainConfig(
        model="mlp", epochs=40, batch_size=8, precision="float32", device="cpu", early_stopping=0
    )
    bad = TrainConfig(
        model="mlp", epochs=2, batch_size=8, precision="float32", device="cpu", learning_rate=100.0
    )
    jobs = {
        name: Job(tmp_path / name, each, str(tmp_path / "tiny.npz"))
        for name, each in (("good", config), ("bad", bad))
    }
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, connect=True, head_node_args=head)
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        cluster.wait_for_nodes()
        run, lost = Run(tmp_path / "good"), []

        def lose():
            """Once the run has an epoch, take its node away and bring another."""
            until = time.monotonic() + 120
            while not (run.path / "history.csv").exists():
                assert time.monotonic() < until
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)
            lost.extend(run.history())
            cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

        import threading

        thread = threading.Thread(target=lose)
        thread.start()
        ends = dict(on_ray(jobs, address=None, cpus=1, gpus=None))
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert ends["good"] is None
    assert "the loss is no number in epoch" in ends["bad"]
    assert run.finished
    assert len(run.history()) == 40
    assert 0 < len(lost) < 40
    assert run.history()[: len(lost)] == lost
