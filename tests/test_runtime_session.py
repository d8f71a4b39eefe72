import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from tiny_model import tiny_export

from fertools.errors import MissingExtraError, ModelError, ProviderError, ProviderWarning
from fertools.runtime import Predictor, threads
from fertools.runtime.session import load_onnxruntime
from fertools.runtime.threads import cpu_quota, usable_cpus


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"), "float32")


@pytest.mark.parametrize("providers", ["cpu", "CPUExecutionProvider", ["cpu"], ("CPUExecutionProvider",)])
def test_the_cpu_can_be_asked_for(export, providers):
    predictor = Predictor(export, providers=providers)
    assert predictor.provider == "CPUExecutionProvider"
    assert predictor.providers == ("CPUExecutionProvider",)


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ("gpu", "unknown provider 'gpu': choose from auto, cpu, cuda"),
        ("NoSuchExecutionProvider", "CPUExecutionProvider"),
        ([], "no provider"),
        (["cpu", "auto"], "'auto' stands alone"),
        (["auto"], "pass the text 'auto'"),
    ],
)
def test_unknown_providers_are_refused(export, providers, message):
    with pytest.raises(ProviderError, match=message):
        Predictor(export, providers=providers)


class SilentFallback:
    """What onnxruntime-gpu does without a GPU: a session on the CPU and no exception."""

    def __init__(self, *arguments, **options):
        pass

    def get_providers(self):
        return ["CPUExecutionProvider"]


@pytest.fixture
def gpu_build(monkeypatch):
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("libcudnn not found"), raising=False)


@pytest.mark.parametrize("providers", ["cuda", ["cuda", "cpu"], "CUDAExecutionProvider"])
def test_a_silent_fallback_is_an_error(export, providers, gpu_build, monkeypatch, capfd):
    monkeypatch.setattr(onnxruntime, "InferenceSession", SilentFallback)
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider could not start.*libcudnn not found"):
        Predictor(export, providers=providers)
    assert capfd.readouterr() == ("", "")


def test_auto_without_a_gpu_is_quiet(export, gpu_build, monkeypatch, capfd):
    monkeypatch.setattr("fertools.runtime.session.has_nvidia_gpu", lambda: False)
    assert Predictor(export).provider == "CPUExecutionProvider"
    assert capfd.readouterr() == ("", "")


def test_auto_falls_back_when_the_gpu_does_not_start(export, gpu_build, monkeypatch):
    real = onnxruntime.InferenceSession

    def broken_cuda(path, options, providers, **rest):
        if providers == ["CUDAExecutionProvider"]:
            raise RuntimeError("no kernel image")
        return real(path, options, providers=providers, **rest)

    monkeypatch.setattr("fertools.runtime.session.has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", broken_cuda)
    with pytest.warns(ProviderWarning, match=r"failed to start: no kernel image.*NVIDIA"):
        assert Predictor(export).provider == "CPUExecutionProvider"
    with pytest.raises(ProviderError, match="no kernel image"):
        Predictor(export, providers="cuda")


def test_missing_onnxruntime(export, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fertools\[cpu\]'"):
        Predictor(export)


def test_half_uninstalled_onnxruntime(export, monkeypatch):
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    with pytest.raises(ProviderError, match="broken"):
        Predictor(export)


def test_onnxruntime_sends_and_stores_nothing(export, tmp_path):
    code = """
import os, sys
from fertools.runtime import Predictor
Predictor(sys.argv[1], threads=1)
print(len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1)
"""
    homes = dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"), str(tmp_path))
    environment = {**os.environ, **homes, "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", code, export]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1\n"  # thread: the one that sends telemetry would be another
    assert [*tmp_path.iterdir()] == []  # it would keep an identifier of the device here


def test_telemetry_is_the_users_to_decide(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: pytest.fail("it was switched off"))
    load_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_threads(export):
    assert Predictor(export).threads == usable_cpus()
    assert Predictor(export, threads=3).threads == 3
    faces = np.zeros((2, 48, 48), np.uint8)
    one, three = (Predictor(export, threads=count).probabilities(faces) for count in (1, 3))
    np.testing.assert_allclose(one, three, atol=1e-6)


def test_usable_cpus():
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("quota", "count"), [(None, 4), (0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.99, 3), (4.0, 4), (64.0, 4)]
)
def test_the_default_of_threads_is_within_the_quota(export, monkeypatch, quota, count):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 4, raising=False)  # from Python 3.13 on
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5, 7}, raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert usable_cpus() == count
    assert Predictor(export).threads == count
    assert Predictor(export, threads=3).threads == 3  # what is asked for is got


@pytest.mark.usefixtures("every_core")
def test_the_default_of_threads_is_within_the_affinity(export):
    code = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from fertools.runtime import Predictor
before = len(os.listdir("/proc/self/task"))
print(Predictor(sys.argv[1]).threads, len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", code, export]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1 0\n"  # one thread, which is the caller's own


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        (
            "0::/a/b\n",
            {"cpu.max": "max 100000\n", "a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"},
            2.0,
        ),
        (
            "1:cpuset:/\n4:cpu,cpuacct:/docker/x\n",
            {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "50000 0\n"}, None),
        # A container sees its own group at the root, whatever the path says that the host gave it.
        ("0::/kubepods/pod1/x\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/../../x\n", {"cpu.max": "250000 100000\n"}, 2.5),
        (
            "2:cpuacct,cpu:/kubepods/pod1\n",
            {"cpu/kubepods/cpu.cfs_quota_us": "400000\n", "cpu/kubepods/cpu.cfs_period_us": "100000\n"},
            4.0,
        ),
        # Version 2 beside version 1: the one that has the processors counts.
        (
            "3:cpu:/a\n0::/\n",
            {"cpu/a/cpu.cfs_quota_us": "100000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            1.0,
        ),
        ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("nonsense\n\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
    ],
)
def test_cpu_quota(tmp_path, membership, files, quota):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "membership") == quota


def test_a_name_that_onnxruntime_cannot_open(tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    tiny_export(odd, "float32")
    with pytest.raises(ModelError, match="onnxruntime cannot open a name that is not UTF-8: rename it"):
        Predictor(odd)
