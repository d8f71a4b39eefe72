"""``fertools info``."""

from __future__ import annotations

from typing import Any

import click

from fertools.cli.common import emit, json_option, talk
from fertools.runtime.environment import describe


@click.command()
@json_option
@click.option(
    "--model", type=click.Path(), help="Export folder, .onnx or .ort file; default: sequential, which ships."
)
def command(as_json: bool, model: str | None) -> None:
    """Show versions, execution providers and devices.

    Every provider of the installed onnxruntime is tried on the model. Paste the output into bug reports.
    TensorFlow is not loaded.
    """
    facts = describe(model)
    if as_json:
        emit(facts)
        return
    for warning in facts["warnings"]:
        talk(f"Warning: {warning}")
    rows = _rows(facts)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:{width}}  {value}")


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    listed = ", ".join
    return [
        ("fertools", facts["fertools"]),
        ("python", facts["python"]),
        ("platform", facts["platform"]),
        ("processor", facts["processor"]),
        ("int8 features", listed(facts["int8_features"]) or "none known"),
        ("usable CPUs", str(facts["cpus"])),
        ("default threads", str(facts["threads"])),
        ("packages", listed(f"{name} {version}" for name, version in facts["packages"].items())),
        (
            "onnxruntime",
            listed(f"{name} {version}" for name, version in facts["onnxruntime"].items()) or "none",
        ),
        ("providers", listed(facts["providers"]) or "none"),
        *((f"  {name}", item["reason"] or "works") for name, item in facts["provider_status"].items()),
        ("  auto takes", facts["auto"] or "unknown: there is no model to try it on"),
        (
            "devices",
            listed(f"{item['type']} {item['vendor']}".strip() for item in facts["devices"]) or "unknown",
        ),
        *_model_rows(facts["model"]),
    ]


def _model_rows(model: dict[str, Any] | None) -> list[tuple[str, str]]:
    if model is None:
        return [("model", "none")]
    return [
        ("model", f"{model['name']} {model['precision']}, {model['parameters']:,} parameters"),
        *_accuracy_rows(model["accuracy"]),
        ("  file", f"{model['path']} ({model['bytes'] / 1e6:.2f} MB)"),
        ("  weights", f"sha256 {model['weights_sha256']}"),
    ]


def _accuracy_rows(accuracy: dict[str, Any]) -> list[tuple[str, str]]:
    if "value" not in accuracy:
        return [("  accuracy", "not measured")]
    protocol = dict(accuracy)
    value, by_size = protocol.pop("value"), protocol.pop("by_face_pixels", {})
    images = protocol.pop("by_face_pixels_images", None)
    told = ", ".join(f"{name} {fact}" for name, fact in protocol.items())
    sizes = ", ".join(f"{share:.1%} at {pixels} pixels" for pixels, share in by_size.items())
    sizes += f" ({images} images)" if images else ""
    return [("  accuracy", f"{value:.2%} ({told})"), *([("  by face size", sizes)] if sizes else [])]
