"""A checksum inside the model file, so that a truncated or altered file is refused with a clear message.

The value stands in ``metadata_props`` under `SEAL_KEY`: the SHA-256 of the whole file with the value's own
64 characters replaced by zeros. It is found by its bytes, so that checking needs neither the onnx package
nor a parser fed with a broken file. It guards against accidents, not against forgery.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from fertools.errors import ModelError

#: Key of the checksum in the ONNX file's ``metadata_props``.
SEAL_KEY: Final = "fertools.seal"

#: The value before sealing.
BLANK: Final = "0" * 64

# A protobuf StringStringEntryProto: the key's last bytes, then field 2 (0x12) of 64 (0x40) bytes.
_MARK = SEAL_KEY.encode() + b"\x12\x40"


def seal(data: bytes) -> bytes:
    """Seal a serialized ONNX model whose ``metadata_props[SEAL_KEY]`` is `BLANK`.

    Raises:
        ModelError: the model has no such entry, more than one, or one that is not blank.
    """
    start = _find(data)
    if start is None or data[start : start + 64] != BLANK.encode():
        raise ModelError(f"the model to seal must have one metadata entry {SEAL_KEY!r} of 64 zeros")
    return data[:start] + _digest(data, start) + data[start + 64 :]


def check_seal(data: bytes, path: str | os.PathLike[str]) -> None:
    """Check the bytes of a model file; `path` names it in the message.

    Raises:
        ModelError: the file is empty, has no seal, or differs from what was sealed.
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


def _find(data: bytes) -> int | None:
    """Where the 64 characters of the only seal start, or None."""
    start = data.find(_MARK) + len(_MARK)
    if start < len(_MARK) or data.find(_MARK, start) >= 0:
        return None
    return start


def _digest(data: bytes, start: int) -> bytes:
    view = memoryview(data)  # slices without copies: the file may be large and the device small
    digest = hashlib.sha256(view[:start])
    digest.update(BLANK.encode())
    digest.update(view[start + 64 :])
    return digest.hexdigest().encode()
