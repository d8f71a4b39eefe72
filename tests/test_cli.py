"""The command line as a whole: lazy imports, documentation, one-line errors."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from loading import loaded

import fertools
from fertools.cli import COMMANDS, main


@pytest.fixture(scope="module")
def light() -> set[str]:
    """What any command may load to show its help; Pillow comes with the parts about faces."""
    return loaded("import click, numpy, PIL.Image") | {"fertools"}


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and its sub-commands, with the words that call them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    for name, (_, text) in COMMANDS.items():
        assert name in output
        assert text in output


@pytest.mark.parametrize("arguments", [["-h"], *([name, "-h"] for name in COMMANDS)], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str], light: set[str]) -> None:
    assert loaded(f"from fertools.cli import main; main({arguments}, standalone_mode=False)") <= light


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


def imports(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_library_imports_neither_click_nor_the_command_line() -> None:
    package = Path(fertools.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(re.match(r"(click|fertools\.cli)\b", name) for name in imports(path))
    }
    # __main__ is the command line, imported where Ctrl-C is handled.
    assert {user for user in users if not user.startswith("cli/")} == {"__main__.py"}


@pytest.mark.skipif(os.name != "posix", reason="Windows tells a closed pipe by another error")
def test_a_reader_that_has_closed_the_pipe_is_no_error_to_tell() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fertools", "models", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
