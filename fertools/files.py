"""Atomic writes: files are written beside their final path, then renamed.

Failures raise a WriteError that names the path and the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOTDIR
from pathlib import Path
from typing import Any

from fertools.errors import WriteError
from fertools.reading import check_regular, reason

#: How the names of temporary files begin.
TEMPORARY = ".fertools-"
#: Characters of a name kept in the temporary one: names are limited, usually to 255 bytes.
_KEPT = 32


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, or a WriteError of a file in it, into a WriteError for ``path``."""
    try:
        yield
    except BrokenPipeError:  # of stdout, whose reader has gone: ``path`` is a file
        raise
    except (OSError, WriteError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        why = reason(cause) if isinstance(cause, OSError) else str(error)
        raise WriteError(f"{path}: cannot be written ({why}); check the disk and the permissions") from cause


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it replaces ``path`` if the block succeeds.

    The temporary name ends like ``path``, because some writers choose the format by the suffix. A link stays,
    and the file that it leads to is replaced.

    Raises:
        WriteError: for any OSError, of the block too, and if there is a device or the like.
    """
    suffix = f".{path.name[-_KEPT:]}"
    with telling(path):
        path = Path(os.path.realpath(path))
        if path.exists() and not path.is_dir():
            check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # os.open with 0o666 would honour the umask but mkstemp is exclusive; the mode is set right below.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, only_empty: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; it replaces the folder ``path`` if the block succeeds.

    An existing ``path`` is moved aside and removed once the new one is in place; a link stays, and the folder
    that it leads to is replaced. With ``only_empty`` nothing is moved, so that a folder that another process
    fills meanwhile is an error.

    Raises:
        WriteError: for any OSError, of the block too, and as ``check_place``.
    """
    check_place(path)
    with telling(path):
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{TEMPORARY}{path.name[:_KEPT]}."))
        retired = temporary.with_name(temporary.name + ".old")
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if path.exists() and not only_empty:
                os.replace(path, retired)
            try:
                os.replace(temporary, path)
            except BaseException:  # Ctrl-C too: the earlier folder must come back
                if retired.exists():
                    os.replace(retired, path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def working_folder() -> Iterator[Path]:
    """Yield a folder for intermediate files, which is removed afterwards.

    Raises:
        WriteError: for any OSError of the block; it names the place, often a small file system of its own.
    """
    with telling(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
        yield Path(folder)


def check_place(path: Path) -> None:
    """Raise WriteError, before any work, for a folder that cannot be replaced, even an empty one.

    Whoever works in the current folder would lose it, and a mount point, as a container's volume is, cannot
    be renamed.
    """
    with telling(path):
        place, here = path.resolve(), Path.cwd()
    if place in (here, *here.parents):
        raise WriteError(f"{path}: is the current folder or holds it; name a folder inside it")
    if os.path.ismount(place):
        raise WriteError(f"{path}: a file system is mounted there; name a folder inside it")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        # The text may hold file names that are not valid Unicode. Newlines are the same on every system.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` to ``path`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(document, indent=2) + "\n")


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to the same file; links count, and neither file need exist yet."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def file_facts(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, as reports list them."""
    return {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _umask() -> int:
    """Return the process's umask (POSIX can only read it by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
