"""Commands side by side, each in a process of its own: one that dies takes nothing else with it."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Mapping, Sequence

#: Bytes of a line that a process may write to its stderr.
LONGEST_LINE = 2**20


def side_by_side(
    commands: Mapping[str, Sequence[str]],
    places: Sequence[Mapping[str, str]],
    *,
    say: Callable[[str], None],
    ended: Callable[[str, str | None], None],
) -> None:
    """Run all ``commands``, as many at a time as there are places, in their order.

    Arguments:
        commands: name -> program and arguments. What they write to stdout is dropped.
        places: the environment variables that a process gets for its place, e.g. its GPU.
        say: is told each line that a process writes to its stderr, after its name.
        ended: is told when a process has ended, and why it failed; None if it did not.

    An interruption (KeyboardInterrupt) ends the processes, too, and so does what ``say`` or ``ended`` raises.
    """
    try:
        asyncio.run(_all(commands, places, say, ended))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _all(
    commands: Mapping[str, Sequence[str]],
    places: Sequence[Mapping[str, str]],
    say: Callable[[str], None],
    ended: Callable[[str, str | None], None],
) -> None:
    free: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    for place in places:
        free.put_nowait(place)

    async def one(name: str, command: Sequence[str]) -> None:
        place = await free.get()
        ended(name, await _run(command, place, lambda line: say(f"{name} | {line}")))
        free.put_nowait(place)

    async with asyncio.TaskGroup() as group:
        for name, command in commands.items():
            group.create_task(one(name, command))


async def _run(command: Sequence[str], place: Mapping[str, str], say: Callable[[str], None]) -> str | None:
    """Run a command; returns why it failed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        env=os.environ | place,
        limit=LONGEST_LINE,
    )
    assert process.stderr is not None
    last = "it says nothing"
    try:
        async for line in process.stderr:
            if text := line.decode(errors="replace").rstrip():
                last = text
                say(text)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if code == 0:
        return None
    if last.startswith("Error: "):  # one of ours, which says all
        return last.removeprefix("Error: ")
    return f"{f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'}: {last}"
