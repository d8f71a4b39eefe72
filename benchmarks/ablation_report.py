"""The page of benchmarks/ablation.py: what each change of the default recipe does."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fertools.training.comparison import Entry

#: The name of the change that is none.
DEFAULT = "the default recipe"


@dataclass(frozen=True)
class Change:
    """What a run does otherwise than the default recipe."""

    name: str
    #: Of the command line.
    options: str = ""
    command: str = "train"

    @property
    def folder(self) -> str:
        """The name of its run."""
        return self.name.replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Outcome:
    """What a run came to: accuracies as shares and losses in nats, of PublicTest if nothing else is said."""

    name: str
    options: str
    command: str
    best_accuracy: float
    best_epoch: int
    best_loss: float
    #: Of the last epoch, as it learned: with dropout and augmentation.
    training_accuracy: float


@dataclass(frozen=True)
class Ablation:
    """All that the page shows; the first outcome is that of the default recipe."""

    model: str
    epochs: int
    device: str
    precision: str
    outcomes: tuple[Outcome, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Ablation":
        """The inverse of ``to_dict``."""
        return cls(**document | {"outcomes": tuple(Outcome(**each) for each in document["outcomes"])})


def outcome_of(change: Change, entry: Entry) -> Outcome:
    """What the one run of ``entry`` came to."""
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
    base = ablation.outcomes[0]
    seeds = [each for each in ablation.outcomes if each.name.startswith(DEFAULT)]
    lines = [
        "# One change at a time",
        "",
        f"The default recipe of `fertools train`, and runs that differ from it in one thing each:"
        f" `{ablation.model}`, {ablation.epochs} epochs, seed 0 if nothing else is said, on"
        f" {ablation.device} in {ablation.precision}. Everything is of PublicTest, the validation split of"
        " 3,589 images, where the standard error of an accuracy is 0.8 points. The"
        f" {len(seeds)} seeds of the default recipe lie {spread(seeds):.2f} points apart: smaller differences"
        " say nothing. So short a run favours what learns fast; what regularizes wants a longer one.",
        "",
        "Made by",
        "",
        "```sh",
        "python benchmarks/ablation.py SRC --out ablation",
        "```",
        "",
        "| | options | best accuracy | points | its epoch | least log loss | change | last, in training |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in ablation.outcomes:
        said = f"`fertools {each.command} {each.options}`" if each.command != "train" else f"`{each.options}`"
        points, change = 100 * (each.best_accuracy - base.best_accuracy), each.best_loss - base.best_loss
        lines.append(
            f"| {each.name} | {said if each.options else ''} | {each.best_accuracy:.2%}"
            f" | {'' if each is base else f'{points:+.2f}'} | {each.best_epoch} | {each.best_loss:.4f}"
            f" | {'' if each is base else f'{change:+.4f}'} | {each.training_accuracy:.1%} |"
        )
    return "\n".join([*lines, "", "![Accuracy and loss by epoch](ablation.png)", ""])


def spread(outcomes: list[Outcome]) -> float:
    """From the worst to the best accuracy, in points."""
    accuracies = [each.best_accuracy for each in outcomes]
    return 100 * (max(accuracies) - min(accuracies))
