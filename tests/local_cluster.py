"""Helpers of the tests on a Ray cluster; the cluster itself is the fixture ``cluster``."""

import threading
import time

import pytest

#: Seconds after which a test gives up. A busy machine takes a minute to start several TensorFlow processes.
PATIENCE = 300

MARKS = [
    pytest.mark.slow,
    # Ray leaves sockets and log files to the garbage collector, and calls what it has itself deprecated.
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ),
]


def in_thread(call):
    """Start a call in a thread; returns a function that waits for its end."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait():
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return wait


def wait_for(condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
