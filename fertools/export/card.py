"""The model card, written from the report's figures (Mitchell et al. 2019, arXiv:1810.03993)."""

from __future__ import annotations

from typing import Any

from fertools import contract
from fertools.export.notes import USE, data_note
from fertools.export.quantization import METHODS, QuantizeConfig
from fertools.training import RECIPES


def model_card(document: dict[str, Any]) -> str:
    """Write the card of an export as Markdown from its report document (without ``files``)."""
    model, verification = document["model"], document["verification"]
    rows = verification["rows"]
    smallest = rows[-1]
    parts = [
        f"# {model['name']}: facial expression recognition, {model['parameters']:,} parameters",
        "",
        f"Input `{contract.INPUT_NAME}`: uint8 (batch, 48, 48, 1), grey, 0..255, scaled inside the graph.",
        f"Output `{contract.OUTPUT_NAME}`: float32 (batch, 7), in the order {', '.join(model['labels'])}.",
        "",
        "With DIR for the folder of this file:",
        "",
        "```",
        "fertools predict IMAGE --model DIR",
        "```",
        "",
        "## Measured",
        "",
        *_protocol(document),
        "",
        *_comparison(rows),
        "",
        f"Agreement (same top-1) and the largest difference of a probability are against {rows[0]['model']}.",
        f"Milliseconds: {verification['environment']['timing']}; {_processor(verification['environment'])}.",
        "",
        f"By class, {smallest['model']}:",
        "",
        *_classes(smallest["evaluation"]["classes"]),
        "",
        "```",
        "fertools verify DIR --data SRC",
        "```",
        "",
        *_training(document),
        *_quantization(document["quantization"]),
        "## Data and licence",
        "",
        data_note(model["data"]),
        "",
        "The code that made this model is under the MIT licence. The data's own terms hold for the weights.",
        "",
        USE,
    ]
    return "\n".join(parts)


def _protocol(document: dict[str, Any]) -> list[str]:
    """What was measured on, and how."""
    verification, data = document["verification"], document["model"]["data"]
    return [
        f"{verification['split'].capitalize()} split of {data['name']} (fingerprint"
        f" `{data['fingerprint'][:16]}...`): {verification['images']:,} images, one view an image, one"
        f" training seed ({document['training']['config']['seed']}). De-duplicated: the"
        f" {verification['images_unseen']:,} of them that stand in no other split. The epoch was chosen on"
        " the validation split.",
    ]


def _training(document: dict[str, Any]) -> list[str]:
    """Data, result and the commands that do it again."""
    training, quantization = document["training"], document["quantization"]
    images, device = training["images"], training["device"]
    counts = ", ".join(f"{name} {count:,}" for name, count in images.items())
    return [
        "## Training",
        "",
        f"Images: {counts}. Best of {training['epochs']} epochs by validation accuracy: epoch"
        f" {training['best_epoch']}, {training['validation_accuracy']:.2%}. Computed in"
        f" {training['precision']} by {device['backend']} on {device['name']}.",
        *_start(training["weights"]),
        *(f"Note: {note}." for note in training["notes"]),
        "",
        "```",
        _train_command(training["config"], training["weights"]),
        _export_command(quantization, images["train"]),
        "```",
        "",
    ]


def _comparison(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| | accuracy | de-duplicated | balanced | macro F1 | agreement | max difference | MB | ms/image |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        scores = row["evaluation"]
        unseen = "-" if row["accuracy_unseen"] is None else f"{row['accuracy_unseen']:.2%}"
        time = "-" if row["milliseconds"] is None else f"{row['milliseconds']:.2f}"
        lines.append(
            f"| {row['model']} | {scores['accuracy']:.2%} | {unseen} | {scores['balanced_accuracy']:.2%}"
            f" | {scores['macro_f1']:.2%} | {row['agreement']:.2%} | {row['difference']:.1e}"
            f" | {row['bytes'] / 1e6:.2f} | {time} |"
        )
    return lines


def _classes(classes: list[dict[str, Any]]) -> list[str]:
    return [
        "| class | precision | recall | F1 | images |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {c['label']} | {c['precision']:.2%} | {c['recall']:.2%} | {c['f1']:.2%} | {c['support']} |"
            for c in classes
        ),
    ]


def _processor(environment: dict[str, Any]) -> str:
    features = ", ".join(environment["int8_features"])
    return f"{environment['processor']}{features and f' ({features})'}"


def _start(weights: dict[str, str] | None) -> list[str]:
    if weights is None:
        return []
    return [f"Started from the weights of `{weights['name']}` (sha256 `{weights['sha256'][:16]}...`)."]


def _train_command(config: dict[str, Any], weights: dict[str, str] | None) -> str:
    """The command with every option that is not the default recipe's."""
    usual = RECIPES["default"].to_dict()
    changed = [
        f"--{name.replace('_', '-')} {value}" for name, value in config.items() if value != usual[name]
    ]
    start = [f"--weights {weights['name']}"] if weights else []
    return " ".join(["fertools train --data SRC", *start, *changed])


def _export_command(quantization: dict[str, Any] | None, available: int) -> str:
    """The command with the options that are not the defaults."""
    command = "fertools export RUN --data SRC"
    if quantization is None:
        return command
    method, images = quantization["method"], quantization["images"]
    usual = QuantizeConfig(method=method).resolved(available).images
    command += " --quantize"
    command += f" --calibration-images {images}" if images != usual else ""
    return command + (f" --calibration-method {method}" if method != METHODS[0] else "")


def _quantization(config: dict[str, Any] | None) -> list[str]:
    if config is None:
        return []
    return [
        "## Quantization",
        "",
        f"Static QDQ, uint8 activations and {7 if config['reduce_range'] else 8}-bit weights"
        f" {'per channel' if config['per_channel'] else 'per tensor'}, last layer and softmax in float;"
        f" {config['method']} calibration on {config['images']:,} training images drawn with seed"
        f" {config['seed']}.",
        "",
    ]
