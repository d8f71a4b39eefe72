"""The page of the ablation: its text follows from the runs."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.core import ParameterSource
from told_run import told_run

from fertools.training import TrainConfig
from fertools.training.comparison import compare

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a file of the benchmark, which is importable only in a test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("ablation_report")


@pytest.fixture
def study(report: Any) -> Any:
    """What the runs have in common."""
    return report.Study("Each alone", "compact", 2, "--mixup 0")


@pytest.fixture
def changes(report: Any) -> Any:
    """A recipe with two seeds, and one change."""
    return (
        report.Change("the start"),
        report.Change("the start, seed 1", "--seed 1"),
        report.Change("a teacher", "--teachers exported/compact", command="distill"),
    )


@pytest.fixture
def ablation(report: Any, study: Any, changes: Any, tmp_path: Path) -> Any:
    """Results of the study: the change is better."""
    told = ((0.3, 0.6), (0.3, 0.585), (0.65, 0.62))
    runs = [
        told_run(tmp_path / change.folder, accuracies).path
        for change, accuracies in zip(changes, told, strict=True)
    ]
    entries = compare(runs).entries
    outcomes = (report.outcome_of(*pair) for pair in zip(changes, entries, strict=True))
    return report.Ablation("some CPU", "float32", (report.Result(study, tuple(outcomes)),))


def test_rows(report: Any, ablation: Any) -> None:
    rows = [line for line in report.page(ablation).splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| the start |  | 60.00% |  | 2 | 0.4000 |  | 70.0% |",
        "| the start, seed 1 | `--seed 1` | 58.50% | -1.50 | 2 | 0.4150 | +0.0150 | 68.5% |",
        "| a teacher | `fertools distill --teachers exported/compact` | 65.00% | +5.00 | 1 | 0.3500"
        " | -0.0500 | 72.0% |",
    ]


def test_what_differences_count(report: Any, ablation: Any) -> None:
    page = report.page(ablation)
    assert "`compact`, 2 epochs, every run with `--mixup 0`." in page
    assert "2 seeds of the start lie 1.50 points and 0.0150 in log loss apart" in page


def test_written_and_read(report: Any, ablation: Any) -> None:
    assert report.Ablation.from_dict(json.loads(json.dumps(ablation.to_dict()))) == ablation


def test_the_page_is_of_the_figures_beside_it(report: Any) -> None:
    figures = json.loads((ROOT / "docs" / "ablation.json").read_text(encoding="utf-8"))
    ablation = report.Ablation.from_dict(figures)
    assert (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8") == report.page(ablation)
    for result in ablation.results:
        assert (ROOT / "docs" / f"ablation-{result.study.folder}.png").is_file()


def test_what_is_unfinished_is_left_out(
    study: Any, changes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation = importlib.import_module("ablation")
    monkeypatch.setattr(ablation, "DOCS", tmp_path)
    assert ablation.summed_up(study, changes, tmp_path) == []
    told_run(tmp_path / changes[0].folder, (0.3, 0.6))
    (result,) = ablation.summed_up(study, changes, tmp_path)
    assert [outcome.name for outcome in result.outcomes] == ["the start"]
    assert (tmp_path / "ablation-each-alone.png").is_file()


def test_the_changes_are_options(report: Any) -> None:
    """The command line accepts each, and none sets an option to the value that it already has."""
    for study, changes in importlib.import_module("ablation").STUDIES.items():
        common = parsed("train", study.common)
        assert common.keys() <= {field.name for field in dataclasses.fields(TrainConfig)}
        for change in changes:
            given = parsed(change.command, change.options)
            assert bool(given) == bool(change.options)
            assert given.items().isdisjoint((TrainConfig().to_dict() | common).items())


def parsed(command: str, options: str) -> dict[str, Any]:
    """Return the values that ``options`` give to the command."""
    from fertools.cli import main

    context = main.get_command(click.Context(main), command).make_context(command, options.split())
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
