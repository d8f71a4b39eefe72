"""A model repository for Triton Inference Server, which its onnxruntime backend loads unchanged.

::

    triton/
      compact_int8/
        config.pbtxt        names, types, batching
        labels.txt          class names, one per line, for Triton's classification extension
        1/model.onnx        the export's file, unchanged

The layout and the fields are those of Triton's model_repository.md and model_configuration.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from fertools.files import write_text
from fertools.runtime.location import model_files
from fertools.runtime.metadata import METADATA_KEY, ModelInfo

#: Largest batch of Triton, and microseconds that the first image waits for others.
BATCH: Final = 64
DELAY: Final = 500

#: ONNX's numbers of element types -> Triton's names of those that we use.
_TYPES: Final = {1: "TYPE_FP32", 2: "TYPE_UINT8"}


def write_repository(export: Path, folder: Path) -> None:
    """Write a model repository with all .onnx files of an export.

    A model's name is that of the network, followed by ``_int8`` for the int8 file.

    Arguments:
        export: the export folder.
        folder: the repository; its models are replaced.
    """
    import onnx

    for file in model_files(export).values():
        model = onnx.load(file)
        facts = {entry.key: entry.value for entry in model.metadata_props}
        info = ModelInfo.from_json(facts[METADATA_KEY])
        name = info.name if info.precision == "float32" else f"{info.name}_{info.precision}"
        place = folder / name
        (place / "1").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place / "1" / "model.onnx")
        write_text(place / "labels.txt", "".join(f"{label}\n" for label in info.labels))
        write_text(place / "config.pbtxt", _config(name, model.graph))


def _config(name: str, graph: Any) -> str:
    (image,), (probabilities,) = graph.input, graph.output
    return f"""name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {BATCH}
input [
  {{
    {_tensor(image)}
  }}
]
output [
  {{
    {_tensor(probabilities)}
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{
  max_queue_delay_microseconds: {DELAY}
}}
instance_group [
  {{
    kind: KIND_AUTO
    count: 1
  }}
]
"""


def _tensor(value: Any) -> str:
    """Name, type and dimensions of a graph's input or output; the first, of the batch, is Triton's own."""
    kind = value.type.tensor_type
    dims = ", ".join(str(dimension.dim_value) for dimension in kind.shape.dim[1:])
    return f'name: "{value.name}"\n    data_type: {_TYPES[kind.elem_type]}\n    dims: [ {dims} ]'
