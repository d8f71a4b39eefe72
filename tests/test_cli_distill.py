import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_training
from click.testing import CliRunner

from fertools.backend import bfloat16_is_forbidden
from fertools.cli import main
from fertools.data import Dataset, write
from fertools.models import NETWORKS
from fertools.training import Run
from fertools.training.trainer import train


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two finished runs of the tiny network."""
    root = tmp_path_factory.mktemp("teachers")
    data = tiny_training.dataset()
    settings = [tiny_training.config(epochs=1, seed=seed) for seed in (1, 2)]
    return [train(tiny_training.create(root / str(each.seed), each), data).path for each in settings]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, teachers):
    """An empty folder with a data set, and networks that train in seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(NETWORKS, "tiny", tiny_training.NETWORK)
    tiny = dataclasses.replace(NETWORKS["sequential"], build=tiny_training.build)
    monkeypatch.setitem(NETWORKS, "sequential", tiny)
    write(tiny_training.dataset(), "tiny.npz")


def distill(*arguments):
    arguments = ["distill", *map(str, arguments), "--data", "tiny.npz", "--epochs", "2", "--batch-size", "16"]
    return CliRunner().invoke(main, arguments)


def test_several_teachers_after_one_option(teachers):
    options = ("--out", "student", "--temperature", 2, "--label-share", 0.25, "--versions", 3)
    result = distill("--teachers", *teachers, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "student\n"
    run = Run.open(Path("student"))
    assert run.finished
    facts = run.facts["distillation"]
    assert (facts["temperature"], facts["label_share"], facts["versions"]) == (2, 0.25, 3)
    assert [run.answers(version).is_file() for version in range(3)] == [True, True, False]  # of two epochs
    assert [teacher["name"] for teacher in facts["teachers"]] == ["1", "2"]
    assert len(run.teachers) == 2


@pytest.mark.slow
def test_the_option_may_be_repeated_and_seeds_given(teachers):
    result = distill(
        "--teachers", teachers[0], "--teachers", teachers[1], "--seeds", 2, "--json", "--out", "two"
    )
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["accuracies"]) == 2
    for seed in (0, 1):
        assert len(Run.open(Path("two", f"seed-{seed}")).teachers) == 2


def test_usage_errors(teachers):
    result = distill("--out", "student")
    assert result.exit_code == 2
    assert "Missing option '--teachers'" in result.stderr
    result = distill("--teachers", teachers[0], "--label-share", 1)
    assert result.exit_code == 2
    assert "label_share=1.0: the teachers would have no influence" in result.stderr
    result = distill("--teachers", teachers[0], "--versions", 2, "--mixup", 0.2)
    assert result.exit_code == 2
    assert "--mixup: not with --versions" in result.stderr
    result = distill("--teachers", teachers[0], "--label-share", 0, "--label-smoothing", 0.1)
    assert result.exit_code == 2
    assert "--label-smoothing: has no effect with --label-share 0" in result.stderr
    assert not Path("student").exists()


#: TensorFlow does not ask oneDNN what it may use, and fails.
forbidden = pytest.mark.skipif(bfloat16_is_forbidden(), reason="oneDNN is kept from bfloat16")


@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_bfloat16", marks=forbidden)])
def test_a_teacher_may_be_an_ensemble(teachers, precision):
    """An ensemble teaches like a single network; in any precision it answers like its file."""
    from fertools.models.ensemble import weighted_mean
    from fertools.models.inference import load, probabilities
    from fertools.training.trainer import _teacher, dtype_policy

    Path("both").mkdir()
    whole = weighted_mean([load(path / "best.keras") for path in teachers], [0.75, 0.25])
    whole.save("both/model.keras")
    with dtype_policy(precision):
        teacher = _teacher(Path("both/model.keras"))
    assert not teacher.trainable_variables
    images = tiny_training.dataset().images
    exact = {"float32": 1e-6, "mixed_bfloat16": 0.05}[precision]
    np.testing.assert_allclose(probabilities(teacher, images), probabilities(whole, images), atol=exact)
    result = distill("--teachers", "both", "--out", "student", "--precision", precision, "--label-share", 0)
    assert result.exit_code == 0, result.stderr
    facts = Run.open(Path("student")).facts["distillation"]["teachers"]
    assert [(teacher["name"], teacher["model"]) for teacher in facts] == [("both", "ensemble")]


def test_class_weights_count_for_the_teachers_too(teachers):
    """With a label share of 0, only the teachers' part is weighted."""
    whole = tiny_training.dataset()
    uneven = (whole.usage > 0) | (whole.labels > 0) | (np.arange(len(whole)) < 20)
    parts = (array[uneven] for array in (whole.images, whole.labels, whole.usage))
    write(Dataset("uneven", *parts), "tiny.npz", overwrite=True)
    losses = []
    for balance in ("none", "weights"):
        words = ("--label-share", 0, "--class-balance", balance, "--out", balance, "--other-data")
        result = distill("--teachers", teachers[0], *words)
        assert result.exit_code == 0, result.stderr
        losses.append([row.loss for row in Run.open(Path(balance)).history()])
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_a_teacher_that_is_not_there():
    result = distill("--teachers", "nobody", "--out", "student")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: nobody: no such file; a teacher is a run")
    assert not Path("student").exists()
