"""The source of a scoring: numbered pieces of some thousand images each, which can be read independently.

The pieces make a scoring resumable and can be spread over machines. A source is pickled for that; its files
must be at the same path on all machines, except for a data set, which is pickled with it.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, Protocol

import numpy as np

from fertools import data
from fertools.contract import IMAGE_SIZE, LABELS
from fertools.data import SPLITS, Dataset, image_folder
from fertools.data.source import data_file
from fertools.errors import ConfigError, DataError, MissingExtraError
from fertools.files import replacing
from fertools.reading import PICTURES, reason

#: Images per piece; of a Parquet file at least this many, in whole row groups.
PIECE: Final = 4096

#: File name suffixes of a list of pictures.
LISTS: Final = frozenset((".txt", ".lst"))

#: Default names of a Parquet file's column of labels.
LABEL_COLUMNS: Final = ("label", "emotion")

_PIXELS: Final = IMAGE_SIZE * IMAGE_SIZE

#: Rows of a Parquet file that are decoded at a time.
_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Item:
    """One image to score."""

    #: The picture's file, or the table's.
    path: str
    #: Position in the table, from 0; None for a picture.
    row: int | None
    #: What ``fertools.runtime.to_face`` takes; None if there is none.
    image: Any
    #: The true label and the split, where they are known.
    truth: str | None = None
    split: str | None = None


class Source(Protocol):
    """Images in numbered pieces, always the same ones for the same digest."""

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the source, in hexadecimal."""

    @property
    def pieces(self) -> int:
        """How many pieces there are, at least 1."""

    def read(self, piece: int) -> Iterator[Item]:
        """The images of a piece, always in the same order."""


