"""Calling ``fertools export`` in tests."""

from click.testing import CliRunner

from fertools.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def one_line(result):
    """The message of a command that ended with one line, and nothing else."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr
