import copy
import json
import shlex

import pytest

from fertools.cli.export import command as export_command
from fertools.cli.predict import command as predict_command
from fertools.cli.train import command as train_command
from fertools.cli.verify import command as verify_command
from fertools.data import synthetic
from fertools.export.card import model_card

COMMANDS = {
    "train": train_command,
    "export": export_command,
    "verify": verify_command,
    "predict": predict_command,
}


@pytest.fixture
def document(small_export):
    return json.loads((small_export / "report.json").read_text())


def commands(card):
    return [line for line in card.splitlines() if line.startswith("fertools ")]


def test_written_from_the_measured_figures(small_export, document):
    card = (small_export / "MODEL_CARD.md").read_text()
    assert card == model_card(document)
    changed = copy.deepcopy(document)
    for row in changed["verification"]["rows"]:
        row["evaluation"]["accuracy"] = 0.1234
    assert model_card(changed).count("| 12.34% |") == 3
    assert "| 12.34% |" not in card
    for part in ("343 of them that stand in no other split", "256 training images", "epoch 5, 75.00%"):
        assert part in card


def test_no_lines_but_tables_and_headings_are_broken(document):
    card = model_card(document)
    assert "None" not in card
    assert "nan" not in card.lower().split()
    assert "\n\n\n" not in card
    for heading in ("Measured", "Training", "Quantization", "Data and licence", "Intended use", "Limits"):
        assert f"\n## {heading}\n" in card


def test_commands_can_be_given(document):
    config = document["training"]["config"]
    config.update(learning_rate=0.01, ema=0.0, schedule="plateau", class_balance="weights")
    document["quantization"].update(method="percentile", images=100)
    found = commands(model_card(document))
    assert [line.split()[1] for line in found] == ["predict", "verify", "train", "export"]
    for line in found:
        _, name, *arguments = shlex.split(line)
        COMMANDS[name].make_context(name, arguments)  # raises click.UsageError
    train = next(line for line in found if " train " in line)
    assert train == (
        "fertools train --data SRC --epochs 6 --batch-size 35 --learning-rate 0.01 --schedule plateau"
        " --class-balance weights --ema 0.0 --device cpu"
    )
    assert found[-1].endswith("--quantize --calibration-images 100 --calibration-method percentile")


@pytest.mark.parametrize(
    ("name", "fingerprint", "note"),
    [
        ("fer2013.csv", "bb183fb6943ddf60cee1219371efd38a", "No explicit licence is known"),
        (synthetic.NAME, "0" * 64, "it knows nothing of real faces"),
        ("mine.npz", "0" * 64, "Trained on mine.npz, of which fertools knows no more"),
        ("synthetic-or-not.npz", "0" * 64, "Trained on synthetic-or-not.npz"),
    ],
)
def test_data_notes(document, name, fingerprint, note):
    document["model"]["data"] = {"name": name, "fingerprint": fingerprint}
    card = model_card(document)
    assert note in card
    assert "The code that made this model is under the MIT licence." in card


def test_without_quantization_and_times(document):
    document["quantization"] = None
    document["verification"]["rows"].pop()
    for row in document["verification"]["rows"]:
        row.update(milliseconds=None, accuracy_unseen=None)
    card = model_card(document)
    assert "Quantization" not in card
    assert "--quantize" not in card
    assert "| onnx |" in card
    assert "| - |" in card
    assert "By class, onnx:" in card


def test_start_weights_are_told(document):
    document["training"]["weights"] = {"name": "model.keras", "sha256": "ab" * 32}
    card = model_card(document)
    assert "weights of `model.keras` (sha256 `abababababababab...`)" in card
    assert "fertools train --data SRC --weights model.keras" in card