@dataclass(frozen=True)
class DatasetSource:
    """A data set in memory, as returned by ``fertools.data.read``, in pieces of ``size`` images."""

    name: str
    dataset: Dataset
    size: int

    @property
    def digest(self) -> str:
        """The data set's fingerprint."""
        return self.dataset.fingerprint

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return -(-len(self.dataset) // self.size)

    def read(self, piece: int) -> Iterator[Item]:
        """The images of a piece."""
        held = self.dataset
        for row in range(piece * self.size, min((piece + 1) * self.size, len(held))):
            yield Item(self.name, row, held.images[row], LABELS[held.labels[row]], SPLITS[held.usage[row]])


@dataclass(frozen=True)
class PictureSource:
    """The pictures of a list: a text file with one path per line, or ended by zero bytes (find -print0).

    Attributes:
        listing: the file.
        folder: base of relative paths.
        separator: between two paths.
        size: number of paths per piece.
        offsets: where the pieces begin in the file.
        truth: returns split and class of a path, each None where it is unknown; None if no path tells them.
        digest: of the list, and of the base if a path is relative; for a folder of the list and the sizes
            and times of its files, and of whether its folders tell the classes.
    """

    listing: Path
    folder: Path
    separator: bytes
    size: int
    offsets: tuple[int, ...]
    truth: image_folder.Truth | None
    digest: str

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return len(self.offsets)

    def read(self, piece: int) -> Iterator[Item]:
        """The images of a piece."""
        with self.listing.open("rb") as file:
            file.seek(self.offsets[piece])
            for _, (_, path) in zip(range(self.size), _entries(file, self.separator), strict=False):
                name = os.fsdecode(path)
                split, label = self.truth(PurePath(name)) if self.truth else (None, None)
                yield Item(name, None, str(self.folder / name), label, split)


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files with a column of images.

    Attributes:
        files: the files, in order.
        groups: for each piece the index of the file, its first row, and its row groups.
        image_column: encoded images (binary, or a struct with ``bytes`` and ``path`` as Hugging Face's data
            sets have), paths (text) or 48x48 grey pixels (2,304 of them, binary of that fixed length or a
            list).
        label_column: class numbers or names; None for none. Other values count as unknown.
        digest: of the names, sizes and times of the files.
    """

    files: tuple[Path, ...]
    groups: tuple[tuple[int, int, tuple[int, ...]], ...]
    image_column: str
    label_column: str | None
    digest: str

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return len(self.groups)

    def read(self, piece: int) -> Iterator[Item]:
        """The images of a piece. Raises DataError if the file is damaged."""
        pq = import_parquet()
        number, row, groups = self.groups[piece]
        path = self.files[number]
        columns = [self.image_column, *([self.label_column] if self.label_column else [])]
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                image = _image_of(file.schema_arrow.field(self.image_column).type, path.parent)
                assert image is not None  # open_source looked
                for batch in file.iter_batches(_ROWS, row_groups=groups, columns=columns):
                    values = batch.column(self.image_column).to_pylist()
                    labels = batch.column(self.label_column).to_pylist() if self.label_column else ()
                    for place, value in enumerate(values):
                        truth = _truth(labels[place]) if labels else None
                        yield Item(str(path), row, None if value is None else image(value), truth)
                        row += 1
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: not a readable Parquet file: {_reason(error)}; write it again"
            ) from error


def open_source(
    source: str,
    listing: Path,
    *,
    renew: bool = True,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """Detect and open the source of a scoring.

    Arguments:
        source: a data set that ``fertools.data.read`` reads, a folder of pictures, a list of pictures (.txt
            or .lst), a Parquet file or a folder of them.
        listing: the file to keep the list of a folder's pictures in.
        renew: write that list even if it exists.
        image_column: column of a Parquet file; by default the only one that can hold images.
        label_column: column of a Parquet file; by default one that ``LABEL_COLUMNS`` names.

    Raises:
        DataError: the source does not exist, is none of these, or holds both pictures and a data set.
        ConfigError: a column is named, and the source is not a Parquet file.
    """
    path = Path(source)
    try:
        tables = _tables(path)
        if tables:
            return _parquet(source, tables, image_column, label_column)
        if image_column or label_column:
            raise ConfigError(f"{source}: not a Parquet file, and only these have columns to name")
        if path.is_file() and path.suffix.lower() in LISTS:
            return _list(source, path)
        if path.is_dir() and (image_folder.has_splits(path) or _has_pictures(source, path)):
            return _folder(source, path, listing, renew)
    except OSError as error:
        raise _unreadable(source, error) from error
    return DatasetSource(source, data.read(source), PIECE)


def import_parquet() -> Any:
    """pyarrow.parquet. Raises MissingExtraError."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "score") from error
    return pyarrow.parquet


def _list(source: str, path: Path) -> PictureSource:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        head = file.read(2**16)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{source}: the list is in UTF-16, as PowerShell's > writes it; save it in UTF-8")
        begin = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        separator = b"\0" if b"\0" in head else b"\n"
        file.seek(0)
        while block := file.read(2**20):
            digest.update(block)
    offsets = _offsets(path, separator, begin)
    if not offsets:
        raise DataError(f"{source}: the list is empty; write one path per line")
    start = Path.cwd()
    with path.open("rb") as file:
        file.seek(begin)
        if any(not os.path.isabs(name) for _, name in _entries(file, separator)):
            # From another folder, relative paths are other pictures.
            digest.update(b"\0%b" % os.fsencode(start))
    return PictureSource(path.absolute(), start, separator, PIECE, offsets, None, digest.hexdigest())


def _folder(source: str, folder: Path, listing: Path, renew: bool) -> PictureSource:
    digest = hashlib.sha256()

    def walk() -> Iterator[bytes]:
        try:
            for path, told in _pictures(folder):
                name = os.fsencode(path)
                size, time = (told.st_size, told.st_mtime_ns) if told else (-1, -1)
                digest.update(b"%b\0%d %d\0" % (name, size, time))
                yield name
        except OSError as error:  # here, because further out it would count as an error of the list's file
            raise _unreadable(source, error) from error

    if renew:
        with replacing(listing) as temporary, temporary.open("wb") as file:
            file.writelines(name + b"\0" for name in walk())
    else:
        for _ in walk():
            pass
    offsets = _offsets(listing, b"\0")
    if not offsets:
        raise DataError(f"{source}: there are no image files in this folder")
    truth: image_folder.Truth | None = None
    if image_folder.has_splits(folder):
        truth = image_folder.truth_by_split
    elif image_folder.has_only_classes(folder):
        truth = image_folder.truth_by_class
        digest.update(b"\0classes")  # earlier versions wrote parts without them
    return PictureSource(listing.absolute(), Path.cwd(), b"\0", PIECE, offsets, truth, digest.hexdigest())


def _pictures(folder: str | os.PathLike[str]) -> Iterator[tuple[str, os.stat_result | None]]:
    """List the picture files below a folder, always in the same order, without hidden files.

    Only the names of one folder and its parents are in memory at a time. A picture whose status cannot be
    read, such as a link to nothing, is listed without it: its row will say why.

    Raises:
        OSError: a folder cannot be read.
    """
    with os.scandir(folder) as found:
        entries = sorted(
            (each for each in found if not each.name.startswith(".")), key=lambda each: each.name
        )
    for entry in entries:
        picture = os.path.splitext(entry.name)[1].lower() in PICTURES
        try:
            is_folder = entry.is_dir()
            told = entry.stat() if picture and not is_folder else None
        except OSError:
            if not picture:
                raise
            is_folder, told = False, None
        if is_folder:
            yield from _pictures(entry.path)
        elif picture and (told is None or stat.S_ISREG(told.st_mode)):
            yield entry.path, told


def _has_pictures(source: str, folder: Path) -> bool:
    """Whether there are pictures below a folder. Raises DataError if it holds a data set, too."""
    picture, _ = next(_pictures(folder), (None, None))
    if picture is None:
        return False
    if beside := data_file(folder):
        raise DataError(
            f"{source}: holds a data set ({beside}) and pictures ({os.path.relpath(picture, folder)}); name"
            " the data set's file, or the pictures by a folder of their own or a list"
        )
    return True


def _entries(file: Any, separator: bytes) -> Iterator[tuple[int, bytes]]:
    """Read the paths of an open list from its position on, each with its offset; empty ones are skipped."""
    place = file.tell()
    if separator == b"\n":
        for line in file:
            if text := line.rstrip(b"\r\n"):
                yield place, text
            place += len(line)
        return
    rest = b""
    while block := file.read(2**16):
        *whole, rest = (rest + block).split(separator)
        for text in whole:
            if text:
                yield place, text
            place += len(text) + 1
    if rest.strip(b"\r\n"):
        yield place, rest


def _offsets(listing: Path, separator: bytes, begin: int = 0) -> tuple[int, ...]:
    """Return the offset of every piece of a list, whose first path is at the byte ``begin``."""
    with listing.open("rb") as file:
        file.seek(begin)
        places = enumerate(_entries(file, separator))
        return tuple(place for number, (place, _) in places if number % PIECE == 0)


def _tables(path: Path) -> list[Path]:
    """Return the Parquet files that a path names; none if it is something else."""
    if path.is_dir():
        found = sorted(path.glob("*.parquet"))
        return [each for each in found if each.is_file() and not each.name.startswith((".", "_"))]
    return [path] if path.suffix.lower() == ".parquet" and path.is_file() else []


def _parquet(
    source: str, files: list[Path], image_column: str | None, label_column: str | None
) -> ParquetSource:
    pq = import_parquet()
    digest = hashlib.sha256()
    pieces: list[tuple[int, int, tuple[int, ...]]] = []
    schema = None
    for number, path in enumerate(files):
        told = path.stat()
        digest.update(b"%b\0%d %d\0" % (os.fsencode(path.name), told.st_size, told.st_mtime_ns))
        try:
            with pq.ParquetFile(path) as file:
                if schema is None:
                    schema = file.schema_arrow
                    image_column = _image_column(source, schema, image_column)
                    label_column = _label_column(source, schema, label_column)
                elif not file.schema_arrow.equals(schema):
                    raise DataError(f"{path}: has other columns than {files[0]}; score them one by one")
                rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: not a readable Parquet file: {_reason(error)}; write it again"
            ) from error
        pieces += [(number, first, groups) for first, groups in _together(rows)]
    if not pieces:
        raise DataError(f"{source}: holds no rows")
    assert image_column is not None
    digest.update(f"{image_column}\0{label_column}".encode())
    return ParquetSource(
        tuple(path.absolute() for path in files),
        tuple(pieces),
        image_column,
        label_column,
        digest.hexdigest(),
    )


