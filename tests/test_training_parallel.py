"""--devices all: several virtual CPU devices in one process, and two processes of two."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fertools.processor import processor

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="jax is not installed: only there Keras splits batches over devices",
)
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed"
)

pytestmark = pytest.mark.slow

#: Images of the validation split, which 4 devices do not divide.
VALIDATION = 35

#: Trains in each way that is named; prints the histories, the weights and how batches were split.
CODE = """
import dataclasses
import json
import sys
from pathlib import Path

from fertools.backend import import_keras, select_device

root, ways = Path(sys.argv[1]), sys.argv[2:]
keras = import_keras()
select_device("cpu", "one" if ways == ["one"] else "all")

import jax
import numpy as np
from tiny_training import Stop, comparable, config, create, dataset

from fertools.errors import ConfigError, RunError
from fertools.training import DistillConfig, Run
from fertools.training.augmentation import AugmentedInput
from fertools.training.trainer import train

call, shapes, found = AugmentedInput.call, [], {}

def watched(self, images, training=False):
    images = call(self, images, training)
    jax.debug.inspect_array_sharding(
        images, callback=lambda sharding: shapes.append(sharding.shard_shape(images.shape))
    )
    return images

AugmentedInput.call = watched

def settings(devices, **changes):
    return config(devices=devices, epochs=2, precision="float32", mixup=0.2, class_balance="none", **changes)

def note(way, run):
    weights = keras.saving.load_model(run.best).get_weights()
    found[way] = {
        "history": [[row.loss, row.accuracy, row.val_loss, row.val_accuracy] for row in comparable(run)],
        "weights": [float(np.abs(array).sum()) for array in weights],
        "shapes": sorted(set(shapes)),
        "device": run.facts["device"]["name"],
        "accuracy": run.metrics["validation"]["accuracy"],
    }
    shapes.clear()

if "one" in ways:
    note("one", train(create(root / "one", settings("one")), dataset()))
if "all" in ways:
    note("all", train(create(root / "all", settings("all")), dataset()))
if "resumed" in ways:
    resumed = create(root / "resumed", settings("all"))
    try:
        train(resumed, dataset(), observer=Stop(1))
    except KeyboardInterrupt:
        note("resumed", train(Run.open(resumed.path), dataset()))
if "distilled" in ways:
    options = {"distillation": DistillConfig(), "teachers": [root / "one"]}
    for devices in ("one", "all"):
        student = create(root / f"student-{devices}", settings(devices, **{"batch_size": 32}), **options)
        note(f"distilled-{devices}", train(student, dataset()))
if "kept" in ways:
    options = {"distillation": DistillConfig(versions=1), "teachers": [root / "one"]}
    for devices in ("one", "all"):
        plain = settings(devices, batch_size=32)
        student = create(root / f"kept-{devices}", dataclasses.replace(plain, mixup=0.0), **options)
        note(f"kept-{devices}", train(student, dataset()))
if "odd" in ways:
    try:
        create(root / "odd", settings("all", batch_size=18))
    except ConfigError as error:
        found["odd"] = [str(error), (root / "odd").exists()]
if "others" in ways:
    run = create(root / "others", settings("all", seed=jax.process_index()))
    try:
        train(run, dataset())
    except RunError as error:
        found["others"] = str(error)
print(json.dumps(found))
"""


def start(root, *ways, devices, **variables):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join(paths),
        # Compiling takes most of the time.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
        **variables,
    }
    command = [sys.executable, "-c", CODE, root, *ways]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def outcome(process):
    try:
        output, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process with four devices found."""
    ways = ("one", "all", "resumed", "distilled", "kept", "odd")
    return outcome(start(tmp_path_factory.mktemp("four"), *ways, devices=4))


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """What each of two processes with two devices found that trained together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        start(
            tmp_path_factory.mktemp(f"process-{number}"),
            *("all", "others"),
            devices=2,
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    return [outcome(process) for process in processes]


def assert_alike(one, other):
    """Equal but for rounding: sums over a batch are made in another order."""
    for name in ("history", "weights"):
        for left, right in zip(one[name], other[name], strict=True):
            assert right == pytest.approx(left, rel=1e-4, abs=1e-5)
    assert one["accuracy"] == pytest.approx(other["accuracy"], abs=1.01 / VALIDATION)


@needs_jax
def test_the_batch_is_split(found):
    assert found["one"]["shapes"] == [[16, 48, 48, 1]]
    assert found["all"]["shapes"] == [[4, 48, 48, 1]]
    assert found["all"]["device"] == f"4 x {found['one']['device']}"


@needs_jax
def test_the_result_is_that_of_one_device(found):
    assert_alike(found["one"], found["all"])


@needs_jax
def test_an_interrupted_run_ends_as_if_it_had_not_been(found):
    assert {**found["resumed"], "shapes": None} == {**found["all"], "shapes": None}


@needs_jax
def test_distillation(found):
    assert found["distilled-all"]["shapes"] == [[8, 48, 48, 1]]
    assert_alike(found["distilled-one"], found["distilled-all"])


@needs_jax
def test_distillation_from_kept_answers(found):
    assert_alike(found["kept-one"], found["kept-all"])


@needs_jax
def test_a_batch_that_cannot_be_split(found):
    message, made = found["odd"]
    assert message == "batch_size=18: must be a multiple of the 4 devices; change it, or use --devices one"
    assert not made


@needs_jax
def test_several_processes_train_one_network(found, joined):
    assert joined[0]["all"] == joined[1]["all"]
    assert_alike(found["one"], joined[0]["all"])
    assert joined[0]["all"]["shapes"] == [[4, 48, 48, 1]]


@needs_jax
def test_processes_that_were_told_different_things(joined):
    for each in joined:
        assert each["others"].startswith("the processes have different settings: give all the same")


#: Two devices of TensorFlow.
TENSORFLOW = """
import sys
import tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1]))
from fertools.backend import select_device
from fertools.errors import ConfigError
try:
    print(select_device("cpu", "all").name)
except ConfigError as error:
    print(error)
"""


@needs_tensorflow
@pytest.mark.parametrize(
    ("devices", "variables", "refused"),
    [(1, {}, False), (2, {}, True), (1, {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, True)],
)
def test_tensorflow_has_no_such_split(devices, variables, refused):
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    command = [sys.executable, "-c", TENSORFLOW, str(devices)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    answer = done.stdout.splitlines()[-1]
    if refused:
        assert answer.startswith("devices=all: Keras cannot split batches over devices on tensorflow; set")
    else:
        assert answer == processor()[0]
