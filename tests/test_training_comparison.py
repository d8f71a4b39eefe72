import json
import statistics

import numpy as np
import pytest
from PIL import Image
from tiny_training import dataset
from told_run import rising, told_run, told_seeds

from fertools.errors import RunError
from fertools.files import write_json
from fertools.models import find
from fertools.training import Run, TrainConfig
from fertools.training.comparison import Summary, compare
from fertools.training.figures import comparison_figure
from fertools.training.sweep import Sweep


def test_the_figures_of_a_history(tmp_path):
    accuracies = [0.2, 0.5, 0.5, *[0.4] * 8, 0.3]
    losses = [2.0, 1.5, 1.25, 1.75, *[2.0] * 8]
    found = Summary.of(told_run(tmp_path / "run", accuracies, losses, seconds=1.5).history())
    assert found == Summary(
        epochs=12,
        best_accuracy=0.5,
        best_accuracy_epoch=2,
        final_accuracy=0.3,
        last_accuracy=pytest.approx((0.5 + 8 * 0.4 + 0.3) / 10),
        best_loss=1.25,
        best_loss_epoch=3,
        final_loss=2.0,
        last_loss=pytest.approx((1.25 + 1.75 + 8 * 2.0) / 10),
        seconds=18.0,
    )


def test_runs_in_the_order_given(tmp_path):
    told_run(tmp_path / "a", [0.2, 0.4], config=TrainConfig(model="compact", epochs=2))
    told_run(tmp_path / "b", [0.5, 0.3, 0.1])
    found = compare([tmp_path / "b", tmp_path / "a"])
    assert [entry.name for entry in found.entries] == ["b", "a"]
    assert [entry.parameters for entry in found.entries] == [
        find(name).parameters for name in ("sequential", "compact")
    ]
    assert found.best == Run(tmp_path / "b")
    lines = found.to_text().splitlines()
    assert lines[0] == "Validation split"
    assert lines[2].split() == [
        *("b", "3/3", "50.00%", "1", "10.00%", "30.00%"),
        *("0.5000", "1", "0.9000", "0.7000", "4,478,727", "0:00:06"),
    ]
    assert lines[3].split()[:4] == ["a", "2/2", "40.00%", "2"]
    first = json.loads(json.dumps(found.to_dict()))["runs"][0]
    assert first["validation"] == [found.entries[0].summaries[0].__dict__]
    assert "mean" not in first


def test_seeds_are_one_entry(tmp_path):
    histories = ([0.2, 0.5], [0.4, 0.3], [0.6, 0.1])
    told_seeds(tmp_path / "three", *histories)
    found = compare([tmp_path / "three"])
    (entry,) = found.entries
    best = [max(history) for history in histories]
    document = entry.to_dict()
    assert document["mean"]["best_accuracy"] == pytest.approx(statistics.mean(best))
    assert document["deviation"]["best_accuracy"] == pytest.approx(np.std(best, ddof=1))
    assert document["mean"]["best_accuracy_epoch"] == pytest.approx(4 / 3)
    assert len(document["validation"]) == 3
    assert found.best == Run(tmp_path / "three" / "seed-2")
    head, _, line = found.to_text().splitlines()
    assert head == "Validation split, mean ± standard deviation of seeds"
    assert line.startswith("three (3 seeds)")
    assert f"{statistics.mean(best):.2%} ± {statistics.stdev(best):.2%}" in line


def test_unfinished_seeds_are_left_out(tmp_path):
    runs = told_seeds(tmp_path / "three", [0.2, 0.5], [0.4, 0.3], [0.6, 0.1])
    (runs[2].path / "metrics.json").unlink()
    (entry,) = compare([tmp_path / "three"]).entries
    assert [summary.best_accuracy for summary in entry.summaries] == [0.5, 0.4]
    assert entry.note == "2 of 3 seeds finished"


def test_unfinished_runs_are_compared_as_far_as_they_have_come(tmp_path):
    told_run(tmp_path / "half", [0.9, 0.4], config=TrainConfig(epochs=5), finished=False)
    told_run(tmp_path / "none", finished=False)
    told_run(tmp_path / "done", [0.1])
    found = compare([tmp_path / name for name in ("half", "none", "done")])
    assert found.best == Run(tmp_path / "done")
    half, none, _ = (line.split() for line in found.to_text().splitlines()[2:])
    assert (half[1], half[2], half[-1]) == ("2/5", "90.00%", "unfinished")
    assert none[1:] == ["0/1", *["-"] * 8, "4,478,727", "-", "unfinished"]


