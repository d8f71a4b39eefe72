"""``fertools``, and ``python -m fertools``: the command line, imported where an interruption ends quietly."""

from __future__ import annotations

import sys

#: What a shell calls the end by Ctrl-C.
INTERRUPTED = 130


def run() -> None:
    """Run the command line. Ctrl-C ends it with one line, in the middle of an import, too."""
    try:
        from fertools.cli import main

        main(prog_name="fertools")
    except (KeyboardInterrupt, Exception) as error:
        if not interrupted(error):
            raise
        print("Aborted!", file=sys.stderr)  # as click says
        raise SystemExit(INTERRUPTED) from None


def interrupted(error: BaseException | None) -> bool:
    """Whether ``error`` is Ctrl-C, or what a library made of it: an ImportError, for instance."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    run()
