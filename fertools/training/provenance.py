"""The commands that made a run, in order: its own, and before it those of what it started or learned from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fertools import contract
from fertools.reading import read_text
from fertools.training.config import TrainConfig
from fertools.training.run import PREFIX


def label(path: Path) -> str:
    """What a run, an export folder or a file is called: enough of its path to tell it from its like."""
    path = path.resolve()
    common = path.name.startswith(PREFIX) or path.name in ("best.keras", contract.KERAS_FILE)
    return "/".join(path.parts[-2:]) if common else path.name


def train_command(name: str, config: TrainConfig, facts: Mapping[str, Any]) -> str:
    """The command that makes the run ``name``, with every option that counts and the version it was given to.

    Later versions may have other defaults, or mean another thing by an option.

    Arguments:
        name: the run's folder.
        config: what it was told.
        facts: its run.json, for the weights that it started from, its teachers and the version.
    """
    words = ["fertools", "train"]
    distillation, weights = facts.get("distillation"), facts.get("weights")
    if distillation:
        words = ["fertools", "distill", "--teachers", *(each["name"] for each in distillation["teachers"])]
        words += ["--temperature", f"{distillation['temperature']:g}"]
        words += ["--label-share", f"{distillation['label_share']:g}"]
    words += ["--data", "SRC", "--out", name]
    if weights:
        words += ["--weights", weights["name"]]
    if facts.get("other_data"):
        words += ["--other-data"]
    for option, value in config.told().items():
        if value != "":
            words += [f"--{option.replace('_', '-')}", str(value)]
    version = facts.get("versions", {}).get("fertools")
    return shlex.join(words) + (f"  # fertools {version}" if version else "")


def earlier_commands(paths: Iterable[Path]) -> list[str]:
    """The commands that made the runs, export folders or files of either at ``paths``, each once.

    What was made elsewhere has none.
    """
    commands: dict[str, None] = {}
    for path in paths:
        folder = path if path.is_dir() else path.parent
        for file, find in ((folder / "run.json", _of_run), (folder / contract.REPORT_FILE, _of_export)):
            if file.is_file():
                facts = json.loads(read_text(file))
                commands.update(dict.fromkeys(find(facts, label(folder))))
    return list(commands)


def origins(path: Path) -> list[dict[str, str]]:
    """Name and fingerprint of the data that a run, an export folder or a file in either was trained on.

    Its own data first, then what its teachers and its first weights were trained on, where that is other
    data. Empty where nothing tells, as of a file that was copied away.
    """
    folder = path if path.is_dir() else path.parent
    for file, find in ((folder / "run.json", _run_origins), (folder / contract.REPORT_FILE, _export_origins)):
        try:
            found = find(json.loads(read_text(file)))
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
    """Those of its run or its members, and the one that makes its network ``name``."""
    if "training" not in report:
        return []
    training = report["training"]
    return [*training["commands"], f"{export_command(training)} --out {shlex.quote(name)}"]


def export_command(training: Mapping[str, Any]) -> str:
    """The command that makes an export from its run or its members, as its report tells of them.

    What else it was told does not change its network.
    """
    if members := training.get("members"):
        words = ["ensemble", *(member["name"] for member in members)]
        if len({member["weight"] for member in members}) > 1:
            words += ["--weights", ",".join(f"{member['weight']:g}" for member in members)]
    else:
        words = ["export", training["run"]]
    return shlex.join(["fertools", *words, "--data", "SRC"])
