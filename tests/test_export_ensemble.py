import dataclasses
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from exporting import one_line
from small_run import write_run

from fertools.backend import import_keras
from fertools.cli import main
from fertools.errors import ConfigError, RunError
from fertools.evaluation import accuracy
from fertools.export.folding import fold
from fertools.export.subject import Ensemble, open_members
from fertools.export.temperature_scaling import scale_temperature
from fertools.models import build
from fertools.models.ensemble import shares, weighted_mean
from fertools.models.inference import load, probabilities, weights_sha256
from fertools.runtime import Predictor

keras = import_keras()


def run(*arguments):
    return CliRunner().invoke(main, ["ensemble", *map(str, arguments)])


@pytest.fixture(scope="module")
def other_run(small_run, small_data, tmp_path_factory):
    """A run whose network answers differently from that of ``small_run``, on the same data."""
    network = load(small_run / "best.keras")
    random = np.random.default_rng(7)
    weights = [
        array * random.normal(1, 0.1, array.shape).astype("float32") for array in network.get_weights()
    ]
    network.set_weights(weights)
    return write_run(tmp_path_factory.mktemp("others") / "other", network, small_data)


@pytest.fixture(scope="module")
def exported(small_run, other_run, tmp_path_factory):
    """The export of both, the first with a weight of three quarters, and the command's result."""
    folder = tmp_path_factory.mktemp("exported") / "both"
    words = ["--weights", "3,1", "--out", folder, "--quantize", "--calibration-images", 256]
    return folder, run(small_run, other_run, *words)


@pytest.mark.parametrize(
    ("weights", "expected"), [(None, (0.25,) * 4), ([1, 1, 2, 4], (0.125, 0.125, 0.25, 0.5))]
)
def test_shares_sum_to_one(weights, expected):
    assert shares(weights, 4) == expected


@pytest.mark.parametrize(
    ("weights", "count", "said"),
    [
        (None, 1, "two networks or more, not 1"),
        ([1, 2], 3, "2 weights for 3 networks"),
        ([1, 0], 2, "weight 0: must be positive"),
        ([1, float("nan")], 2, "weight nan"),
        ([1, float("inf")], 2, "weight inf"),
    ],
)
def test_wrong_weights(weights, count, said):
    with pytest.raises(ConfigError, match=said):
        shares(weights, count)


@pytest.mark.parametrize("names", [("compact", "cnn3"), ("mlp", "shallow", "mlp"), ("resnet18", "compact")])
def test_the_mean_of_the_members(names):
    """Sequential and functional networks, one of them twice, with and without folding."""
    keras.utils.set_random_seed(3)
    networks = [build(name) for name in names]
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48), np.uint8)
    answers = [probabilities(network, images) for network in networks]
    parts = np.arange(1, len(names) + 1) / sum(range(len(names) + 1))
    whole = weighted_mean(networks, parts.tolist())
    expected = sum(part * rows for part, rows in zip(parts, answers, strict=True))
    np.testing.assert_allclose(probabilities(whole, images), expected, atol=1e-6)
    np.testing.assert_allclose(probabilities(fold(whole), images), expected, atol=1e-5)
    assert whole.count_params() == sum(network.count_params() for network in networks)
    for network, rows in zip(networks, answers, strict=True):
        np.testing.assert_array_equal(probabilities(network, images), rows)


def scaled(runs, data):
    """Their networks, each with its own temperature."""
    networks = [load(run / "best.keras") for run in runs]
    for network in networks:
        scale_temperature(network, data.split("validation"))
    return networks


def test_members_are_all_scaled_to_the_same_confidence(small_run, other_run, small_data, tmp_path):
    """A run and its export, whose confidence is already scaled, give the same member."""
    certain = load(other_run / "best.keras")
    certain.layers[-1].set_weights([4 * array for array in certain.layers[-1].get_weights()])
    sure = write_run(tmp_path / "sure", certain, small_data)
    shutil.copytree(sure, tmp_path / "export")
    (exported,) = scaled([sure], small_data)
    exported.save(tmp_path / "export" / "model.keras")
    images = small_data.split("validation").images
    answers = []
    for path, file in ((sure, "best.keras"), (tmp_path / "export", "model.keras")):
        members = open_members([small_run, path])
        members[1] = dataclasses.replace(members[1], file=path / file)
        answers.append(probabilities(Ensemble(members).network(small_data), images))
    np.testing.assert_allclose(*answers, atol=2e-3)
    first, second = (probabilities(network, images) for network in scaled((small_run, sure), small_data))
    np.testing.assert_allclose(answers[0], (first + second) / 2, atol=1e-6)
    assert np.abs(answers[0] - (first + probabilities(certain, images)) / 2).max() > 0.05
    report = Ensemble(open_members([small_run, sure])).training(small_data)
    assert report["members"][1]["temperature"] > 1.5
    assert report["members"][1]["sha256"] == weights_sha256(certain)


