"""The page of benchmarks/ablation.py: what each change of a recipe does."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fertools.training.comparison import Entry


@dataclass(frozen=True)
class Change:
    """How a run differs from the first one of its study."""

    name: str
    #: Command-line options.
    options: str = ""
    command: str = "train"

    @property
    def folder(self) -> str:
        """The name of its run."""
        return self.name.replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Study:
    """What runs of one network and length have in common; the others are compared with the first."""

    name: str
    model: str
    epochs: int
    #: Options that all of its runs are given, before those of their change.
    common: str

    @property
    def folder(self) -> str:
        """The name of the folder with its runs, and of its picture."""
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class Outcome:
    """Results of a run: accuracies as shares and losses in nats, on PublicTest unless stated otherwise."""

    name: str
    options: str
    command: str
    best_accuracy: float
    best_epoch: int
    best_loss: float
    #: In the last epoch while training: with dropout and augmentation.
    training_accuracy: float


@dataclass(frozen=True)
class Result:
    """Results of the finished runs of a study."""

    study: Study
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Ablation:
    """All that the page shows."""

    device: str
    precision: str
    results: tuple[Result, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Ablation":
        """The inverse of ``to_dict``."""
        results = tuple(
            Result(Study(**each["study"]), tuple(Outcome(**outcome) for outcome in each["outcomes"]))
            for each in document["results"]
        )
        return cls(**document | {"results": results})


def outcome_of(change: Change, entry: Entry) -> Outcome:
    """Return the results of the one run of ``entry``."""
    (summary,), (history,) = entry.summaries, entry.histories
    return Outcome(
        name=change.name,
        options=change.options,
        command=change.command,
        best_accuracy=summary.best_accuracy,
        best_epoch=summary.best_accuracy_epoch,
        best_loss=summary.best_loss,
        training_accuracy=history[-1].accuracy,
    )


def page(ablation: Ablation) -> str:
    """The page as Markdown."""
    lines = [
        "# One change at a time",
        "",
        "Training recipes that differ in one thing, compared on PublicTest, the validation split of 3,589"
        f" images, where the standard error of an accuracy is 0.8 points: on {ablation.device} in"
        f" {ablation.precision}, seed 0 unless stated. The conclusions are in"
        " [recipe.md](recipe.md). Made by",
        "",
        "```sh",
        "python benchmarks/ablation.py SRC --out ablation",
        "```",
        "",
    ]
    for result in ablation.results:
        lines += _section(result)
    return "\n".join(lines)


def _section(result: Result) -> list[str]:
    """A study's lines."""
    study, base = result.study, result.outcomes[0]
    lines = [
        f"## {study.name}",
        "",
        f"`{study.model}`, {study.epochs} epochs"
        + (f", every run with `{study.common}`." if study.common else ".")
        + _on_seeds(result),
        "",
        "| | options | best accuracy | points | its epoch | least log loss | change | last, in training |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in result.outcomes:
        said = f"`fertools {each.command} {each.options}`" if each.command != "train" else f"`{each.options}`"
        points, change = 100 * (each.best_accuracy - base.best_accuracy), each.best_loss - base.best_loss
        lines.append(
            f"| {each.name} | {said if each.options else ''} | {each.best_accuracy:.2%}"
            f" | {'' if each is base else f'{points:+.2f}'} | {each.best_epoch} | {each.best_loss:.4f}"
            f" | {'' if each is base else f'{change:+.4f}'} | {each.training_accuracy:.1%} |"
        )
    return [*lines, "", f"![{study.name}: accuracy and loss by epoch](ablation-{study.folder}.png)", ""]


def _on_seeds(result: Result) -> str:
    """Describe how far apart the seeds of the first run are, if there are several."""
    base = result.outcomes[0]
    seeds = [base, *(each for each in result.outcomes if each.name.startswith(f"{base.name}, seed "))]
    if len(seeds) == 1:
        return ""
    accuracies, losses = [each.best_accuracy for each in seeds], [each.best_loss for each in seeds]
    return (
        f" The {len(seeds)} seeds of {base.name} lie {100 * (max(accuracies) - min(accuracies)):.2f} points"
        f" and {max(losses) - min(losses):.4f} in log loss apart: smaller differences say nothing."
    )
