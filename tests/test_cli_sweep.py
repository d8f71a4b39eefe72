import dataclasses
import json

import pytest
import tiny_training
from click.testing import CliRunner
from told_run import told_run

from fertools.cli import main
from fertools.cli import sweep as sweep_command
from fertools.data import load, write
from fertools.training import Run, TrainConfig, spread
from fertools.training.comparison import compare
from fertools.training.spread import Engine
from fertools.training.sweep import Sweep

#: A learning rate that works, and one that makes the weights overflow in the first epoch.
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
def jobs(monkeypatch):
    """The jobs that would have been trained, by name; "how" says where."""
    asked = {}

    def note(jobs, engine):
        asked.update(jobs, how=engine)
        return iter(())

    monkeypatch.setattr(sweep_command, "train_all", note)
    return asked


def run(*arguments, data="tiny.npz", out="s"):
    return CliRunner().invoke(main, ["sweep", "--data", data, "--out", out, *map(str, arguments)])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Continue a sweep of which one run was interrupted after its first epoch."""
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
    epochs = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert len(epochs) == 1
    assert epochs[0].startswith("epoch 2/2  loss ")


@pytest.mark.slow
def test_a_failing_run_stands_in_the_table_and_stops_nothing(outcome):
    path, _, result = outcome
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [each["note"] for each in document["runs"]] == [
        "",
        "failed: the loss is NaN or infinite in epoch 1; train again with a lower learning rate",
    ]
    assert document["best"] == f"s/{GOOD}"
    lines = result.stderr.splitlines()
    assert lines[0] == "Sweep: s, 2 runs, 0 finished before"
    assert lines[-3:] == [
        "The picture is in s/comparison.png.",
        f"Next: fertools export s/{GOOD} --quantize --out exported/{GOOD}",
        "1 of 2 runs failed; the same command tries them again.",
    ]
    assert (path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert Run(path / BAD).config.learning_rate == 100
    assert not Run(path / BAD).finished


def test_each_run_is_told_all_options(here, jobs):
    words = ["--recipe", "original", "--weights", "w.keras", "--tensorboard", "--class-balance", "weights"]
    result = run("--set", "epochs=2,3", "--set", "seed=5", *words)
    assert result.exit_code == 0, result.stderr
    name = "epochs=3,seed=5"
    job = jobs[name]
    assert job.path == tiny_training.Path("s") / name
    assert (job.source, job.weights, job.tensorboard) == ("tiny.npz", "w.keras", True)
    assert job.config == Sweep(tiny_training.Path("s")).configs[name]
    assert (job.config.epochs, job.config.seed, job.config.class_balance) == (3, 5, "weights")
    assert job.config.optimizer == "adam"  # by the recipe


def test_finished_runs_are_skipped_and_values_added(here, jobs):
    assert run("--set", "ema=0.9", "--epochs", 1).exit_code == 0
    config = Sweep(tiny_training.Path("s")).configs["ema=0.9"]
    told_run(here / "s" / "ema=0.9", [0.5], config=config)
    jobs.clear()
    result = run("--set", "ema=0.5,0.9", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert [*jobs] == ["ema=0.5", "how"]
    assert "Sweep: s, 2 runs, 1 finished before" in result.stderr
    assert result.stdout == compare([tiny_training.Path("s")]).to_text() + "\n"
    jobs.clear()
    told_run(here / "s" / "ema=0.5", [0.5], config=dataclasses.replace(config, ema=0.5))
    assert run("--set", "ema=0.5,0.9", "--epochs", 1).exit_code == 0
    assert [*jobs] == ["how"]


def test_seeds_are_runs_by_themselves(here, jobs):
    assert run("--set", "ema=0.5,0.9", "--seeds", 2, "--seed", 3).exit_code == 0
    names = [f"ema={ema}/seed-{seed}" for ema in (0.5, 0.9) for seed in (3, 4)]
    assert [*jobs] == [*names, "how"]
    assert [config.seed for config in Sweep(tiny_training.Path("s")).configs.values()] == [3, 4, 3, 4]


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ([], Engine()),
        (["--engine", "ray"], Engine("ray", address=None, cpus=1, gpus=None)),
        (
            ["--engine", "ray", "--address", "auto", "--cpus-per-run", 4, "--gpus-per-run", 0.5],
            Engine("ray", address="auto", cpus=4, gpus=0.5),
        ),
    ],
)
def test_where_they_are_trained(here, jobs, options, how):
    assert run("--set", "ema=0.5,0.9", *options).exit_code == 0
    assert jobs["how"] == how


def test_ray_options_need_ray(here):
    assert run("--set", "ema=0.5", "--cpus-per-run", 2).exit_code == 2


def test_an_interruption(here, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_command, "train_all", interrupt)
    result = run("--set", "ema=0.5", "--device", "cpu")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "Interrupted; the same command continues in s."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "lr=0.1"], "unknown training option; choose one of model, epochs, "),
        (["--set", "epochs=0"], "epochs=0: must lie between 1 and 100000"),
        (["--set", "model=nonsense"], "choose one of sequential, compact, "),
        (["--set", "epochs=1,2", "--epochs", 3], "epochs is given both by --set and as an option"),
        (["--epochs", 3], "Missing option '--set'"),
    ],
)
def test_usage_errors(here, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (here / "s").exists()


def test_another_grid_is_an_error(here, jobs):
    assert run("--set", "ema=0.5,0.9").exit_code == 0
    jobs.clear()
    for arguments, message in (
        (["--set", "ema=0.9"], "Error: s: holds another grid, with ema=0.5;"),
        (["--set", "ema=0.5,0.9", "--epochs", 2], "Error: s: was made with epochs=60, not 2;"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert message in result.stderr
    assert run("--set", "ema=0.5", data="nothing.npz").exit_code == 1
    assert jobs == {}


def test_where_the_data_is_and_why_a_run_failed(here, monkeypatch):
    """A run's data is found from any folder; the reason does not repeat the run's path, here or on Ray."""
    tiny_training.Path("taken").mkdir()
    tiny_training.Path("taken", "file").touch()
    jobs = {name: spread.Job(here / name, TrainConfig(**OPTIONS), "tiny.npz") for name in ("new", "taken")}
    (_, well), (_, why) = spread.here(jobs, lambda job: lambda run, dataset: None)
    assert well is None
    assert Run(here / "new").facts["data"]["source"] == str(here / "tiny.npz")
    assert why.startswith("already exists")
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    relative = spread.Job(tiny_training.Path("taken"), TrainConfig(**OPTIONS), "tiny.npz")
    assert spread._complete_in_task(relative.absolute(), 1) == why
