"""The model card, rendered from the report's figures by ``model_card.md.jinja``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fertools import contract
from fertools.errors import ModelError
from fertools.evaluation.metrics import BINS
from fertools.export.quantization import METHODS, QuantizeConfig
from fertools.intended_use import data_notes, intended_use
from fertools.provenance import export_command

_TEMPLATE: Final = Path(__file__).with_name("model_card.md.jinja")


def model_card(document: dict[str, Any]) -> str:
    """Return the card of an export as Markdown, given its report document (without ``files``)."""
    from jinja2 import Environment, StrictUndefined

    markdown = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)
    training = document["training"]
    facts = {
        "stress": None,  # reports of earlier revisions lack it
        "devices": [],
        **document,
        "training": {"members": [], **training},
        "contract": contract,
        "bins": BINS,
        "seeds": _seeds(training),
        "export_command": _export_command(document),
        "data_notes": data_notes([document["model"]["data"], *training.get("other_data", ())]),
        "intended_use": intended_use(),
    }
    return f"{markdown.from_string(_TEMPLATE.read_text(encoding='utf-8')).render(facts)}\n"


@contextmanager
def report_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong with the report at ``path``, in reading it too, into a ModelError."""
    from jinja2 import UndefinedError

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UndefinedError) as error:
        raise ModelError(
            f"{path}: missing, damaged or of another version of fertools ({error}); export again"
        ) from error


def _seeds(training: dict[str, Any]) -> str:
    """Return which seeds were trained, their accuracies (Keras, single view), and which one this is."""
    if "members" in training:
        return f"an ensemble of {len(training['members'])} networks"
    seeds, this = training["seeds"], training["config"]["seed"]
    if seeds is None:
        return f"one training seed ({this})"
    validation, test = (
        f"{seeds[name]['mean']:.2%} ± {seeds[name]['deviation']:.2%}" for name in ("validation", "test")
    )
    others = ", ".join(map(str, seeds["seeds"]))
    best = seeds["best"]
    split = "the validation split"
    if training["config"]["camera"]:
        split += "'s clean and degraded images together"
    place = (
        f"the best on {split} of seeds {others}"
        if this == best
        else f"one of seeds {others}, of which {best} is the best on {split}"
    )
    each = "; ".join(
        f"seed {seed} {on_validation:.2%} and {on_test:.2%}"
        for seed, on_validation, on_test in zip(
            seeds["seeds"], seeds["validation"]["values"], seeds["test"]["values"], strict=True
        )
    )
    return (
        f"training seed {this}, {place} (validation {validation}, test {test}, mean and standard deviation,"
        f" Keras, single view; {each})"
    )


def _export_command(document: dict[str, Any]) -> str:
    """Return the command of the export, with the options that are not the defaults."""
    training, target, quantization = document["training"], document["target"], document["quantization"]
    command = export_command(training)
    command += f" --target {target}" if target != "onnx" else ""
    if quantization is None:
        return command
    method, images = quantization["method"], quantization["images"]
    usual = QuantizeConfig(method=method).resolved(training["images"]["train"]).images
    command += " --quantize"
    command += f" --calibration-images {images}" if images != usual else ""
    command += f" --calibration-method {method}" if method != METHODS[0] else ""
    return command + (" --amx" if quantization.get("amx") else "")
