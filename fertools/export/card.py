"""The model card, written from the report's figures (Mitchell et al. 2019, arXiv:1810.03993)."""

from __future__ import annotations

from typing import Any

from fertools import contract
from fertools.data import synthetic
from fertools.evaluation.metrics import BINS
from fertools.export.quantization import METHODS, QuantizeConfig
from fertools.training.provenance import export_command


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
        "Single view: the network sees the image, as it does on a device if nothing else is said. Flip views:"
        " the mean over the image and its mirror (`--views flip`), twice the work.",
        f"Agreement (same top-1) and the largest difference of a probability are against {rows[0]['model']}.",
        f"Milliseconds: {verification['environment']['timing']}; {_processor(verification['environment'])}.",
        "",
        *_gates(verification["gates"]),
        f"By class, {smallest['model']}, single view:",
        "",
        *_classes(smallest["evaluation"]["classes"]),
        "",
        f"![Confusion matrix, {smallest['model']}, single view]({contract.CONFUSION_FILE})",
        "",
        "```",
        "fertools verify DIR --data SRC",
        "```",
        "",
        *_stress(document.get("stress")),
        *_devices(document.get("devices", [])),
        *_temperature_scaling(document["temperature_scaling"], ensemble="members" in document["training"]),
        *_training(document),
        *_quantization(document["quantization"]),
        *_format(document),
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
    """The data and split of the figures."""
    verification, data = document["verification"], document["model"]["data"]
    return [
        f"{verification['split'].capitalize()} split of {data['name']} (fingerprint"
        f" `{data['fingerprint'][:16]}...`): {verification['images']:,} images,"
        f" {_seeds(document['training'])}. De-duplicated: the"
        f" {verification['images_deduplicated']:,} of them that stand in no other split. {_chosen(document)}",
    ]


def _chosen(document: dict[str, Any]) -> str:
    """What was chosen, and on which split."""
    members = " of each member" if "members" in document["training"] else ""
    return f"The epoch{members} was chosen on the validation split."


def _seeds(training: dict[str, Any]) -> str:
    """Which seeds were trained, what they reached (Keras, single view), and which one this is."""
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


def _training(document: dict[str, Any]) -> list[str]:
    """The training data, the result, and the commands to reproduce it."""
    training, images = document["training"], document["training"]["images"]
    counts = ", ".join(f"{name} {count:,}" for name, count in images.items())
    if "members" in training:
        made = [f"Images: {counts}.", "", *_members(training)]
    else:
        device = training["device"]
        made = [
            f"Images: {counts}. Best of {training['epochs']} epochs by validation accuracy: epoch"
            f" {training['best_epoch']}, {training['validation_accuracy']:.2%}. Computed in"
            f" {training['precision']} by {device['backend']} on {device['name']}, with fertools"
            f" {training['versions'].get('fertools', 'of unknown version')}.",
            *_start(training["weights"]),
            *_distillation(training["distillation"]),
        ]
    return [
        "## Training",
        "",
        *made,
        *(f"Note: {note}." for note in training["notes"]),
        "",
        "```",
        *training["commands"],
        _export_command(training, document["target"], document["quantization"], images["train"]),
        "```",
        "",
    ]


def _members(training: dict[str, Any]) -> list[str]:
    """The networks of an ensemble, beside their weighted mean."""
    return [
        "The output is the weighted mean of the members' probabilities, taken inside the graph. Accuracies"
        " are of Keras with a single view on the validation split.",
        "",
        "| member | network | share | temperature | validation |",
        "|---|---|---:|---:|---:|",
        *(
            f"| `{each['name']}` (sha256 `{each['sha256'][:16]}...`) | {each['model']} | {each['share']:.4g}"
            f" | {each['temperature']:.4g} | {each['validation_accuracy']:.2%} |"
            for each in training["members"]
        ),
        f"| ensemble | | | | {training['validation_accuracy']:.2%} |",
        "",
    ]


