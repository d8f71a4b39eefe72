"""Checks of the runtime's arguments. A wrong one is a ConfigError that names it."""

from __future__ import annotations

import operator
import os
from numbers import Real
from pathlib import Path
from typing import Any, Final

from fertools.errors import ConfigError

#: Most threads of a pool: far more than there are processors, and within what a system allows a process.
MOST_THREADS: Final = 1024


def whole_number(name: str, value: Any, most: int | None = None) -> int:
    """Return a positive integer; any integer type is accepted, numpy's too, but not bool.

    Arguments:
        name: of the argument.
        value: of the argument.
        most: the largest that makes sense.

    Raises:
        ConfigError: the value is not a positive integer, or too large.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} must be a positive integer, not {value!r}")
    if most is not None and number > most:
        raise ConfigError(f"{name} must be at most {most}, not {number}")
    return number


def seconds(name: str, value: Any, most: float) -> float:
    """Return a number of seconds, 0 to ``most``.

    Raises:
        ConfigError: the value is anything else.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else -1.0
    if not 0 <= number <= most:  # NaN fails, too
        raise ConfigError(f"{name} must be a number of seconds, 0 or more, not {value!r}")
    return number


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return one of several texts.

    Raises:
        ConfigError: the value is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}")
    return value


def texts(name: str, value: Any) -> str | tuple[str, ...]:
    """Return a text, or a sequence of texts, as a tuple.

    Raises:
        ConfigError: the value is neither.
    """
    if isinstance(value, str):
        return value
    try:
        found = None if isinstance(value, bytes | bytearray) else tuple(value)
    except TypeError:
        found = None
    if found is None or not all(isinstance(item, str) for item in found):
        raise ConfigError(f"{name} must be a text or a sequence of texts, not {value!r}")
    return found


def path(name: str, value: Any) -> Path:
    """Return a path, given as ``str`` or ``os.PathLike``.

    Raises:
        ConfigError: the value is anything else.
    """
    if (
        isinstance(value, str | os.PathLike)
        and isinstance(text := os.fspath(value), str)
        and "\0" not in text
    ):
        return Path(text)
    raise ConfigError(f"{name} must be a path or a name, not {value!r:.60}")
