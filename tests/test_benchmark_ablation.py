"""The page of the ablation: what it says follows from the runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click
import pytest
from click.core import ParameterSource
from told_run import told_run

from fertools.training import TrainConfig
from fertools.training.compare import compare

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file of the benchmark; it is importable in a test only."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("ablation_report")


@pytest.fixture
def ablation(report: Any, tmp_path: Path) -> Any:
    """The default recipe with two seeds, and one change, which is better."""
    changes = (
        report.Change(report.DEFAULT),
        report.Change(f"{report.DEFAULT}, seed 1", "--seed 1"),
        report.Change("a teacher", "--teachers exported/compact", command="distill"),
    )
    told = ((0.3, 0.6), (0.3, 0.585), (0.65, 0.62))
    runs = [
        told_run(tmp_path / change.folder, accuracies).path
        for change, accuracies in zip(changes, told, strict=True)
    ]
    outcomes = [
        report.outcome_of(change, entry) for change, entry in zip(changes, compare(runs).entries, strict=True)
    ]
    return report.Ablation("compact", 2, "some CPU", "float32", tuple(outcomes))


def test_rows(report: Any, ablation: Any) -> None:
    rows = [line for line in report.page(ablation).splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| the default recipe |  | 60.00% |  | 2 | 0.4000 |  | 70.0% |",
        "| the default recipe, seed 1 | `--seed 1` | 58.50% | -1.50 | 2 | 0.4150 | +0.0150 | 68.5% |",
        "| a teacher | `fertools distill --teachers exported/compact` | 65.00% | +5.00 | 1 | 0.3500"
        " | -0.0500 | 72.0% |",
    ]


def test_what_differences_count(report: Any, ablation: Any) -> None:
    assert "2 seeds of the default recipe lie 1.50 points apart" in report.page(ablation)


def test_written_and_read(report: Any, ablation: Any) -> None:
    assert report.Ablation.from_dict(ablation.to_dict()) == ablation


def test_the_changes_are_options(report: Any) -> None:
    """Each is accepted by the command line, and none gives an option the value that it has anyhow."""
    from fertools.cli import main

    for change in importlib.import_module("ablation").CHANGES:
        command = main.get_command(click.Context(main), change.command)
        context = command.make_context(change.command, change.options.split())
        given = {
            name: value
            for name, value in context.params.items()
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        assert bool(given) == bool(change.options)
        assert given.items().isdisjoint(TrainConfig().to_dict().items())
