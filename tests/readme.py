"""Write the generated blocks of the README and the documentation: python tests/readme.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from readme_peers import peers

from fertools.runtime.location import SHIPPED
from fertools.training import AUGMENTATIONS
from fertools.training.adaptation import Change

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
EXPORTED = ROOT / "exported"
#: What benchmarks/peers.py wrote.
PEERS = ROOT / "docs" / "peers.json"
#: What benchmarks/scenes.py wrote.
SCENES = ROOT / "docs" / "scenes.json"
#: Display names of its detectors.
DETECTORS = {"haar": "Haar (OpenCV)", "yunet": "YuNet"}
#: What benchmarks/camera.py wrote.
CAMERA = ROOT / "docs" / "camera.json"
#: The changes of ``fertools stress`` that the camera's kinds resemble.
CAMERA_CHANGES = ("small face", "defocus", "motion blur", "sensor noise", "JPEG", "side light")
#: What ``fertools adapt --json`` printed for drawn faces.
ADAPTED = ROOT / "docs" / "adapt.json"


def pages() -> dict[Path, str]:
    """Return the README and the pages with their generated blocks updated."""
    made = {
        README: {"chain": chain(), "summary": summary()},
        DOCS / "models.md": {"result": result()},
        DOCS / "stress.md": {
            "measured": on_worse_images(),
            "camera": camera(json.loads(CAMERA.read_bytes())),
        },
        DOCS / "engines.md": {"peers": peers(json.loads(PEERS.read_bytes()), reports())},
        DOCS / "faces.md": {"scenes": scenes()},
        DOCS / "training.md": {"adapted": adapted(), "augmentations": augmentations()},
    }
    return {page: _renewed(page.read_text(encoding="utf-8"), blocks) for page, blocks in made.items()}


def chain() -> str:
    """The accuracy through the whole chain, for the README."""
    document = json.loads(SCENES.read_bytes())
    lines = [
        "| faces in scenes | found | " + " | ".join(document["models"]) + " |",
        "|---" * (2 + len(document["models"])) + "|",
    ]
    for one in document["detectors"]:
        cells = [f"{right['chain']:.1f}% ({right['direct']:.1f}%)" for right in one["accuracy"].values()]
        lines.append(f"| {DETECTORS[one['detector']]} | {one['found']:.1f}% | " + " | ".join(cells) + " |")
    one = document["detectors"][0]
    lines += [
        "",
        f"{one['faces']:,} faces of PrivateTest set into {one['scenes']:,} scenes, found, cut out and"
        " predicted (in parentheses: the same faces given directly); int8, a single view."
        " [How](docs/faces.md#accuracy-through-the-whole-chain), by `python benchmarks/scenes.py fer2013.csv"
        " --detector YUNET.onnx`.",
        "",
    ]
    return "\n".join(lines)


def adapted() -> str:
    """What ``fertools adapt`` printed."""
    document = json.loads(ADAPTED.read_bytes())
    change = Change(*((document[name]["before"], document[name]["after"]) for name in ("new", "old")))
    return f"```text\n{change.to_text()}\n```\n"


def augmentations() -> str:
    """What each value of ``--augmentation`` does."""
    lines = [
        "| `--augmentation` | mirrored | turned | shifted, pixels | size, times | brightness, contrast"
        " | erased |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in AUGMENTATIONS.items():
        cells = (
            one.flip and "half of them",
            one.rotation and f"{one.rotation:g}°",
            one.shift and f"{one.shift:g}",
            one.scale and f"{1 + one.scale:g}",
            one.brightness and f"{one.brightness:.0%}, {one.contrast:.0%}",
            one.erasing and f"a rectangle in {one.erasing:.0%}",
        )
        lines.append(f"| `{name}` | {' | '.join(cell or '' for cell in cells)} |")
    return "\n".join([*lines, ""])


def camera(document: dict[str, Any]) -> str:
    """What each kind of the camera's degradations teaches."""
    lines = [
        f"`{document['model']}`, every run with `{document['common']}` from the same weights, which are its"
        f" teacher, too; {document['images']:,} images of the {document['split']} split, Keras, single view,"
        f" seed 0; {document['device']}, {document['precision']}. The changes are means over their three"
        " severities.",
        "",
        f"| | options | clean | mean on worse images | {' | '.join(CAMERA_CHANGES)} |",
        f"|---|---|{'---:|' * (2 + len(CAMERA_CHANGES))}",
    ]
    for row in document["rows"]:
        shown = (row["clean"], row["mean"], *(row["changes"][name] for name in CAMERA_CHANGES))
        own = row["options"] and f"`{row['options']}`"
        lines.append(f"| {row['name']} | {own} | {' | '.join(f'{value:.1%}' for value in shown)} |")
    return "\n".join([*lines, ""])


