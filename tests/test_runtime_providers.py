"""Providers that are not installed here are played by sessions on the CPU."""

import json
import os
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from test_runtime_processes import forks, in_fork
from tiny_model import tiny_export, tiny_info, tiny_proto, tiny_reference

from fertools.cli import main
from fertools.errors import ModelError, ProviderError, ProviderWarning
from fertools.export.ort_format import write_ort
from fertools.runtime import Predictor
from fertools.runtime.metadata import add_checksum
from fertools.runtime.providers import COREML, CPU, CUDA, OPENVINO, PROVIDERS, TENSORRT, XNNPACK
from fertools.runtime.session import try_providers

FACES = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)
REAL = onnxruntime.InferenceSession
FULL = {short: name for short, (name, _) in PROVIDERS.items()}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"), "float32")


@pytest.fixture(autouse=True)
def nothing_was_started(monkeypatch):
    monkeypatch.setattr("fertools.runtime.session._started", {})


class Played:
    """An onnxruntime with all providers; what they do is told by `faults`, name -> what goes wrong."""

    def __init__(self, monkeypatch):
        self.faults = {}
        self.opened = []
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*FULL.values()])
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.session)
        monkeypatch.setattr("fertools.runtime.session.has_nvidia_gpu", lambda: True)

    def session(self, path, settings, providers, provider_options, enable_fallback):
        assert enable_fallback == 0
        self.opened.append((providers, provider_options, settings))
        fault = self.faults.get(providers[0])
        if fault == "start":
            raise RuntimeError("no\nkernel image")
        names = [*providers, *({CPU} - {*providers})]
        if fault == "silent":
            names = [CPU]
        return PlayedSession(REAL(path, providers=[CPU]), names, fault)


class PlayedSession:
    def __init__(self, real, names, fault):
        self.real, self.names, self.fault = real, names, fault

    def __getattr__(self, name):
        return getattr(self.real, name)

    def get_providers(self):
        return self.names

    def get_provider_graph_assignment_info(self):
        return [SimpleNamespace(ep_name=CPU if self.fault == "idle" else self.names[0])]

    def run(self, outputs, inputs):
        if self.fault == "run":
            raise RuntimeError("out of memory")
        return [rows * np.nan if self.fault == "nan" else rows for rows in self.real.run(outputs, inputs)]


@pytest.fixture
def played(monkeypatch):
    return Played(monkeypatch)


#: What goes wrong -> what is said.
FAULTS = {
    "start": "failed to start: no kernel image",
    "silent": "could not start, and onnxruntime would silently use CPUExecutionProvider",
    "idle": "has no operator of this network: the CPU would do all of it",
    "run": "failed in its first run: out of memory",
    "nan": "gives wrong answers",
}


@pytest.mark.parametrize("short", [*FULL])
def test_each_can_be_asked_for(export, played, short):
    for name in (short, FULL[short]):
        predictor = Predictor(export, providers=name)
        assert predictor.provider == FULL[short]
        np.testing.assert_allclose(predictor.probabilities(FACES), tiny_reference(FACES), atol=1e-5)


@pytest.mark.parametrize("fault", [*FAULTS])
@pytest.mark.parametrize("short", ["cuda", "tensorrt", "openvino", "coreml", "xnnpack"])
def test_what_is_asked_for_is_got_or_raises(export, played, short, fault):
    played.faults = {FULL[short]: fault}
    with pytest.raises(ProviderError, match=f"^{FULL[short]} {FAULTS[fault]}"):
        Predictor(export, providers=short)


@pytest.mark.parametrize(
    ("short", "source"),
    [
        ("cuda", r"pip install 'fertools\[gpu\]'"),
        ("tensorrt", r"pip install 'fertools\[gpu\]' tensorrt"),
        ("openvino", "pip install onnxruntime-openvino"),
        ("coreml", "on macOS only"),
        ("xnnpack", "built with --use_xnnpack"),
    ],
)
def test_what_is_not_installed_says_where_it_comes_from(export, monkeypatch, short, source):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(ProviderError, match=f"{FULL[short]} is not in the installed onnxruntime.*{source}"):
        Predictor(export, providers=short)
    assert source.replace("\\", "") in try_providers(export / "model.onnx")[short]