def _comparison(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| | accuracy | de-duplicated | balanced accuracy | macro F1 | flip views: accuracy | de-duplicated"
        " | agreement | max difference | MB | ms/image |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        scores = row["evaluation"]
        time = "-" if row["milliseconds"] is None else f"{row['milliseconds']:.2f}"
        lines.append(
            f"| {row['model']} | {scores['accuracy']:.2%} | {_share(row['accuracy_deduplicated'])}"
            f" | {scores['balanced_accuracy']:.2%} | {scores['macro_f1']:.2%}"
            f" | {row['accuracy_flip']:.2%} | {_share(row['accuracy_flip_deduplicated'])}"
            f" | {row['agreement']:.2%} | {row['difference']:.1e} | {row['bytes'] / 1e6:.2f} | {time} |"
        )
    return lines


def _gates(gates: list[dict[str, Any]]) -> list[str]:
    """The verdicts on the test split, and what they mean."""
    return [
        "Gates, of each file against Keras, single view. Proved: the 95% interval keeps the limit, or every"
        " image does. Not proved: there are too few images to say.",
        "",
        *_verdicts(gates),
        "",
    ]


def _stress(stressed: dict[str, Any] | None) -> list[str]:
    """The accuracy on worse images; empty for reports of earlier revisions, which lack it."""
    if stressed is None:
        return []
    forms = stressed["forms"]
    any_form = next(iter(forms.values()))
    lines = [
        "## On worse images",
        "",
        f"{any_form['images']:,} images of the {any_form['split']} split, drawn with seed {any_form['seed']},"
        " as a camera, a codec, a detector or the light make them, each change at three severities, mild to"
        f" severe (list {any_form['version']} of `fertools stress`, after Hendrycks and Dietterich 2019,"
        " arXiv:1903.12261). Nothing was chosen by these figures. The mean is that of the changes' means.",
        "",
        "| | clean | mean on worse images | points less | face of 36 | 24 | 16 pixels |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, form in forms.items():
        small = (f"{form['by_face_pixels'][size]:.2%}" for size in ("36", "24", "16"))
        lines.append(
            f"| {name} | {form['clean']:.2%} | {form['mean']:.2%} | {form['points_lost']:.2f}"
            f" | {' | '.join(small)} |"
        )
    name, form = [*forms.items()][-1]
    lines += ["", f"By change, {name}:", "", "| change | severities | accuracy at each | mean |"]
    lines.append("|---|---|---|---:|")
    for change in form["changes"]:
        severities = ", ".join(f"{value:g}" for value in change["severities"])
        accuracies = ", ".join(f"{value:.1%}" for value in change["accuracies"])
        lines.append(
            f"| {change['name']} | {severities} {change['unit']} | {accuracies} | {change['mean']:.1%} |"
        )
    if stressed["gates"]:
        lines += ["", *_verdicts(stressed["gates"])]
    command = f"fertools stress DIR --data SRC --split test --images {any_form['images']}"
    return [*lines, "", "```", command, "```", ""]


def _verdicts(gates: list[dict[str, Any]]) -> list[str]:
    lines = ["| gate | measured | 95% interval | limit | verdict |", "|---|---:|---:|---:|---|"]
    for gate in gates:
        interval = "{:.4g} to {:.4g}".format(*gate["interval"]) if gate["interval"] else "-"
        counts = ", ".join(f"{count:,} {what}" for what, count in gate["counts"].items())
        needed = gate["images_needed"]
        lines.append(
            f"| {gate['name']}{counts and f' ({counts})'} | {gate['measured']:.4g} | {interval}"
            f" | {gate['bound']} {gate['limit']:g}"
            f" | {gate['state']}{f'; {needed:,} images like these would do' if needed else ''} |"
        )
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _classes(classes: list[dict[str, Any]]) -> list[str]:
    return [
        "| class | precision | recall | F1 | images |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {c['label']} | {c['precision']:.2%} | {c['recall']:.2%} | {c['f1']:.2%} | {c['support']} |"
            for c in classes
        ),
    ]


def _devices(devices: list[dict[str, Any]]) -> list[str]:
    """The results of devices that ran the kit of this export."""
    if not devices:
        return []
    return [
        "## Devices",
        "",
        "Images of a kit (`fertools verify DIR --kit kit.zip`) on which a device gave the same class as the"
        " machine that read its result, the largest difference of a probability, and the device's own time.",
        "",
        "| device | onnxruntime | file | same class | largest difference | ms/image |",
        "|---|---|---|---:|---:|---:|",
        *(
            f"| {device['processor']}, {device['machine']}, {device['threads']} thread(s)"
            f" | {device['onnxruntime']}, {device['provider']} | {row['file']}"
            f" | {row['agreement']:.2%} of {device['images']} | {row['difference']:.1e}"
            f" | {row['milliseconds']:.2f} |"
            for device in devices
            for row in device["files"]
        ),
        "",
    ]


def _temperature_scaling(scaling: dict[str, Any], *, ensemble: bool) -> list[str]:
    """How the confidence was calibrated, and how far it still is from the accuracy."""
    if scaling["unscaled_because"]:
        lines = [
            (
                "Each member's logits are divided by its own temperature, see Training."
                if ensemble
                else f"No temperature scaling: {scaling['unscaled_because']}."
            )
            + f" Expected calibration error (ECE) on the validation split: {scaling['ece_before']:.2%}.",
        ]
    else:
        lines = [
            f"The last layer's logits are divided by one temperature, {scaling['temperature']:.4g}, in"
            " all files (Guo et al. 2017, arXiv:1706.04599), which changes no label. It minimises the log"
            " loss of the validation split, where the expected calibration error (ECE) was"
            f" {scaling['ece_before']:.2%} before and is {scaling['ece_after']:.2%} after.",
        ]
    return [
        "## Temperature scaling",
        "",
        *lines,
        "",
        f"ECE of {BINS} bins on the test split, single view, by temperature scaling:",
        "",
        "| | without | with |",
        "|---|---:|---:|",
        *(
            f"| {form} | {ece['without']:.2%} | {ece['with']:.2%} |"
            for form, ece in scaling["test_ece"].items()
        ),
        "",
    ]


def _processor(environment: dict[str, Any]) -> str:
    features = ", ".join(environment["int8_features"])
    return f"{environment['processor']}{features and f' ({features})'}"


def _start(weights: dict[str, str] | None) -> list[str]:
    if weights is None:
        return []
    return [f"Started from the weights of `{weights['name']}` (sha256 `{weights['sha256'][:16]}...`)."]


def _distillation(distillation: dict[str, Any] | None) -> list[str]:
    if distillation is None:
        return []
    teachers = ", ".join(
        f"`{teacher['name']}` ({teacher['model']}, sha256 `{teacher['sha256'][:16]}...`)"
        for teacher in distillation["teachers"]
    )
    return [
        f"Distilled (Hinton et al. 2015, arXiv:1503.02531) from {teachers}: temperature"
        f" {distillation['temperature']:g}, share of the labels in the loss {distillation['label_share']:g}."
    ]


def _export_command(
    training: dict[str, Any], target: str, quantization: dict[str, Any] | None, available: int
) -> str:
    """The command with the options that are not the defaults."""
    command = export_command(training)
    command += f" --target {target}" if target != "onnx" else ""
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
        f" {'per channel' if config['per_channel'] else 'per tensor'};"
        f" {_front(config['float_layers'])}last layer and softmax in float;"
        f" {config['method']} calibration on {config['images']:,} training images drawn with seed"
        f" {config['seed']}.",
        "",
        "Judged, and changed where needed, on the validation split alone, against float32:",
        "",
        *_verdicts(config["validation"]),
        "",
    ]


