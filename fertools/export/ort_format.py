"""onnxruntime's mobile format (.ort), by onnxruntime's own converter.

The style is ``Fixed``, because onnxruntime optimizes an .onnx file whenever it is opened, and an .ort file
never. The other style, ``Runtime``, keeps the graph open for accelerators: it computes in float between
QuantizeLinear and DequantizeLinear unless the application switches the saved optimizations on. ``Fixed`` has
QLinearConv and QGemm instead, which make int8 fast.

No target platform is given. That leaves out only the NCHWc layout, which exists on x86 alone: a file that
uses it does not run on ARM. int8 convolutions never use it. Those of a float32 .ort file lack it on x86,
where the .onnx file gets it. (The platform ``arm`` would only change how signed activations are treated, and
ours are unsigned.)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fertools.contract import OPERATORS_FILE
from fertools.errors import ModelError
from fertools.runtime.metadata import add_checksum
from fertools.runtime.session import load_onnxruntime

#: Makes the converter optimize less, and put this name into its file names.
LEVEL = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"


def write_ort(folder: Path, models: Mapping[str, bytes]) -> None:
    """Write ONNX models into ``folder`` as .ort files, and the operators that a reduced build needs.

    Arguments:
        folder: where the files go.
        models: the names of .onnx files, which the .ort files are called after, and their bytes with a
            blank checksum.

    Raises:
        ModelError: onnxruntime cannot convert one.
    """
    load_onnxruntime()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary).resolve()
        for name, data in models.items():
            (work / name).write_bytes(data)
        _convert(work)
        for file in work.glob("*.ort"):
            (folder / file.name).write_bytes(add_checksum(file.read_bytes()))
        operators = (work / OPERATORS_FILE).read_text(encoding="utf-8")
        # The converter writes the paths of its input files into it.
        (folder / OPERATORS_FILE).write_text(
            operators.replace(f"{work}{os.sep}", ""), encoding="utf-8", newline="\n"
        )


def _convert(folder: Path) -> None:
    """Run the converter on the .onnx files in ``folder``, in a process of its own: it prints and logs."""
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(folder)]
    command += ["--optimization_style", "Fixed"]
    environment = {key: value for key, value in os.environ.items() if key != LEVEL}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ModelError(f"onnxruntime cannot convert the network to its mobile format: {last}")
