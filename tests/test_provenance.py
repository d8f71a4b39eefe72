import json
import shlex

import pytest

from fertools.cli.train import chosen_config, distill
from fertools.cli.train import command as train
from fertools.provenance import earlier_commands, label, origins, train_command, unknown_origins
from fertools.training import TrainConfig, recipe


def given(name, command, line):
    """The options that were given in a line, as the command understands them."""
    program, word, *arguments = shlex.split(line, comments=True)
    assert (program, word) == ("fertools", name)
    params = command.make_context(name, arguments).params
    return {name: value for name, value in params.items() if value is not None and value is not False}


def test_a_command_makes_the_same_configuration():
    for config in (
        recipe("original", "sequential"),
        TrainConfig(seed=3, mixup=0.2, ema=0.0, model="compact"),
        recipe("original-steps", "inception-resnet"),
    ):
        line = train_command("my run", config.told(), {})
        options = given("train", train, line)
        assert str(options.pop("out")) == "my run"
        assert options.pop("source") == "SRC"
        assert chosen_config(None, {name: options.get(name) for name in config.to_dict()}) == config
    # Options that equal today's defaults, too: tomorrow's may be others.
    plain = train_command("run", TrainConfig().told(), {})
    assert plain.startswith("fertools train --data SRC --out run --model sequential --epochs 60 ")
    assert plain.count(" --") == len(TrainConfig().told()) - 1 + 2  # no learning_rate_steps


def test_weights_and_teachers_are_in_it():
    facts = {
        "weights": {"name": "run-1/best.keras", "sha256": "0123456789"},
        "distillation": {
            "temperature": 2.0,
            "label_share": 0.25,
            "versions": 4,
            "teachers": [{"name": f"all/seed-{seed}", "sha256": f"{seed}" * 64} for seed in (0, 1)],
        },
    }
    line = train_command("student", TrainConfig().told(), facts)
    assert line.endswith("  # all/seed-0 is 00000000, all/seed-1 is 11111111, run-1/best.keras is 01234567")
    options = given("distill", distill, line)
    assert (options["temperature"], options["label_share"], options["versions"]) == (2.0, 0.25, 4)
    assert [str(path) for path in (*options["first"], *options["more"])] == ["all/seed-0", "all/seed-1"]
    assert str(options["weights"]) == "run-1/best.keras"


def test_without_labels_there_are_none_to_smooth():
    """The command would be refused with it. And every digit of a number counts."""
    facts = {
        "distillation": {
            "temperature": 1.2345678,
            "label_share": 0.0,
            "teachers": [{"name": "a", "sha256": "0"}],
        }
    }
    options = given("distill", distill, train_command("student", TrainConfig().told(), facts))
    assert "label_smoothing" not in options
    assert options["temperature"] == 1.2345678


def test_the_version_and_other_data_are_in_it():
    facts = {
        "versions": {"fertools": "1.2.3"},
        "weights": {"name": "run-1/best.keras", "sha256": "0123456789"},
        "other_data": [{"name": "other", "fingerprint": "0"}],
    }
    line = train_command("run", TrainConfig().told(), facts)
    assert line.endswith("  # fertools 1.2.3, run-1/best.keras is 01234567")
    assert given("train", train, line)["other_data"] is True
    assert "other_data" not in given("train", train, train_command("run", TrainConfig().told(), {}))


def test_origins(tmp_path):
    """Of a run and of an export: its own data, and what it goes back to."""
    own, other = ({"name": name, "fingerprint": name * 3} for name in "ab")
    for name, facts in (("plain", {"data": own}), ("mixed", {"data": own, "other_data": [other]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(facts))
    (tmp_path / "export").mkdir()
    report = {"model": {"data": own}, "training": {"other_data": [other]}}
    (tmp_path / "export" / "report.json").write_text(json.dumps(report))
    assert origins(tmp_path / "plain") == [own]
    assert origins(tmp_path / "mixed" / "best.keras") == [own, other]
    assert origins(tmp_path / "export") == [own, other]
    assert origins(tmp_path / "elsewhere.keras") == []


def test_unknown_origins(tmp_path):
    """Of files without a record, and of what a record says was made from such."""
    data = {"name": "a", "fingerprint": "b"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"data": data, "unknown_data": ["far.keras"]}))
    (tmp_path / "export").mkdir()
    report = {"model": {"data": data}, "training": {"unknown_data": ["far.keras", "other.keras"]}}
    (tmp_path / "export" / "report.json").write_text(json.dumps(report))
    (tmp_path / "near").mkdir()
    paths = [tmp_path / "run", tmp_path / "export", tmp_path / "near" / "mine.keras"]
    assert unknown_origins(paths) == ["far.keras", "other.keras", "mine.keras"]


def test_names(tmp_path):
    assert label(tmp_path / "mine") == "mine"
    assert label(tmp_path / "all" / "seed-3") == "all/seed-3"
    assert label(tmp_path / "mine" / "best.keras") == "mine/best.keras"
    assert label(tmp_path / "compact" / "model.keras") == "compact/model.keras"


def test_what_came_before(tmp_path):
    for name, commands in (("one", ["a"]), ("two", ["a", "b"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"commands": commands}))
        (tmp_path / name / "metrics.json").write_text("{}")
    export = tmp_path / "export"
    export.mkdir()
    report = {"model": {"weights_sha256": "ab" * 32}, "training": {"run": "two", "commands": ["a", "b"]}}
    (export / "report.json").write_text(json.dumps(report))
    paths = [tmp_path / "two" / "best.keras", tmp_path / "one", export, tmp_path / "elsewhere.keras"]
    assert earlier_commands(paths) == [
        "a",
        "b",
        "fertools export two --data SRC --out export  # weights abababab",
    ]


@pytest.mark.parametrize(("own", "told"), [("b", "b  # "), ("b  # fertools 1", "b  # fertools 1, ")])
def test_a_run_that_was_stopped_came_before(tmp_path, own, told):
    (tmp_path / "run.json").write_text(json.dumps({"commands": ["a", own]}))
    (tmp_path / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n")
    assert earlier_commands([tmp_path / "best.keras"]) == ["a", f"{told}stopped after 2 epochs"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"commands": 3}', '{"commands": []}'])
def test_damaged_records_tell_nothing(tmp_path, text):
    for name in ("run.json", "report.json"):
        (tmp_path / name).write_text(text)
    (tmp_path / "history.csv").write_text("epoch\n")
    assert earlier_commands([tmp_path]) == []


def test_an_ensemble_came_before(tmp_path):
    """An export's file tells of the export, too."""
    members = [{"name": "one", "weight": 1.0}, {"name": "all/seed-2", "weight": 2.5}]
    training = {"members": members, "commands": ["a", "b"]}
    (tmp_path / "both").mkdir()
    report = {"model": {"weights_sha256": "ab" * 32}, "training": training}
    (tmp_path / "both" / "report.json").write_text(json.dumps(report))
    *before, own = earlier_commands([tmp_path / "both" / "model.keras"])
    assert before == ["a", "b"]
    assert own == "fertools ensemble one all/seed-2 --weights 1,2.5 --data SRC --out both  # weights abababab"
