"""What the pictures drawn by matplotlib have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fertools.errors import MissingExtraError
from fertools.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return an empty figure of this size in inches, drawn without a display.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    return Figure(figsize=(width, height), layout=layout)


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write ``figure`` as a PNG at ``path``, whatever that ends with."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")


def literal(name: str) -> str:
    """Return text for a picture that shows ``name``, such as a file's, as it is.

    Matplotlib would take what stands between two dollar signs for mathematics, and cannot draw the bytes of a
    name in another encoding.
    """
    return name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")
