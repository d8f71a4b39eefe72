"""The block of docs/engines.md, from what benchmarks/peers.py wrote to docs/peers.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]

#: The engine whose accuracy an export's report has, too.
OURS = "fertools int8"


def peers(report: Document, shipped: dict[str, Document]) -> str:
    """The tables, with the picture and the command that made both.

    Arguments:
        report: what the benchmark wrote.
        shipped: the reports of the models that ship, by name.
    """
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
        *earlier(report, shipped),
        *left_out(report),
        "How fertools int8 stands:",
        "",
        *standings(report),
        "",
        f"{', '.join(imports)} as long as `import onnxruntime`.",
        "",
        "![Accuracy against milliseconds of every model in every engine](peers.png)",
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
    """One line per engine."""
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


def earlier(report: Document, shipped: dict[str, Document]) -> Iterator[str]:
    """One line, followed by an empty one, per model whose weights (and accuracy) have changed since."""
    for model in report["models"]:
        if model["name"] not in shipped or OURS in model["left_out"]:
            continue
        (then,) = (row["accuracy"] for row in model["rows"] if row["engine"] == OURS)
        rows = shipped[model["name"]]["verification"]["rows"]
        (now,) = (row["evaluation"]["accuracy"] for row in rows if row["model"] == "int8")
        if then != now:
            yield (
                f"`{model['name']}` had other weights then, {then:.2%} in int8 against {now:.2%} now: its"
                " accuracies in this table are theirs, its times and sizes are those of the network."
            )
            yield ""


def left_out(report: Document) -> Iterator[str]:
    """One line per engine that has none above, and an empty one."""
    for model in report["models"]:
        for engine, reason in model["left_out"].items():
            yield f"- {model['name']} without {engine}: {reason}"
    if any(model["left_out"] for model in report["models"]):
        yield ""


def standings(report: Document) -> Iterator[str]:
    """One line per setting."""
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
