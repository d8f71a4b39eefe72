import os
import signal
import sys
import time

import pytest

from fertools.cli.processes import LONGEST_LINE, side_by_side


def run(codes, places=({},)):
    """Run pieces of Python; what was said, and how they ended."""
    said, ends = [], {}
    commands = {name: [sys.executable, "-c", code] for name, code in codes.items()}
    side_by_side(commands, places, say=said.append, ended=ends.__setitem__)
    return said, ends


def test_lines_carry_the_name_and_stdout_is_dropped():
    say = "import sys; print('no'); print('one\\n\\ntwo', file=sys.stderr)"
    said, ends = run({"a": say, "b": say})
    assert said == ["a | one", "a | two", "b | one", "b | two"]
    assert ends == {"a": None, "b": None}


def test_failures_are_told_and_stop_nothing():
    codes = {
        "ours": "import sys; sys.exit('Error: x.npz: no such file')",
        "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "traceback": "1/0",
        "exit": "raise SystemExit(3)",
        "good": "",
    }
    _, ends = run(codes)
    assert ends == {
        "ours": "x.npz: no such file",
        "killed": "signal SIGKILL: it says nothing",
        "traceback": "exit code 1: ZeroDivisionError: division by zero",
        "exit": "exit code 3: it says nothing",
        "good": None,
    }


def test_each_place_has_one_process_at_a_time():
    """Two places: two processes meet, never three, and each place is used again."""
    code = """
import os, sys, time
print(os.environ["CUDA_VISIBLE_DEVICES"], "starts", file=sys.stderr)
time.sleep(0.3)
print(os.environ["CUDA_VISIBLE_DEVICES"], "ends", file=sys.stderr)
"""
    said, _ = run(dict.fromkeys("abcd", code), [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "57"])
    running, most = {}, 0
    for line in said:
        name, gpu, what = line.replace(" |", "").split()
        if what == "starts":
            assert gpu not in running
            running[gpu] = name
        else:
            assert running.pop(gpu) == name
        most = max(most, len(running))
    assert most == 2
    assert len(said) == 8


def test_they_start_in_their_order():
    said, _ = run({str(number): f"import sys; print({number}, file=sys.stderr)" for number in range(4)})
    assert said == [f"{number} | {number}" for number in range(4)]


def test_long_lines_go_through():
    said, ends = run({"a": f"import sys; sys.stderr.write('x' * {LONGEST_LINE // 2})"})
    assert len(said[0]) == LONGEST_LINE // 2 + 4
    assert ends == {"a": None}


@pytest.fixture
def interruptible():
    """Processes that a shell starts in the background ignore the terminal's interruption."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_them():
    numbers = []

    def say(line):
        numbers.append(int(line.rpartition(" ")[2]))
        os.kill(os.getpid(), signal.SIGINT)

    # Deaf to the terminal's interruption, as a process in the middle of a step is for a while.
    code = "import os, signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    code += "print(os.getpid(), file=sys.stderr); time.sleep(60)"
    begin, ends = time.perf_counter(), []
    with pytest.raises(KeyboardInterrupt):
        side_by_side(
            {name: [sys.executable, "-c", code] for name in "ab"},
            [{}],
            say=say,
            ended=lambda name, failure: ends.append(name),
        )
    assert time.perf_counter() - begin < 30
    assert len(numbers) == 1
    assert ends == []
    with pytest.raises(ProcessLookupError):
        os.kill(numbers[0], 0)
