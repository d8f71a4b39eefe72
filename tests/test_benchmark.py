import json
import sys
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tiny_model import tiny_bytes, tiny_export

from fertools.benchmark import benchmark
from fertools.benchmark.start import first_prediction
from fertools.benchmark.work import SIZE, matrix_product, multiply_adds
from fertools.cli import main
from fertools.contract import INT8_FILE, ONNX_FILE
from fertools.errors import ConfigError, ModelError
from fertools.runtime import location


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """An export folder of a tiny network, both precisions."""
    return tiny_export(tmp_path_factory.mktemp("export"), "float32", "int8")


@pytest.fixture(scope="module")
def found(export):
    return benchmark(export, batches=(1, 3), rounds=2)


def test_every_file_at_every_batch(found, export):
    assert [(row.file, row.batch) for row in found.speeds] == [
        (name, batch) for batch in (1, 3) for name in (ONNX_FILE, INT8_FILE)
    ]
    assert [file.bytes for file in found.files] == [
        (export / name).stat().st_size for name in (ONNX_FILE, INT8_FILE)
    ]
    for file in found.files:
        assert file.provider == "CPUExecutionProvider"
        assert 0.01 < file.start_seconds < 30
        assert file.peak_bytes is None or 10e6 < file.peak_bytes < 1e9
    for row in found.speeds:
        assert 0 < row.p50_milliseconds <= row.p95_milliseconds * 1.001
        assert row.images_per_second == pytest.approx(row.batch / row.p50_milliseconds * 1e3)
        assert 0 < row.share_of_peak < 1
    for batch in (1, 3):
        one, other = (row for row in found.speeds if row.batch == batch)
        assert one.times_float32 == 1
        assert other.times_float32 == pytest.approx(one.p50_milliseconds / other.p50_milliseconds)


def test_no_round_is_an_error_before_the_work(export):
    with pytest.raises(ConfigError, match="rounds=0: at least 1"):
        benchmark(export, rounds=0)


def test_without_a_float32_file_there_is_no_ratio(tmp_path):
    found = benchmark(tiny_export(tmp_path, "int8"), batches=(1,), rounds=1)
    assert [row.times_float32 for row in found.speeds] == [None]
    assert " - " in found.to_text()


def test_a_device_without_onnx_has_all_but_the_share_of_matmul_speed(export, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = CliRunner().invoke(main, ["benchmark", str(export), "--batch", "2", "--json"])
    assert result.exit_code == 0, result.stderr
    assert "no share of matmul speed: onnx is not installed: pip install 'fertools[train]'" in result.stderr
    speeds = json.loads(result.stdout)["speeds"]
    assert [row["share_of_peak"] for row in speeds] == [None, None]
    assert all(row["images_per_second"] > 0 for row in speeds)
    result = CliRunner().invoke(main, ["benchmark", str(export), "--batch", "2"])
    assert [line.split()[-1] for line in result.stdout.splitlines()[-2:]] == ["-", "-"]


def test_a_picture_that_cannot_be_drawn_costs_no_measurement(export, tmp_path, monkeypatch):
    monkeypatch.setattr("fertools.benchmark.benchmark", MagicMock(side_effect=AssertionError))
    command = ["benchmark", str(export), "--plot"]
    result = CliRunner().invoke(main, [*command, "speed.txt"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "speed.txt: the picture is a .png file; name one." in result.stderr
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = CliRunner().invoke(main, [*command, str(tmp_path / "speed.png")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: matplotlib is not installed: pip install 'fertools[train]'\n"


def test_the_share_is_of_the_best_matrix_product(export, monkeypatch):
    """With one disturbed product, or a few, it holds; if all were disturbed, it is left out."""
    products = {"matmul float32": [[9e-3, 1e-3], [2e-3, 5e-3]], "matmul int8": [[3600.0], [7200.0]]}
    monkeypatch.setattr(
        "fertools.benchmark.measure.in_turns",
        lambda calls, rounds, threads: {name: products.get(name, [[1e-3]]) for name in calls},
    )
    found = benchmark(export, batches=(2,))
    float32, int8 = (row.share_of_peak for row in found.speeds)
    assert float32 == pytest.approx(2 * found.multiply_adds / SIZE**3)
    assert int8 is None


def graph_file(path, nodes, arrays, shape, result):
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, result)],
        [onnx.numpy_helper.from_array(np.zeros(dims, np.float32), name) for name, dims in arrays.items()],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_multiply_adds(tmp_path):
    node = onnx.helper.make_node
    convolution = graph_file(
        tmp_path / "conv.onnx",
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2], group=2)],
        {"w": (6, 2, 3, 3)},
        ["batch", 4, 10, 8],
        None,
    )
    assert multiply_adds(convolution) == 5 * 4 * 6 * 2 * 9
    dense = graph_file(
        tmp_path / "dense.onnx",
        [node("MatMul", ["x", "a"], ["h"]), node("Gemm", ["h", "b"], ["y"])],
        {"a": (10, 20), "b": (20, 7)},
        ["batch", 10],
        None,
    )
    assert multiply_adds(dense) == 10 * 20 + 20 * 7


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_peak_is_a_whole_matrix_product(precision):
    (product,) = matrix_product(precision, 1)()
    assert product.shape == (SIZE, SIZE)
    assert np.abs(product).max() > 0


def test_a_file_that_does_not_load(tmp_path):
    file = tmp_path / ONNX_FILE
    file.write_bytes(tiny_bytes("float32")[:-1])
    with pytest.raises(ModelError, match=r"a process that loads it fails: .*truncated"):
        first_prediction(file, 1, tries=1)


def test_wrong_arguments(export, tmp_path):
    with pytest.raises(ConfigError, match="sizes of at least 1"):
        benchmark(export, batches=(0,))
    with pytest.raises(ModelError, match="no file to time"):
        benchmark(tmp_path)


def test_the_command(export, tmp_path, monkeypatch):
    """Of a model that ships, by its name."""
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "compact").symlink_to(export)
    monkeypatch.setattr(location, "_PACKAGE", tmp_path)
    plot = tmp_path / "speed.png"
    arguments = ["benchmark", "compact", "--batch", "2", "--plot", str(plot), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["batch"] for row in document["speeds"]] == [2, 2]
    assert document["threads"] == 1
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_table(found):
    lines = found.to_text().splitlines()
    assert lines[0].startswith("tiny: ")
    assert sum(line.startswith(ONNX_FILE) for line in lines) == 3
    assert len({len(line) for line in lines if line.startswith(("model", "file")) and "%" in line}) == 1
