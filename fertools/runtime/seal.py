"""A checksum inside the model file, so that a truncated or altered file is refused with a clear message.

The value stands in ``metadata_props`` under `SEAL_KEY`: the SHA-256 of the whole file with the value's own
64 characters replaced by zeros. onnxruntime's converter takes the entry over into an .ort file, which then
gets a value of its own. It is found by its bytes, so that checking needs neither the onnx package nor a
parser fed with a broken file. It guards against accidents, not against forgery.

It covers the one file, so nothing of a model may lie outside it: a tensor that names another file, as ONNX
allows ("external data"), is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Final

from fertools.errors import ModelError

#: Key of the checksum in the file's ``metadata_props``.
SEAL_KEY: Final = "fertools.seal"

#: The value before sealing.
BLANK: Final = "0" * 64

_KEY = SEAL_KEY.encode()

# What stands around the key and the value. An .onnx file is a protobuf: field 2 (0x12) of 64 (0x40) bytes.
# An .ort file is a flatbuffer: a string is its length in four bytes, its own bytes, and one to four zeros up
# to a multiple of four. Which of the two comes first there is up to the compiler that built onnxruntime,
# which makes both in the arguments of one call.
_LENGTH = b"\x40\0\0\0"
_KEY_THEN_VALUE = (b"\x12\x40", b"\0\0\0" + _LENGTH)
_VALUE_THEN_KEY = b"\0\0\0\0\x0d\0\0\0"

# How a tensor of an .onnx file begins to name the file that its values are in (onnx.proto): field 13 (0x6a),
# a message of so many bytes, its field 1 "location". Our metadata cannot hold that, since JSON escapes the
# newline. An .ort file has all inside: onnxruntime's converter puts it there.
_EXTERNAL = 0x6A
_LOCATION = b"\x0a\x08location"


def seal(data: bytes) -> bytes:
    """Seal a serialized model, ONNX or .ort, whose ``metadata_props[SEAL_KEY]`` is `BLANK`.

    Raises:
        ModelError: the model has no such entry, more than one, or one that is not blank, or has external
            data.
    """
    start = _find(data)
    if start is None or data[start : start + 64] != BLANK.encode():
        raise ModelError(f"the model to seal must have one metadata entry {SEAL_KEY!r} of 64 zeros")
    if _has_external_data(data):
        raise ModelError("the model to seal has external data; all of it must be in the one file")
    return data[:start] + _digest(data, start) + data[start + 64 :]


def check_seal(data: bytes, path: str | os.PathLike[str]) -> None:
    """Check the bytes of a model file; `path` names it in the message.

    Raises:
        ModelError: the file is empty, has no seal, differs from what was sealed, or has external data.
    """
    name = os.fspath(path)
    if not data:
        raise ModelError(f"{name}: the file is empty: copy or export it again")
    start = _find(data)
    if start is None:
        # The entry is among the last bytes of a file, so a file cut short has lost it, too.
        raise ModelError(f"{name}: not a model exported by fertools, or its end is missing: export it again")
    if data[start : start + 64] != _digest(data, start):
        raise ModelError(f"{name}: truncated or altered since its export: copy or export it again")
    if _has_external_data(data):
        raise ModelError(f"{name}: has weights in another file, which nothing protects: export it again")


def _find(data: bytes) -> int | None:
    """Where the 64 characters of the only seal start, or None."""
    starts = []
    for key in _places(data, _KEY):
        end = key + len(_KEY)
        starts += [end + len(between) for between in _KEY_THEN_VALUE if data.startswith(between, end)]
        behind = key - len(_VALUE_THEN_KEY)
        start = max(behind - 64, 0)
        if data.endswith(_LENGTH, 0, start) and data[behind:key] == _VALUE_THEN_KEY:
            starts.append(start)
    return starts[0] if len(starts) == 1 else None


def _has_external_data(data: bytes) -> bool:
    """Whether a tensor names another file. The length before the name takes one byte or two."""
    return any(_EXTERNAL in (data[place - 2], data[place - 3]) for place in _places(data, _LOCATION))


def _places(data: bytes, what: bytes) -> Iterator[int]:
    place = data.find(what)
    while place >= 0:
        yield place
        place = data.find(what, place + 1)


def _digest(data: bytes, start: int) -> bytes:
    view = memoryview(data)  # slices without copies: the file may be large and the device small
    digest = hashlib.sha256(view[:start])
    digest.update(BLANK.encode())
    digest.update(view[start + 64 :])
    return digest.hexdigest().encode()
