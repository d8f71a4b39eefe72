"""Fitting a trained model to faces of another style: better on these, and no worse on the old ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_training import config, create

from fertools import data
from fertools.cli import main
from fertools.data import Dataset, synthetic
from fertools.errors import ConfigError, DataError, ModelError
from fertools.training.adaptation import (
    REHEARSED,
    Base,
    Change,
    adapt_config,
    check_enough,
    open_base,
    rehearsed,
)


def shifted(faces: Dataset) -> Dataset:
    """The same faces as a camera with reversed greys and little contrast sees them."""
    return Dataset("shifted", (220 - faces.images // 2).astype(np.uint8), faces.labels, faces.usage)


def test_rehearsal_mixes_old_training_images_into_new_ones() -> None:
    new, old = shifted(synthetic.generate(21, 14, 7, seed=1)), synthetic.generate(70, 35, 14, seed=2)
    mixed = rehearsed(new, old)
    assert mixed.counts == {"train": 21 * (1 + REHEARSED), "validation": 14, "test": 7}
    assert np.array_equal(mixed.split("validation").images, new.split("validation").images)
    drawn = {image.tobytes() for image in mixed.split("train").images[21:]}
    assert drawn <= {image.tobytes() for image in old.split("train").images}
    assert len(drawn) == 21 * REHEARSED
    assert "42 images of synthetic mixed in" in mixed.notes[-1]
    assert rehearsed(new, old).fingerprint == mixed.fingerprint
    assert rehearsed(new, old, seed=1).fingerprint != mixed.fingerprint


def test_all_old_images_are_rehearsed_where_there_are_few() -> None:
    new, old = synthetic.generate(70, 14, 7, seed=1), synthetic.generate(21, 7, 7, seed=2)
    assert rehearsed(new, old).counts["train"] == 91


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="too few images to adapt to; it takes 1 more train images"):
        check_enough(synthetic.generate(6, 35, 14))
    check_enough(synthetic.generate(7, 7, 0))


def test_the_recipe_is_for_the_network_of_the_base() -> None:
    base = Base(Path("exported/mine"), "mlp", "f")
    assert adapt_config(base).model == "mlp"
    assert adapt_config(base, epochs=3).epochs == 3
    with pytest.raises(ConfigError):
        adapt_config(base, epochs=0)


def test_what_is_no_base_is_refused(tmp_path: Path, small_export: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model\.keras"):
        open_base(tmp_path)
    (tmp_path / "model.keras").write_bytes((small_export / "model.keras").read_bytes())
    with pytest.raises(ModelError, match="not the report"):
        open_base(tmp_path)


def test_the_table_and_the_json_of_a_change() -> None:
    change = Change((0.5, 0.75), None)
    assert change.to_dict() == {"new": {"before": 0.5, "after": 0.75}, "old": None}
    assert change.to_text().splitlines()[1].split() == ["new", "faces", "50.00%", "75.00%", "+25.00"]
    assert len(Change((0.5, 0.75), (0.8, 0.79)).to_text().splitlines()) == 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An export folder of ``compact`` trained on drawn faces, as `open_base` wants it, and its data."""
    from fertools.training.trainer import train

    folder = tmp_path_factory.mktemp("base")
    data.write(synthetic.generate(1050, 140, 140, seed=4), folder / "old.npz")
    faces = data.load(folder / "old.npz")
    settings = config("sequential", model="compact", epochs=12, batch_size=32, learning_rate=0.05)
    run = train(create(folder / "run", settings, faces), faces)
    exported = folder / "exported"
    exported.mkdir()
    (exported / "model.keras").write_bytes(run.best.read_bytes())
    report = {
        "training": {"config": settings.to_dict(), "commands": [], "run": "old"},
        "model": {"name": "compact", "data": {"name": "old.npz", "fingerprint": faces.fingerprint}},
    }
    (exported / "report.json").write_text(json.dumps(report))
    return exported, folder / "old.npz"


@pytest.mark.slow
@pytest.mark.parametrize("with_old_data", [True, False])
def test_it_learns_the_new_and_keeps_the_old(
    base: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_old_data: bool
) -> None:
    exported, old = base
    source = tmp_path / "new.npz"
    data.write(shifted(synthetic.generate(350, 140, 70, seed=5)), source)
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)
    options = ["--old-data", str(old)] if with_old_data else ["--epochs", "1"]
    arguments = ["adapt", str(source), "--model", str(exported), "--out", str(tmp_path / "run"), *options]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    if with_old_data:
        shutil.rmtree(tmp_path / "run")
        again = CliRunner().invoke(main, arguments)
        assert again.exit_code == 1
        assert f"{tmp_path / 'run-data.npz'}: already exists, and would be replaced" in again.stderr
        assert found["new"]["after"] - found["new"]["before"] >= 0.10
        assert found["old"]["before"] - found["old"]["after"] <= 0.02
    else:
        assert found["old"] is None
    assert f"fertools export {tmp_path / 'run'} --quantize" in done.stderr
