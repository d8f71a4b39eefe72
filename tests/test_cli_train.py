import dataclasses
import json
import re

import numpy as np
import pytest
import tiny_training
from click.testing import CliRunner

from fertools.cli import main
from fertools.cli.train import chosen_config
from fertools.data import Dataset, write
from fertools.errors import RunError
from fertools.models import NETWORKS
from fertools.training import Run, TrainConfig, recipe
from fertools.training.run import siblings


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder with a data set, and a network that trains in seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)
    tiny = dataclasses.replace(NETWORKS["sequential"], build=tiny_training.build)
    monkeypatch.setitem(NETWORKS, "sequential", tiny)
    write(tiny_training.dataset(), "tiny.npz")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def train(*arguments):
    return run("--data", "tiny.npz", "--epochs", 2, "--batch-size", 16, *arguments)


def test_a_run():
    result = train("--learning-rate", 0.01)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "runs/sequential-001\n"
    found = Run.open(tiny_training.Path("runs/sequential-001"))
    assert found.config == TrainConfig(epochs=2, batch_size=16, learning_rate=0.01)
    lines = result.stderr.splitlines()
    assert lines[0] == "Data: tiny.npz, train 70, validation 35, test 14"
    device = found.facts["device"]
    assert lines[1] == f"Device: cpu, {device['name']} ({device['backend']}), {found.facts['precision']}"
    assert lines[2] == "Run: runs/sequential-001"
    number = r"\d+\.\d+"
    for count, line in enumerate(lines[3:5], 1):
        assert re.fullmatch(
            rf"epoch {count}/2  loss {number}  accuracy +{number}%  val loss {number}"
            rf"  val accuracy +{number}%  lr \d\.\d\de[+-]\d\d  {number} s( \*)?",
            line,
        )
    assert lines[3].endswith("*")
    accuracy = found.metrics["validation"]["accuracy"]
    assert lines[5] == f"Best epoch {found.metrics['best_epoch']}: validation accuracy {accuracy:.2%}"
    assert lines[6:] == ["Next: fertools export runs/sequential-001 --quantize --out exported/sequential-001"]
    assert train("--json", "--epochs", 1).exit_code == 0
    assert Run.open(tiny_training.Path("runs/sequential-002")).finished


def test_json():
    result = train("--json", "--out", "a b")
    document = json.loads(result.stdout)
    assert document == {"run": "a b", **Run.open(tiny_training.Path("a b")).metrics}
    assert document["best_epoch"] in (1, 2)
    assert result.stderr.endswith("Next: fertools export 'a b' --quantize --out 'exported/a b'\n")


def test_recipe_and_options_over_it():
    result = train("--recipe", "original", "--augmentation", "none", "--out", "run")
    assert result.exit_code == 0, result.stderr
    expected = dataclasses.replace(
        recipe("original", "sequential"), epochs=2, batch_size=16, augmentation="none"
    )
    assert Run.open(tiny_training.Path("run")).config == expected


