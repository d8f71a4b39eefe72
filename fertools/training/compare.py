"""Find the runs that are to be compared, and sum them up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fertools.models import find
from fertools.training.comparison import Comparison, Entry
from fertools.training.config import TrainConfig
from fertools.training.provenance import label
from fertools.training.run import Run
from fertools.training.seeds import open_runs
from fertools.training.sweep import Sweep, is_sweep


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare what lies at ``paths``: runs, folders of seeds (an entry each), sweeps (an entry a point).

    Unfinished runs are compared as far as they have come. Raises RunError for what is none of these, or is
    damaged.
    """
    groups = [group for path in paths for group in _groups(path)]
    short = [label(group.path) for group in groups]
    names = [name if short.count(name) == 1 else str(g.path) for name, g in zip(short, groups, strict=True)]
    entries = [group.entry(name) for name, group in zip(names, groups, strict=True)]
    finished = [run for group in groups for run in group.runs if run.finished]
    best = max(finished, key=lambda run: float(run.metrics["validation"]["accuracy"]), default=None)
    return Comparison(tuple(entries), best)


@dataclass(frozen=True)
class _Group:
    """The runs of an entry: folder -> configuration, and why those that failed did."""

    path: Path
    configs: Mapping[Path, TrainConfig]
    failures: Mapping[Path, str]

    @property
    def runs(self) -> list[Run]:
        return [Run(path) for path in self.configs]

    def entry(self, name: str) -> Entry:
        several = len(self.configs) > 1
        config = next(iter(self.configs.values()))
        histories = [run.history() for run in self.runs if run.finished or not several]
        return Entry(
            name=name,
            path=self.path,
            model=config.model,
            parameters=find(config.model).parameters,
            planned=config.epochs,
            histories=tuple(tuple(history) for history in histories if history),
            note=self.note(),
        )

    def note(self) -> str:
        left = [run for run in self.runs if not run.finished]
        if not left:
            return ""
        count = len(self.configs)
        notes = [f"{count - len(left)} of {count} seeds finished"] if count > 1 else []
        reasons = (self.failures.get(run.path) for run in left)
        notes += dict.fromkeys(f"failed: {reason}" for reason in reasons if reason)
        return "; ".join(notes) or "unfinished"


def _groups(path: Path) -> Iterator[_Group]:
    if not is_sweep(path):
        runs = open_runs(path)
        yield _Group(path, {run.path: run.config for run in runs}, {})
        return
    sweep = Sweep(path)
    configs = sweep.configs
    failures = {path / name: why for name, why in sweep.failures.items()}
    for point, names in sweep.points.items():
        yield _Group(path / point, {path / name: configs[name] for name in names}, failures)
