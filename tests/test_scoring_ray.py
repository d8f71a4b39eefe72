"""Scoring on a Ray cluster of several nodes on this machine: the same rows as without one, whatever dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_model import tiny_export

from fertools.data import synthetic, write
from fertools.scoring import Scoring, score

pytestmark = [
    pytest.mark.slow,
    # Ray 2.60 on Python 3.13 leaves sockets and files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra score")
pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def cluster():
    """A head without processors and two nodes with one each."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        here = str(Path(__file__).parent)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a model, a data set, and the answers as they are without a cluster."""
    folder = tmp_path_factory.mktemp("work")
    tiny_export(folder / "model")
    write(synthetic.generate(300, 50, 50), folder / "faces")
    (folder / "faces" / "test" / "Happy" / "torn.png").write_bytes(b"")
    return folder
