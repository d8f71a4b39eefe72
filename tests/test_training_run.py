import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from fertools.errors import RunError, WriteError
from fertools.files import TEMPORARY
from fertools.training import Epoch, Run, TrainConfig
from fertools.training.run import best_epoch

FACTS = {
    "data": {"source": "synthetic", "name": "synthetic", "fingerprint": "0"},
    "device": {},
    "precision": "float32",
    "versions": {},
    "commands": [],
}


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs" / "one", TrainConfig(epochs=7), FACTS)


def epoch(number, **values):
    row = Epoch(number, 2 / 3, 1 / 3, 1e-17, 0.1 + 0.2, 0.05000000074505806, 1.5)
    return dataclasses.replace(row, **values)


def test_what_is_written_is_read(run):
    opened = Run.open(run.path)
    assert opened == run
    assert opened.name == "one"
    assert opened.config == TrainConfig(epochs=7)
    assert opened.facts == {"schema_version": 1, **FACTS}
    assert opened.history() == []
    assert not opened.finished
    opened.check_unfinished()


def test_history_keeps_every_bit(run):
    history = [epoch(1), epoch(2, loss=3.141592653589793e-300)]
    run.commit(history)
    assert run.history() == history


def test_history_with_a_camera(run):
    """Earlier epochs may lack the accuracy on degraded images."""
    history = [epoch(1, val_accuracy=0.5), epoch(2, val_accuracy=0.6, val_degraded_accuracy=0.3)]
    run.commit(history)
    assert run.history() == history
    assert [row.score for row in history] == [0.5, pytest.approx(0.45)]
    assert best_epoch(history).epoch == 1


def test_commit_removes_older_states(run):
    for number in (1, 2, 3):
        run.state(number).touch()
    run.commit([epoch(1), epoch(2)])
    assert [path.name for path in run.path.glob("*.npz")] == ["last-0002.npz"]


def test_leftovers_of_a_killed_process_are_removed(run):
    (run.path / ".gitignore").touch()
    before = {path.name for path in run.path.iterdir()}
    (run.path / f"{TEMPORARY}x7f.best.keras").touch()
    run.clean_up()
    assert {path.name for path in run.path.iterdir()} == before


