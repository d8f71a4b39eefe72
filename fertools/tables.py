"""Text tables, for the command line and for reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def text_table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Align ``rows`` under ``heads`` in plain text, however wide; ``left`` are the left-aligned columns.

    Every row has as many cells as ``heads``.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, name in enumerate(heads):
        made.add_column(Text(name), justify="left" if place in left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*map(Text, row))
    console = Console(width=10_000, color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(made)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
