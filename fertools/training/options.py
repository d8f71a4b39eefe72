"""What each option of a configuration means and accepts, for its check, the command line and the docs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from fertools.errors import ConfigError


@dataclass(frozen=True)
class Option:
    """What a field of a configuration accepts: one of ``choices``, or a number from ``low`` to ``high``."""

    text: str
    default: Any
    choices: Collection[str] = ()
    low: float | None = None
    high: float | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise ConfigError if the field ``name`` does not accept ``value``."""
        if self.choices and value not in tuple(self.choices):
            raise ConfigError(f"{name}={value!r}: choose one of {', '.join(self.choices)}")
        if self.low is None or self.high is None:
            return
        whole = type(self.default) is int
        if type(value) is not int and (whole or type(value) is not float):
            raise ConfigError(f"{name}={value!r}: must be a {'whole number' if whole else 'number'}")
        if not self.low <= value <= self.high:
            raise ConfigError(f"{name}={value}: must lie between {self.low} and {self.high}")


def choice(default: str, choices: Collection[str], text: str) -> Any:
    """A field for one of ``choices``, which may grow: networks can be added."""
    return _field(Option(text, default, choices))


def number(default: float, low: float, high: float, text: str) -> Any:
    """A field for whole numbers if ``default`` is one, else for any."""
    return _field(Option(text, default, low=low, high=high))


def text(default: str, text: str) -> Any:
    """A field for text, which its configuration checks itself."""
    return _field(Option(text, default))


def _field(option: Option) -> Any:
    return field(default=option.default, metadata={"option": option})


def options_of(configuration: type) -> dict[str, Option]:
    """Return the fields of a configuration, a dataclass of the fields above -> what they accept."""
    return {each.name: each.metadata["option"] for each in fields(configuration)}


def check(configuration: Any) -> None:
    """Raise ConfigError for the first field whose value its option does not accept."""
    for name, option in options_of(type(configuration)).items():
        option.check(name, getattr(configuration, name))