def test_the_best_network_is_that_of_a_committed_epoch(run):
    """A process may be killed after it saved an epoch's network, before or after the commit."""
    run.candidate(1).write_text("first")
    run.commit([epoch(1, val_accuracy=0.5)])
    assert run.best.read_text() == "first"
    history = [epoch(1, val_accuracy=0.5), epoch(2, val_accuracy=0.6)]
    run.candidate(2).write_text("lost")
    run.clean_up()
    assert run.best.read_text() == "first"
    assert not run.candidate(2).exists()
    run.commit(history)
    run.candidate(2).write_text("second")
    run.clean_up()
    assert run.best.read_text() == "second"
    run.candidate(3).write_text("worse")
    run.commit([*history, epoch(3, val_accuracy=0.6)])
    assert run.best.read_text() == "second"
    assert not list(run.path.glob("best-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_one_process_trains_a_run(run):
    message = "another process is training this run"
    with run.alone(), pytest.raises(RunError, match=message), run.alone():
        pytest.fail("the block must not run")
    with run.alone():
        pass


def test_of_two_that_make_the_same_run_the_second_fails(tmp_path):
    """Between looking whether the folder is free and filling it there is time for another process."""
    path = tmp_path / "one"

    class Slow:
        def save(self, file):
            Run.create(path, TrainConfig(seed=1), FACTS)

    with pytest.raises(RunError, match="already exists"):
        Run.create(path, TrainConfig(seed=2), FACTS, start=Slow())
    assert Run.open(path).config.seed == 1
    assert os.listdir(tmp_path) == ["one"]


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WriteError, match=r"^\.: is the current folder or holds it; name a folder inside it"):
        Run.create(Path("."), TrainConfig(), FACTS)


def test_a_folder_that_holds_something_is_refused(tmp_path, run):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    for path in (tmp_path / "taken", tmp_path / "taken" / "file", run.path):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(
            RunError, match=f"{path}: already exists; choose another folder, or continue with"
        ):
            Run.create(path, TrainConfig(), FACTS)
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", TrainConfig(), FACTS)


def test_next_path(tmp_path):
    assert Run.next_path(tmp_path / "runs", "net") == tmp_path / "runs" / "net-001"
    for name in ("net-001", "net-007", "net-x", "network-012", "net"):
        (tmp_path / name).mkdir()
    assert Run.next_path(tmp_path, "net") == tmp_path / "net-008"


def test_no_run(tmp_path):
    with pytest.raises(RunError, match=r"not a run folder \(no config.json\); 'fertools train' makes one"):
        Run.open(tmp_path)


def test_finished(run):
    with pytest.raises(RunError, match=r"metrics.json: missing; resume the run"):
        run.metrics  # noqa: B018
    metrics = {"best_epoch": 3, "epochs": 4, "seconds": 5.0, "validation": {"accuracy": 0.5}}
    (run.path / "metrics.json").write_text(json.dumps(metrics))
    assert run.finished
    assert run.metrics == metrics
    with pytest.raises(RunError, match="this run is finished; nothing to resume"):
        run.check_unfinished()


@pytest.mark.parametrize("change", [{"epochs": None}, {"validation": None}, {"validation": {}}])
def test_incomplete_metrics(run, change):
    metrics = {"best_epoch": 3, "epochs": 4, "seconds": 5.0, "validation": {"accuracy": 0.5}} | change
    metrics = {key: value for key, value in metrics.items() if value is not None}
    (run.path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(RunError, match=r"metrics\.json: incomplete; remove it and resume"):
        run.metrics  # noqa: B018


def test_latest_finished(tmp_path):
    with pytest.raises(RunError, match="no finished run under"):
        Run.latest_finished(tmp_path)
    for age, name in ((20, "b"), (10, "c"), (30, "a")):
        run = Run.create(tmp_path / name, TrainConfig(), FACTS)
        (run.path / "metrics.json").write_text("{}")
        os.utime(run.path / "metrics.json", (1e9 - age, 1e9 - age))
    Run.create(tmp_path / "d", TrainConfig(), FACTS)
    assert Run.latest_finished(tmp_path).name == "c"


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"epochs": "x"}', '{"frob": 1}', '{"epochs": 0}'])
def test_damaged_config(run, text):
    (run.path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"config\.json: "):
        run.config  # noqa: B018


@pytest.mark.parametrize("key", [*FACTS, "source", "fingerprint"])
def test_incomplete_facts(run, key):
    facts = {**FACTS, "data": {**FACTS["data"]}}
    (facts if key in facts else facts["data"]).pop(key)
    (run.path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"run\.json: incomplete"):
        run.facts  # noqa: B018


def test_facts_of_the_wrong_kind(run):
    (run.path / "run.json").write_text(json.dumps(FACTS | {"data": 3}))
    with pytest.raises(RunError, match=r"run\.json: incomplete"):
        run.facts  # noqa: B018


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) - 30],
        lambda text: text.replace("loss,", "lost,", 1),
        lambda text: text.replace("1.5", "fast"),
        lambda text: text.replace("1.5", "1.5,2"),
        lambda text: text.replace("1.5", "1.5\0"),
        lambda text: text.replace("\n2,", "\n3,"),
        lambda text: text.replace("1,", "1.0,", 1),
        lambda text: "\xff" + text,
    ],
)
def test_damaged_history(run, change):
    run.commit([epoch(1), epoch(2)])
    path = run.path / "history.csv"
    path.write_bytes(change(path.read_bytes().decode("latin-1")).encode("latin-1"))
    with pytest.raises(RunError, match=r"history\.csv: damaged"):
        run.history()
