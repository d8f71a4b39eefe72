"""A kit in Node's WebAssembly: run by the page's own script, read back as from any device."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_model import tiny_bytes, tiny_export

import fertools.web
from fertools.contract import INT8_FILE, ONNX_FILE
from fertools.errors import ConfigError, WebError
from fertools.runtime.location import shipped_model
from fertools.verification.kit import read_result, write_kit
from fertools.web import WebConfig, gather

ROOT = Path(__file__).resolve().parent.parent
STATIC = Path(fertools.web.__file__).parent / "static"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node to run the script")


def run(kit: Path, site: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = ["node", ROOT / "examples" / "check_kit.mjs", kit, site, out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("kit")
    write_kit(tiny_export(folder / "tiny"), folder / "kit.zip", images=3)
    return (folder / "kit.zip").read_bytes()


Parts = dict[str, bytes]


def packed(kit: bytes, change: Callable[[Parts], object], method: int = zipfile.ZIP_STORED) -> bytes:
    """The kit after `change` has been made to its parts, as a whole zip."""
    with zipfile.ZipFile(io.BytesIO(kit)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def newer(parts: Parts) -> None:
    parts["kit.json"] = json.dumps(json.loads(parts["kit.json"]) | {"schema": 2}).encode()


def without_onnx(parts: Parts) -> None:
    facts = json.loads(parts["kit.json"])
    for fact in facts["files"]:
        fact["file"] = fact["file"].replace(".onnx", ".ort")
    parts["kit.json"] = json.dumps(facts).encode()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda kit: b"", "not a kit, or its end is missing"),
        (lambda kit: b"hello, I am a text file\n" * 9, "not a kit, or its end is missing"),
        (lambda kit: kit[:-300], "not a kit, or its end is missing"),
        (lambda kit: flipped(kit), "altered or cut short"),
        (lambda kit: packed(kit, dict.clear), "not a kit: it has no kit.json"),
        (lambda kit: packed(kit, lambda parts: None, zipfile.ZIP_DEFLATED), "kit.json: compressed"),
        (lambda kit: packed(kit, newer), "has schema 2"),
        (lambda kit: packed(kit, without_onnx), "has no .onnx file"),
        (lambda kit: packed(kit, lambda parts: parts.pop(ONNX_FILE)), f"{ONNX_FILE}: missing from the kit"),
        (
            lambda kit: packed(kit, lambda parts: parts.update({"images.u8": flipped(parts["images.u8"])})),
            "images.u8: altered",
        ),
        (
            lambda kit: packed(kit, lambda parts: parts.update({ONNX_FILE: flipped(parts[ONNX_FILE])})),
            f"{ONNX_FILE}: altered",
        ),
        (
            lambda kit: packed(kit, lambda parts: parts.update({ONNX_FILE: tiny_bytes(seed=1)})),
            f"{ONNX_FILE}: another version",
        ),
        (
            lambda kit: packed(kit, lambda parts: parts.update({f"{ONNX_FILE}.f32": b"1234"})),
            f"{ONNX_FILE}.f32: cut short",
        ),
    ],
)
def test_what_is_no_whole_kit_is_told(
    kit: bytes, tmp_path: Path, make: Callable[[bytes], bytes], words: str
) -> None:
    (tmp_path / "kit.zip").write_bytes(make(kit))
    done = run(tmp_path / "kit.zip", STATIC, tmp_path / "result.json")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_nodes_answers_are_accepted(tmp_path: Path) -> None:
    export = shipped_model("compact")
    assert export is not None
    try:
        parts = gather(WebConfig())
    except (ConfigError, WebError) as error:
        pytest.skip(str(error))
    for name, content in (parts.ours | parts.others).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    write_kit(export, tmp_path / "kit.zip", images=40)
    done = run(tmp_path / "kit.zip", tmp_path, tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    report = read_result(export, tmp_path / "result.json")
    report.check()
    assert (report.machine, report.provider, report.threads, report.images) == ("wasm", "wasm", 1, 40)
    assert {row.file for row in report.rows} == {ONNX_FILE, INT8_FILE}
    assert all(row.difference <= 0.02 and row.milliseconds > 0 for row in report.rows)
