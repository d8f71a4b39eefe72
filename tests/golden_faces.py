"""Golden values of the preprocessing, for Python and for the page's script alike.

``python tests/golden_faces.py`` writes them anew: for pictures that a formula gives, so that only their sizes
are kept, the SHA-256 of the 48x48 grey pixels and a few of these.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fertools.runtime import to_face

FILE = Path(__file__).with_name("golden_faces.json")

#: Width, height, channels: reduced, enlarged, both, neither; grey and RGB.
SIZES = (
    *((48, 48, 1), (48, 48, 3), (1, 1, 1), (2, 3, 3), (47, 49, 3), (96, 96, 1), (100, 64, 1), (13, 500, 3)),
    *((33, 1000, 1), (320, 240, 3), (641, 479, 3), (1500, 31, 3)),
)


def picture(width: int, height: int, channels: int) -> np.ndarray:
    """uint8 (height, width, channels) of a linear congruential generator, which JavaScript computes alike."""
    state, values = width * 1000 + height, bytearray()
    for _ in range(width * height * channels):
        state = (state * 16_807) % 2_147_483_647
        values.append(state >> 12 & 255)
    return np.frombuffer(bytes(values), np.uint8).reshape(height, width, channels)


def golden(width: int, height: int, channels: int) -> dict[str, Any]:
    """The values of one picture."""
    face = to_face(picture(width, height, channels))
    return {
        "width": width,
        "height": height,
        "channels": channels,
        "sha256": hashlib.sha256(face.tobytes()).hexdigest(),
        "row 24, every fifth": face[24, ::5].tolist(),
    }


if __name__ == "__main__":
    lines = ",\n ".join(json.dumps(golden(*size)) for size in SIZES)
    FILE.write_text(f"[{lines}]\n")
