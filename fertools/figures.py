"""What the pictures drawn by matplotlib have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fertools.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write ``figure`` as a PNG at ``path``."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def literal(name: str) -> str:
    """Return text for a picture that shows ``name``, such as a file's, as it is.

    Matplotlib would take what stands between two dollar signs for mathematics, and cannot draw the bytes of a
    name in another encoding.
    """
    return name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")
