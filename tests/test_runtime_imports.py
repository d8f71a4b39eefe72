"""The runtime stays small: what it imports, when, and what it exports."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_model import tiny_export

import fertools.runtime

HEAVY = {"tensorflow", "keras", "onnx", "pandas", "click", "rich", "PIL", "sklearn", "matplotlib", "tf2onnx"}


def imported(code, *arguments):
    """The top-level modules after running `code` in a fresh interpreter."""
    code = (
        f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_runtime_needs_numpy_alone():
    loaded = imported("import fertools.runtime")
    assert "numpy" in loaded
    assert not loaded & (HEAVY | {"onnxruntime"})


def test_predicting_arrays_needs_numpy_and_onnxruntime_alone(tmp_path):
    code = """
import numpy as np
from fertools.runtime import Predictor
Predictor(sys.argv[1]).predict(np.zeros((60, 70, 3), np.uint8))
"""
    loaded = imported(code, tiny_export(tmp_path, "float32"))
    assert "onnxruntime" in loaded
    assert not loaded & HEAVY


def test_predicting_a_file_adds_pillow_alone(tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(np.zeros((60, 50), np.uint8)).save(path)
    code = "from fertools.runtime import Predictor\nPredictor(sys.argv[1]).predict(sys.argv[2])"
    loaded = imported(code, tiny_export(tmp_path, "float32"), path)
    assert loaded & HEAVY == {"PIL"}


def test_info_does_not_load_tensorflow():
    loaded = imported("from fertools.cli import main\nmain(['info'], standalone_mode=False)")
    assert not loaded & {"tensorflow", "keras", "onnx", "pandas", "sklearn", "matplotlib"}


def test_all_is_honest():
    names = fertools.runtime.__all__
    assert names == sorted(set(names))
    assert all(hasattr(fertools.runtime, name) for name in names)
    public = {
        name
        for name, value in vars(fertools.runtime).items()
        if not name.startswith("_") and not isinstance(value, type(pytest))
    }
    assert public == set(names)
