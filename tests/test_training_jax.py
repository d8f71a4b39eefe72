import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None,
        reason="jax is not installed: Keras' other backend cannot be tried",
    ),
]

#: Trains straight through, and once more with an interruption; writes what came out.
CODE = """
import json
import sys
from pathlib import Path

sys.modules["tensorflow"] = None  # as where it is not installed: Keras imports it for its random seed

from fertools.backend import import_keras

keras = import_keras()
import numpy as np
from tiny_training import Stop, comparable, config, create, dataset

from fertools.models.inference import probabilities
from fertools.training import DistillConfig, callbacks, trainer
from fertools.training.trainer import train

root, compiled, seeds = Path(sys.argv[1]), [], []
begin = callbacks.EpochSeeds.on_epoch_begin

def noted(self, epoch, logs=None):
    begin(self, epoch, logs)
    compiled.append(bool(self.model.jit_compile))
    found = [v for v in self.model.variables if v.name == callbacks.SEED_STATE]
    seeds.append([epoch, len(found), int(found[0].numpy()[0])])

callbacks.EpochSeeds.on_epoch_begin = noted
straight = train(create(root / "straight", config(epochs=2)), dataset())
resumed = create(root / "resumed", config(epochs=2))
try:
    train(resumed, dataset(), observer=Stop(1))
except KeyboardInterrupt:
    train(resumed, dataset())
one, other = (keras.saving.load_model(run.best) for run in (straight, resumed))
np.save(root / "probabilities.npy", probabilities(one, dataset().images))
students = []
for steps in (1, 3):
    trainer.GPU_STEPS_PER_CALL = steps
    options = {"distillation": DistillConfig(), "teachers": [straight.path]}
    student = create(root / f"student-{steps}", config(epochs=2, mixup=0.2), **options)
    facts = student.facts
    facts["device"]["kind"] = "gpu"
    (student.path / "run.json").write_text(json.dumps(facts))
    students.append(train(student, dataset()))
options = {"distillation": DistillConfig(versions=1), "teachers": [straight.path]}
kept = create(root / "kept", config(epochs=2, augmentation="flip"), **options)
train(kept, dataset())
print(json.dumps({
    "kept": [row.loss for row in kept.history()],
    "students": [[row.loss for row in run.history()] for run in students],
    "students_same": all(
        np.array_equal(*pair)
        for pair in zip(*(keras.saving.load_model(run.best).get_weights() for run in students))
    ),
    "backend": straight.facts["device"]["backend"],
    "compiled": compiled,
    "seeds": seeds,
    "same": comparable(straight) == comparable(resumed)
    and all(np.array_equal(*pair) for pair in zip(one.get_weights(), other.get_weights())),
}))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    root = tmp_path_factory.mktemp("jax")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join(paths),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiling takes most of the time
    }
    command = [sys.executable, "-c", CODE, root]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert result.returncode == 0, result.stderr
    return root, json.loads(result.stdout)


def test_training_on_jax(outcome):
    _, found = outcome
    assert found["backend"] == "jax"


def test_steps_are_compiled(outcome):
    assert outcome[1]["compiled"] == [True] * 10


def test_distillation_with_mixup_in_several_steps_a_call(outcome):
    first, second = outcome[1]["students"]
    assert np.isfinite(first).all()
    assert second == pytest.approx(first, rel=1e-5)
    assert outcome[1]["students_same"]


def test_distillation_from_kept_answers(outcome):
    first, second = outcome[1]["kept"]
    assert second < first


def test_resumes_exactly(outcome):
    assert outcome[1]["same"]
    first, second, again, resumed = outcome[1]["seeds"][:4]
    assert (first, second) == (again, resumed)
    assert first[1:] != second[1:]
    assert first[1] == 2  # augmentation and dropout


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed")
def test_the_network_is_the_same_on_tensorflow(outcome):
    from fertools.backend import import_keras

    keras = import_keras()
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend than tensorflow")
    from tiny_training import dataset

    from fertools.models.inference import probabilities

    network = keras.saving.load_model(outcome[0] / "straight" / "best.keras")
    expected = np.load(outcome[0] / "probabilities.npy")
    np.testing.assert_allclose(probabilities(network, dataset().images), expected, atol=1e-5)
