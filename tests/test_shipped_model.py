"""The model that ships keeps what its report says, on the real data where there is any."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from fertools import contract
from fertools.data import Dataset, load
from fertools.runtime import Predictor
from fertools.verification import verify

FOLDER = Path(__file__).resolve().parent.parent / "exported" / "sequential"
REPORT = json.loads((FOLDER / contract.REPORT_FILE).read_text())


@pytest.fixture(scope="module")
def fer2013() -> Dataset:
    """The real data."""
    source = os.environ.get("FERTOOLS_TEST_DATA")
    if not source:
        pytest.skip("FERTOOLS_TEST_DATA names no folder with FER2013")
    return load(source)


def test_it_is_what_a_predictor_loads() -> None:
    predictor = Predictor()
    assert predictor.info.precision == "int8"
    assert predictor.info.name == "sequential"
    assert predictor.info.parameters == 4_478_727
    assert predictor.labels == contract.LABELS


def test_the_report_describes_the_files() -> None:
    names = {file.name for file in FOLDER.iterdir()}
    assert names == {*REPORT["files"], contract.REPORT_FILE}
    for name, facts in REPORT["files"].items():
        data = (FOLDER / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["bytes"], facts["sha256"]), name


def test_the_files_carry_the_reported_accuracy() -> None:
    for precision, row in (("float32", "onnx"), ("int8", "int8")):
        info = Predictor(FOLDER, precision=precision).info
        measured = next(item for item in REPORT["verification"]["rows"] if item["model"] == row)
        assert info.accuracy["value"] == measured["evaluation"]["accuracy"]
        assert info.data["fingerprint"] == REPORT["model"]["data"]["fingerprint"]


def test_it_was_trained_on_the_real_data(fer2013: Dataset) -> None:
    assert REPORT["model"]["data"]["fingerprint"] == fer2013.fingerprint


def test_every_gate_holds_on_privatetest_and_accuracy_is_above_62_percent(fer2013: Dataset) -> None:
    report = verify(FOLDER, fer2013)
    assert report.passed, report.to_text()
    for row in report.rows:
        assert row.evaluation.accuracy > 0.62
