"""The table of the camera's degradations follows from its figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import readme
from told_run import told_run

from fertools.files import write_json
from fertools.training import TrainConfig
from fertools.training.config import CAMERA_KINDS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, which is importable only in a test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("camera")


def test_each_kind_is_left_out_once(camera: Any) -> None:
    left_out = set()
    for options in camera.RUNS.values():
        words = options.split()
        given = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
        fields = {name.replace("-", "_"): value for name, value in given.items()}
        for name in {"camera", "camera_strength"} & fields.keys():
            fields[name] = float(fields[name])
        config = TrainConfig(**fields)
        left_out.add(frozenset(CAMERA_KINDS) - frozenset(config.camera_kinds.split(",")))
    assert left_out == {frozenset(), *(frozenset([kind]) for kind in CAMERA_KINDS)}


def test_the_table() -> None:
    changes = {name: 0.5 + place / 100 for place, name in enumerate(readme.CAMERA_CHANGES)}
    row = {"clean": 0.68, "mean": 0.64, "changes": changes}
    document = {
        "model": "compact",
        "common": "--epochs 1",
        "device": "some CPU",
        "precision": "float32",
        "split": "validation",
        "images": 1024,
        "rows": [
            {"name": "no camera", "options": "", **row},
            {"name": "all kinds", "options": "--camera 0.6", **row, "mean": 0.65},
        ],
    }
    text = readme.camera(document)
    assert "1,024 images of the validation split" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    means = "50.0% | 51.0% | 52.0% | 53.0% | 54.0% | 55.0%"
    assert rows == [
        f"| no camera |  | 68.0% | 64.0% | {means} |",
        f"| all kinds | `--camera 0.6` | 68.0% | 65.0% | {means} |",
    ]


def test_the_figures_are_of_these_runs(camera: Any) -> None:
    """That the page shows them is checked with the other generated blocks, in tests/test_readme.py."""
    document = json.loads(readme.CAMERA.read_text(encoding="utf-8"))
    assert {row["name"]: row["options"] for row in document["rows"]} == camera.RUNS


def test_a_run_with_other_options_is_not_taken(camera: Any, tmp_path: Path) -> None:
    run = told_run(tmp_path / "run", [0.2])
    command = (
        "fertools train --data SRC --out run --weights a/best.keras --epochs 2 --mixup 0.10  # fertools 1"
    )
    write_json(run.path / "run.json", run.facts | {"commands": [command]})
    assert camera.complete(
        run.path, "faces.npz", "train", "--epochs", 2, "--mixup", "0.1", "--weights", "x/a"
    )
    with pytest.raises(SystemExit, match="made with --epochs 2, not 3; name another --out"):
        camera.complete(run.path, "faces.npz", "train", "--epochs", 3)
