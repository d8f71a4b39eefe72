import itertools
import os
import resource
import statistics
import subprocess
import sys

import pytest

from fertools.processor import processor

PAGE = resource.getpagesize()
BLOCK = 80 * 2**20  # larger than a heap of glibc's for a thread

#: Huge pages, where the system gives them, would hide most faults.
SMALL_PAGES = """
import ctypes
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
"""

#: Faults of allocating, filling and freeing a block, in the main thread and in another.
BLOCKS = f"""
size = {BLOCK}
import resource, sys, threading
from fertools.memory import keep_memory
if "keep" in sys.argv:
    keep_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def measure():
    print(*[faults() for _ in range(5)][2:])

measure()
thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""

#: Faults of each step of a training whose activations take 36 MiB each.
TRAINING = """
import resource, sys, tempfile
from pathlib import Path
from fertools import memory
if "keep" not in sys.argv:
    memory.KEEPING = {}
from fertools.backend import import_keras, select_device
import_keras()
from keras import Sequential, layers
from fertools.data import synthetic
from fertools.models import NETWORKS, Network
from fertools.training import TrainConfig
from fertools.training.trainer import new_run, train

def build():
    return Sequential(
        [
            layers.Input((48, 48, 1)),
            layers.Conv2D(32, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(7, activation="softmax", dtype="float32"),
        ],
        name="wide",
    )

class Faults:
    def step(self, epoch, step, loss):
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

    def epoch(self, row, best):
        pass

NETWORKS["wide"] = Network(name="wide", text="For tests.", build=build, parameters=0, multiply_adds=0)
faces = synthetic.generate(128 * 12, 7, 7)
config = TrainConfig(model="wide", epochs=1, batch_size=128, precision="float32")
with tempfile.TemporaryDirectory() as folder:
    run = new_run(Path(folder, "run"), config, faces, synthetic.NAME, select_device("cpu"))
    train(run, faces, observer=Faults())
"""


def run(code, *arguments, **environment):
    command = [sys.executable, "-c", SMALL_PAGES + code, *arguments]
    printed = subprocess.check_output(command, text=True, env={**os.environ, **environment})
    return [int(number) for number in printed.split()]


needs_glibc = pytest.mark.skipif(
    run("from fertools.memory import keep_memory; print(int(keep_memory()))") == [0],
    reason="only glibc can be told to keep memory",
)


@needs_glibc
def test_freed_memory_is_used_again_in_every_thread():
    pages = BLOCK // PAGE
    assert max(run(BLOCKS, "keep")) < pages / 100


@pytest.mark.slow
@needs_glibc
def test_a_training_step_asks_for_no_fresh_memory():
    pytest.importorskip("tensorflow")
    one_activation = 128 * 48 * 48 * 32 * 4 // PAGE

    def faults(*arguments):
        # Without oneDNN, whose allocator keeps memory by itself: it is not on every processor.
        steps = itertools.pairwise(run(TRAINING, *arguments, TF_ENABLE_ONEDNN_OPTS="0"))
        return statistics.median([after - before for before, after in steps][4:])

    assert faults("keep") < one_activation / 10
    # So that the figure above is known to measure something.
    assert faults() > one_activation


@pytest.mark.skipif("avx2" not in processor()[1], reason="TensorFlow's oneDNN is asked for with AVX2")
def test_tensorflow_is_asked_for_onednn():
    """TensorFlow takes it by itself on some processors; there, no other test would miss it."""
    pytest.importorskip("tensorflow")
    code = "import os; os.environ.pop('TF_ENABLE_ONEDNN_OPTS', None)\n"
    code += "from fertools.backend import import_keras; import_keras()\n"
    assert run(code + "print(os.environ['TF_ENABLE_ONEDNN_OPTS'])") == [1]