def test_auto_takes_the_first_that_works(export, played, monkeypatch):
    assert Predictor(export).provider == CUDA
    assert [providers for providers, *_ in played.opened] == [[CUDA]]
    monkeypatch.setattr("fertools.runtime.session.has_nvidia_gpu", lambda: False)
    assert Predictor(export).provider == OPENVINO
    only = [TENSORRT, COREML, XNNPACK, CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: only)
    assert Predictor(export).provider == CPU


@pytest.mark.parametrize("fault", [*FAULTS])
def test_auto_tells_what_does_not_work_and_goes_on(export, played, fault):
    played.faults = {CUDA: fault}
    said = f"auto goes on without {CUDA}: {CUDA} {FAULTS[fault]}"
    with pytest.warns(ProviderWarning, match=said) as caught:
        assert Predictor(export).provider == OPENVINO
    assert [warning.filename for warning in caught] == [__file__]
    played.faults[OPENVINO] = "run"
    with pytest.warns(ProviderWarning, match="without") as caught:
        assert Predictor(export).provider == CPU
    assert len(caught) == 2


def test_an_onnxruntime_that_does_not_tell_who_does_what(export, played, monkeypatch):
    monkeypatch.delattr(PlayedSession, "get_provider_graph_assignment_info")
    monkeypatch.setattr(PlayedSession, "__getattr__", lambda self, name: getattr(OldSession(self.real), name))
    with pytest.raises(
        ProviderError, match=f"^{COREML} cannot be told from the CPU by an onnxruntime before"
    ):
        Predictor(export, providers="coreml")
    assert Predictor(export, providers="cpu").provider == CPU
    with pytest.warns(ProviderWarning, match="before 1.24"):
        assert Predictor(export).provider == CPU


class OldSession:
    def __init__(self, real):
        self.get_inputs, self.get_outputs, self.get_modelmeta = (
            real.get_inputs,
            real.get_outputs,
            real.get_modelmeta,
        )


@forks
def test_only_the_cpus_is_opened_again_in_a_forked_process(export, played):
    """OpenVINO's would hang there, and CUDA's would find no GPU."""
    for short in ("cuda", "openvino", "xnnpack"):
        Predictor(export, providers=short)
        said = in_fork(lambda short=short: Predictor(export, providers=short))
        assert said.startswith(
            f"ProviderError: {FULL[short]} was started in process {os.getpid()} and does not"
        )
        assert "start processes by 'spawn'" in said

    def auto():
        with pytest.warns(ProviderWarning, match="does not survive the fork") as caught:
            return Predictor(export).provider, len(caught)

    assert in_fork(auto) == str((CPU, 2))
    assert in_fork(lambda: Predictor(export, providers="cpu").provider) == CPU


def test_broken_files_are_not_the_providers_fault(export, played, tmp_path):
    file = tmp_path / "model.onnx"
    played.faults = dict.fromkeys((CUDA, OPENVINO), "start")
    file.write_bytes(add_checksum(b"garbage fertools.seal\x12\x40" + b"0" * 64))
    with pytest.raises(ModelError, match="cannot load"):
        Predictor(file)
    played.faults = {}
    file.write_bytes(add_checksum(tiny_proto(input_name="x").SerializeToString()))
    with pytest.raises(ModelError, match="input must be image"):
        Predictor(file)


