"""The ``fertools`` command. Each sub-command is imported when it is used."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import click

from fertools import __version__
from fertools.errors import FertoolsError, ProviderWarning
from fertools.reading import reason

#: Sub-command -> (module below fertools.cli, with ":function" if that is not called ``command``; its help).
#: The help is repeated here so that ``fertools --help`` imports no command; a test keeps both equal.
COMMANDS = {
    "quickstart": ("quickstart", "Run the whole pipeline on synthetic faces."),
    "data": ("data", "Inspect, preview, convert and make data sets of labelled faces."),
    "models": ("models", "List the networks that can be trained."),
    "train": ("train", "Train a network into a run folder."),
    "distill": ("train:distill", "Train a network to answer like others."),
    "adapt": ("adapt", "Fit a trained model to your own faces."),
    "sweep": ("sweep", "Train over a grid of options and compare the runs."),
    "compare": ("compare", "Compare runs: their accuracy and loss on the validation split."),
    "evaluate": ("evaluate", "Measure a run or an exported model on a split."),
    "stress": ("stress", "Measure a model on worse images: small, blurred, noisy, badly lit."),
    "export": ("export", "Export a run to ONNX, verified on the test split."),
    "ensemble": ("export:ensemble", "Export several networks as one file that averages inside."),
    "verify": ("export:verify", "Compare Keras, ONNX and int8 on the test split."),
    "benchmark": ("benchmark", "Time the files of an export on this machine's CPU."),
    "predict": ("predict", "Predict the expression on image files."),
    "serve": ("serve", "Serve a model over HTTP."),
    "score": ("score", "Score a data set into Parquet files."),
    "watch": ("watch", "Predict the expressions in a video or from a camera."),
    "web": ("web", "Write a page that runs a model in the browser."),
    "info": ("info", "Show versions, execution providers and devices."),
}


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is called, and turns library errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the sub-commands in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a sub-command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"fertools.cli.{module}"), function or "command"
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the sub-commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **options: Any) -> Any:
        r"""Run the command line. Characters that stdout cannot encode are written as escapes: ``\u263a``."""
        for stream in (sys.stdout, sys.stderr):
            if getattr(stream, "errors", None) == "strict":
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command.

        An error that fertools raises on purpose becomes one line and exit code 1; so does an OSError that no
        code below handled, such as a path that is too long, or a full disk behind stdout.
        """
        with warnings.catch_warnings():
            warnings.showwarning = _show(warnings.showwarning)
            try:
                return super().invoke(ctx)
            except FertoolsError as error:
                raise click.ClickException(str(error)) from error
            except OSError as error:
                if error.errno == errno.EPIPE:  # the reader has closed the pipe: click ends quietly
                    raise
                _give_up_stdout()
                where = "" if error.filename is None else f"{click.format_filename(error.filename)}: "
                raise click.ClickException(f"{where}{reason(error)}") from error


def _give_up_stdout() -> None:
    """Discard what is buffered for a broken stdout; Python would complain about it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def _show(usual: Callable[..., None]) -> Callable[..., None]:
    """Show our own warnings as one line on stderr, all others as usual."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, ProviderWarning):
            click.echo(f"Warning: {message}", err=True)
        else:
            usual(message, category, *where, **more)

    return show


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fertools")
def main() -> None:
    """Train, export, quantize, verify and run facial-expression networks on the edge."""
