"""The commands and the data that made a run or an export, as recorded beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fertools import contract
from fertools.reading import read_text

#: So many of a SHA-256 tell networks apart.
DIGITS = 8


def label(path: Path) -> str:
    """Return the name of a run, an export folder or a file: enough of its path to identify it."""
    path = path.resolve()
    common = path.name.startswith(contract.SEED_PREFIX) or path.name in (
        contract.BEST_FILE,
        contract.KERAS_FILE,
    )
    return "/".join(path.parts[-2:]) if common else path.name


def train_command(name: str, options: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the command that makes the run ``name``, with all effective options and the version.

    Later versions may have other defaults, or another meaning of an option; and another network may have a
    teacher's name by then. So a comment has the version and the first digits of the networks' weights.

    Arguments:
        name: the run's folder.
        options: all options with an effect, see ``TrainConfig.told``.
        facts: its run.json, which has its first weights, its teachers and the version.
    """
    words = ["fertools", "train"]
    distillation, weights = facts.get("distillation"), facts.get("weights")
    if distillation:
        words = ["fertools", "distill", "--teachers", *(each["name"] for each in distillation["teachers"])]
        words += ["--temperature", f"{distillation['temperature']:.15g}"]
        words += ["--label-share", f"{distillation['label_share']:.15g}"]
        if distillation.get("versions"):
            words += ["--versions", str(distillation["versions"])]
    words += ["--data", "SRC", "--out", name]
    if weights:
        words += ["--weights", weights["name"]]
    if facts.get("other_data"):
        words += ["--other-data"]
    without_labels = distillation is not None and not distillation["label_share"]
    for option, value in options.items():
        idle = option == "label_smoothing" and without_labels
        if value != "" and not idle:
            words += [f"--{option.replace('_', '-')}", str(value)]
    version = facts.get("versions", {}).get("fertools")
    named = {each["name"]: each for each in [*(distillation or {}).get("teachers", []), weights] if each}
    return _commented(
        words,
        *([f"fertools {version}"] if version else []),
        *(f"{name} is {each['sha256'][:DIGITS]}" for name, each in named.items()),
    )


def earlier_commands(paths: Iterable[Path]) -> list[str]:
    """Return the commands that made the runs, export folders or files of either at ``paths``, each once.

    Files from elsewhere have none, and folders whose records are damaged.
    """
    commands: dict[str, None] = {}
    for path in paths:
        folder = path if path.is_dir() else path.parent
        for name, find in ((contract.RUN_FILE, _of_run), (contract.REPORT_FILE, _of_export)):
            try:
                commands.update(dict.fromkeys(find(json.loads(read_text(folder / name)), folder)))
            except (OSError, ValueError, LookupError, TypeError):
                continue
    return list(commands)


def origins(path: Path) -> list[dict[str, str]]:
    """Return name and fingerprint of the training data of a run, an export folder or a file in either.

    Its own data comes first, then other data that its teachers and its first weights were trained on. Empty
    if unknown, as for a file that was copied elsewhere.
    """
    return _behind(path)[0]


def unknown_origins(paths: Iterable[Path]) -> list[str]:
    """Return the names of the networks behind ``paths`` whose training data is unknown, each once.

    They are the files at ``paths`` without a record beside them, and those that a record names.
    """
    return list(dict.fromkeys(name for path in paths for name in _behind(path)[1]))


def unknown_note(name: str) -> str:
    """Return the note about a network whose training data is unknown."""
    return f"the training data of {name} is unknown"


def _behind(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Return the known data behind a network, its own first, and the names of networks of unknown data."""
    folder = path if path.is_dir() else path.parent
    for name, find in ((contract.RUN_FILE, _run_data), (contract.REPORT_FILE, _export_data)):
        try:
            own, record = find(json.loads(read_text(folder / name)))
            known = [
                {key: str(data[key]) for key in ("name", "fingerprint")}
                for data in (own, *record.get("other_data", ()))
            ]
            return known, [str(each) for each in record.get("unknown_data", ())]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return [], [label(path)]


def _run_data(facts: Any) -> tuple[Any, Any]:
    return facts["data"], facts


def _export_data(report: Any) -> tuple[Any, Any]:
    return report["model"]["data"], report.get("training", {})


def _of_run(facts: Any, folder: Path) -> list[str]:
    """Return its commands; of a run that has not finished, the last tells how far it came."""
    commands = list(facts["commands"])
    if not (folder / contract.METRICS_FILE).is_file():
        epochs = max(len(read_text(folder / contract.HISTORY_FILE).splitlines()) - 1, 0)
        commands[-1] += f"{', ' if '  # ' in commands[-1] else '  # '}stopped after {epochs} epochs"
    return commands


def _of_export(report: Any, folder: Path) -> list[str]:
    """Return the commands of what it was made of, and the one that makes an export of this name."""
    training, weights = report["training"], report["model"]["weights_sha256"]
    words = [*_export_words(training), "--out", label(folder)]
    return [*training["commands"], _commented(words, f"weights {weights[:DIGITS]}")]


def export_command(training: Mapping[str, Any]) -> str:
    """Return the command that makes an export from what it was made of, according to its report.

    Other options do not change its network.
    """
    return shlex.join(_export_words(training))


def _export_words(training: Mapping[str, Any]) -> list[str]:
    if export := training.get("export"):
        words = ["export", export]
    elif members := training.get("members"):
        words = ["ensemble", *(member["name"] for member in members)]
        if len({member["weight"] for member in members}) > 1:
            words += ["--weights", ",".join(f"{member['weight']:g}" for member in members)]
    else:
        words = ["export", training["run"]]
    return ["fertools", *words, "--data", "SRC"]


def _commented(words: Iterable[str], *facts: str) -> str:
    return shlex.join(words) + (f"  # {', '.join(facts)}" if facts else "")
