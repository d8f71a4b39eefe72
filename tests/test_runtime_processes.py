"""Predictors in several processes: forked, spawned, pickled."""

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle

import numpy as np
import pytest
from PIL import Image
from tiny_model import tiny_export, tiny_reference

from fertools.contract import ONNX_FILE
from fertools.errors import FertoolsError, ForkError, ModelError
from fertools.runtime import Predictor, decoding

FACES = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)

#: Seconds after which something hangs.
HANGS = 120

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
#: Python 3.12 warns about what these tests are about.
MULTI_THREADED = r"This process \(pid=\d+\) is multi-threaded, use of fork\(\)"


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"), "float32")


def in_fork(work):
    """What `work` returns in a forked process, or the error it raises there, as text."""
    gc.collect()  # so that the child does not tear down what other tests left (TensorFlow's threads, Ray)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MULTI_THREADED, DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(HANGS)
        said = b""
        try:
            said = str(work()).encode()
        except FertoolsError as error:
            said = f"{type(error).__name__}: {error}".encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the forked process hung or crashed: signal {status & 127}"
    return said


@forks
@pytest.mark.parametrize("threads", [1, 2])
def test_a_predictor_is_refused_after_a_fork(export, threads):
    predictor = Predictor(export, threads=threads)
    before = predictor.predict(FACES[0])
    for use in (
        lambda: predictor.predict(FACES[0]),
        lambda: predictor.predict_batch(FACES),
        lambda: predictor.probabilities(FACES),
        lambda: list(predictor.predict_stream(FACES)),
    ):
        said = in_fork(use)
        assert said.startswith(f"ForkError: this Predictor was made in process {os.getpid()} and does not")
        assert said.endswith("make one in each process")
    assert predictor.predict(FACES[0]) == before


@forks
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_new_one_works_in_its_place(export, threads):
    predictor = Predictor(export, threads=threads)
    predictor.probabilities(FACES)

    def replace():
        nonlocal predictor
        predictor = Predictor(export, threads=threads)  # the inherited one is dropped
        gc.collect()
        return np.abs(predictor.probabilities(FACES) - tiny_reference(FACES)).max() < 1e-5

    assert in_fork(replace) == "True"
    assert len(predictor.probabilities(FACES)) == 20


@forks
@pytest.mark.parametrize("keep", ["", "import builtins; builtins.kept = predictor"])
def test_a_forked_process_ends_normally(export, keep):
    code = f"""
import os, signal, sys
import numpy as np
from fertools.runtime import Predictor
predictor = Predictor(sys.argv[1], threads=8)
predictor.probabilities(np.zeros((20, 48, 48), np.uint8))
{keep}
child = os.fork()
if child == 0:
    signal.alarm({HANGS})
    sys.exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-W", f"ignore:{MULTI_THREADED[:12]}", "-c", code, export]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * HANGS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@forks
def test_a_stream_is_refused_after_a_fork(export):
    stream = Predictor(export).predict_stream(cycle(FACES), batch_size=1)
    next(stream)
    assert in_fork(lambda: next(stream)).startswith(
        "ForkError: this stream of predictions was made in process"
    )
    assert in_fork(stream.close) == "None"
    next(stream)
    stream.close()


@forks
def test_a_fork_while_another_thread_decodes_an_image(export, tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(FACES[0]).save(path)
    expected = Predictor(export).predict(path)
    holds, goes_on = threading.Event(), threading.Event()

    def decode():
        with decoding._one_at_a_time:
            holds.set()
            goes_on.wait(HANGS)

    thread = threading.Thread(target=decode)
    thread.start()
    assert holds.wait(HANGS)
    said = in_fork(lambda: Predictor(export).predict(path) == expected)
    goes_on.set()
    thread.join()
    assert said == "True"


def use_inherited(predictor, connection):
    try:
        connection.send(predictor.predict(FACES[0]))
    except ForkError as error:
        connection.send(error)


@forks
@pytest.mark.filterwarnings(f"ignore:{MULTI_THREADED}:DeprecationWarning")
def test_forked_workers(export):
    context = multiprocessing.get_context("fork")
    predictor = Predictor(export)
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=use_inherited, args=(predictor, sending))
    process.start()
    assert receiving.poll(HANGS)
    assert isinstance(receiving.recv(), ForkError)
    process.join(HANGS)
    assert process.exitcode == 0
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # pickles what it is given
        assert pool.submit(predictor.predict, FACES[0]).result(HANGS) == predictor.predict(FACES[0])


def test_spawned_workers(export):
    predictor = Predictor(export, threads=1, views="flip")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(predictor.predict, FACES[0]).result(HANGS) == predictor.predict(FACES[0])


def test_pickling_opens_the_same_file_with_the_same_arguments(export, tmp_path, monkeypatch):
    monkeypatch.chdir(export)
    predictor = Predictor(ONNX_FILE, providers=["cpu"], threads=3, views="flip")
    stored = pickle.dumps(predictor)
    assert len(stored) < 1000
    monkeypatch.chdir(tmp_path)
    for other in (pickle.loads(stored), pickle.loads(pickle.dumps(pickle.loads(stored)))):
        assert other.path == export / ONNX_FILE
        assert (other.info, other.providers) == (predictor.info, predictor.providers)
        assert (other.threads, other.views) == (3, "flip")
        np.testing.assert_array_equal(other.probabilities(FACES), predictor.probabilities(FACES))


def test_a_copy_is_another_predictor(export):
    predictor = Predictor(export)
    other = copy.deepcopy(predictor)
    assert other._session is not predictor._session
    assert other.predict(FACES[0]) == predictor.predict(FACES[0])


def test_the_threads_of_a_pickle_are_those_of_the_machine_that_opens_it(export, monkeypatch):
    stored = [pickle.dumps(Predictor(export, threads=threads)) for threads in (None, 2)]
    monkeypatch.setattr("fertools.runtime.session.usable_cpus", lambda: 5)
    assert [pickle.loads(item).threads for item in stored] == [5, 2]


def test_another_model_in_the_place_of_the_pickled_one(tmp_path):
    export = tiny_export(tmp_path, "float32")
    stored = pickle.dumps(Predictor(export))
    tiny_export(tmp_path, "float32", seed=1)
    with pytest.raises(ModelError, match="not the model of the pickled"):
        pickle.loads(stored)
    (export / ONNX_FILE).unlink()
    with pytest.raises(ModelError, match="no such model"):
        pickle.loads(stored)


def test_errors_reach_another_process(export):
    error = pickle.loads(pickle.dumps(ForkError("this Predictor")))
    assert (type(error), str(error)) == (ForkError, "this Predictor")
