"""The model card, written from the report's figures (Mitchell et al. 2019, arXiv:1810.03993)."""

from __future__ import annotations

from typing import Any

from fertools import contract

#: What is known of a data set, by its fingerprint.
DATA_NOTES = {
    "bb183fb6943ddf60": (
        "FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): faces from a 2013 web image search, released for a"
        " contest. No explicit licence is known; treat models trained on it as research use. About 2,000 of"
        " its 35,887 images occur more than once, also across the splits (hence the de-duplicated column),"
        " 12 are blank, and human agreement with its labels is about 65 %."
    ),
}
SYNTHETIC_NOTE = (
    "Drawn faces. A model trained on them shows that the pipeline works; it knows nothing of real faces."
)

USE = """\
## Intended use

Research and prototypes on cropped, upright, roughly frontal faces: one face fills the image, which is turned
into 48x48 grey pixels. The seven outputs say which of seven posed or acted expressions a face resembles.

## Limits

- An expression is not an emotion: the same face goes with different feelings, and people express the same
  feeling differently (Barrett et al. 2019, doi:10.1177/1529100619832930). Do not read a state of mind from it.
- Do not use it to judge people: in hiring, education, policing, border control, insurance or medicine. In the
  European Union, emotion recognition at work and in schools is prohibited (Regulation 2024/1689, Art. 5).
- The training data is not balanced by age, sex, skin colour or culture, and accuracy differs among such groups;
  it was not measured here.
- It finds no faces, and answers for pictures without one.
- Confidence is the softmax output. It is not calibrated.
"""


def model_card(document: dict[str, Any]) -> str:
    """Write the card of an export as Markdown from its report document (without ``files``)."""
    model, training = document["model"], document["training"]
    verification, config = document["verification"], document["training"]["config"]
    rows = verification["rows"]
    smallest = rows[-1]
    data = f"{model['data']['name']} (fingerprint `{model['data']['fingerprint'][:16]}…`)"
    counts = ", ".join(f"{count:,} {name}" for name, count in training["images"].items())
    parts = [
        f"# {model['name']}: facial expression recognition, {model['parameters']:,} parameters",
        "",
        f"Input `{contract.INPUT_NAME}`: uint8 (batch, 48, 48, 1), grey, 0..255, scaled inside the graph."
        f" Output `{contract.OUTPUT_NAME}`: float32 (batch, 7), in the order"
        f" {', '.join(model['labels'])}.",
        "",
        "## Measured",
        "",
        f"{verification['split'].capitalize()} split of {data}: {verification['images']:,} images, single view,"
        f" one seed ({config['seed']}); de-duplicated: the {verification['images_unseen']:,} images that stand in"
        " no other split. Nothing was chosen on this split.",
        "",
        *_comparison(rows),
        "",
        f"Milliseconds: {verification['environment']['timing']}, on {_processor(verification['environment'])}.",
        "",
        f"By class, {smallest['model']}:",
        "",
        *_classes(smallest["evaluation"]["classes"]),
        "",
        "```",
        f"fertools verify {contract_folder(model)} --data SRC",
        "```",
        "",
        "## Training",
        "",
        f"{counts} images of {model['data']['name']}."
        f" Best of {config['epochs']} epochs by validation accuracy: epoch {training['best_epoch']},"
        f" {training['validation_accuracy']:.2%}. Computed in {training['precision']} on"
        f" {training['device']['name']} ({training['device']['backend']}).",
        *(f"Note: {note}." for note in training["notes"]),
        "",
        "```",
        _train_command(config),
        f"fertools export RUN{'' if document['quantization'] is None else ' --quantize'} --data SRC",
        "```",
        "",
        *_quantization(document["quantization"]),
        "## Data and licence",
        "",
        _data_note(model["data"]),
        "",
        "The code that made this model is under the MIT licence; the data's own terms hold for the weights.",
        "",
        USE,
    ]
    return "\n".join(parts)


def contract_folder(model: dict[str, Any]) -> str:
    """The folder that an export of this model goes to by default."""
    return f"exported/{model['name']}"


def _comparison(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| | accuracy | de-duplicated | balanced | macro F1 | agreement | max difference | MB | ms/image |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scores = row["evaluation"]
        unseen, time = row["accuracy_unseen"], row["milliseconds"]
        lines.append(
            f"| {row['model']} | {scores['accuracy']:.2%} | {'-' if unseen is None else f'{unseen:.2%}'}"
            f" | {scores['balanced_accuracy']:.2%} | {scores['macro_f1']:.2%} | {row['agreement']:.2%}"
            f" | {row['difference']:.1e} | {row['bytes'] / 1e6:.2f} | {'-' if time is None else f'{time:.2f}'} |"
        )
    return lines


def _classes(classes: list[dict[str, Any]]) -> list[str]:
    return [
        "| class | precision | recall | F1 | images |",
        "|---|---|---|---|---|",
        *(
            f"| {c['label']} | {c['precision']:.2%} | {c['recall']:.2%} | {c['f1']:.2%} | {c['support']} |"
            for c in classes
        ),
    ]


def _processor(environment: dict[str, Any]) -> str:
    features = ", ".join(environment["int8_features"])
    return environment["processor"] + (f" ({features})" if features else "")


def _train_command(config: dict[str, Any]) -> str:
    """The command with every option that is not the default recipe's."""
    from fertools.training import RECIPES

    usual = RECIPES["default"].to_dict()
    changed = [
        f"--{name.replace('_', '-')} {value}" for name, value in config.items() if value != usual[name]
    ]
    return " ".join(["fertools train --data SRC", *changed])


def _quantization(config: dict[str, Any] | None) -> list[str]:
    if config is None:
        return []
    return [
        "## Quantization",
        "",
        f"Static QDQ, uint8 activations and {7 if config['reduce_range'] else 8}-bit weights"
        f" {'per channel' if config['per_channel'] else 'per tensor'}, last Gemm and softmax in float;"
        f" {config['method']} calibration on {config['images']:,} training images (seed {config['seed']}).",
        "",
    ]


def _data_note(data: dict[str, str]) -> str:
    if data["name"].startswith("synthetic"):
        return SYNTHETIC_NOTE
    known = DATA_NOTES.get(data["fingerprint"][:16])
    return known or f"Trained on {data['name']}; see its own terms."
