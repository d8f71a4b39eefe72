"""The commands and the data that made a run or an export, as recorded beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fertools import contract
from fertools.reading import read_text


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

    Later versions may have other defaults, or another meaning of an option.

    Arguments:
        name: the run's folder.
        options: all options with an effect, see ``TrainConfig.told``.
        facts: its run.json, which has its first weights, its teachers and the version.
    """
    words = ["fertools", "train"]
    distillation, weights = facts.get("distillation"), facts.get("weights")
    if distillation:
        words = ["fertools", "distill", "--teachers", *(each["name"] for each in distillation["teachers"])]
        words += ["--temperature", f"{distillation['temperature']:g}"]
        words += ["--label-share", f"{distillation['label_share']:g}"]
        if distillation.get("versions"):
            words += ["--versions", str(distillation["versions"])]
    words += ["--data", "SRC", "--out", name]
    if weights:
        words += ["--weights", weights["name"]]
    if facts.get("other_data"):
        words += ["--other-data"]
    for option, value in options.items():
        if value != "":
            words += [f"--{option.replace('_', '-')}", str(value)]
    version = facts.get("versions", {}).get("fertools")
    return shlex.join(words) + (f"  # fertools {version}" if version else "")


def earlier_commands(paths: Iterable[Path]) -> list[str]:
    """Return the commands that made the runs, export folders or files of either at ``paths``, each once.

    Files from elsewhere have none.
    """
    commands: dict[str, None] = {}
    for path in paths:
        folder = path if path.is_dir() else path.parent
        for name, find in ((contract.RUN_FILE, _of_run), (contract.REPORT_FILE, _of_export)):
            if (file := folder / name).is_file():
                facts = json.loads(read_text(file))
                commands.update(dict.fromkeys(find(facts, label(folder))))
    return list(commands)


def origins(path: Path) -> list[dict[str, str]]:
    """Return name and fingerprint of the training data of a run, an export folder or a file in either.

    Its own data comes first, then other data that its teachers and its first weights were trained on. Empty
    if unknown, as for a file that was copied elsewhere.
    """
    folder = path if path.is_dir() else path.parent
    for name, find in ((contract.RUN_FILE, _run_origins), (contract.REPORT_FILE, _export_origins)):
        try:
            found = find(json.loads(read_text(folder / name)))
            return [{key: str(data[key]) for key in ("name", "fingerprint")} for data in found]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return []


def _run_origins(facts: Any) -> list[Any]:
    return [facts["data"], *facts.get("other_data", ())]


def _export_origins(report: Any) -> list[Any]:
    return [report["model"]["data"], *report.get("training", {}).get("other_data", ())]


def _of_run(facts: Mapping[str, Any], name: str) -> list[str]:
    return list(facts.get("commands", ()))


def _of_export(report: Mapping[str, Any], name: str) -> list[str]:
    """Return the commands of its run or its members, and the one that exports it as ``name``."""
    if "training" not in report:
        return []
    training = report["training"]
    return [*training["commands"], f"{export_command(training)} --out {shlex.quote(name)}"]


def export_command(training: Mapping[str, Any]) -> str:
    """Return the command that makes an export from its run or its members, according to its report.

    Other options do not change its network.
    """
    if members := training.get("members"):
        words = ["ensemble", *(member["name"] for member in members)]
        if len({member["weight"] for member in members}) > 1:
            words += ["--weights", ",".join(f"{member['weight']:g}" for member in members)]
    else:
        words = ["export", training["run"]]
    return shlex.join(["fertools", *words, "--data", "SRC"])
