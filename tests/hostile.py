"""Helpers of hostile tests: special files, and full disks."""

from __future__ import annotations

import os
import resource
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What may stand where a file is expected.
SPECIAL = ("fifo", "link to a fifo", "device", "link to a device", "socket")


def make_special(kind: str, path: Path) -> Path:
    """Create at ``path`` a special file that would block its reader, or never end."""
    other = path.with_name("other")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a fifo":
        os.mkfifo(other)
        path.symlink_to(other)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "device":
        return Path("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(".", os.O_RDONLY)
            os.chdir(path.parent)  # the names of sockets are short
            server.bind(path.name)
            os.fchdir(here)
            os.close(here)
    return path


@contextmanager
def full_disk(room: int = 0) -> Iterator[None]:
    """Let no file grow beyond ``room`` bytes: Python, Keras, numpy and matplotlib get an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tiled_tiff(side):
    """A TIFF of 48x48 pixels in one deflated tile, whose ``side`` is what decoding takes memory for."""
    tile = zlib.compress(bytes(side * side))
    tags = {256: 48, 257: 48, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: None, 325: len(tile)}
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, start if value is None else value) for tag, value in tags.items()
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tile