def test_interrupted_and_resumed(monkeypatch):
    from fertools.cli.common import Progress

    epoch = Progress.epoch

    def interrupt(self, row, best):
        epoch(self, row, best)
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "epoch", interrupt)
    result = train("--out", "my run")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "Interrupted; continue with: fertools train --resume 'my run'"
    monkeypatch.setattr(Progress, "epoch", epoch)
    monkeypatch.setenv("FERTOOLS_DATA", "nothing")
    result = run("--resume", "my run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "my run\n"
    assert [line[:9] for line in result.stderr.splitlines() if line.startswith("epoch")] == ["epoch 2/2"]
    assert train("--out", "straight").exit_code == 0
    runs = [Run.open(tiny_training.Path(name)) for name in ("my run", "straight")]
    assert tiny_training.comparable(runs[0]) == tiny_training.comparable(runs[1])
    result = run("--resume", "my run")
    assert result.exit_code == 1
    assert result.stderr == "Error: my run: this run is finished; nothing to resume\n"


def test_a_seed_that_fails_does_not_stop_the_others(monkeypatch):
    from fertools.cli import common

    with_progress = common.train_with_progress

    def failing(run, *arguments, **options):
        if run.config.seed == 0:
            raise RunError("the loss is NaN")
        return with_progress(run, *arguments, **options)

    monkeypatch.setattr(common, "train_with_progress", failing)
    result = train("--seeds", 2, "--out", "nan")
    assert result.exit_code == 1
    assert "seed-0: the loss is NaN\n" in result.stderr
    assert result.stderr.splitlines()[-1] == "Error: nan: 1 of 2 seeds failed, see above"
    assert [Run(tiny_training.Path(f"nan/seed-{seed}")).finished for seed in (0, 1)] == [False, True]


def test_an_interruption_while_seeds_are_made_leaves_none(monkeypatch):
    """Some of them would be resumed as if they were all."""
    create, made = Run.create.__func__, []

    def interrupted(cls, *arguments):
        made.append(arguments)
        if len(made) == 2:
            raise KeyboardInterrupt
        return create(cls, *arguments)

    monkeypatch.setattr(Run, "create", classmethod(interrupted))
    assert train("--seeds", 3, "--out", "some").exit_code == 1
    assert not any(tiny_training.Path("some").iterdir())
    monkeypatch.setattr(Run, "create", classmethod(create))
    assert train("--seeds", 1, "--out", "some").exit_code == 0


@pytest.mark.slow
def test_several_seeds(monkeypatch):
    from fertools.cli.common import Progress

    epoch, done = Progress.epoch, []

    def interrupt(self, row, best):
        epoch(self, row, best)
        done.append(row)
        if len(done) == 3:  # in the middle of the second run
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "epoch", interrupt)
    result = train("--seeds", 3, "--seed", 4, "--out", "runs/three")
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted; continue with: fertools train --resume runs/three\n")
    result = run("--resume", "runs/three", "--json")
    assert result.exit_code == 0, result.stderr
    assert "Run: runs/three/seed-4, finished before" in result.stderr
    runs = [Run.open(tiny_training.Path(f"runs/three/seed-{seed}")) for seed in (4, 5, 6)]
    assert [found.config.seed for found in runs] == [4, 5, 6]
    accuracies = [found.metrics["validation"]["accuracy"] for found in runs]
    document = json.loads(result.stdout)
    assert document["accuracies"] == accuracies
    assert document["mean"] == pytest.approx(np.mean(accuracies))
    assert document["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    best = runs[int(np.argmax(accuracies))]
    assert document["best"] == str(best.path)
    assert f"± {document['deviation']:.2%}, best {best.path}" in result.stderr
    assert result.stderr.endswith(f"Next: fertools export {best.path} --quantize --out exported/three\n")
    assert Run.latest_finished(tiny_training.Path("runs")).path == runs[2].path
    assert run("--resume", "runs/three").stdout == "".join(f"{found.path}\n" for found in runs)


def test_one_seed_in_a_folder_of_seeds():
    result = train("--seeds", 1, "--out", "one")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "one/seed-0\n"


def test_other_data_without_weights_is_a_usage_error():
    """The option would have no effect."""
    for words in (("train",), ("sweep", "--set", "epochs=1,2", "--out", "sweep")):
        result = CliRunner().invoke(main, [*words, "--other-data"])
        assert result.exit_code == 2
        assert "--other-data goes with --weights or teachers" in result.stderr


def test_resume_with_other_data():
    tiny_training.create("run", TrainConfig(epochs=2), tiny_training.dataset())
    write(tiny_training.dataset(seed=1), "other.npz")
    result = run("--resume", "run", "--data", "other.npz")
    assert result.exit_code == 1
    assert "Error: run: made with other data than other.npz" in result.stderr


@pytest.mark.parametrize("setting", [None, "tiny.npz"])
def test_data_that_is_not_named(monkeypatch, setting):
    monkeypatch.setattr("fertools.data.load", lambda source: tiny_training.dataset())
    if setting:
        monkeypatch.setenv("FERTOOLS_DATA", setting)
    result = run("--epochs", 1, "--out", "run")
    assert result.exit_code == 0, result.stderr
    expected = {
        None: "No --data and no FERTOOLS_DATA in the environment: synthetic, drawn faces.",
        "tiny.npz": "No --data: tiny.npz, from the environment variable FERTOOLS_DATA.",
    }
    assert result.stderr.splitlines()[0] == expected[setting]
    source = Run.open(tiny_training.Path("run")).facts["data"]["source"]
    assert source == (str(tiny_training.Path("tiny.npz").absolute()) if setting else "synthetic")


def test_weights_of_imagenet(monkeypatch):
    given = []

    def pretrained(weights):
        given.append(weights)
        return tiny_training.build()

    network = dataclasses.replace(NETWORKS["sequential"], pretrained=pretrained)
    monkeypatch.setitem(NETWORKS, "sequential", network)
    advice = "Weights: random ones. sequential was published with those of ImageNet: --weights imagenet"
    result = train("--out", "plain", "--weights", "none")
    assert advice in result.stderr.splitlines()
    assert given == []
    for weights in ("imagenet", "notop.h5"):
        result = train("--out", weights, "--weights", weights)
        assert result.exit_code == 0, result.stderr
        assert advice not in result.stderr
        run = Run.open(tiny_training.Path(weights))
        assert run.start.is_file()
        assert run.facts["weights"]["name"] == weights
        assert f"--weights {weights}" in run.facts["commands"][-1]
    assert given == ["imagenet", "notop.h5"]
    # Whatever its head is, all seeds start from the same network: they are siblings.
    result = train("--out", "two", "--weights", "notop.h5", "--seeds", 2)
    assert result.exit_code == 0, result.stderr
    assert len(siblings(Run.open(tiny_training.Path("two/seed-0")))) == 2


def test_notes_of_the_data():
    whole = tiny_training.dataset()
    usage = whole.usage.copy()
    usage[usage == 1] = 0
    write(Dataset("tiny", whole.images, whole.labels, usage), "two.npz")
    result = train("--data", "two.npz", "--out", "run", "--epochs", 1)
    assert re.match(r"  validation: \d+ of \d+ train images carved out", result.stderr.splitlines()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", 0), "epochs=0: must lie between 1 and 100000"),
        (("--ema", 1), "ema=1.0: must lie between"),
        (("--seed", -1), "seed=-1: must lie between"),
        (("--optimizer", "lion"), "'lion' is not one of"),
        (("--epochs", "many"), "is not a valid integer"),
        (("--resume", "run", "--epochs", 3), "--resume uses the options of the run"),
        (("--resume", "run", "--out", "x"), "--resume uses the options of the run"),
        (("--resume", "run", "--recipe", "default"), "--resume uses the options of the run"),
        (("--resume", "run", "--weights", "x.keras"), "--resume uses the options of the run"),
        (("--resume", "run", "--seeds", 2), "--resume uses the options of the run"),
        (("--seeds", 0), "0 is not in the range"),
        (("--recipe", "original-steps"), "recipe='original-steps': sequential has only default, original"),
        (("--recipe", "original", "--model", "compact"), "compact has only default"),
        (("--learning-rate-steps", "5:0.1"), "go with schedule=plateau or constant"),
        # Even with their default values.
        (("--optimizer", "adam", "--momentum", 0.9), "--momentum: has no effect with optimizer=adam"),
        (("--schedule", "constant", "--warmup-epochs", 3), "--warmup-epochs: has no effect with schedule="),
        (("--plateau-factor", 0.1), "--plateau-factor: has no effect with schedule=cosine"),
        (("--plateau-patience", 2), "--plateau-patience: has no effect with schedule=cosine"),
        (("--camera-strength", 1), "--camera-strength: has no effect with camera=0.0"),
        (("--recipe", "original", "--momentum", 0.9), "--momentum: has no effect with optimizer=adam"),
    ],
)
def test_usage_errors(here, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert [path.name for path in here.iterdir()] == ["tiny.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nothing.npz"), "Error: nothing.npz: no such file or folder"),
        (("--resume", "."), "Error: .: not a run folder (no config.json)"),
        (("--out", "."), "Error: .: is the current folder or holds it; name a folder inside it"),
        (("--data", "tiny.npz", "--weights", "imagenet"), "Error: weights=imagenet: sequential has none of"),
    ],
)
def test_errors_are_one_line(here, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(message)
    assert [path.name for path in here.iterdir()] == ["tiny.npz"]


def test_a_gpu_that_is_not_there(here, monkeypatch):
    from fertools import backend

    monkeypatch.setitem(backend.GPU_NAMES, backend.import_keras().backend.backend(), lambda hide: None)
    result = run("--data", "tiny.npz", "--device", "gpu")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: device=gpu: the ")
    assert result.stderr.count("\n") == 1
    assert not (here / "runs").exists()


def test_what_a_recipe_says_for_an_optimizer_that_is_changed_is_forgotten():
    """The user did not ask for it."""
    assert chosen_config("original", {"optimizer": "adam", "model": "cnn3-sgd"}).momentum == 0.9
    steep = NETWORKS["sequential"].recipes["original"] | {"optimizer": "sgd", "momentum": 0.5}
    changed = dataclasses.replace(NETWORKS["sequential"], recipes={"original": steep})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "sequential", changed)
        assert chosen_config("original", {}).momentum == 0.5
        assert chosen_config("original", {"optimizer": "adam"}).momentum == TrainConfig.momentum


def test_every_field_of_the_configuration_is_an_option():
    text = " ".join(run("--help").stdout.split())
    for field in dataclasses.fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')} " in text
        assert f"[default: {'none' if field.default == '' else field.default}]" in text


def test_progress_at_a_terminal(monkeypatch, capsys):
    from fertools.cli.common import Progress
    from fertools.training import Epoch

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress(epochs=12, steps=5, done=2) as progress:
        progress.step(3, 4, 1.5)
        task = progress.bar.tasks[0]
        assert (task.completed, task.total) == (4, 50)
        assert task.description == "epoch 3/12  loss 1.5000"
        progress.epoch(Epoch(3, 1.25, 0.5, 1.5, 0.25, 0.01, 65.0), best=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch  3/12  loss 1.2500  accuracy 50.00%" in " ".join(captured.err.split("\n"))