def test_threads_and_precision_are_told_to_each(export, played):
    for short in FULL:
        assert Predictor(export, providers=short, threads=3).threads == 3
    told = {providers[0]: (options[0], settings) for providers, options, settings in played.opened}
    assert told[XNNPACK][0] == {"intra_op_num_threads": "3"}
    assert json.loads(told[OPENVINO][0]["load_config"]) == {
        "CPU": {"INFERENCE_NUM_THREADS": "3", "INFERENCE_PRECISION_HINT": "f32"}
    }
    assert told[CUDA][0] == {"use_tf32": "0"}
    assert told[CPU][0] == {}
    pools = {name: settings.intra_op_num_threads for name, (_, settings) in told.items()}
    assert pools == {CPU: 3, CUDA: 3, TENSORRT: 3, COREML: 3, OPENVINO: 1, XNNPACK: 1}
    spinning = "session.intra_op.allow_spinning"
    assert told[XNNPACK][1].get_session_config_entry(spinning) == "0"


def test_options_go_to_the_provider_that_they_are_for(export, played):
    Predictor(export, providers=["xnnpack", "cpu"], threads=2)
    providers, options, _ = played.opened[0]
    assert dict(zip(providers, options, strict=True)) == {XNNPACK: {"intra_op_num_threads": "2"}, CPU: {}}


def test_ort_files_run_on_the_cpu_alone(played, tmp_path):
    write_ort(tmp_path, {"model.onnx": tiny_proto(tiny_info()).SerializeToString()})
    assert Predictor(tmp_path).provider == CPU
    assert Predictor(tmp_path, providers=["cpu"]).provider == CPU
    for providers in ("openvino", ["cuda", "cpu"]):
        with pytest.raises(ProviderError, match=r"model\.ort: made for the CPU, not .*the \.onnx file"):
            Predictor(tmp_path, providers=providers)
    assert {providers[0] for providers, *_ in played.opened} == {CPU}


def test_what_is_installed_here_works_or_says_why_not(export):
    found = try_providers(export / "model.onnx")
    assert list(found) == [*PROVIDERS]
    assert found["cpu"] is None
    for short, (name, source) in PROVIDERS.items():
        if name not in onnxruntime.get_available_providers():
            assert found[short] == f"not installed: {source}"
        elif found[short] is None:
            rows = Predictor(export, providers=short, threads=1).probabilities(FACES)
            np.testing.assert_allclose(rows, tiny_reference(FACES), atol=1e-4)


def test_info(export, played, monkeypatch):
    played.faults = {OPENVINO: "run", COREML: "idle"}
    monkeypatch.setattr("fertools.runtime.session.has_nvidia_gpu", lambda: False)
    result = CliRunner().invoke(main, ["info", "--model", str(export), "--json"])
    facts = json.loads(result.stdout)
    gpu = "there is no NVIDIA GPU, or its driver does not answer"
    reasons = {
        "cpu": None,
        "cuda": gpu,
        "tensorrt": gpu,
        "openvino": f"{OPENVINO} failed in its first run: out of memory",
        "coreml": f"{COREML} has no operator of this network: the CPU would do all of it",
        "xnnpack": None,
    }
    assert facts["provider_status"] == {
        name: {"works": reason is None, "reason": reason} for name, reason in reasons.items()
    }
    assert facts["auto"] == CPU
    lines = CliRunner().invoke(main, ["info", "--model", str(export)]).stdout.splitlines()
    rows = dict(line.split(maxsplit=1) for line in lines)
    assert rows["xnnpack"] == rows["cpu"] == "works"
    assert rows["cuda"] == gpu
    assert rows["auto"] == f"takes     {CPU}"
    played.faults = {}
    facts = json.loads(CliRunner().invoke(main, ["info", "--model", str(export), "--json"]).stdout)
    assert facts["auto"] == Predictor(export).provider == OPENVINO


@pytest.mark.filterwarnings("default::fertools.errors.ProviderWarning")
def test_commands_tell_it_in_a_line(export, played, tmp_path):
    from PIL import Image

    played.faults = {CUDA: "start"}
    Image.fromarray(FACES[0]).save(tmp_path / "face.png")
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "face.png"), "--model", str(export)])
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Warning: auto goes on without {CUDA}: {CUDA} failed to start: no kernel image")
    assert result.stdout.startswith(str(tmp_path / "face.png"))
