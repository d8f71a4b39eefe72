"""The whole of ``fertools quickstart``, as the README's first command runs it."""

import json

import pytest
from click.testing import CliRunner

from fertools.cli import main
from fertools.contract import LABELS
from fertools.training import Run


@pytest.mark.slow
def test_the_quick_start_ends_with_every_new_face_right(tmp_path):
    pytest.importorskip("tensorflow")
    out = tmp_path / "quickstart"
    result = CliRunner().invoke(main, ["quickstart", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.stderr
    predictions = json.loads(result.stdout)["predictions"]
    assert {label: found["label"] for label, found in predictions.items()} == {name: name for name in LABELS}
    assert Run.open(out / "run").config.model == "compact"
    # Asked for another network, it does not pass this one off as that.
    other = CliRunner().invoke(main, ["quickstart", "--out", str(out), "--model", "sequential"])
    assert other.exit_code == 1
    assert "is a run of compact" in other.stderr