def test_one_file_that_averages_inside(exported, small_run, other_run, small_data):
    folder, outcome = exported
    assert outcome.exit_code == 0, outcome.output
    test = small_data.split("test")
    first, second = (
        probabilities(network, test.images) for network in scaled((small_run, other_run), small_data)
    )
    mean = 0.75 * first + 0.25 * second
    predictor = Predictor(folder, precision="float32", threads=1)
    np.testing.assert_allclose(predictor.probabilities(test.images), mean, atol=1e-5)
    assert predictor.info.name == "ensemble"
    int8 = Predictor(folder, precision="int8", threads=1).probabilities(test.images)
    assert np.mean(int8.argmax(axis=1) == mean.argmax(axis=1)) >= 0.98
    np.testing.assert_allclose(int8.sum(axis=1), 1, atol=1e-5)
    sizes = [(folder / name).stat().st_size for name in ("model.int8.onnx", "model.onnx")]
    assert sizes[0] < 0.6 * sizes[1]


def test_the_report_tells_of_every_member(exported, small_run, other_run, small_data):
    folder, outcome = exported
    report = json.loads((folder / "report.json").read_text())
    training = report["training"]
    # Each member was scaled before they were joined: there is no error without it.
    assert [[*ece] for ece in report["temperature_scaling"]["test_ece"].values()] == [["with"]] * 3
    assert report["quantization"]["front_in_float"] == 2 * report["quantization"]["float_layers"]
    validation = small_data.split("validation")
    for member, path, share in zip(training["members"], (small_run, other_run), (0.75, 0.25), strict=True):
        rows = probabilities(load(path / "best.keras"), validation.images)
        assert member["validation_accuracy"] == accuracy(rows, validation.labels)
        assert not any("test" in name for name in member)  # the weights may still be chosen
        assert (member["name"], member["share"]) == (path.name, share)
        assert f"Member: {path.name}, sequential, share {share}: " in outcome.stderr
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "an ensemble of 2 networks" in card
    assert "Each member's logits are divided by its own temperature" in card
    assert "\n| | ECE |\n" in card
    assert " layers (of all members), last layer and softmax in float" in card
    for member in training["members"]:
        assert f"| {member['temperature']:.4g} | {member['validation_accuracy']:.2%} |\n" in card
    assert (
        "\nfertools ensemble small other --weights 3,1 --data SRC --quantize --calibration-images 256\n"
        in card
    )


def test_evaluated_and_verified_like_one(exported, small_run):
    folder, _ = exported
    source = str(small_run.with_suffix(".npz"))
    for command in ("verify", "evaluate"):
        outcome = CliRunner().invoke(main, [command, str(folder), "--data", source])
        assert outcome.exit_code == 0, outcome.output


def test_exported_again(exported, small_run, tmp_path):
    folder, _ = exported
    words = [folder, "--data", small_run.with_suffix(".npz"), "--out", tmp_path / "again"]
    outcome = CliRunner().invoke(main, ["export", *map(str, words)])
    assert outcome.exit_code == 0, outcome.output
    card = (tmp_path / "again" / "MODEL_CARD.md").read_text()
    assert "Each member's logits are divided by its own temperature" in card
    assert "\nfertools ensemble small other --weights 3,1 --data SRC --out both  # weights " in card
    assert "\nfertools export both --data SRC\n" in card


def test_members_from_seeds_and_exports(small_run, small_export, tmp_path):
    for seed in (0, 1):
        shutil.copytree(small_run, tmp_path / "all" / f"seed-{seed}")
    members = open_members([tmp_path / "all", small_export])
    assert [member.path.name for member in members] == ["seed-0", "seed-1", "small"]
    assert Ensemble(members).shares == pytest.approx((1 / 3,) * 3)


def test_what_cannot_be_joined(small_run, blank_run, tmp_path):
    with pytest.raises(RunError, match="an ensemble's members share it"):
        open_members([small_run, blank_run])
    with pytest.raises(RunError, match="not a run folder"):
        open_members([small_run, tmp_path])
    unfinished = shutil.copytree(small_run, tmp_path / "run")
    (unfinished / "metrics.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        open_members([small_run, unfinished])


def test_other_data_behind_a_member_is_told(small_run, other_run, small_data, tmp_path):
    far = {"name": "far.npz", "fingerprint": "0" * 64}
    mixed = shutil.copytree(other_run, tmp_path / "mixed")
    facts = json.loads((mixed / "run.json").read_text())
    (mixed / "run.json").write_text(json.dumps(facts | {"other_data": [far], "unknown_data": ["x.keras"]}))
    training = Ensemble(open_members([small_run, mixed])).training(small_data)
    assert (training["other_data"], training["unknown_data"]) == ([far], ["x.keras"])
    assert training["notes"][-2:] == [
        "mixed learned from a network that was trained on other data, far.npz",
        "the training data of x.keras is unknown",
    ]


def test_never_replaces_a_member(small_run, small_export, tmp_path):
    member = shutil.copytree(small_export, tmp_path / "member")
    outcome = run(small_run, member, "--out", member, "--force")
    assert "member: would replace what is exported; choose another folder" in one_line(outcome)
    assert "members" not in json.loads((member / "report.json").read_text())["training"]


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,x", "1,-1"])
def test_usage_errors(small_run, tmp_path, weights):
    outcome = run(small_run, small_run, "--weights", weights, "--out", tmp_path / "out")
    assert outcome.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_json(small_run, small_export, tmp_path):
    outcome = run(small_run, small_export, "--out", tmp_path / "out", "--json")
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(outcome.stdout)
    assert [member["name"] for member in document["members"]] == ["small", "small"]
    assert document["verification"]["passed"] is True
