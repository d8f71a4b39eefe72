import dataclasses
import json
import sys

import pytest
import tiny_training
from click.testing import CliRunner
from told_run import told_run

from fertools.cli import COMMANDS, main
from fertools.cli import sweep as sweep_command
from fertools.data import load, write
from fertools.training import Run, TrainConfig
from fertools.training.compare import compare
from fertools.training.sweep import Sweep

#: A rate with which this network learns, and one with which its weights overflow in the first epoch.
GOOD, BAD = "learning_rate=1e-06", "learning_rate=100.0"
OPTIONS = {"model": "mlp", "epochs": 2, "batch_size": 8, "precision": "float32", "device": "cpu"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)
    write(tiny_training.dataset(), "tiny.npz")
    return tmp_path


@pytest.fixture
def no_processes(monkeypatch):
    """What would have been started: name -> arguments of ``fertools``, and the places."""
    started = {}

    def note(commands, places, **_):
        started.update({name: words[words.index("fertools") + 1 :] for name, words in commands.items()})
        started["places"] = places

    monkeypatch.setattr(sweep_command, "side_by_side", note)
    monkeypatch.setattr(sweep_command, "visible_gpus", list)
    return started


def run(*arguments, data="tiny.npz", out="s"):
    return CliRunner().invoke(main, ["sweep", "--data", data, "--out", out, *map(str, arguments)])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A sweep of which one run was interrupted after its first epoch: gone on with, by real processes."""
    root = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        write(tiny_training.dataset(), "tiny.npz")
        data = load("tiny.npz")
        configs = {GOOD: TrainConfig(**OPTIONS, learning_rate=1e-6)}
        configs[BAD] = dataclasses.replace(configs[GOOD], learning_rate=100.0)
        sweep = Sweep.create(tiny_training.Path("s"), configs, data)
        from fertools.backend import import_keras

        import_keras()
        from fertools.training.trainer import train

        begun = tiny_training.create(sweep.run(GOOD).path, configs[GOOD], data)
        with pytest.raises(KeyboardInterrupt):
            train(begun, data, observer=tiny_training.Stop(1))
        first = begun.history()
        words = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value)]
        result = run("--set", "learning-rate=0.000001,100", *words, "--json")
        yield root / "s", first, result


@pytest.mark.slow
def test_an_unfinished_run_goes_on(outcome):
    path, first, result = outcome
    good = Run(path / GOOD)
    assert good.finished
    assert good.history()[:1] == first
    assert len(good.history()) == 2
    epochs = [line for line in result.stderr.splitlines() if line.startswith(f"{GOOD} | epoch")]
    assert len(epochs) == 1
    assert epochs[0].startswith(f"{GOOD} | epoch 2/2  loss ")


@pytest.mark.slow
def test_a_failing_run_stands_in_the_table_and_stops_nothing(outcome):
    path, _, result = outcome
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [each["note"] for each in document["runs"]] == [
        "",
        "failed: the loss is no number in epoch 1; train anew, learning slower",
    ]
    assert document["best"] == f"s/{GOOD}"
    lines = result.stderr.splitlines()
    assert lines[0] == "Sweep: s, 2 runs, 0 finished before"
    assert lines[-3:] == [
        "The picture is in s/comparison.png.",
        f"Next: fertools export s/{GOOD} --quantize",
        "1 of 2 runs failed; the same command tries them again.",
    ]
    assert (path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert Run(path / BAD).config.learning_rate == 100
    assert not Run(path / BAD).finished


def test_each_run_is_told_all_options(here, no_processes):
    words = ["--recipe", "original", "--weights", "w.keras", "--tensorboard", "--class-balance", "weights"]
    result = run("--set", "epochs=2,3", "--set", "seed=5", *words)
    assert result.exit_code == 0, result.stderr
    name = "epochs=3,seed=5"
    arguments = no_processes[name]
    for pair in (["--out", f"s/{name}"], ["--data", "tiny.npz"], ["--weights", "w.keras"]):
        assert arguments[(at := arguments.index(pair[0])) : at + 2] == pair
    # What the run would be told, as ``fertools train`` reads it.
    command = main.get_command(None, "train")
    given = command.make_context("train", arguments[1:]).params
    fields = {field.name: given[field.name] for field in dataclasses.fields(TrainConfig)}
    assert given["tensorboard"]
    assert TrainConfig(**fields) == Sweep(tiny_training.Path("s")).configs[name]
    assert (fields["epochs"], fields["seed"], fields["class_balance"]) == (3, 5, "weights")
    assert fields["optimizer"] == "adam"  # by the recipe


def test_finished_runs_are_skipped_and_values_added(here, no_processes):
    assert run("--set", "ema=0.9", "--epochs", 1).exit_code == 0
    config = Sweep(tiny_training.Path("s")).configs["ema=0.9"]
    told_run(here / "s" / "ema=0.9", [0.5], config=config)
    no_processes.clear()
    result = run("--set", "ema=0.5,0.9", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert [*no_processes] == ["ema=0.5", "places"]
    assert "Sweep: s, 2 runs, 1 finished before" in result.stderr
    assert result.stdout == compare([tiny_training.Path("s")]).to_text() + "\n"
    no_processes.clear()
    told_run(here / "s" / "ema=0.5", [0.5], config=dataclasses.replace(config, ema=0.5))
    assert run("--set", "ema=0.5,0.9", "--epochs", 1).exit_code == 0
    assert [*no_processes] == ["places"]


def test_seeds_are_runs_by_themselves(here, no_processes):
    assert run("--set", "ema=0.5,0.9", "--seeds", 2, "--seed", 3).exit_code == 0
    names = [f"ema={ema}/seed-{seed}" for ema in (0.5, 0.9) for seed in (3, 4)]
    assert [*no_processes] == [*names, "places"]
    assert [config.seed for config in Sweep(tiny_training.Path("s")).configs.values()] == [3, 4, 3, 4]


@pytest.mark.parametrize(
    ("options", "gpus", "places"),
    [
        ([], ["0", "1"], [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        ([], ["0"], [{}]),
        ([], [], [{}]),
        (["--device", "cpu"], ["0", "1"], [{}]),
        (["--devices", "all"], ["0", "1"], [{}]),  # each run takes them all
    ],
)
def test_one_run_a_gpu(here, no_processes, monkeypatch, options, gpus, places):
    monkeypatch.setattr(sweep_command, "visible_gpus", lambda: gpus)
    assert run("--set", "ema=0.5,0.9", *options).exit_code == 0
    assert no_processes["places"] == places


def test_an_interruption(here, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_command, "side_by_side", interrupt)
    result = run("--set", "ema=0.5", "--device", "cpu")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "Interrupted; the same command goes on in s."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "lr=0.1"], "unknown training option; choose one of model, epochs, "),
        (["--set", "epochs=0"], "epochs=0: must lie between 1 and 100000"),
        (["--set", "model=nonsense"], "choose one of sequential, compact, "),
        (["--set", "epochs=1,2", "--epochs", 3], "epochs is given by --set and by itself"),
        (["--epochs", 3], "Missing option '--set'"),
    ],
)
def test_usage_errors(here, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (here / "s").exists()


def test_another_grid_is_an_error(here, no_processes):
    assert run("--set", "ema=0.5,0.9").exit_code == 0
    no_processes.clear()
    for arguments, message in (
        (["--set", "ema=0.9"], "Error: s: holds another grid, with ema=0.5;"),
        (["--set", "ema=0.5,0.9", "--epochs", 2], "Error: s: was made with epochs=60, not 2;"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert message in result.stderr
    assert run("--set", "ema=0.5", data="nothing.npz").exit_code == 1
    assert no_processes == {}


def test_help_is_the_one_of_the_list():
    assert main.get_command(None, "sweep").get_short_help_str(200) == COMMANDS["sweep"][1]


def test_the_sweep_itself_loads_no_framework(here, monkeypatch):
    import subprocess

    code = (
        "import sys\nfrom fertools.cli import main, sweep\nsweep.side_by_side = lambda *_, **__: None\n"
        "main(['sweep', '--set', 'ema=0.5', '--data', 'tiny.npz', '--out', 's'], standalone_mode=False)\n"
        "print([name for name in ('keras', 'tensorflow', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
