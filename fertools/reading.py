"""Read untrusted files: only regular ones, and none larger than a limit.

A FIFO would block forever, and a device like /dev/zero never ends. Plain Python: the runtime
imports this module.
"""

from __future__ import annotations

import os
import stat
from errno import EFBIG, EINVAL, EISDIR
from typing import BinaryIO, Final

Path = str | os.PathLike[str]

_MIB: Final = 2**20

#: Maximum pixels of an image: the most that Pillow opens without a warning.
MOST_PIXELS: Final = 89_478_485
#: Maximum bytes of an image file: more than that many uncompressed pixels.
LARGEST_IMAGE: Final = 512 * _MIB
#: Maximum bytes of a model file: a protobuf cannot be larger.
LARGEST_MODEL: Final = 2048 * _MIB
#: Maximum bytes of a text file of ours.
LARGEST_TEXT: Final = 64 * _MIB

#: Suffixes of the pictures found in folders; a file that is named directly may have any.
PICTURES: Final = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm")
)

_KINDS: Final = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading; anything else is not opened.

    Raises:
        OSError: it is something else, does not exist or cannot be opened.
        ValueError: there is a NUL in the path.
    """
    check_regular(path)
    return open(path, "rb")


def check_regular(path: Path) -> None:
    """Raise OSError if there is no regular file, or link to one, at ``path``."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise OSError(EINVAL, f"{kind}, not a regular file", os.fspath(path))


def read_bytes(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: as ``open_regular``, or there are more than ``most`` bytes.
        ValueError: there is a NUL in the path.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(EFBIG, f"larger than {most // _MIB} MiB", os.fspath(path))
        return file.read()


def read_text(path: Path) -> str:
    """Return the text of a regular UTF-8 file of at most ``LARGEST_TEXT`` bytes.

    Raises:
        OSError: as ``read_bytes``.
        ValueError: it is not UTF-8.
    """
    return read_bytes(path, LARGEST_TEXT).decode("utf-8")


def is_utf8(name: str) -> bool:
    """Whether a file's name is UTF-8; Python stands surrogates for the bytes of another (PEP 383)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def reason(error: OSError) -> str:
    """Return the reason of the error without the path."""
    return error.strerror or str(error) or type(error).__name__