def scenes() -> str:
    """All figures of benchmarks/scenes.py."""
    document = json.loads(SCENES.read_bytes())
    models = list(document["models"])
    heads = [
        "detector",
        "found",
        "of these close",
        "false finds per scene",
        "centre off",
        "side off",
        "turn off",
    ]
    heads += [f"{model}: through the chain (directly)" for model in models]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for one in document["detectors"]:
        cells = [
            DETECTORS[one["detector"]],
            f"{one['found']:.1f}%",
            f"{100 * one['close'] / one['found']:.1f}%",
        ]
        cells += [f"{one['false_finds']:.3f}", f"{one['centre_error']:.1f}%", f"{one['side_error']:.1f}%"]
        cells += [f"{one['turn_error']:.1f}°"]
        cells += [f"{one['accuracy'][m]['chain']:.1f}% ({one['accuracy'][m]['direct']:.1f}%)" for m in models]
        lines.append("| " + " | ".join(cells) + " |")
    one = document["detectors"][0]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines += [
        "",
        f"{one['faces']:,} faces of the {document['split']} split in {one['scenes']:,} scenes, seed"
        f" {document['seed']}; int8 models, a single view; {versions}.",
        "",
    ]
    return "\n".join(lines)


def _renewed(text: str, blocks: dict[str, str]) -> str:
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, middle, rest = text.partition(begin)
        _, last, after = rest.partition(end)
        assert all((middle, last)), f"no block {name}"
        text = before + begin + block + end + after
    return text


