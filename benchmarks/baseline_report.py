"""The page of benchmarks/baselines.py: what was published and what was measured, side by side."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fertools import contract
from fertools.models import NETWORKS
from fertools.models.network import Published
from fertools.training import Run
from fertools.training.comparison import Summary

#: The recipe that trains every network here.
RECIPE = "original"
INTRODUCTION = """\
# Published networks, measured

Each was published as a notebook. Here the same commands train, export, quantize, verify and run all of them:
`fertools models` lists them, `fertools models show NAME` draws one, and `fertools train --model NAME --recipe
original` trains it as its author did. This page is written by

```sh
python benchmarks/baselines.py SRC --out baselines
```

which trains on two CPU cores for the number of epochs given below. One run each, seed 0, a single view; the
epoch was chosen on PublicTest, the validation split (3,589 images), so that figures on it flatter;
PrivateTest is the test split (3,589 images) and decided nothing. "Measured there" is the measured accuracy on
the images that the published one was measured on. What was not trained here has no measured figure.
"""


@dataclass(frozen=True)
class Outcome:
    """Results of training one network; accuracies are shares."""

    network: str
    recipe: str
    command: str
    device: str
    precision: str
    epochs: int
    best_epoch: int
    best_validation: float
    last_validation: float
    #: Form -> accuracy on the test split; empty if it was not exported.
    test: dict[str, float]
    #: Form -> share of the test images with Keras' class.
    agreement: dict[str, float]
    #: Bytes of the smallest file.
    bytes: int | None
    #: Share of the test images that get the most frequent answer.
    most_frequent: float | None


@dataclass(frozen=True)
class Baselines:
    """All that the page shows."""

    outcomes: tuple[Outcome, ...]
    sweep_command: str
    #: Entries of ``fertools compare --json``.
    sweep: tuple[dict[str, Any], ...]
    #: The networks in the picture, which were trained together.
    pictured: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Baselines":
        """The inverse of ``to_dict``."""
        outcomes = tuple(Outcome(**outcome) for outcome in document["outcomes"])
        sweep, pictured = (tuple(document[name]) for name in ("sweep", "pictured"))
        return cls(outcomes, document["sweep_command"], sweep, pictured)

    def updated(self, outcomes: Sequence[Outcome]) -> "Baselines":
        """Return the same with other ``outcomes`` of the networks that they are of."""
        found = {outcome.network: outcome for outcome in (*self.outcomes, *outcomes)}
        return dataclasses.replace(self, outcomes=tuple(found.values()))


def read_outcome(run: Run, export: Path) -> Outcome:
    """Return the results of a run and its export."""
    summary, facts = Summary.of(run.history()), run.facts
    file = export / contract.REPORT_FILE
    rows = []
    if file.is_file():
        rows = json.loads(file.read_text(encoding="utf-8"))["verification"]["rows"]
    confusion = rows[0]["evaluation"]["confusion"] if rows else []
    answers = [sum(row[answer] for row in confusion) for answer in range(len(confusion))]
    return Outcome(
        network=run.config.model,
        recipe=RECIPE,
        command=facts["commands"][-1],
        device=facts["device"]["name"],
        precision=facts["precision"],
        epochs=summary.epochs,
        best_epoch=summary.best_accuracy_epoch,
        best_validation=summary.best_accuracy,
        last_validation=summary.final_accuracy,
        test={row["model"]: row["evaluation"]["accuracy"] for row in rows},
        agreement={row["model"]: row["agreement"] for row in rows},
        bytes=rows[-1]["bytes"] if rows else None,
        most_frequent=max(answers) / sum(answers) if rows else None,
    )


def measured_there(published: Published, outcome: Outcome) -> float | None:
    """Return the accuracy measured on the images of a published result, None if ours are others."""
    test = outcome.test.get("keras")
    found = {"PublicTest": outcome.best_validation, "PrivateTest": test}
    if test is not None:  # the two splits are equally large
        found["PublicTest + PrivateTest"] = (outcome.best_validation + test) / 2
    return found.get(published.split)


def page(baselines: Baselines) -> str:
    """The page as Markdown."""
    outcomes = {outcome.network: outcome for outcome in baselines.outcomes}
    parts = [
        INTRODUCTION,
        "| network | parameters | multiply-adds | published | measured there | epochs here |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for network in NETWORKS.values():
        for published in network.published:
            outcome = outcomes.get(network.name)
            there = measured_there(published, outcome) if outcome else None
            parts.append(
                f"| `{network.name}` | {network.parameters:,} | {network.multiply_adds:,} | {published}"
                f" | {share(there)} | {outcome.epochs if outcome else 'not trained'} |"
            )
    parts += [
        "",
        "## Measured",
        "",
        'Agreement is with Keras, on PrivateTest. "One answer" is the share of PrivateTest that gets the most'
        " frequent answer; the most frequent label has a quarter of the images. Where int8 has no figure, it"
        " broke a gate of the verification and was not written: another class on more than 15 of 1,000"
        " images, or half a point of accuracy lost. MB is of the int8 file, or of the ONNX file without one.",
        "",
        "| network | best epoch | PublicTest | last epoch | PrivateTest: Keras | ONNX | int8 | int8 agreement"
        " | MB | one answer |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for outcome in outcomes.values():
        forms = " | ".join(share(outcome.test.get(form)) for form in ("keras", "onnx", "int8"))
        size = f"{outcome.bytes / 1e6:.2f}" if outcome.bytes else "-"
        parts.append(
            f"| `{outcome.network}` | {outcome.best_epoch} of {outcome.epochs}"
            f" | {share(outcome.best_validation)} | {share(outcome.last_validation)} | {forms}"
            f" | {share(outcome.agreement.get('int8'))} | {size} | {share(outcome.most_frequent)} |"
        )
    devices = sorted({outcome.device for outcome in outcomes.values()})
    later = [f"`{name}`" for name in outcomes if name not in baselines.pictured]
    parts += [
        "",
        "![Accuracy and loss by epoch](baselines.png)",
        "",
        *([f"Trained later, and not in the picture: {', '.join(later)}.", ""] if later else []),
        f"Trained on {', '.join(devices)}, by",
        "",
        "```sh",
        *(outcome.command for outcome in outcomes.values()),
        "```",
        "",
    ]
    if baselines.sweep:
        parts += sweep(baselines)
    return "\n".join(parts)


def sweep(baselines: Baselines) -> list[str]:
    """The learning rates of resnet18."""
    lines = [
        "## Learning rates of resnet18",
        "",
        "The published study trained it with these. Accuracies and losses are of PublicTest.",
        "",
        "```sh",
        baselines.sweep_command,
        "```",
        "",
        "| run | epochs | best accuracy | its epoch | last | best loss | last |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for entry in baselines.sweep:
        for run in entry["validation"]:
            lines.append(
                f"| {entry['name']} | {run['epochs']} of {entry['planned_epochs']}"
                f" | {share(run['best_accuracy'])} | {run['best_accuracy_epoch']}"
                f" | {share(run['final_accuracy'])} | {run['best_loss']:.4f} | {run['final_loss']:.4f} |"
            )
    return [*lines, "", order(baselines.sweep), "", "![Accuracy and loss by epoch](baselines-sweep.png)", ""]


def order(entries: Sequence[dict[str, Any]]) -> str:
    """Whether the rate of the published results leads here, too."""
    runs = {entry["name"]: run for entry in entries for run in entry["validation"]}
    ranked = sorted(runs, key=lambda name: (-runs[name]["best_accuracy"], runs[name]["best_loss"]))
    published = f"learning_rate={NETWORKS['resnet18'].recipes[RECIPE]['learning_rate']}"
    if published not in ranked:
        verdict = "came to no end here"
    elif ranked[0] == published:
        verdict = "leads here, too"
    else:
        verdict = f"does not lead after so few epochs: it is number {ranked.index(published) + 1}"
    names = ", ".join(f"`{name}`" for name in ranked)
    return (
        f"By best accuracy (where it is equal, by loss) the order is {names}."
        f" The published results were trained with `{published}`, which {verdict}."
    )


def share(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{value:.2%}"
