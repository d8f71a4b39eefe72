"""The kit for a device: written, run by its own script, and read back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from tiny_model import tiny_export, tiny_info, tiny_proto

from fertools.cli import main
from fertools.contract import INT8_FILE, ONNX_FILE
from fertools.data import synthetic
from fertools.errors import DataError, GateError, ModelError
from fertools.runtime.metadata import add_checksum
from fertools.runtime.providers import PROVIDERS
from fertools.verification import check
from fertools.verification.kit import DEVICE_AGREEMENT, read_result, write_kit

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 60


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("export") / "tiny")


@pytest.fixture(scope="module")
def kit(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked kit. Not to be written to."""
    folder = tmp_path_factory.mktemp("kit")
    assert write_kit(export, folder / "kit.zip", images=IMAGES) == IMAGES
    with zipfile.ZipFile(folder / "kit.zip") as archive:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def run(kit: Path, work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run check.py as on a device: without this project on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", str(kit / "check.py"), *arguments]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def result(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("device")
    done = run(kit, work)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if "model." in line] == ["100.00%"] * 2
    return work / "result.json"


def changed(result: Path, place: Path, change) -> Path:
    """Copy a result and apply ``change`` to its document."""
    document = json.loads(result.read_text())
    change(document)
    place.write_text(json.dumps(document))
    return place


def test_the_same_machine_agrees_with_itself(export: Path, result: Path) -> None:
    report = read_result(export, result)
    report.check()
    assert report.images == IMAGES
    assert {row.file for row in report.rows} == {ONNX_FILE, INT8_FILE}
    assert all(row.agreement == 1 and row.difference == 0 and row.milliseconds > 0 for row in report.rows)


