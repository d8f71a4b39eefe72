"""The devices benchmark: nothing of an earlier run is taken for this one's."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_export

from fertools.errors import ModelError

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, which is importable only in a test."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("devices")


def test_other_versions_get_a_bare_environment_of_their_own(
    devices: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(devices.venv, "create", lambda folder, with_pip: None)
    monkeypatch.setattr(devices, "program", lambda *command: installed.append(command[-1]))
    commands = []
    for version in ("1.26", "1.27", "1.27"):
        monkeypatch.setattr(devices.metadata, "version", lambda name, version=version: version)
        commands.append(devices.bare(tmp_path))
    assert installed == ["onnxruntime==1.26", "onnxruntime==1.27"]
    assert commands[0] != commands[1] == commands[2]


def test_a_device_that_cannot_run_the_check_has_not_passed(
    devices: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though it could the last time."""
    export, work = tiny_export(tmp_path / "tiny", "int8"), tmp_path / "work"
    monkeypatch.setattr(sys, "argv", ["devices.py", str(export), "--images", "10", "--work", str(work)])
    monkeypatch.setattr(devices, "pythons", lambda work, names: [("a device", [sys.executable, "-I"])])
    with pytest.raises(SystemExit) as ended:
        devices.main()
    assert not ended.value.code
    assert "100.00%" in capsys.readouterr().out
    broken = [sys.executable, "-c", "raise SystemExit('numpy is missing')"]
    monkeypatch.setattr(devices, "pythons", lambda work, names: [("a device", broken)])
    with pytest.raises(ModelError, match=r"check\.py fails on a device: numpy is missing"):
        devices.main()
