"""The page of the published networks: its text follows from its figures."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from told_run import told_run

from fertools.models import NETWORKS
from fertools.models.measured import measured
from fertools.models.network import Published
from fertools.training import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def module(name: str) -> Any:
    """Import a file of the benchmark, which is importable only in a test."""
    return importlib.import_module(name)


def an_export(folder: Path) -> Path:
    """What the page reads from an export: 3 of 4 test images are predicted as Angry, 2 correctly."""
    confusion = [[2, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0], *[[0] * 7] * 5]
    rows = [
        {
            "model": form,
            "evaluation": {"accuracy": accuracy, "confusion": confusion},
            "agreement": agreement,
            "bytes": size,
        }
        for form, accuracy, agreement, size in (
            ("keras", 0.5, 1.0, 4_000_000),
            ("onnx", 0.5, 1.0, 3_000_000),
            ("int8", 0.25, 0.75, 1_000_000),
        )
    ]
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"verification": {"rows": rows}}))
    return folder


@pytest.fixture
def outcome(tmp_path: Path) -> Any:
    """A run of three epochs, of which the second is best."""
    run = told_run(tmp_path / "run", (0.3, 0.6, 0.4), config=TrainConfig(model="cnn3", epochs=3))
    (tmp_path / "run" / "run.json").write_text(
        json.dumps(json.loads((tmp_path / "run" / "run.json").read_text()) | {"commands": ["fertools train"]})
    )
    return module("baseline_report").read_outcome(run, an_export(tmp_path / "export"))


def test_what_is_read(outcome: Any) -> None:
    assert (outcome.network, outcome.epochs, outcome.best_epoch) == ("cnn3", 3, 2)
    assert (outcome.best_validation, outcome.last_validation) == (0.6, 0.4)
    assert outcome.test == {"keras": 0.5, "onnx": 0.5, "int8": 0.25}
    assert (outcome.most_frequent, outcome.bytes) == (0.75, 1_000_000)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("PublicTest", 0.6),
        ("PrivateTest", 0.5),
        ("PublicTest + PrivateTest", 0.55),
        ("a random 20% of all images", None),
    ],
)
def test_measured_on_the_images_of_the_published_result(outcome: Any, split: str, expected: float) -> None:
    assert module("baseline_report").measured_there(Published(0.5, split, ""), outcome) == expected


def test_without_an_export_there_is_no_test_figure(outcome: Any) -> None:
    report = module("baseline_report")
    unexported = dataclasses.replace(outcome, test={}, agreement={}, bytes=None, most_frequent=None)
    assert report.measured_there(Published(0.5, "PrivateTest", ""), unexported) is None
    assert report.measured_there(Published(0.5, "PublicTest + PrivateTest", ""), unexported) is None
    page = report.page(report.Baselines((unexported,), "", (), ("cnn3",)))
    (row,) = re.findall(r"^\| `cnn3` \| 2 of 3 .*$", page, flags=re.MULTILINE)
    assert row == "| `cnn3` | 2 of 3 | 60.00% | 40.00% | - | - | - | - | - | - |"


def test_every_published_result_stands_on_the_page(outcome: Any) -> None:
    report = module("baseline_report")
    page = report.page(report.Baselines((outcome,), "", (), ("cnn3",)))
    for network in NETWORKS.values():
        for published in network.published:
            row = next(
                line
                for line in page.splitlines()
                if f"`{network.name}` | " in line and str(published) in line
            )
            assert row.endswith("| 60.00% | 3 |" if network.name == "cnn3" else "| - | not trained |")


def test_a_network_trained_later_is_added(outcome: Any) -> None:
    report = module("baseline_report")
    before = report.Baselines((outcome,), "", (), ("cnn3",))
    again = dataclasses.replace(outcome, best_validation=0.7)
    other = dataclasses.replace(outcome, network="resnet18")
    after = before.updated([again, other])
    assert after.outcomes == (again, other)
    assert "not in the picture" not in report.page(before)
    assert "Trained later, and not in the picture: `resnet18`." in report.page(after)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({"0.1": 0.5, "0.01": 0.4}, "is `learning_rate=0.1`, `learning_rate=0.01`. .* leads here, too."),
        ({"0.1": 0.3, "0.01": 0.4}, "is `learning_rate=0.01`, `learning_rate=0.1`. .* it is number 2."),
        ({"0.1": 0.3, "0.01": 0.3}, "is `learning_rate=0.1`, `learning_rate=0.01`. .* leads here, too."),
        ({"0.01": 0.3}, "is `learning_rate=0.01`. .* came to no end here."),
    ],
)
def test_the_order_of_learning_rates(accuracies: dict[str, float], expected: str) -> None:
    entries = [
        {
            "name": f"learning_rate={rate}",
            "validation": [{"best_accuracy": accuracy, "best_loss": 1 / float(rate)}],
        }
        for rate, accuracy in accuracies.items()
    ]
    if "0.1" not in accuracies:
        entries.append({"name": "learning_rate=0.1", "validation": []})
    assert re.search(expected, module("baseline_report").order(entries))


def test_the_page_follows_from_its_figures() -> None:
    report = module("baseline_report")
    baselines = report.Baselines.from_dict(json.loads((DOCS / "baselines.json").read_bytes()))
    assert (DOCS / "baselines.md").read_text(encoding="utf-8") == report.page(baselines)


def test_the_package_tells_the_same() -> None:
    document = json.loads((DOCS / "baselines.json").read_bytes())
    told = {
        outcome["network"]: (outcome["epochs"], outcome["best_validation"], outcome["test"]["keras"])
        for outcome in document["outcomes"]
        if outcome["test"]
    }
    assert told == {
        name: (run.epochs, run.validation, run.test) for name, runs in measured().items() for run in runs
    }
    assert {"mlp", "mlp-scaled", "cnn3", "cnn3-sgd", "shallow", "sequential"} <= told.keys()