def _together(rows: list[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The first row and the row groups of each piece, from the groups' rows."""
    first = held = 0
    groups: list[int] = []
    for group, count in enumerate(rows):
        groups.append(group)
        held += count
        if held >= PIECE or (held and group == len(rows) - 1):
            yield first, tuple(groups)
            first, held, groups = first + held, 0, []


def _image_column(source: str, schema: Any, wanted: str | None) -> str:
    held = {field.name: field.type for field in schema}
    if wanted is not None:
        if wanted not in held or _image_of(held[wanted], Path()) is None:
            raise DataError(f"{source}: no column {wanted!r} of images; its columns: {', '.join(held)}")
        return wanted
    able: list[str] = [name for name in held if not _is_text(held[name]) and _image_of(held[name], Path())]
    if len(able) != 1:
        raise DataError(
            f"{source}: {'several columns' if able else 'no column'} can hold images, of {', '.join(held)};"
            " name it with --image-column"
        )
    return able[0]


def _label_column(source: str, schema: Any, wanted: str | None) -> str | None:
    if wanted is not None and wanted not in schema.names:
        raise DataError(f"{source}: no column {wanted!r}; its columns: {', '.join(schema.names)}")
    names: list[str] = schema.names
    return wanted or next((name for name in LABEL_COLUMNS if name in names), None)


def _image_of(kind: Any, folder: Path) -> Callable[[Any], Any] | None:
    """Return how a value of a Parquet column becomes an input of ``to_face``; None if it holds no images."""
    import pyarrow.types as types

    if types.is_fixed_size_binary(kind) and kind.byte_width == _PIXELS:
        return _grey
    if types.is_binary(kind) or types.is_large_binary(kind):
        return _itself
    if _is_text(kind):
        return lambda path: str(folder / path)
    if types.is_struct(kind) and "bytes" in {field.name for field in kind}:
        return lambda value: _encoded(value, folder)
    if (
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    ) and types.is_integer(kind.value_type):
        return _listed
    return None


def _is_text(kind: Any) -> bool:
    """Whether an Arrow type is text; pandas 3 and polars write the large one."""
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _unreadable(source: str, error: OSError) -> DataError:
    """Return the error of a file or folder of the source."""
    return DataError(f"{error.filename or source}: cannot be read ({reason(error)}); check the path")


def _reason(error: Exception) -> str:
    """Return Arrow's message without its stack."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _itself(value: bytes) -> bytes:
    return value


def _grey(value: bytes) -> Any:
    return np.frombuffer(value, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE)


def _listed(value: list[int | None]) -> Any:
    """Return the pixels of a list; ``to_face`` refuses what is no image, also if one is null or too large."""
    pixels = np.asarray(value)
    if pixels.size != _PIXELS:
        return pixels
    pixels = pixels.reshape(IMAGE_SIZE, IMAGE_SIZE)
    good = pixels.dtype != object and pixels.min() >= 0 and pixels.max() <= 255  # with a null, it is object
    return pixels.astype(np.uint8) if good else pixels


def _encoded(value: dict[str, Any], folder: Path) -> Any:
    if value["bytes"] is not None:
        return value["bytes"]
    return str(folder / value["path"]) if value.get("path") else None


def _truth(value: Any) -> str | None:
    """Return a class by its number or name; pandas makes 3.0 of 3 in a column with gaps."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    position: int | None = image_folder.CLASS_NAMES.get(str(value).strip().lower())
    return None if position is None else LABELS[position]
