"""What belongs to one process: a fork copies its memory, but not the threads that work on it."""

from __future__ import annotations

import os

from fertools.errors import ForkError


def check_process(process: int, what: str) -> None:
    """Check that this is still the process that made something, e.g. a "Predictor".

    Arguments:
        process: the number of the process that made it.

    Raises:
        ForkError: this is another one.
    """
    if (here := os.getpid()) != process:
        raise ForkError(
            f"this {what} was made in process {process} and does not survive the fork to process {here}: "
            "make one in each process"
        )