def test_the_script_needs_nothing_of_ours(kit: Path) -> None:
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "print({name.partition('.')[0] for name in sys.modules} & {'fertools', 'click', 'onnx', 'numpy'})"
    )
    command = [sys.executable, "-I", "-c", code, str(kit / "check.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_same_kit_has_the_same_bytes(export: Path, tmp_path: Path) -> None:
    for name in ("first.zip", "second.zip"):
        write_kit(export, tmp_path / name, images=9)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("place", "byte"),
    [(None, None), (b'{"', b"x"), (b'{"', b"\xff"), (b"versions", b"V"), (b"fertools.seal", b"F")],
)
def test_one_altered_byte_fails(kit: Path, tmp_path: Path, place: bytes | None, byte: bytes | None) -> None:
    """A weight, or the metadata, which is JSON then no more, or lacks an entry."""
    files = shutil.copytree(kit, tmp_path / "files")
    data = bytearray((files / ONNX_FILE).read_bytes())
    if place is None:
        data[len(data) // 2] ^= 1
    else:
        start = data.index(place)
        data[start : start + 1] = byte
    (files / ONNX_FILE).write_bytes(data)
    done = run(kit, tmp_path, "--files", str(files))
    assert done.returncode == 1
    assert "altered since its export" in done.stderr
    assert not (tmp_path / "result.json").exists()


def test_another_export_of_the_same_weights_is_not_altered(kit: Path, tmp_path: Path) -> None:
    """Such as one that was quantized with other images."""
    files = shutil.copytree(kit, tmp_path / "files")
    proto = onnx.load_from_string((files / ONNX_FILE).read_bytes())
    proto.doc_string = "another"
    seal = next(entry for entry in proto.metadata_props if entry.key == "fertools.seal")
    seal.value = "0" * 64
    (files / ONNX_FILE).write_bytes(add_checksum(proto.SerializeToString()))
    done = run(kit, tmp_path, "--files", str(files))
    assert done.returncode == 1
    assert "another export (tiny, weights " in done.stderr


def test_what_is_installed_may_be_one_file(kit: Path, tmp_path: Path) -> None:
    files = tmp_path / "installed"
    files.mkdir()
    done = run(kit, tmp_path, "--files", str(files))
    assert done.returncode == 1
    assert f"holds none of {INT8_FILE}, {ONNX_FILE}" in done.stderr
    shutil.copy(kit / INT8_FILE, files)
    done = run(kit, tmp_path, "--files", str(files))
    assert done.returncode == 0, done.stderr
    assert f"{ONNX_FILE:<20}not in {files}: not checked" in done.stdout.splitlines()
    assert [row["file"] for row in json.loads((tmp_path / "result.json").read_text())["files"]] == [INT8_FILE]


def test_wrong_options_are_one_line(kit: Path, tmp_path: Path) -> None:
    done = run(kit, tmp_path, "--out", "nowhere/result.json")
    assert (done.returncode, done.stdout) == (1, "")  # before the work
    assert done.stderr.startswith("Error: nowhere: no such folder")
    for threads in ("0", "-1", "two"):
        assert run(kit, tmp_path, "--threads", threads).returncode == 2


def test_another_version_is_told_apart(kit: Path, tmp_path: Path) -> None:
    files = tiny_export(tmp_path / "files", seed=1)
    other = onnx.load_from_string((files / ONNX_FILE).read_bytes())
    assert other.graph.name == "tiny"
    done = run(kit, tmp_path, "--files", str(files))
    assert done.returncode == 1
    assert "another export" in done.stderr
    assert tiny_info(seed=1).weights_sha256[:12] in done.stderr


def test_the_script_names_providers_as_the_runtime_does(kit: Path, tmp_path: Path) -> None:
    assert {name: full for name, (full, _) in PROVIDERS.items()} == check.PROVIDERS
    done = run(kit, tmp_path, "--provider", "cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["provider"] == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["coreml", "CoreMLExecutionProvider", "gpu"])
def test_a_provider_that_is_not_there(kit: Path, tmp_path: Path, name: str) -> None:
    if check.PROVIDERS.get(name, name) in onnxruntime.get_available_providers():
        pytest.skip(f"{name} is in this build")
    done = run(kit, tmp_path, "--provider", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {name}: not in the installed onnxruntime, which has ")
    assert "cpu" in done.stderr
    assert done.stderr.count("\n") == 1


CUDA = "CUDAExecutionProvider"


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(), reason="it is not in this build"
)
def test_a_provider_that_runs_nothing_is_no_device(kit: Path, tmp_path: Path) -> None:
    """Azure's has no operators, but onnxruntime names it as the session's first."""
    done = run(kit, tmp_path, "--provider", "AzureExecutionProvider")
    assert done.returncode == 1
    assert "AzureExecutionProvider has no operator of model." in done.stderr
    assert not (tmp_path / "result.json").exists()


class Old:
    """The installed onnxruntime without what came with 1.24: what each provider computes."""

    def __getattr__(self, name: str) -> object:
        return getattr(onnxruntime, name)

    class InferenceSession(onnxruntime.InferenceSession):
        get_provider_graph_assignment_info = property()


@pytest.mark.parametrize(
    ("provider", "runs"), [("CPUExecutionProvider", True), ("AzureExecutionProvider", False)]
)
def test_an_old_onnxruntime_shows_it_by_a_profile(kit: Path, monkeypatch, provider: str, runs: bool) -> None:
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"{provider} is not in this build")
    monkeypatch.setitem(sys.modules, "onnxruntime", Old())
    facts = check.parse((kit / "kit.json").read_bytes())
    found = check.profiled(Old(), kit / ONNX_FILE, facts, provider)
    assert (provider in found) is runs
    if not runs:
        with pytest.raises(check.CheckError, match=f"{provider} has no operator of"):
            check.check(kit, kit, provider, 1)


class Played:
    """An onnxruntime with CUDA; ``faults`` say what goes wrong."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        self.started: list[tuple[list[str], list[dict[str, str]]]] = []
        self.preloaded = 0
        self.SessionOptions = onnxruntime.SessionOptions
        self.__version__ = onnxruntime.__version__

    def get_available_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        self.preloaded += 1
        print("libcudnn not found")

    def InferenceSession(self, path, options, providers, provider_options, enable_fallback):  # noqa: N802
        assert enable_fallback == 0
        if not options.enable_profiling:
            self.started.append((providers, provider_options))
        if "old" in self.faults and provider_options[0]:
            raise RuntimeError('Unknown provider option: "use_tf32".')
        if "start" in self.faults:
            raise RuntimeError("no kernel image")
        real = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        played = SimpleNamespace(get_modelmeta=real.get_modelmeta, run=real.run)
        if options.enable_profiling:
            profile = Path(f"{options.profile_file_prefix}.json")
            profile.write_text(json.dumps([{"cat": "Session"}, {"args": {"provider": providers[0]}}]))
            played.end_profiling = lambda: str(profile)
        played.get_providers = lambda: [*providers, "CPUExecutionProvider"]
        if "old" not in self.faults:
            parts = [SimpleNamespace(ep_name="CPUExecutionProvider")]
            parts += [] if "idle" in self.faults else [SimpleNamespace(ep_name=providers[0])]
            played.get_provider_graph_assignment_info = lambda: parts
        return played


def test_a_gpu_computes_as_the_predictor_has_it(kit: Path, monkeypatch, capsys) -> None:
    played = Played()
    monkeypatch.setitem(sys.modules, "onnxruntime", played)
    assert check.check(kit, kit, CUDA, 1)["provider"] == CUDA
    assert played.preloaded == 1
    assert played.started == [([CUDA], [{"use_tf32": "0"}])] * 2
    assert capsys.readouterr() == ("", "libcudnn not found\n")


def test_an_onnxruntime_without_that_option(kit: Path, monkeypatch) -> None:
    played = Played("old")
    monkeypatch.setitem(sys.modules, "onnxruntime", played)
    assert check.check(kit, kit, CUDA, 1)["provider"] == CUDA
    assert [settings for _, (settings,) in played.started] == [{"use_tf32": "0"}, {}] * 2


@pytest.mark.parametrize(
    ("fault", "message"), [("idle", f"{CUDA} has no operator of"), ("start", f"on {CUDA}: no kernel image")]
)
def test_a_gpu_that_runs_nothing(kit: Path, monkeypatch, fault, message) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", Played(fault))
    with pytest.raises(check.CheckError, match=message):
        check.check(kit, kit, CUDA, 1)


def test_altered_images_are_refused(kit: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(kit, tmp_path / "kit")
    (copy / "images.u8").write_bytes((kit / "images.u8").read_bytes()[:-1])
    done = run(copy, tmp_path)
    assert done.returncode == 1
    assert done.stderr == "Error: images.u8: altered or cut short; copy the kit again\n"


@pytest.mark.parametrize("name", ["kit.json", "images.u8", f"{ONNX_FILE}.f32"])
@pytest.mark.parametrize("content", [None, b"{", b"[]"])
def test_an_incomplete_kit_is_one_line(kit: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    copy = shutil.copytree(kit, tmp_path / "kit")
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    done = run(copy, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {name}: ")
    assert done.stderr.endswith("; copy the kit again\n")
    assert done.stderr.count("\n") == 1


def test_a_device_that_answers_otherwise_breaks_the_gate(export: Path, result: Path, tmp_path: Path) -> None:
    import base64

    def swap(document) -> None:
        row = document["files"][0]
        answers = np.frombuffer(base64.b64decode(row["answers"]), "<f4").reshape(IMAGES, 7).copy()
        answers[0] = np.roll(answers[0], 1)  # one image in 60
        row["answers"] = base64.b64encode(answers.tobytes()).decode()
        row["agreement"] = 1.0  # the device's own claim is ignored

    report = read_result(export, changed(result, tmp_path / "result.json", swap))
    assert not report.passed
    assert min(row.agreement for row in report.rows) == 1 - 1 / IMAGES < DEVICE_AGREEMENT
    with pytest.raises(GateError, match="the same class on less than"):
        report.check()


def test_answers_that_are_no_numbers_break_the_gate(export: Path, result: Path, tmp_path: Path) -> None:
    import base64

    def spoil(document) -> None:
        answers = np.full((IMAGES, 7), np.nan, "<f4")
        document["files"][0]["answers"] = base64.b64encode(answers.tobytes()).decode()

    assert not read_result(export, changed(result, tmp_path / "result.json", spoil)).passed


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("files"),
        lambda document: document.update(files=[]),
        lambda document: document.update(schema=99),
        lambda document: document["images"].update(count=0),
        lambda document: document["images"].update(count=10**9),
        lambda document: document["images"].update(sha256="0" * 64),
        lambda document: document["files"][0].update(answers="no"),
        lambda document: document["files"][0].update(file="../../etc/passwd"),
        lambda document: document["files"][0].update(sha256="0" * 64),
        lambda document: document.update(device=None),
        lambda document: document.update(images=[]),
    ],
)
def test_damaged_results_are_refused(export: Path, result: Path, tmp_path: Path, change) -> None:
    with pytest.raises(DataError):
        read_result(export, changed(result, tmp_path / "result.json", change))


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0", "[" * 100_000])
def test_what_is_no_result_is_refused(export: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError):
        read_result(export, tmp_path / "result.json")


def test_own_data_travels_on_request(export: Path, tmp_path: Path) -> None:
    faces = synthetic.generate(0, 0, 40, seed=5)
    write_kit(export, tmp_path / "kit.zip", faces, images=30)
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        archive.extractall(tmp_path / "kit")
    done = run(tmp_path / "kit", tmp_path)
    assert done.returncode == 0
    assert read_result(export, tmp_path / "result.json", faces).images == 30
    with pytest.raises(DataError, match="name that data with --data"):
        read_result(export, tmp_path / "result.json")
    other = synthetic.generate(0, 0, 40, seed=6)
    with pytest.raises(DataError, match="name that data with --data"):
        read_result(export, tmp_path / "result.json", other)


def test_a_kit_of_a_model_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["verify", "compact", "--kit", "kit.zip", "--images", "2"])
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile("kit.zip") as archive:
        assert json.loads(archive.read("kit.json"))["model"] == "compact"


def test_a_folder_without_models_has_no_kit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model file"):
        write_kit(tmp_path, tmp_path / "kit.zip")
    assert not (tmp_path / "kit.zip").exists()


def test_a_kit_replaces_nothing_but_a_kit(export: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("holiday.txt", "photos")
    before = other.read_bytes()
    done = CliRunner().invoke(main, ["verify", str(export), "--kit", str(other)])
    assert done.exit_code == 1
    assert done.stderr == f"Error: {other}: is there and no kit, so it is not replaced; choose another name\n"
    assert other.read_bytes() == before
    assert write_kit(export, tmp_path / "kit.zip", images=3) == 3
    assert write_kit(export, tmp_path / "kit.zip", images=4) == 4
    done = CliRunner().invoke(main, ["verify", str(export), "--kit", "victim.png"])
    assert (done.exit_code, done.stdout) == (2, "")


def test_the_commands(small_export: Path, tmp_path: Path) -> None:
    """Write a kit, run it, read it back: the device is in the report and on the card, once."""
    folder = shutil.copytree(small_export, tmp_path / "out")
    kit = tmp_path / "kit.zip"
    done = CliRunner().invoke(main, ["verify", str(folder), "--kit", str(kit), "--images", "20"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{kit}\n"
    assert f"Next, with its result: fertools verify {folder} --device result.json" in done.stderr
    with zipfile.ZipFile(kit) as archive:
        archive.extractall(tmp_path / "kit")
    assert run(tmp_path / "kit", tmp_path).returncode == 0
    arguments = ["verify", str(folder), "--device", str(tmp_path / "result.json")]
    for words in ([], ["--json"]):
        done = CliRunner().invoke(main, [*arguments, *words])
        assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["passed"] is True
    report = json.loads((folder / "report.json").read_text())
    (device,) = report["devices"]
    assert device["images"] == 20
    assert [row["agreement"] for row in device["files"]] == [1, 1]
    card = (folder / "MODEL_CARD.md").read_bytes()
    assert report["files"]["MODEL_CARD.md"]["sha256"] == hashlib.sha256(card).hexdigest()
    assert b"## Devices\n\nImages of a kit" in card
    assert device["processor"].encode() in card
    whole = (folder / "report.json").read_text()
    for damaged in ("[1]", '{"files": {}}', whole.replace('"temperature_scaling"', '"calibration"'),
                    whole.replace('"processor"', '"cpu"'), json.dumps({**report, "files": [1]})):  # fmt: skip
        assert damaged != whole
        (folder / "report.json").write_text(damaged)
        done = CliRunner().invoke(main, arguments)
        assert (done.exit_code, done.stderr[:7]) == (1, "Error: "), done.output
        assert "damaged or of another version of fertools" in done.stderr
        assert (folder / "report.json").read_text() == damaged
        assert (folder / "MODEL_CARD.md").read_bytes() == card


@pytest.mark.parametrize(
    "words",
    [
        ["--kit", "kit.zip", "--device", "result.json"],
        ["--images", "3"],
        ["--kit", "kit.zip", "--other-data"],
    ],
)
def test_options_that_do_not_go_together(words) -> None:
    assert CliRunner().invoke(main, ["verify", "exported/mine", *words]).exit_code == 2


def test_pictures_of_people_travel_by_name_only(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERTOOLS_DATA", str(tmp_path / "missing.csv"))
    done = CliRunner().invoke(main, ["verify", str(export), "--kit", str(tmp_path / "kit.zip")])
    assert done.exit_code == 0, done.output
    assert "300 images, drawn faces." in done.stderr


def library() -> Path | None:
    """Where onnxruntime's header and library for C are: $FERTOOLS_TEST_ONNXRUNTIME, or Debian's."""
    for root in (os.environ.get("FERTOOLS_TEST_ONNXRUNTIME", ""), "/usr"):
        if root and any(Path(root, "include").glob("**/onnxruntime_c_api.h")):
            return Path(root)
    return None


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cmake"), reason="there is no cmake")
@pytest.mark.skipif(library() is None, reason="there is no header of onnxruntime's C API")
def test_the_program_in_c_plus_plus_runs_the_kit(kit: Path, tmp_path: Path) -> None:
    source = ROOT / "examples" / "cpp"
    for command in (
        ["cmake", "-S", source, "-B", tmp_path, f"-DONNXRUNTIME_ROOT={library()}"],
        ["cmake", "--build", tmp_path],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([tmp_path / "check", kit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same class 100.00%") == 2
    broken = shutil.copytree(kit, tmp_path / "broken")
    proto = tiny_proto(seed=1)
    (broken / INT8_FILE).write_bytes(add_checksum(proto.SerializeToString()))
    done = subprocess.run([tmp_path / "check", broken], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.count("FAILS") == 1
    proto = tiny_proto()
    (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(7, np.nan, np.float32), "bias"))
    (broken / INT8_FILE).write_bytes(add_checksum(proto.SerializeToString()))
    first = np.tile(np.eye(7, dtype="<f4")[0], (IMAGES, 1))  # a comparison with NaN finds this class, too
    (broken / f"{INT8_FILE}.f32").write_bytes(first.tobytes())
    done = subprocess.run([tmp_path / "check", broken], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "same class   0.00%" in done.stdout
