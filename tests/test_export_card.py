import copy
import json
import re
import shlex

import pytest

from fertools.cli.export import command as export_command
from fertools.cli.export import verify as verify_command
from fertools.cli.predict import command as predict_command
from fertools.cli.stress import command as stress_command
from fertools.cli.train import command as train_command
from fertools.cli.train import distill as distill_command
from fertools.data import synthetic
from fertools.export.card import model_card

COMMANDS = {
    "train": train_command,
    "distill": distill_command,
    "export": export_command,
    "stress": stress_command,
    "verify": verify_command,
    "predict": predict_command,
}


@pytest.fixture
def document(small_export):
    return json.loads((small_export / "report.json").read_text())


def commands(card):
    return [line for line in card.splitlines() if line.startswith("fertools ")]


def test_written_from_the_measured_figures(small_export, document):
    card = (small_export / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card == model_card(document)
    changed = copy.deepcopy(document)
    for row in changed["verification"]["rows"]:
        row["evaluation"]["accuracy"] = 0.1234
    assert model_card(changed).count("| 12.34% |") == 3
    assert "| 12.34% |" not in card
    for part in (
        "one training seed (0)",
        "343 of them that are in no other split",
        "256 training images",
        "epoch 5, 75.00%",
    ):
        assert part in card


def test_no_lines_but_tables_and_headings_are_broken(document):
    card = model_card(document)
    assert "None" not in card
    assert "nan" not in card.lower().split()
    assert "\n\n\n" not in card
    for heading in (
        "Measured",
        "Temperature scaling",
        "Training",
        "Quantization",
        "Data and licence",
        "Intended use",
        "Limits",
    ):
        assert f"\n## {heading}\n" in card


def test_commands_can_be_given(document):
    training = document["training"]
    training["commands"] = ["fertools train --data SRC --out first", "fertools distill --teachers first"]
    training["run"] = "my run"
    document["quantization"].update(method="percentile", images=100, amx=True)
    found = commands(model_card(document))
    assert [line.split()[1] for line in found] == [
        "predict",
        "verify",
        "stress",
        "train",
        "distill",
        "export",
    ]
    for line in found:
        _, name, *arguments = shlex.split(line)
        COMMANDS[name].make_context(name, arguments)  # raises click.UsageError
    assert found[-1] == (
        "fertools export 'my run' --data SRC --quantize --calibration-images 100"
        " --calibration-method percentile --amx"
    )


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
        row.update(milliseconds=None, accuracy_deduplicated=None, accuracy_flip_deduplicated=None)
    card = model_card(document)
    assert "Quantization" not in card
    assert "--quantize" not in card
    assert "| onnx |" in card
    assert "| - |" in card
    assert "By class, onnx, single view:" in card


def test_start_weights_are_told(document):
    document["training"]["weights"] = {"name": "model.keras", "sha256": "ab" * 32}
    card = model_card(document)
    assert "weights of `model.keras` (sha256 `abababababababab...`)" in card


def test_both_views_stand_in_the_comparison(document):
    row = document["verification"]["rows"][2]
    row.update(accuracy_deduplicated=0.11, accuracy_flip=0.22, accuracy_flip_deduplicated=0.33)
    row["evaluation"].update(accuracy=0.44, balanced_accuracy=0.55, macro_f1=0.66)
    lines = model_card(document).splitlines()
    headings = next(line for line in lines if line.startswith("| | accuracy"))
    found = next(line for line in lines if line.startswith("| int8 | 44"))
    assert headings.count("|") == found.count("|")
    assert found.startswith("| int8 | 44.00% | 11.00% | 55.00% | 66.00% | 22.00% | 33.00% |")


def test_classes_and_the_confusion_picture(document):
    card = model_card(document)
    for scores in document["verification"]["rows"][2]["evaluation"]["classes"]:
        assert (
            f"| {scores['label']} | {scores['precision']:.2%} | {scores['recall']:.2%} | {scores['f1']:.2%}"
            f" | {scores['support']} |"
        ) in card
    (picture,) = re.findall(r"!\[.*int8.*\]\((.*)\)", card)
    assert picture in document["files"]


def test_calibration_error_with_and_without_scaling(document):
    document["temperature_scaling"] = {
        "temperature": 1.25, "ece_before": 0.1, "ece_after": 0.02, "unscaled_because": None,
        "test_ece": {"keras": {"without": 0.11, "with": 0.03}, "int8": {"without": 0.12, "with": 0.04}},
    }  # fmt: skip
    card = model_card(document)
    assert "one temperature, 1.25, in all files" in card
    assert "was 10.00% before and is 2.00% after" in card
    assert (
        "\n| | without | with |\n|---|---:|---:|\n| keras | 11.00% | 3.00% |\n| int8 | 12.00% | 4.00% |\n"
        in card
    )
    document["temperature_scaling"].update(temperature=1.0, ece_after=0.1, unscaled_because="it has a reason")
    card = model_card(document)
    assert "No temperature scaling: it has a reason." in card
    assert "on the validation split: 10.00%." in card


def test_teachers_are_told(document):
    assert "Distilled" not in model_card(document)
    document["training"]["distillation"] = {
        "temperature": 4.0,
        "label_share": 0.1,
        "teachers": [
            {"name": "one.keras", "sha256": "ab" * 32, "model": "sequential"},
            {"name": "two.keras", "sha256": "cd" * 32, "model": "compact"},
        ],
    }
    card = model_card(document)
    assert "`one.keras` (sequential, sha256 `abababababababab...`)" in card
    assert "`two.keras` (compact, sha256 `cdcdcdcdcdcdcdcd...`)" in card
    assert "temperature 4, share of the labels in the loss 0.1." in card


def test_seeds_are_told(document):
    assert "one training seed (0)" in model_card(document)
    document["training"]["seeds"] = {
        "seeds": [0, 1, 2],
        "validation": {"values": [0.635, 0.625, 0.615], "mean": 0.625, "deviation": 0.01},
        "test": {"values": [0.5, 0.4875, 0.5125], "mean": 0.5, "deviation": 0.0125},
        "best": 0,
    }
    card = model_card(document)
    assert "training seed 0, the best on the validation split of seeds 0, 1, 2" in card
    assert "validation 62.50% ± 1.00%, test 50.00% ± 1.25%" in card
    assert "seed 1 62.50% and 48.75%" in card
    document["training"]["seeds"]["best"] = 2
    card = model_card(document)
    assert "training seed 0, one of seeds 0, 1, 2, of which 2 is the best on the validation split" in card
    document["training"]["config"]["camera"] = 0.4
    card = model_card(document)
    assert "of which 2 is the best on the validation split's clean and degraded images together (" in card
    document["training"]["seeds"]["best"] = 0
    card = model_card(document)
    assert "the best on the validation split's clean and degraded images together of seeds 0, 1, 2 (" in card


def test_the_terms_of_all_data_behind_the_weights(document):
    document["model"]["data"] = {"name": synthetic.NAME, "fingerprint": "0" * 64}
    fer2013 = {"name": "fer2013.csv", "fingerprint": "bb183fb6943ddf60cee1219371efd38a"}
    document["training"]["other_data"] = [fer2013, fer2013]
    card = model_card(document)
    assert card.count("No explicit licence is known") == 1
    assert "it knows nothing of real faces" in card
