"""The model repository is valid by Triton's own definitions, and agrees with the files."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from tiny_model import tiny_export

from fertools.cli import main
from fertools.contract import LABELS
from fertools.export.exporter import check_folder
from fertools.export.subject import read_origin
from fertools.export.triton import write_repository
from fertools.runtime import Predictor

definitions = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
text_format = pytest.importorskip("google.protobuf.text_format")

#: Triton's types -> onnxruntime's.
TYPES = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}


def check(repository: Path, names: list[str]) -> None:
    """Check everything that the onnxruntime backend compares when it loads a model."""
    assert sorted(path.name for path in repository.iterdir()) == sorted(names)
    for name in names:
        folder = repository / name
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
            "config.pbtxt",
            "labels.txt",
            "1/model.onnx",
        }
        config = text_format.Parse((folder / "config.pbtxt").read_text(), definitions.ModelConfig())
        assert (config.name, config.platform) == (name, "onnxruntime_onnx")
        assert config.max_batch_size > 1
        assert config.HasField("dynamic_batching")
        assert [(group.count, group.kind) for group in config.instance_group] == [
            (1, definitions.ModelInstanceGroup.KIND_AUTO)
        ]
        assert [output.label_filename for output in config.output] == ["labels.txt"]
        assert tuple((folder / "labels.txt").read_text().splitlines()) == LABELS
        session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
        for told, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert [tensor.name for tensor in told] == [tensor.name for tensor in real]
            for tensor, held in zip(told, real, strict=True):
                assert TYPES[definitions.DataType.Name(tensor.data_type)] == held.type
                assert [*tensor.dims] == held.shape[1:]  # Triton's batch dimension precedes them
                assert not isinstance(held.shape[0], int)


def test_a_repository_of_an_export(tmp_path):
    write_repository(tiny_export(tmp_path / "export"), tmp_path / "repository")
    check(tmp_path / "repository", ["tiny_int8", "tiny"])
    for name, precision in (("tiny", "float32"), ("tiny_int8", "int8")):
        file = tmp_path / "repository" / name / "1" / "model.onnx"
        assert Predictor(file, precision=precision).info.name == "tiny"


def test_a_misspelled_field_would_be_noticed():
    with pytest.raises(text_format.ParseError):
        text_format.Parse("dynamic_batchin {}", definitions.ModelConfig())


def test_the_command(small_run, tmp_path):
    folder = tmp_path / "out"
    arguments = [
        "export",
        small_run,
        "--target",
        "triton",
        "--quantize",
        "--calibration-images",
        256,
        "--out",
        folder,
    ]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "onnx " in result.stdout
    check_folder(folder, read_origin(folder).data)  # it may be replaced by another
    network = Predictor(folder).info.name
    check(folder / "triton", [network, f"{network}_int8"])
    report = json.loads((folder / "report.json").read_text())
    assert report["target"] == "triton"
    assert f"triton/{network}/1/model.onnx" in report["files"]
    assert (folder / "triton" / network / "1" / "model.onnx").read_bytes() == (
        folder / "model.onnx"
    ).read_bytes()
    faces = np.zeros((1, 48, 48), np.uint8)
    assert Predictor(folder / "triton" / network / "1" / "model.onnx").probabilities(faces).shape == (1, 7)
