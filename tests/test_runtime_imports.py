"""The runtime stays small: what it imports, when, and what it exports."""

import numpy as np
import pytest
from loading import loaded
from PIL import Image
from tiny_model import tiny_export

import fertools.runtime


def test_importing_the_runtime_needs_numpy_alone():
    assert loaded("import fertools.runtime") - loaded("import numpy") == {"fertools"}


def test_predicting_arrays_needs_numpy_and_onnxruntime_alone(tmp_path):
    code = """
import numpy as np
from fertools.runtime import Predictor
Predictor(sys.argv[1]).predict(np.zeros((60, 70, 3), np.uint8))
"""
    found = loaded(code, tiny_export(tmp_path, "float32"))
    assert found - loaded("import numpy, onnxruntime") == {"fertools"}


def test_predicting_a_file_adds_pillow_alone(tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(np.zeros((60, 50), np.uint8)).save(path)
    code = "from fertools.runtime import Predictor\nPredictor(sys.argv[1]).predict(sys.argv[2])"
    found = loaded(code, tiny_export(tmp_path, "float32"), path)
    assert found - loaded("import numpy, onnxruntime") == {"fertools", "PIL"}


def test_info_loads_what_predicting_does_and_click():
    found = loaded("from fertools.cli import main\nmain(['info'], standalone_mode=False)")
    assert "onnxruntime" in found
    found -= {"tensorrt_libs"}  # which TensorRT's provider needs, where it is installed
    assert found - loaded("import click, numpy, onnxruntime") == {"fertools"}


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
