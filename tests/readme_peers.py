"""The README's block about other engines, from what benchmarks/peers.py wrote to docs/peers.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]


def peers(report: Document) -> str:
    """The tables, with the picture and the command that made both."""
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items())
    seconds = report["imports"]
    imports = (
        f"`import {modules}` takes {seconds[modules] / seconds['onnxruntime']:.2f} times"
        for modules in seconds
        if modules != "onnxruntime"
    )
    lines = [
        *engines(report),
        "",
        f"The same weights in every engine on {report['images']:,} test images (PrivateTest); medians of"
        f" {report['rounds']} rounds in which the engines took turns, each in a process of its own that kept"
        " to as many processors as it has threads. Each is given uint8 pixels in memory if it takes these,"
        " else float32 ones (Keras, tf.function, LiteRT fp32). Start, peak memory: to its first prediction."
        f" {report['processor']} ({', '.join(report['int8_features'])}); {versions}.",
        "",
        *left_out(report),
        "How fertools int8 stands:",
        "",
        *standings(report),
        "",
        f"{', '.join(imports)} as long as `import onnxruntime`.",
        "",
        "![Accuracy against milliseconds of every model in every engine](docs/peers.png)",
        "",
        "Measured by",
        "",
        "```sh",
        report["command"],
        "```",
        "",
    ]
    return "\n".join(lines)


def engines(report: Document) -> Iterator[str]:
    """A line an engine."""
    speeds = report["models"][0]["rows"][0]["speeds"]
    times = " | ".join(f"ms/image, {_setting(speed)}" for speed in speeds)
    yield f"| | | accuracy | agrees with Keras | MB | start s | peak MB | {times} |"
    yield "|" + "---|" * (7 + len(speeds))
    for model in report["models"]:
        for row in model["rows"]:
            times = " | ".join(f"{speed['milliseconds'] / speed['batch']:.3f}" for speed in row["speeds"])
            agreement = _cell(row["agreement"], ".2%")
            peak = _cell(row["peak_bytes"] and row["peak_bytes"] / 1e6, ".0f")
            yield (
                f"| {model['name']} | {row['engine']} | {row['accuracy']:.2%} | {agreement}"
                f" | {row['bytes'] / 1e6:.2f} | {row['start_seconds']:.2f} | {peak} | {times} |"
            )


def left_out(report: Document) -> Iterator[str]:
    """A line an engine that has none above, and an empty one."""
    for model in report["models"]:
        for engine, reason in model["left_out"].items():
            yield f"- {model['name']} without {engine}: {reason}"
    if any(model["left_out"] for model in report["models"]):
        yield ""


def standings(report: Document) -> Iterator[str]:
    """A line a setting."""
    yield (
        "| | | fastest other int8 | our time to its | onnxruntime fp32's to ours | tf.function's to ours"
        " | ours to a plain session.run's |"
    )
    yield "|" + "---|" * 7
    for model in report["models"]:
        for one in model["standings"]:
            ratios = [
                _cell(one[name], form)
                for name, form in (
                    ("time_ratio", ".2f"),
                    ("times_onnxruntime_float32", ".1f"),
                    ("times_tf_function", ".1f"),
                    ("overhead_ratio", ".3f"),
                )
            ]
            rival = one["rival"] or "-"
            yield f"| {model['name']} | {_setting(one)} | {rival} | {' | '.join(ratios)} |"


def _setting(row: Document) -> str:
    threads = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{threads}, batch {row['batch']}"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
