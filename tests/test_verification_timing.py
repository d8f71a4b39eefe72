import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from fertools.verification import timing
from fertools.verification.timing import SPINNING, can_pin, in_turns, interleaved, one_processor

pytestmark = [
    pytest.mark.skipif(not can_pin(), reason="threads cannot be kept on a processor here"),
    pytest.mark.usefixtures("every_core"),
]


def affinities():
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # an engine's thread may have ended meanwhile
            found[int(task.name)] = os.sched_getaffinity(int(task.name))
    return found


def waiting_thread():
    """A thread that waits for its end event."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    return thread, end


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_all_threads_are_kept_on_one_processor_and_let_go(error):
    old, end_old = waiting_thread()
    before = affinities()
    try:
        with one_processor():
            new, end_new = waiting_thread()
            inside = affinities()
            if error is not None:
                raise error
    except KeyboardInterrupt:
        pass
    after = affinities()
    end_old.set()
    end_new.set()
    old.join()
    new.join()
    lasting = before.keys() & inside.keys() & after.keys()  # other tests' threads may have ended
    assert {threading.main_thread().native_id, old.native_id} <= lasting
    assert len(set.union(*(inside[thread] for thread in (*lasting, new.native_id)))) == 1
    assert all(after[thread] == before[thread] for thread in lasting)
    assert after[new.native_id] == set.union(*before.values())


def test_work_of_several_threads_takes_one_processor():
    block = bytes(4_000_000)

    def work():
        for _ in range(10):
            hashlib.sha256(block)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with one_processor():
        wall, used = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall, used = time.perf_counter() - wall, time.process_time() - used
    assert used < 1.1 * wall


def test_between_turns_of_several_threads_there_is_time_to_stop_spinning(monkeypatch):
    order = []
    monkeypatch.setattr("fertools.verification.timing.time.sleep", lambda seconds: order.append(seconds))
    in_turns({"one": lambda: order.append("one"), "two": lambda: order.append("two")}, rounds=2, threads=2)
    pauses = [place for place, what in enumerate(order) if what == SPINNING]
    assert [order[place + 1] for place in pauses] == ["one", "two"] * 2
    assert {*order[pauses[0] + 1 : pauses[1]]} == {"one"}


def test_calls_take_turns(monkeypatch):
    """Known times: a slow call is made as often as fits into a round, a quick one 20 times."""
    order, now = [], [0.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def call(name, seconds):
        order.append(name)
        now[0] += seconds

    times = interleaved({"quick": lambda: call("q", 2**-10), "slow": lambda: call("s", 0.25)})
    assert times == {"quick": 1000 / 2**10, "slow": 250}
    assert "".join(order) == "qqqsss" + ("q" * 20 + "ssss") * 7
