import hashlib
import os
from pathlib import Path

import pytest

# As fertools.runtime does before it imports onnxruntime; some tests import it themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# A developer may have set these, and they change the output.
for variable in ("FERTOOLS_DATA", "TF_CPP_MIN_LOG_LEVEL"):
    os.environ.pop(variable, None)

if detector := os.environ.pop("FERTOOLS_DETECTOR", None):
    os.environ.setdefault("FERTOOLS_TEST_DETECTOR", detector)

# FERTOOLS_TEST_BFLOAT16=1: train in bfloat16 whatever the processor, as on one where that is faster.
if os.environ.get("FERTOOLS_TEST_BFLOAT16"):
    from fertools import backend
    from fertools.processor import processor

    backend.processor = lambda: (processor()[0], processor()[1] | {"amx_bf16"})


#: The cores that this process may use.
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()


def pytest_configure(config):
    """Give each of several workers a core of its own: threads for all cores wait for the other worker's."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker and CORES:
        os.sched_setaffinity(0, {sorted(CORES)[int(worker.removeprefix("gw")) % len(CORES)]})


@pytest.fixture
def every_core():
    """As without the tests' workers: threads of this process may run on every core."""
    if not CORES:
        pytest.skip("threads cannot be kept on a core here")
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A finished run of a small network, its data in ``small.npz`` beside it. Not to be written to."""
    from small_run import fitted_network, small_faces, write_run

    from fertools.backend import import_keras

    import_keras()

    from fertools.export import exporter

    exporter.STRESS_IMAGES = 70  # of 350: many tests export
    faces = small_faces()
    return write_run(tmp_path_factory.mktemp("runs") / "small", fitted_network(faces), faces)


@pytest.fixture(scope="session")
def small_data(small_run):
    """The data of ``small_run``."""
    from fertools import data

    return data.load(small_run.with_suffix(".npz"))


@pytest.fixture(scope="session")
def small_export(small_run, small_data, tmp_path_factory) -> Path:
    """The export of ``small_run`` with an int8 file. Not to be written to."""
    from fertools.export import QuantizeConfig, export
    from fertools.training import Run

    folder = tmp_path_factory.mktemp("exported") / "small"
    return export(Run.open(small_run), small_data, folder, quantization=QuantizeConfig(images=256)).folder


@pytest.fixture(scope="session")
def blank_run(small_run, small_data, tmp_path_factory) -> Path:
    """A run on other data, with one blank image, whose network answers the same except in int8."""
    from small_run import lopsided, write_run

    from fertools.data import Dataset
    from fertools.models.inference import load

    images = small_data.images.copy()
    images[0] = 0
    blank = Dataset("blank", images, small_data.labels, small_data.usage)
    return write_run(
        tmp_path_factory.mktemp("runs") / "blank", lopsided(load(small_run / "best.keras")), blank
    )


@pytest.fixture(scope="session")
def yunet() -> str:
    """A YuNet's ONNX file, which is not part of the project."""
    path = os.environ.get("FERTOOLS_TEST_DETECTOR")
    if not path or not Path(path).is_file():
        pytest.skip("FERTOOLS_TEST_DETECTOR names no YuNet file")
    return path


@pytest.fixture
def runtime_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three small files instead of onnxruntime-web's 14 MB, with their checksums."""
    from fertools.web import onnxruntime_web

    folder = tmp_path / "package" / "dist"
    folder.mkdir(parents=True)
    for name in onnxruntime_web.FILES:
        (folder / name).write_text(f"// {name}")
        monkeypatch.setitem(onnxruntime_web.FILES, name, hashlib.sha256(f"// {name}".encode()).hexdigest())
    monkeypatch.setenv(onnxruntime_web.VARIABLE, str(folder.parent))
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster on this machine: a head without processors, and a node with one."""
    from fertools.cluster import QUIET

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in QUIET.items():
            monkeypatch.setenv(name, value)
        here = str(Path(__file__).parent)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, connect=True, head_node_args=head)
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        cluster.wait_for_nodes()
        yield cluster
        import ray

        ray.shutdown()
        cluster.shutdown()
