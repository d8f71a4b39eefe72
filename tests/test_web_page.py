"""The folder that ``fertools web`` and ``fertools export --target web`` write."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from tiny_model import tiny_export

from fertools.cli import main
from fertools.errors import ConfigError, ModelError, WebError
from fertools.runtime.location import shipped_model
from fertools.web import WebConfig, gather, onnxruntime_web, write_page
from fertools.web.page import LICENCES, PAGE_FILE

#: What is in every page, besides the model.
FILES = {
    *("fertools.js", "faces.js", "page.js", "sw.js", "index.html", "style.css", "icon.svg", "page.json"),
    *("kit.js", "check.js", "check.html"),
    *("licences/fertools.txt", "licences/model.txt"),
    *("licences/onnxruntime.txt", "licences/onnxruntime-third-party.txt"),
    *onnxruntime_web.FILES,
}


@pytest.fixture
def fake_yunet(tmp_path: Path) -> Path:
    """A network with a YuNet's outputs, and nothing in between."""
    names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["constant"], [name]) for name in names],
        "yunet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, 320, 320))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in names],
        [numpy_helper.from_array(np.zeros(1, np.float32), "constant")],
    )
    path = tmp_path / "detector" / "yunet.onnx"
    path.parent.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def web(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["web", *map(str, arguments)])


def one_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    *talk, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert not any(line.startswith("Traceback") for line in talk)
    return last


@pytest.mark.usefixtures("runtime_files")
def test_the_small_model_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = web()
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "Without a face detector; --detector adds one." in result.stderr
    assert "Next: python -m http.server --directory web, then open http://localhost:8000" in result.stderr
    compact = shipped_model("compact")
    assert compact is not None
    folder = tmp_path / "web"
    assert files_of(folder) == FILES | {"model.int8.onnx"}
    assert (folder / "model.int8.onnx").read_bytes() == (compact / "model.int8.onnx").read_bytes()
    page = json.loads((folder / PAGE_FILE).read_text())
    assert (page["model"], page["detector"]) == ("model.int8.onnx", None)
    assert any("An expression is not an emotion" in text for text in page["limits"])
    assert "FER2013" in page["data"]
    assert {*page["licences"]} == {name for name in FILES if name.startswith(LICENCES)}


@pytest.mark.usefixtures("runtime_files")
def test_the_terms_of_all_data_behind_the_weights(tmp_path: Path) -> None:
    compact = shipped_model("compact")
    assert compact is not None
    export = shutil.copytree(compact, tmp_path / "export")
    report = json.loads((export / "report.json").read_text())
    report["training"]["other_data"] = [{"name": "far.npz", "fingerprint": "0" * 64}]
    (export / "report.json").write_text(json.dumps(report))
    assert web(export, "--out", tmp_path / "web").exit_code == 0
    told = json.loads((tmp_path / "web" / PAGE_FILE).read_text())["data"]
    assert "FER2013" in told
    assert "Trained on far.npz" in told


@pytest.mark.usefixtures("runtime_files")
def test_the_pages_own_part_is_at_most_a_megabyte(tmp_path: Path) -> None:
    result = web("compact", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document) == {"folder", "model", "bytes"}
    assert document["bytes"]["ours"] <= 1_000_000
    assert sum(document["bytes"].values()) == sum(
        path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()
    )


@pytest.mark.usefixtures("runtime_files")
def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    """No address of another site in what we wrote but names of formats, and a policy that would stop it."""
    write_page(
        gather(WebConfig()), tiny_export(tmp_path / "tiny", "int8") / "model.int8.onnx", tmp_path / "out"
    )
    ours = [name for name in FILES if "/" not in name and name not in onnxruntime_web.FILES]
    for name in sorted(ours):
        addresses = re.findall(
            r"https?://[^\s\"'`<>)]+|//[a-z]+\.[a-z]+", (tmp_path / "out" / name).read_text(encoding="utf-8")
        )
        assert {address.rstrip(".,") for address in addresses} <= {
            "http://localhost:8000",
            "http://localhost:8000/check.html",
            "http://www.w3.org/2000/svg",
        }, name
    for name in ("index.html", "check.html"):
        html = (tmp_path / "out" / name).read_text(encoding="utf-8")
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
        assert policy is not None
        rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert {word for rule in rules.values() for word in rule.split()} <= {
            *("'none'", "'self'", "'wasm-unsafe-eval'", "blob:", "data:")
        }
        assert not re.search(r"<script(?![^>]*src=)|<style| style=| on[a-z]+=", html), (
            "the policy forbids these"
        )


