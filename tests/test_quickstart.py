"""The whole of ``fertools quickstart``, as the README's first command runs it."""

import json

import pytest
from click.testing import CliRunner

from fertools.cli import main
from fertools.contract import LABELS
from fertools.runtime import Predictor
from fertools.training import Run


@pytest.mark.slow
def test_the_quick_start_ends_with_every_new_face_right(tmp_path):
    pytest.importorskip("tensorflow")
    out = tmp_path / "quickstart"
    result = CliRunner().invoke(main, ["quickstart", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {"run", "exported", "faces", "faces.png", "confusion.png"}
    assert Run.open(out / "run").config.model == "compact"
    written = Predictor(out / "exported")
    answers = {label: written.predict(out / "faces" / f"{label}.png") for label in LABELS}
    document = json.loads(result.stdout)
    assert document["predictions"] == {label: answer.to_dict() for label, answer in answers.items()}
    # The confidences are 97.9% and more, in bfloat16 as in float32: rounding, which differs from processor to
    # processor, turns none of these answers.
    assert {label: answer.label for label, answer in answers.items()} == {label: label for label in LABELS}
    # Asked for another network, it does not pass this one off as that.
    other = CliRunner().invoke(main, ["quickstart", "--out", str(out), "--model", "sequential"])
    assert other.exit_code == 1
    assert "is a run of compact" in other.stderr