def test_a_sweep_is_an_entry_a_point(tmp_path):
    named = {f"ema=0.0/seed-{seed}": TrainConfig(ema=0.0, seed=seed, epochs=1) for seed in (0, 1)}
    named |= {f"ema=0.9/seed-{seed}": TrainConfig(ema=0.9, seed=seed, epochs=1) for seed in (0, 1)}
    sweep = Sweep.create(tmp_path, named, dataset())
    for name, config in [*named.items()][:3]:
        told_run(tmp_path / name, [0.5], config=config)
    sweep.note("ema=0.9/seed-1", "no memory")
    first, second = compare([tmp_path]).entries
    assert (first.name, first.path, first.note) == ("ema=0.0", tmp_path / "ema=0.0", "")
    assert len(first.histories) == 2
    assert (second.name, second.note) == ("ema=0.9", "1 of 2 seeds finished; failed: no memory")
    assert len(second.histories) == 1
    # The folder of a point is a folder of seeds like any other.
    (alone,) = compare([tmp_path / "ema=0.0"]).entries
    assert alone.histories == first.histories


def test_a_failure_that_was_mended_is_none(tmp_path):
    config = TrainConfig(ema=0.0, epochs=1)
    sweep = Sweep.create(tmp_path, {"ema=0.0": config}, dataset())
    sweep.note("ema=0.0", "no memory")
    assert [entry.note for entry in compare([tmp_path]).entries] == ["failed: no memory"]
    told_run(tmp_path / "ema=0.0", [0.5], config=config)
    assert [entry.note for entry in compare([tmp_path]).entries] == [""]


def test_names_that_would_be_alike_are_paths(tmp_path):
    for folder in ("a", "b"):
        told_run(tmp_path / folder / "run", [0.5])
    told_run(tmp_path / "other", [0.5])
    paths = [tmp_path / "a" / "run", tmp_path / "other", tmp_path / "b" / "run"]
    names = [entry.name for entry in compare(paths).entries]
    assert names == [str(paths[0]), "other", str(paths[2])]


def test_figures_on_other_data_are_not_compared(tmp_path):
    for name, accuracy in (("faces", 0.7), ("drawn", 0.99)):
        told_run(tmp_path / name, [accuracy])
    found = compare([tmp_path / "faces", tmp_path / "drawn"])
    assert found.best.path == tmp_path / "drawn"
    facts = json.loads((tmp_path / "faces" / "run.json").read_text())
    facts["data"] |= {"name": "fer2013.csv", "fingerprint": "e" * 64}
    write_json(tmp_path / "faces" / "run.json", facts)
    found = compare([tmp_path / "faces", tmp_path / "drawn"])
    assert found.best is None
    assert "cannot be compared" in found.to_text().splitlines()[0]
    assert [line.split()[-1] for line in found.to_text().splitlines()[2:]] == ["fer2013.csv", "drawn"]
    assert [run["data"]["name"] for run in found.to_dict()["runs"]] == ["fer2013.csv", "drawn"]


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"not a run folder \(no config.json\)"):
        compare([tmp_path])
    told_run(tmp_path / "run", [0.5])
    write_json(tmp_path / "run" / "config.json", {"epochs": -1})
    with pytest.raises(RunError, match=r"config.json: epochs=-1"):
        compare([tmp_path / "run"])


@pytest.mark.parametrize("count", [1, 3, 12])
def test_the_picture(tmp_path, count):
    for number in range(count):
        told_run(tmp_path / f"run-{number}", rising(5, 0.5, number))
    told_seeds(tmp_path / "seeds", rising(4, 0.6), rising(4, 0.5))
    told_run(tmp_path / "empty", finished=False)
    paths = [tmp_path / f"run-{number}" for number in range(count)]
    found = compare([*paths, tmp_path / "seeds", tmp_path / "empty"])
    comparison_figure(found.entries, tmp_path / "compare.png")
    pixels = np.asarray(Image.open(tmp_path / "compare.png").convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 100


def test_a_huge_loss_does_not_flatten_the_others(tmp_path):
    """Lower left panel: with a loss of 1e9 drawn as it is, the other run would be a line of one height."""

    def heights(worst):
        told_run(tmp_path / f"bad-{worst}", [0.1] * 4, [2.0, worst, 2.0, 2.0])
        told_run(tmp_path / f"good-{worst}", [0.5] * 4, [2.0, 1.5, 1.0, 0.5])
        found = compare([tmp_path / f"bad-{worst}", tmp_path / f"good-{worst}"])
        comparison_figure(found.entries, tmp_path / "compare.png")
        pixels = np.asarray(Image.open(tmp_path / "compare.png").convert("RGB")).astype(int)
        rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
        orange = np.abs(pixels[rows:, :columns] - (255, 127, 14)).max(axis=2) < 10
        return np.ptp(np.flatnonzero(orange.any(axis=1)))

    assert heights(1e9) > 0.3 * heights(2.0)


def test_nothing_to_draw(tmp_path):
    told_run(tmp_path / "empty", finished=False)
    with pytest.raises(RunError, match="nothing to draw"):
        comparison_figure(compare([tmp_path / "empty"]).entries, tmp_path / "compare.png")
    assert not (tmp_path / "compare.png").exists()
