"""Fitting a trained model to faces of another style: better on these, and no worse on the old ones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from small_run import barred_faces, small_network

from fertools import data
from fertools.cli import main
from fertools.data import Dataset, synthetic
from fertools.errors import ConfigError, DataError, ModelError
from fertools.models import NETWORKS
from fertools.models.inference import load, weights_sha256
from fertools.training import Run
from fertools.training.adaptation import (
    REHEARSED,
    TEACHING,
    Base,
    Change,
    adapt_config,
    check_enough,
    measure_change,
    open_base,
    rehearsed,
)


def test_rehearsal_mixes_old_training_images_into_new_ones() -> None:
    new, old = synthetic.generate(21, 14, 7, seed=1), synthetic.generate(70, 35, 14, seed=2)
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
    with pytest.raises(DataError, match="it takes 1 more test images"):
        check_enough(synthetic.generate(7, 7, 0))
    check_enough(synthetic.generate(7, 7, 1))


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


def turned(faces: Dataset) -> Dataset:
    """The same images, each of the validation split labelled with the class after its own."""
    labels = (faces.labels + (faces.usage == 1)) % 7
    return Dataset("turned", faces.images, labels.astype(np.uint8), faces.usage)


def test_the_change_is_that_of_the_accuracies(
    small_export: Path, small_data: Dataset, tmp_path: Path
) -> None:
    """The base is right on 4 of 5 images; the other network answers with the class after the base's."""
    network = load(small_export / "model.keras")
    network.layers[-1].set_weights([np.roll(array, 1, axis=-1) for array in network.layers[-1].get_weights()])
    network.save(tmp_path / "adapted.keras")
    base = open_base(small_export)
    change = measure_change(base, tmp_path / "adapted.keras", turned(small_data), small_data)
    assert change == Change(new=(0.0, 0.8), old=(0.8, 0.2))
    assert measure_change(base, tmp_path / "adapted.keras", turned(small_data), None).old is None


@pytest.fixture
def adapt(small_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``fertools adapt`` to 35 faces for one epoch, into the folder ``run``, from the small network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)
    small = dataclasses.replace(NETWORKS["sequential"], build=small_network)
    for name in ("sequential", "small"):  # what its report and its file call it
        monkeypatch.setitem(NETWORKS, name, small)
    data.write(barred_faces(35, 14, 7), "new.npz")
    words = ["adapt", "new.npz", "--model", str(small_export), "--epochs", "1", "--out", "run", "--json"]
    return lambda *more: CliRunner().invoke(main, [*words, *map(str, more)])


def test_without_the_old_data_the_base_teaches(adapt: Callable[..., Result], small_export: Path) -> None:
    done = adapt()
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["old"] is None
    assert "fertools export run --quantize" in done.stderr
    run = Run.open(Path("run"))
    base = open_base(small_export)
    known = weights_sha256(load(base.weights))
    assert run.config == adapt_config(base, epochs=1)
    assert run.facts["data"]["images"] == {"train": 35, "validation": 14, "test": 7}
    assert run.facts["weights"]["sha256"] == weights_sha256(load(run.start)) == known
    (teacher,) = run.facts["distillation"]["teachers"]
    assert (teacher["name"], teacher["sha256"]) == ("small", known)
    assert run.facts["distillation"]["label_share"] == TEACHING.label_share
    assert [weights_sha256(load(file)) for file in run.teachers] == [known]


def test_with_the_old_data_some_of_it_is_mixed_in(
    adapt: Callable[..., Result], small_export: Path, small_run: Path
) -> None:
    old = small_run.with_suffix(".npz")
    done = adapt("--old-data", old)
    assert done.exit_code == 0, done.output
    run = Run.open(Path("run"))
    known = weights_sha256(load(open_base(small_export).weights))
    assert run.facts["data"]["source"] == str(Path("run-data.npz").absolute())
    assert run.facts["data"]["images"] == {"train": 35 * (1 + REHEARSED), "validation": 14, "test": 7}
    assert run.facts["weights"]["sha256"] == weights_sha256(load(run.start)) == known
    assert "distillation" not in run.facts
    found = json.loads(done.stdout)
    change = measure_change(open_base(small_export), run.best, data.load("new.npz"), data.load(str(old)))
    assert found == {"run": "run", "model": "sequential", "base": str(small_export), **change.to_dict()}
    shutil.rmtree("run")
    again = adapt("--old-data", old)
    assert again.exit_code == 1
    assert "run-data.npz: already exists, and would be replaced" in again.stderr
