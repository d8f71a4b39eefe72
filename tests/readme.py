"""Makes the parts of the README that follow from the code and the shipped model: python tests/readme.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from readme_peers import peers

from fertools.cli import main
from fertools.runtime.location import SHIPPED

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
EXPORTED = ROOT / "exported"
#: What benchmarks/peers.py wrote.
PEERS = ROOT / "docs" / "peers.json"


def current(text: str) -> str:
    """The README with its generated blocks renewed."""
    blocks = {"result": result(), "help": help_texts()}
    if PEERS.is_file():
        blocks["peers"] = peers(json.loads(PEERS.read_text()), reports())
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        text = re.sub(f"{begin}.*?{end}", lambda _: begin + block + end, text, flags=re.DOTALL)  # noqa: B023
    return text


def reports() -> dict[str, dict[str, Any]]:
    """The reports of the shipped models by their names."""
    return {name: json.loads((EXPORTED / name / "report.json").read_text()) for name in SHIPPED}


def result() -> str:
    """The table of the shipped models, with the commands that made and show it."""
    shipped = reports()
    lines = [
        "| | | accuracy | de-duplicated | flip views | macro F1 | ECE | agrees with Keras | MB | ms/image |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, report in shipped.items():
        for row in report["verification"]["rows"]:
            scores = row["evaluation"]
            lines.append(
                f"| {name} | {row['model']} | {scores['accuracy']:.2%} | {row['accuracy_unseen']:.2%}"
                f" | {row['accuracy_flip']:.2%} | {scores['macro_f1']:.2%} | {scores['ece']:.2%}"
                f" | {row['agreement']:.2%} | {row['bytes'] / 1e6:.2f} | {row['milliseconds']:.2f} |"
            )
    verification = next(iter(shipped.values()))["verification"]
    environment = verification["environment"]
    lines += [
        "",
        f"FER2013's PrivateTest, {verification['images']:,} images (de-duplicated:"
        f" {verification['images_unseen']:,}), never used to choose anything; a single view but for the"
        " column of flip views (the mean over an image and its mirror). Trained on the Training images;"
        " epochs were chosen on PublicTest, and so was the one temperature that sets the confidence right"
        f" (ECE: expected calibration error, 15 bins). Times: {environment['timing']};"
        f" {environment['processor']}"
        f" ({', '.join(environment['int8_features'])}).",
        "",
        *(f"- {_line(name, report)}" for name, report in shipped.items()),
        "",
        "Measured again by",
        "",
        "```sh",
        *(f"fertools verify exported/{name} --data fer2013.csv" for name in shipped),
        "```",
        "",
    ]
    return "\n".join(lines)


def _line(name: str, report: dict[str, Any]) -> str:
    """What a model is, and where its commands stand."""
    training = report["training"]
    return (
        f"`{name}`: {report['model']['parameters']:,} parameters, seed {training['config']['seed']},"
        f" {training['validation_accuracy']:.2%} on PublicTest; the commands that made it are on its"
        f" [model card](exported/{name}/MODEL_CARD.md)."
    )


def help_texts() -> str:
    """The help of every command, folded away."""
    blocks = []
    for path, command in commands(main, "fertools"):
        # The names of the help option as the sub-commands inherit them.
        names = main.context_settings["help_option_names"]
        context = click.Context(command, info_name=path, terminal_width=88, help_option_names=names)
        blocks.append(
            f"<details><summary><code>{path}</code></summary>\n\n```text\n{command.get_help(context)}\n```\n\n"
            "</details>\n"
        )
    return "\n".join(blocks)


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with the words that call them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


if __name__ == "__main__":
    README.write_text(current(README.read_text()))
