"""Makes the parts of the README that follow from the code and the shipped model: python tests/readme.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click

from fertools.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
REPORT = ROOT / "exported" / "sequential" / "report.json"


def current(text: str) -> str:
    """The README with its generated blocks renewed."""
    for name, block in (("result", result()), ("help", help_texts())):
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        text = re.sub(f"{begin}.*?{end}", lambda _: begin + block + end, text, flags=re.DOTALL)  # noqa: B023
    return text


def result() -> str:
    """The table of the shipped model, with the commands that made and show it."""
    report = json.loads(REPORT.read_text())
    verification, training = report["verification"], report["training"]
    lines = [
        "| | accuracy | de-duplicated | flip views | macro F1 | ECE | agrees with Keras | MB | ms an image |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in verification["rows"]:
        scores = row["evaluation"]
        lines.append(
            f"| {row['model']} | {scores['accuracy']:.2%} | {row['accuracy_unseen']:.2%}"
            f" | {_share(row.get('accuracy_flip'))} | {scores['macro_f1']:.2%} | {_share(scores.get('ece'))}"
            f" | {row['agreement']:.2%}"
            f" | {row['bytes'] / 1e6:.1f} | {row['milliseconds']:.2f} |"
        )
    environment, start = verification["environment"], training["weights"]
    lines += [
        "",
        f"FER2013's PrivateTest, {verification['images']:,} images (de-duplicated:"
        f" {verification['images_unseen']:,}), a single view but for the column of flip views (the mean over"
        " an image and its mirror), one seed, never used to choose anything;"
        f" trained on the {training['images']['train']:,} Training images,"
        f" the best of {training['epochs']} epochs chosen on PublicTest"
        f"{_start(start)}."
        f" Times: {environment['timing']}; {environment['processor']}"
        f" ({', '.join(environment['int8_features'])}). Made by the commands on the"
        " [model card](exported/sequential/MODEL_CARD.md), and measured again by",
        "",
        "```sh",
        "fertools verify exported/sequential --data fer2013.csv",
        "```",
        "",
    ]
    return "\n".join(lines)


def _share(value: float | None) -> str:
    """A percentage; a report of schema 1 has neither flip views nor ECE."""
    return "-" if value is None else f"{value:.2%}"


def _start(weights: dict[str, str] | None) -> str:
    return f", started from the weights of `{weights['name']}`" if weights else ""


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
