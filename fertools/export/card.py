"""The model card, rendered from the report's figures by ``model_card.md.jinja``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from fertools import contract
from fertools.data import synthetic
from fertools.evaluation.metrics import BINS
from fertools.export.quantization import METHODS, QuantizeConfig
from fertools.provenance import export_command

_TEMPLATE: Final = Path(__file__).with_name("model_card.md.jinja")
_INTENDED_USE: Final = Path(__file__).with_name("intended_use.md")

#: First digits of a data set's fingerprint -> what is known of the data.
DATA_NOTES: Final = {
    "bb183fb6943ddf60": (
        "FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): faces from a web image search of 2013, published"
        " for a contest. No explicit licence is known, and the people on the pictures were not asked: treat"
        " models trained on it as research use. 1,853 of its 35,887 images are copies of others, also"
        " across the splits (hence the de-duplicated column), 12 are blank, and human agreement with its"
        " labels is about 65 %."
    ),
}
SYNTHETIC_NOTE: Final = (
    "Faces drawn by fertools itself: nobody's picture, and nobody's rights. A model trained on them shows"
    " that the pipeline works; it knows nothing of real faces."
)


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
        "data_note": data_note(document["model"]["data"]),
        "intended_use": _intended_use(),
    }
    return f"{markdown.from_string(_TEMPLATE.read_text(encoding='utf-8')).render(facts)}\n"


def limits() -> list[str]:
    """Return the limits of every model, each as one line of plain text."""
    return [" ".join(item.split()) for item in _intended_use().partition("## Limits")[2].split("\n- ")[1:]]


def data_note(data: dict[str, str]) -> str:
    """Return what is known of a data set, given its ``name`` and ``fingerprint``."""
    if data["name"] == synthetic.NAME:
        return SYNTHETIC_NOTE
    known: str | None = DATA_NOTES.get(data["fingerprint"][:16])
    return known or f"Trained on {data['name']}, of which fertools knows no more: see its own terms."


@cache
def _intended_use() -> str:
    return _INTENDED_USE.read_text(encoding="utf-8").strip()


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
    place = (
        f"the best on the validation split of seeds {others}"
        if this == best
        else f"one of seeds {others}, of which {best} is the best on the validation split"
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
    return command + (f" --calibration-method {method}" if method != METHODS[0] else "")
