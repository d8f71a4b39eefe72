"""``fertools`` and ``python -m fertools``: the command line, imported where Ctrl-C is handled."""

from __future__ import annotations

import sys

#: A shell's exit code for Ctrl-C.
INTERRUPTED = 130


def run() -> None:
    """Run the command line. Ctrl-C ends it with one line, even during an import."""
    try:
        from fertools.cli import main

        main(prog_name="fertools")
    except (KeyboardInterrupt, Exception) as error:
        if not interrupted(error):
            raise
        print("Aborted!", file=sys.stderr)  # as click says
        raise SystemExit(INTERRUPTED) from None


def interrupted(error: BaseException | None) -> bool:
    """Return whether ``error`` is Ctrl-C or was caused by it, such as a library's ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    run()
