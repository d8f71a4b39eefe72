"""The command line as a whole: lazy imports, documentation, one-line errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

import fertools
from fertools.cli import COMMANDS, main

HEAVY = {"tensorflow", "keras", "onnx", "onnxruntime", "pandas", "sklearn", "matplotlib", "tf2onnx"}


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules loaded after running ``code`` in a fresh interpreter."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and its sub-commands, with the words that call them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    assert not loaded_by("from fertools.cli import main; main(['-h'], standalone_mode=False)") & HEAVY
    output = CliRunner().invoke(main, ["--help"]).output
    for name, (_, text) in COMMANDS.items():
        assert name in output
        assert text in output


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("predict", "info")])
def test_help_of_a_command_loads_nothing_heavy(name: str) -> None:
    code = f"from fertools.cli import main; main([{name!r}, '--help'], standalone_mode=False)"
    assert not loaded_by(code) & HEAVY


def test_the_listed_help_is_the_commands_own() -> None:
    context = click.Context(main)
    for name, (_, text) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert (command.help or "").partition("\n")[0] == text


def test_every_option_has_help() -> None:
    for path, command in commands(main, "fertools"):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.name}"


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"fertools, version {fertools.__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["nonsense"]).exit_code == 2


def test_an_error_of_ours_is_one_line_and_exit_code_1() -> None:
    result = CliRunner().invoke(main, ["data", "info", "missing.csv"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: missing.csv: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_library_never_imports_click() -> None:
    parts = "data, models, training, evaluation, export, verification, runtime"
    assert "click" not in loaded_by(f"from fertools import {parts}")