def summary() -> str:
    """The accuracy of the shipped models in a few rows."""
    shipped = reports()
    lines = [
        "| | Keras | ONNX | int8 | on worse images: Keras | int8 | int8 agrees with Keras | int8 MB"
        " | int8 ms/image |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, report in shipped.items():
        rows = {row["model"]: row for row in report["verification"]["rows"]}
        accuracies = " | ".join(
            f"{rows[form]['evaluation']['accuracy']:.2%}" for form in ("keras", "onnx", "int8")
        )
        int8 = rows["int8"]
        stressed = report["stress"]["forms"] if "stress" in report else {}
        worse = " | ".join(
            f"{stressed[form]['mean']:.2%}" if form in stressed else "-" for form in ("keras", "int8")
        )
        lines.append(
            f"| {name} | {accuracies} | {worse} | {int8['agreement']:.2%} | {int8['bytes'] / 1e6:.2f}"
            f" | {int8['milliseconds']:.2f} |"
        )
    verification = next(iter(shipped.values()))["verification"]
    images = next(
        report["stress"]["forms"]["int8"]["images"] for report in shipped.values() if "stress" in report
    )
    lines += [
        "",
        f"Accuracy on FER2013's test split (PrivateTest, {verification['images']:,} images), a single view;"
        f" one thread, batch 1, {_processors(shipped)}. Worse images are"
        " [small, blurred, noisy, badly lit or badly cropped](docs/stress.md): the mean over them, on"
        f" {images:,} test images.{_of_seeds(shipped)} [All figures](docs/models.md),"
        " measured again by `fertools verify exported/compact --data fer2013.csv` and"
        f" `fertools stress exported/compact --data fer2013.csv --split test --images {images}`.",
        "",
    ]
    return "\n".join(lines)


def _of_seeds(shipped: dict[str, dict[str, Any]]) -> str:
    """Return what the recipe gives with other seeds, for the models that were trained with several."""
    found = {name: report["training"]["seeds"] for name, report in shipped.items()}
    return "".join(
        f" {len(seeds['seeds'])} seeds of {name}'s recipe have {seeds['test']['mean']:.2%} ±"
        f" {seeds['test']['deviation']:.2%} (Keras, mean and standard deviation"
        f"{', from the same first weights' if shipped[name]['training']['weights'] else ''}); the one that"
        " ships was the best on PublicTest"
        f"{', clean and degraded together' if shipped[name]['training']['config']['camera'] else ''} (trained"
        " and exported by"
        " `bash examples/shipped_models.sh fer2013.csv`)."
        for name, seeds in found.items()
        if seeds is not None
    )


def _processors(shipped: dict[str, dict[str, Any]]) -> str:
    """Where the models were timed."""
    found: dict[str, list[str]] = {}
    for name, report in shipped.items():
        environment = report["verification"]["environment"]
        processor = f"{environment['processor']} ({', '.join(environment['int8_features'])})"
        found.setdefault(processor, []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(names)} on {processor}" for processor, names in found.items())


def reports() -> dict[str, dict[str, Any]]:
    """Return the reports of the shipped models by name."""
    return {name: json.loads((EXPORTED / name / "report.json").read_bytes()) for name in SHIPPED}


def on_worse_images() -> str:
    """The int8 files of the shipped models under every change, and the means of all their forms."""
    measured = {name: report["stress"] for name, report in reports().items() if "stress" in report}
    stressed = {name: each["forms"] for name, each in measured.items()}
    first = next(iter(stressed.values()))["int8"]
    lines = [
        f"{first['images']:,} images of PrivateTest, drawn with seed {first['seed']}; accuracy of the int8"
        " files at each severity, mild to severe. Nothing was chosen by these figures.",
        "",
        f"| change | severities | {' | '.join(stressed)} |",
        "|---|---|" + "---|" * len(stressed),
    ]
    for number, change in enumerate(first["changes"]):
        severities = ", ".join(f"{value:g}" for value in change["severities"])
        accuracies = (
            ", ".join(f"{value:.1%}" for value in forms["int8"]["changes"][number]["accuracies"])
            for forms in stressed.values()
        )
        lines.append(f"| {change['name']} | {severities} {change['unit']} | {' | '.join(accuracies)} |")
    lines += [
        "",
        "| | | clean | mean | points less | mean of int8 against Keras |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in measured.items():
        (gate,) = found["gates"]
        low, high = (-bound for bound in reversed(gate["interval"]))
        for form, each in stressed[name].items():
            against = f"{-gate['measured']:+.2f} ({low:+.2f} to {high:+.2f})" if form == "int8" else ""
            lines.append(
                f"| {name} | {form} | {each['clean']:.2%} | {each['mean']:.2%} | {each['points_lost']:.2f}"
                f" | {against} |"
            )
    return "\n".join([*lines, ""])


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
                f"| {name} | {row['model']} | {scores['accuracy']:.2%} | {row['accuracy_deduplicated']:.2%}"
                f" | {row['accuracy_flip']:.2%} | {scores['macro_f1']:.2%} | {scores['ece']:.2%}"
                f" | {row['agreement']:.2%} | {row['bytes'] / 1e6:.2f} | {row['milliseconds']:.2f} |"
            )
    verification = next(iter(shipped.values()))["verification"]
    environment = verification["environment"]
    lines += [
        "",
        f"FER2013's PrivateTest, {verification['images']:,} images (de-duplicated:"
        f" {verification['images_deduplicated']:,}), which no automated choice reads; it was looked at after"
        " each export of the candidates ([recipe](recipe.md)). A single view but for the"
        " column of flip views (the mean over an image and its mirror). Trained on the Training images;"
        " epochs were chosen on PublicTest, and so was the one temperature that sets the confidence right"
        f" (ECE: expected calibration error, 15 bins). Times: {environment['timing']};"
        f" {_processors(shipped)}.",
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
    """Describe a model, and say where its commands are."""
    training = report["training"]
    return (
        f"`{name}`: {report['model']['parameters']:,} parameters, seed {training['config']['seed']},"
        f" {training['validation_accuracy']:.2%} on PublicTest; the commands that made it are on its"
        f" [model card](../exported/{name}/MODEL_CARD.md)."
    )


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
