"""The CSV files of the 2013 contest: ``fer2013.csv`` and ``icml_face_data.csv``.

Both have one row per image: the label as a digit, 2304 pixels separated by blanks, and the usage. They differ
in the order of the columns and in blanks within the header, so columns are found by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.data import partition
from fertools.data.dataset import USAGES, Bytes, Dataset
from fertools.errors import DataError
from fertools.reading import open_regular

_PIXELS: Final = IMAGE_SIZE * IMAGE_SIZE
#: Rows parsed at a time: enough to amortize numpy's cost per call, few enough for a processor's cache.
_BLOCK: Final = 8

#: Most bytes of a row: more than ten times what its digits and blanks need.
_LONGEST: Final = 1 << 17

#: As digits, or as the floating-point numbers that tools make of a column with gaps: 0 and 0.0.
_LABEL_CODES: Final = {
    text.encode(): code for code in range(len(LABELS)) for text in (str(code), str(float(code)))
}
#: What to do about a row.
_REPLACE: Final = "the file may be truncated: correct it or fetch it again"
_CORRECT: Final = "correct or remove the row"

_USAGE_CODES: Final = {usage.lower().encode(): code for code, usage in enumerate(USAGES)}


def read(path: Path, seed: int) -> Dataset:
    """Read a CSV file with columns ``emotion``, ``pixels`` and ``Usage``, in any order, others ignored.

    A file without ``Usage`` is split 80/20 into train and test, drawn with the seed.

    Raises:
        DataError: a column is missing or a row is not as above; the message names the row, counted
            from 1 below the header.
    """
    images, labels, usage = bytearray(), bytearray(), bytearray()
    block: list[tuple[int, bytes]] = []
    with open_regular(path) as file:
        columns = _columns(path, file.readline(_LONGEST))
        for row, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
            if line.isspace():
                continue
            if len(line) == _LONGEST:
                raise _wrong(path, row, f"is longer than {_LONGEST >> 10} KiB", _REPLACE)
            fields = line.split(b",")
            if len(fields) != columns["count"]:
                raise _wrong(path, row, f"has {len(fields)} fields, the header {columns['count']}", _REPLACE)
            label = _field(fields[columns["emotion"]])
            if label not in _LABEL_CODES:
                what = f"emotion is {_text(label)}, not a digit 0..{len(LABELS) - 1}"
                raise _wrong(path, row, what, _REPLACE if not label else _CORRECT)
            labels.append(_LABEL_CODES[label])
            if "usage" in columns:
                use = _field(fields[columns["usage"]]).lower()
                if use not in _USAGE_CODES:
                    what = f"Usage is {_text(use)}, not one of {', '.join(USAGES)}"
                    raise _wrong(path, row, what, _REPLACE if not use else _CORRECT)
                usage.append(_USAGE_CODES[use])
            block.append((row, _field(fields[columns["pixels"]])))
            if len(block) == _BLOCK:
                images += _pixels(path, block)
                block.clear()
        images += _pixels(path, block)
    if not labels:
        raise DataError(f"{path}: holds no images; fetch or write it again")
    stack = np.frombuffer(images, dtype=np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
    codes = np.frombuffer(labels, dtype=np.uint8)
    if "usage" not in columns:
        return partition.with_drawn_test(path.name, stack, codes, seed)
    return Dataset(path.name, stack, codes, np.frombuffer(usage, dtype=np.uint8))


def write(dataset: Dataset, path: Path) -> None:
    """Write a CSV file, byte for byte in the format of ``fer2013.csv``."""
    with path.open("wb") as file:
        file.write(b"emotion,pixels,Usage\n")
        usages = [usage.encode() for usage in USAGES]
        for label, pixels, usage in zip(dataset.labels, _lines(dataset.images), dataset.usage, strict=True):
            file.write(b"%d,%b,%b\n" % (label, pixels, usages[usage]))


def _columns(path: Path, header: bytes) -> dict[str, int]:
    """Return the positions of the columns by lower-case name, and their number as ``count``."""
    names = [_field(name).lower() for name in header.removeprefix(b"\xef\xbb\xbf").split(b",")]
    known = (b"emotion", b"pixels", b"usage")
    for name in known:
        if names.count(name) > 1:
            raise DataError(
                f"{path}: {names.count(name)} columns are called {name.decode()} (in any case);"
                " remove all but one"
            )
        if name not in names and name != b"usage":
            raise DataError(
                f"{path}: the first row must name the columns emotion, pixels and Usage, "
                f"got {_text(header.strip())}; fetch the file again or add the header"
            )
    return {name.decode(): names.index(name) for name in known if name in names} | {"count": len(names)}


def _field(field: bytes) -> bytes:
    return field.strip(b' \t\r\n"')


def _pixels(path: Path, block: list[tuple[int, bytes]]) -> bytes:
    """The pixels of a block of numbered rows, 2304 bytes each."""
    values = _parse([field for _, field in block])
    return (
        b"".join(_patiently(path, row, field) for row, field in block) if values is None else values.tobytes()
    )


def _parse(fields: list[bytes]) -> Bytes | None:
    """Fields of 2304 numbers 0..255, of up to three digits and separated by blanks, as uint8 (n * 2304,).

    Works on all characters at once: each digit adds the one or two digits before it, so the last digit of
    every number ends up with its value. Faster and stricter than ``numpy.fromstring``.

    Returns:
        None if the fields hold anything else.
    """
    # Padded so that every digit has three characters before it and one after it.
    text = np.frombuffer(b"   %b " % b" ".join(fields), dtype=np.uint8)
    digit = text - np.uint8(ord("0"))
    is_digit = digit < 10
    two = is_digit[:-1] & is_digit[1:]
    four = two[:-2] & two[2:]
    if four.any() or np.count_nonzero(is_digit) + np.count_nonzero(text == ord(" ")) != len(text):
        return None
    last = np.flatnonzero(is_digit[3:-1] > is_digit[4:])
    ends = np.cumsum([len(field) + 1 for field in fields]) - 2
    if len(last) != len(fields) * _PIXELS or not np.array_equal(last[_PIXELS - 1 :: _PIXELS], ends):
        return None
    digit *= is_digit
    hundreds = (digit[1:-3] * two[1:-2]).take(last)
    rest = (digit[3:-1] + digit[2:-2] * np.uint8(10)).take(last)
    values: Bytes = rest + hundreds * np.uint8(100)
    # Above 255 the sum wraps round.
    return None if hundreds.max(initial=0) > 2 or (values < rest).any() else values


def _patiently(path: Path, row: int, field: bytes) -> bytes:
    """Parse one row slowly: for unusual spacing (tabs, leading zeros) and to report what is wrong."""
    words = field.split()
    odd = next((word for word in words if not word.isdigit() or len(word) > 9 or int(word) > 255), None)
    if odd is not None:
        raise _wrong(path, row, f"has a pixel {_text(odd)}, not a whole number 0..255", _CORRECT)
    if len(words) != _PIXELS:
        raise _wrong(path, row, f"has {len(words)} pixels, not {_PIXELS}", _REPLACE)
    return bytes(map(int, words))


def _wrong(path: Path, row: int, what: str, remedy: str) -> DataError:
    return DataError(f"{path}: row {row} {what}; {remedy}")


def _text(field: bytes) -> str:
    """The beginning of a field, for messages."""
    text = field[:60].decode("utf-8", errors="replace")
    return repr(text + "..." if len(field) > 60 else text)


def _lines(images: Bytes) -> Iterator[bytes]:
    """The pixels of each image as decimal numbers separated by blanks.

    Each grey level's text comes from a table of four bytes, padded with NULs that are then dropped: that
    takes a tenth of the time of joining strings.
    """
    table = np.frombuffer(
        b"".join(b"%d " % grey + bytes(3 - len(str(grey))) for grey in range(256)), np.uint32
    )
    for image in images:
        yield table[image].tobytes().translate(None, b"\0").rstrip()