@pytest.mark.usefixtures("runtime_files")
def test_the_worker_keeps_every_file_that_the_page_needs(tmp_path: Path) -> None:
    write_page(
        gather(WebConfig()), tiny_export(tmp_path / "tiny", "int8") / "model.int8.onnx", tmp_path / "out"
    )
    listed = re.search("^const FILES = (.*);$", (tmp_path / "out" / "sw.js").read_text(), re.MULTILINE)
    assert listed is not None
    needed = {name for name in FILES if not name.startswith(LICENCES)} - {"sw.js"}
    assert {*json.loads(listed[1])} == needed | {"./", "model.int8.onnx"}


@pytest.mark.usefixtures("runtime_files")
def test_the_worker_changes_with_what_it_keeps(tmp_path: Path) -> None:
    workers = []
    for seed in (0, 1, 0):
        model = tiny_export(tmp_path / "tiny", "int8", seed=seed) / "model.int8.onnx"
        write_page(gather(WebConfig()), model, tmp_path / "out")
        workers.append((tmp_path / "out" / "sw.js").read_bytes())
    assert workers[0] == workers[2] != workers[1]


@pytest.mark.usefixtures("runtime_files")
@pytest.mark.parametrize("name", ["detector.onnx", "v#2 50%.onnx"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_models_file_has_its_own_name_in_the_page(
    tmp_path: Path, fake_yunet: Path, name: str, precision: str
) -> None:
    (model,) = tiny_export(tmp_path / "tiny", precision).iterdir()
    renamed = model.rename(tmp_path / name)
    result = web(renamed, "--out", tmp_path / "out", "--detector", fake_yunet, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == model.name
    assert json.loads((tmp_path / "out" / PAGE_FILE).read_text())["model"] == model.name
    assert (tmp_path / "out" / model.name).read_bytes() == renamed.read_bytes()
    assert (tmp_path / "out" / "detector.onnx").read_bytes() == fake_yunet.read_bytes()


@pytest.mark.usefixtures("runtime_files")
def test_a_detector_comes_with_its_constants_and_its_licence(tmp_path: Path, fake_yunet: Path) -> None:
    result = web("--out", tmp_path / "out", "--detector", fake_yunet)
    assert result.exit_code == 0, result.output
    assert f"No LICENSE beside {fake_yunet}" in result.stderr
    (fake_yunet.parent / "LICENSE").write_text("as you like")
    result = web("--out", tmp_path / "out", "--detector", fake_yunet)
    assert "No LICENSE" not in result.stderr
    assert (tmp_path / "out" / "licences" / "detector.txt").read_text() == "as you like"
    assert (tmp_path / "out" / "detector.onnx").read_bytes() == fake_yunet.read_bytes()
    detector = json.loads((tmp_path / "out" / PAGE_FILE).read_text())["detector"]
    assert "Without a face detector" not in result.stderr
    assert detector["file"] == "detector.onnx"
    assert len(detector["template"]) == 5


@pytest.mark.usefixtures("runtime_files")
def test_the_detector_of_the_environment(
    tmp_path: Path, fake_yunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERTOOLS_DETECTOR", str(fake_yunet))
    out = tmp_path / "my page"
    result = web("--out", out)
    assert (out / "detector.onnx").read_bytes() == fake_yunet.read_bytes()
    assert f"--directory '{out}', then" in result.stderr
    monkeypatch.setenv("FERTOOLS_DETECTOR", "haar")
    result = web("--out", out)
    assert (result.exit_code, "Without a face detector" in result.stderr) == (0, True)
    assert not (out / "detector.onnx").exists()
    assert "haar: is inside OpenCV; a page takes only" in one_line(web("--detector", "haar", "--out", out))


@pytest.mark.usefixtures("runtime_files")
def test_a_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert web("--out", out).exit_code == 0
    assert web("--out", out, "--precision", "int8").exit_code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "holds other things than a page" in one_line(web("--out", tmp_path / "mine"))
    assert files_of(tmp_path / "mine") == {"notes.txt"}
    (out / "licences" / "mine.txt").write_text("mine")
    assert "holds other things than a page (licences/mine.txt)" in one_line(web("--out", out))
    (out / PAGE_FILE).write_text("{}")
    assert "holds other things than a page" in one_line(web("--out", out))
    assert (out / "licences" / "mine.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert "is a file" in one_line(web("--out", tmp_path / "file"))


@pytest.mark.usefixtures("runtime_files")
def test_unusable_models_and_detectors(tmp_path: Path, fake_yunet: Path) -> None:
    tiny = tiny_export(tmp_path / "tiny", "int8")
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    assert "no such model" in one_line(web(tmp_path / "nowhere"))
    assert "has no float32 model" in one_line(web(tiny, "--precision", "float32", "--out", tmp_path / "out"))
    assert "not a model exported by fertools" in one_line(web(text, "--out", tmp_path / "out"))
    file = tiny / "model.int8.onnx"
    wrong = one_line(web(file, "--precision", "float32", "--out", tmp_path / "out"))
    assert "its precision is int8, not float32" in wrong
    assert "No such file" in one_line(web("--detector", tmp_path / "no.onnx", "--out", tmp_path / "out"))
    assert "not an ONNX file" in one_line(web("--detector", text, "--out", tmp_path / "out"))
    assert "not a YuNet" in one_line(web("--detector", tiny / "model.int8.onnx", "--out", tmp_path / "out"))
    (tiny / "model.int8.onnx").rename(tiny / "model.int8.ort")
    with pytest.raises(ModelError, match=r"takes an \.onnx file"):
        write_page(gather(WebConfig(detector=fake_yunet)), tiny / "model.int8.ort", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_runtimes_files_are_checked(tmp_path: Path, runtime_files: Path) -> None:
    assert gather(WebConfig(onnxruntime_web=runtime_files)).others["ort.wasm.min.mjs"]
    (runtime_files / "ort.wasm.min.mjs").write_text("// of another version")
    with pytest.raises(ConfigError, match=r"ort\.wasm\.min\.mjs: not that of onnxruntime-web"):
        gather(WebConfig())
    (runtime_files / "ort.wasm.min.mjs").unlink()
    with pytest.raises(ConfigError, match="No such file"):
        gather(WebConfig(onnxruntime_web=runtime_files.parent))


def fake_npm(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)


def test_npm_fetches_them_once(tmp_path: Path, runtime_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(onnxruntime_web.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "fetched.tgz", "w:gz") as archive:
        archive.add(runtime_files, "package/dist")
    record = tmp_path / "calls"
    fake_npm(tmp_path / "bin", f'echo "$@" >> {record}; cp {tmp_path}/fetched.tgz .')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    said: list[str] = []
    for _ in range(2):
        assert gather(WebConfig(), say=said.append).others["ort.wasm.min.mjs"] == b"// ort.wasm.min.mjs"
    assert len(said) == 1
    assert record.read_text().split()[:2] == ["pack", f"onnxruntime-web@{onnxruntime_web.VERSION}"]
    assert record.read_text().count("\n") == 1


@pytest.mark.usefixtures("runtime_files")
def test_npm_that_fails_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(onnxruntime_web.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fake_npm(tmp_path / "bin", "echo 'npm error no network' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin")
    with pytest.raises(WebError, match=r"npm cannot fetch onnxruntime-web .*: npm error no network"):
        gather(WebConfig())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WebError, match="npm, which would fetch it, is not installed"):
        gather(WebConfig())
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("runtime_files")
def test_export_with_a_page(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["export", str(small_run), "--out", str(out), "--target", "web"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert files_of(out / "web") == FILES | {"model.int8.onnx"}
    assert (out / "web" / "model.int8.onnx").read_bytes() == (out / "model.int8.onnx").read_bytes()
    assert f"Next: python -m http.server --directory {out}/web" in result.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["target"] == "web"
    assert {name for name in report["files"] if name.startswith("web/")} == {
        f"web/{name}" for name in files_of(out / "web")
    }
    assert "--target web" in (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert CliRunner().invoke(main, arguments).exit_code == 0  # in its own place
    result = CliRunner().invoke(main, [*arguments, "--onnxruntime-web", str(tmp_path / "none")])
    assert "No such file" in one_line(result)
    usage = CliRunner().invoke(main, ["export", str(small_run), "--detector", "yunet.onnx"])
    assert usage.exit_code == 2
    assert "go with --target web" in usage.stderr


def test_the_current_folder_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the runtime's files are fetched, which this test has none of."""
    monkeypatch.chdir(tmp_path)
    assert "Error: .: is the current folder or holds it" in one_line(web("--out", "."))
