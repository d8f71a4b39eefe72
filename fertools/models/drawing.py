"""A network as a picture: a column of boxes, top to bottom.

A box holds a layer with weights and what follows it one to one (norm, activation, pooling, dropout), or all
between a fork and the join behind it, branch by branch. Equal neighbours are one box, with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from fertools.figures import blank, save
from fertools.models.structure import LayerFacts, structure

if TYPE_CHECKING:
    import keras


#: What a layer's kind is called in a box, where that is shorter. Those with "" are not told.
SHORT = {
    "InputLayer": "input",
    "BatchNormalization": "norm",
    "Activation": "",
    "Dropout": "dropout",
    "MaxPooling2D": "max-pool",
    "AveragePooling2D": "mean pool",
    "GlobalAveragePooling2D": "mean over the image",
    "ZeroPadding2D": "",
    "Concatenate": "concatenate",
    "Add": "add",
    "CustomScaleLayer": "add, scaled",
    "Flatten": "flatten",
    "Rescaling": "scale",
    "Resizing": "resize",
}
#: What stands between the convolutions and the dense layers.
ENDS = ("Flatten", "GlobalAveragePooling2D")
COLOURS = {"input": "#eeeeee", "convolution": "#cfe3f5", "branches": "#d8eecb", "dense": "#fbe3c0"}
#: Inches: width of the picture, height of a line of text, space between two boxes.
WIDTH, LINE, GAP = 8.0, 0.2, 0.22


@dataclass(frozen=True)
class Box:
    """One box, and how many equal ones follow each other."""

    kind: str
    name: str
    lines: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: int
    count: int = 1


def network_figure(network: keras.Model, path: Path) -> None:
    """Draw ``network`` as a PNG at ``path``: layers, output shapes, parameters."""
    from matplotlib.patches import FancyBboxPatch

    found = boxes(structure(network))
    heights = [LINE * (len(box.lines) + 1.8) for box in found]
    height = sum(heights) + GAP * len(found) + 0.6
    figure = blank(WIDTH, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    top = height - 0.5
    title = f"{network.name}: {network.count_params():,} parameters"
    axes.text(0.3, height - 0.3, title, fontsize=12, weight="bold", va="center")
    for place, (box, tall) in enumerate(zip(found, heights, strict=True)):
        frame = FancyBboxPatch(
            (0.4, top - tall), WIDTH - 0.8, tall, boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=COLOURS[box.kind], edgecolor="#555555", linewidth=0.8,
        )  # fmt: skip
        axes.add_patch(frame)
        times = f"   {box.count} times" if box.count > 1 else ""
        shape = "x".join(map(str, box.shape))
        axes.text(0.55, top - LINE * 0.9, f"{box.name}{times}", fontsize=9, weight="bold", va="center")
        each = " each" if box.count > 1 else ""
        parameters = f"{box.parameters:,} parameters{each}" if box.parameters else ""
        axes.text(WIDTH - 2.75, top - LINE * 0.9, shape, fontsize=9, va="center", ha="right")
        axes.text(WIDTH - 0.55, top - LINE * 0.9, parameters, fontsize=9, va="center", ha="right")
        for number, line in enumerate(box.lines):
            axes.text(0.75, top - LINE * (number + 1.9), line, fontsize=8, va="center", color="#333333")
        top -= tall
        if place + 1 < len(found):
            axes.annotate(
                "", (WIDTH / 2, top - GAP), (WIDTH / 2, top), arrowprops={"arrowstyle": "->", "lw": 0.8}
            )
        top -= GAP
    save(figure, path, dpi=110)


def boxes(layers: Sequence[LayerFacts]) -> list[Box]:
    """The boxes that a picture of ``layers`` consists of, equal neighbours joined."""
    joined: list[Box] = []
    for group in _units(_segments(layers)):
        box = _box(group)
        last = joined[-1] if joined else None
        if last and (last.lines, last.shape, last.parameters) == (box.lines, box.shape, box.parameters):
            first = last.name.partition(" to ")[0]
            joined[-1] = Box(
                box.kind, f"{first} to {box.name}", box.lines, box.shape, box.parameters, last.count + 1
            )
        else:
            joined.append(box)
    return joined


def _segments(layers: Sequence[LayerFacts]) -> list[list[LayerFacts]]:
    """``layers`` cut behind each layer that all paths run through."""
    readers = {layer.name: 0 for layer in layers}
    for layer in layers:
        for name in layer.reads:
            readers[name] += 1
    segments: list[list[LayerFacts]] = []
    segment: list[LayerFacts] = []
    waiting: dict[str, int] = {}
    for layer in layers:
        segment.append(layer)
        for name in layer.reads:
            waiting[name] -= 1
            if not waiting[name]:
                del waiting[name]
        if not waiting:
            segments.append(segment)
            segment = []
        waiting[layer.name] = readers[layer.name]
    return segments


def _units(segments: Sequence[list[LayerFacts]]) -> list[list[LayerFacts]]:
    """``segments``, each with the single layers behind it that have no kernel.

    What ends the convolutions begins a unit of its own.
    """
    units: list[list[LayerFacts]] = []
    for segment in segments:
        first = segment[0]
        if units and len(segment) == 1 and not first.size and first.kind not in ENDS:
            units[-1].extend(segment)
        else:
            units.append([*segment])
    return units


def _box(unit: Sequence[LayerFacts]) -> Box:
    first, last = unit[0], unit[-1]
    join = max(unit, key=lambda layer: len(layer.reads))  # the first of those that join the most
    parameters = sum(layer.parameters for layer in unit)
    if len(join.reads) < 2:
        kind = "dense" if len(first.size) == 1 else "convolution" if first.size else "input"
        return Box(kind, first.name, (_chain(unit),), last.shape, parameters)
    known = {layer.name: layer for layer in unit}
    lines = [f"• {_branch(name, known)}" for name in join.reads]
    behind = unit[[*unit].index(join) :]
    lines.append(_chain(behind))
    return Box("branches", _common(unit), tuple(lines), last.shape, parameters)


def _branch(name: str, known: dict[str, LayerFacts]) -> str:
    """The layers from a fork to the layer ``name``, as far as there is one way to go."""
    chain: list[LayerFacts] = []
    while name in known:
        layer = known[name]
        chain.insert(0, layer)
        if len(layer.reads) > 1:
            return f"..., {_chain(chain)}"
        name = layer.reads[0]
    return _chain(chain) or "as it is"


def _chain(layers: Sequence[LayerFacts]) -> str:
    words = []
    for layer in layers:
        if len(layer.size) == 3:
            filters, height, width = layer.size
            stride = f" stride {layer.stride}" if layer.stride > 1 else ""
            words.append(f"{height}x{width}{stride} to {filters}")
        elif layer.size:
            words.append(f"dense {layer.size[0]}")
        else:
            words.append(SHORT.get(layer.kind, layer.kind))
    return ", ".join(word for word in words if word)


def _common(unit: Sequence[LayerFacts]) -> str:
    """The words that the names of the layers begin with, or the last name that is no norm's."""
    words = zip(*(layer.name.split("_") for layer in unit), strict=False)
    shared = "_".join(word for word, *_ in takewhile(lambda each: len({*each}) == 1, words))
    return shared or next(layer.name for layer in reversed(unit) if layer.kind != "BatchNormalization")