def _front(layers: int) -> str:
    """Which layers at the front are in float."""
    return {0: "", 1: "first convolution, "}.get(layers, f"first {layers} layers, ")


def _format(document: dict[str, Any]) -> list[str]:
    """What onnxruntime's mobile format requires of a device."""
    if document["target"] != "ort":
        return []
    version = document["model"]["versions"]["onnxruntime"]
    return [
        "## Format",
        "",
        f"onnxruntime's mobile format, made by onnxruntime {version} (optimization style Fixed, no target"
        " platform): any onnxruntime of that version or later runs it, on its CPU provider. What a reduced"
        f" build needs is in `{contract.OPERATORS_FILE}` (`build.py --include_ops_by_config`).",
        "",
    ]


#: First digits of a data set's fingerprint -> what is known of the data.
DATA_NOTES = {
    "bb183fb6943ddf60": (
        "FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): faces from a web image search of 2013, published"
        " for a contest. No explicit licence is known, and the people on the pictures were not asked: treat"
        " models trained on it as research use. About 2,000 of its 35,887 images occur more than once, also"
        " across the splits (hence the de-duplicated column), 12 are blank, and human agreement with its"
        " labels is about 65 %."
    ),
}
SYNTHETIC_NOTE = (
    "Faces drawn by fertools itself: nobody's picture, and nobody's rights. A model trained on them shows"
    " that the pipeline works; it knows nothing of real faces."
)

USE = """\
## Intended use

Research and prototypes on cropped, upright, roughly frontal faces: one face fills the image, which is
turned into 48x48 grey pixels. The seven outputs say which of seven posed or acted expressions a face
resembles.

## Limits

- An expression is not an emotion: the same face goes with different feelings, and people express the same
  feeling differently (Barrett et al. 2019, doi:10.1177/1529100619832930). Do not read a state of mind
  from it.
- Do not use it to judge people: in hiring, education, policing, border control, insurance or medicine. In
  the European Union, emotion recognition at work and in schools is prohibited (Regulation 2024/1689,
  Art. 5).
- Accuracy differs by age, sex, skin colour and culture wherever the training data is not balanced by them.
  That was not measured here.
- It finds no faces, and answers for pictures without one.
- The confidence is the softmax output. How far it is from the accuracy (ECE) was measured on images like
  those of training; on others it is usually further (Ovadia et al. 2019, arXiv:1906.02530).
"""


def limits() -> list[str]:
    """The limits of ``USE``, each as one line of plain text."""
    return [" ".join(item.split()) for item in USE.partition("## Limits")[2].split("\n- ")[1:]]


def data_note(data: dict[str, str]) -> str:
    """What is known of a data set, given its ``name`` and ``fingerprint``."""
    if data["name"] == synthetic.NAME:
        return SYNTHETIC_NOTE
    known: str | None = DATA_NOTES.get(data["fingerprint"][:16])
    return known or f"Trained on {data['name']}, of which fertools knows no more: see its own terms."
