"""A folder of seeds: which runs belong together, and which is exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from fertools.cli import main
from fertools.cli.export import _chosen
from fertools.errors import RunError
from fertools.training import Run
from fertools.training.run import Epoch, SeedSummary, best_seed, siblings


def edit(file: Path, **changes) -> None:
    document = json.loads(file.read_text())
    document.update(changes)
    file.write_text(json.dumps(document))


@pytest.fixture
def seeds(small_run: Path, tmp_path: Path) -> Path:
    """Three finished runs; the second is the best on the validation split, the third finished last."""
    folder = tmp_path / "runs" / "three"
    for seed, accuracy in enumerate((0.7, 0.8, 0.75)):
        path = shutil.copytree(small_run, folder / f"seed-{seed}")
        edit(path / "config.json", seed=seed)
        edit(path / "metrics.json", validation={"accuracy": accuracy})
    return folder


def test_the_best_on_the_validation_split_is_exported(seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_seed(Run(seeds / "seed-0")).path.name == "seed-1"
    assert _chosen(seeds).path.name == "seed-1"
    assert _chosen(seeds / "seed-2").path.name == "seed-2"
    monkeypatch.chdir(seeds.parent.parent)
    assert _chosen(None).path.name == "seed-1"


def test_degraded_images_decide_as_much_between_seeds_as_between_epochs(seeds: Path) -> None:
    for seed, (clean, degraded) in enumerate(((0.7, 0.69), (0.8, 0.58), (0.75, 0.6))):
        Run(seeds / f"seed-{seed}").commit([Epoch(1, 1.0, 0.9, 1.0, clean, 0.1, 1.0, degraded)])
    assert best_seed(Run(seeds / "seed-2")).path.name == "seed-0"
    assert SeedSummary.of([Run(seeds / f"seed-{seed}") for seed in range(3)]).best.path.name == "seed-0"


def test_an_unfinished_seed_is_not(seeds: Path) -> None:
    (seeds / "seed-1" / "metrics.json").unlink()
    assert _chosen(seeds).path.name == "seed-2"
    for seed in (0, 2):
        (seeds / f"seed-{seed}" / "metrics.json").unlink()
    with pytest.raises(RunError, match="no run in it is finished"):
        _chosen(seeds)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"epochs": 7}),
        ("run.json", {"weights": {"name": "a.keras", "sha256": "0" * 64}}),
    ],
)
def test_runs_of_another_kind_are_no_siblings(seeds: Path, file: str, changes) -> None:
    edit(seeds / "seed-1" / file, **changes)
    assert [run.path.name for run in siblings(Run(seeds / "seed-0"))] == ["seed-0", "seed-2"]
    assert [run.path.name for run in siblings(Run(seeds / "seed-1"))] == ["seed-1"]
    done = CliRunner().invoke(main, ["export", str(seeds)])
    assert done.exit_code == 1
    assert "its runs differ in more than the seed; name the one to export" in done.stderr


def test_runs_on_other_data_are_no_siblings(seeds: Path) -> None:
    facts = json.loads((seeds / "seed-2" / "run.json").read_text())
    edit(seeds / "seed-2" / "run.json", data={**facts["data"], "fingerprint": "0" * 64})
    assert [run.path.name for run in siblings(Run(seeds / "seed-0"))] == ["seed-0", "seed-1"]
