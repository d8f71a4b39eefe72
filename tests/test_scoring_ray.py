"""Scoring on a Ray cluster of several nodes on this machine: the same rows as without one, whatever dies."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from local_cluster import MARKS, in_thread, wait_for
from PIL import Image
from tiny_model import tiny_export

from fertools.data import synthetic, write
from fertools.errors import ClusterError, DataError
from fertools.scoring import Scoring, score
from fertools.scoring import scoring as module
from fertools.scoring import source as sources

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra score")
pytest.importorskip("ray", reason="needs the extra ray")

pytestmark = MARKS


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder, with a model and pictures, of which one is torn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "PIECE", 8)
    tiny_export(tmp_path / "model")
    write(synthetic.generate(120, 20, 20), "faces")
    Path("faces/test/Happy/torn.png").write_bytes(b"")
    return tmp_path


class Slow(module._Work):
    """Takes its time for each piece, and writes down the process that does it."""

    def __call__(self, piece):
        time.sleep(0.3)
        Path(f"{self.output.path}.{piece}.{os.getpid()}").touch()
        return super().__call__(piece)


def rows(out):
    return [
        row for part in sorted(Path(out).glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()
    ]


def processes(out):
    """Those that have begun a piece, in the order of time."""
    found = sorted(Path().absolute().glob(f"{out}.*.*"), key=lambda path: path.stat().st_mtime)
    return [int(path.suffix[1:]) for path in found]


def test_the_same_rows_whatever_dies(cluster, work, monkeypatch):
    """On two nodes, of which one is removed midway; before, an actor is killed."""
    expected = score("faces", work / "local", Scoring("model"))
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    monkeypatch.setattr(module, "_Work", Slow)
    wait = in_thread(lambda: score("faces", work / "out", Scoring("model", engine="ray", actors=2)))
    wait_for(lambda: len(processes("out")) >= 3)
    os.kill(processes("out")[-1], signal.SIGKILL)
    wait_for(lambda: len(processes("out")) >= 8)
    cluster.remove_node(node)
    assert wait() == expected
    assert rows("out") == rows("local")
    assert len({*processes("out")}) > 1


def test_a_data_set_travels_with_the_work(cluster, work):
    write(synthetic.generate(30, 10, 10), "faces.npz")
    expected = score("faces.npz", work / "local", Scoring("model"))
    seen = []
    how = Scoring("model", engine="ray", threads=1)
    assert score("faces.npz", work / "out", how, progress=lambda *told: seen.append(told)) == expected
    assert rows("out") == rows("local")
    assert seen[-1] == (7, 7, 50)


def test_faces_are_found_there_too(cluster, work):
    pytest.importorskip("cv2", reason="needs the extra faces")
    portrait = pytest.importorskip("skimage.data", reason="needs scikit-image").astronaut()
    Path("photos").mkdir()
    Image.fromarray(portrait).save("photos/portrait.png")
    how = Scoring("model", find_faces=True, detector="haar")
    expected = score("photos", work / "local", how)
    assert score("photos", work / "out", replace(how, engine="ray", actors=1)) == expected
    assert rows("out") == rows("local")
    assert rows("out")[0]["box"] is not None


def test_an_error_of_ours_arrives_as_it_is(cluster, work):
    import pyarrow as pa

    pq.write_table(
        pa.table({"face": pa.array([b"x" * 2304] * 20, pa.binary(2304))}), "t.parquet", row_group_size=8
    )
    damaged = bytearray(Path("t.parquet").read_bytes())
    damaged[4:40] = bytes(36)
    Path("t.parquet").write_bytes(damaged)
    with pytest.raises(DataError, match=r"t\.parquet: not a readable Parquet file"):
        score("t.parquet", work / "out", Scoring("model", engine="ray"))


def test_no_cluster_there(monkeypatch, work):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(*_, **__):
        raise ConnectionError("nobody answers\nat all")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(
        ClusterError, match=r"no Ray cluster at 10\.0\.0\.1:1: ConnectionError: nobody answers$"
    ):
        score("faces", work / "out", Scoring("model", engine="ray", address="10.0.0.1:1"))
