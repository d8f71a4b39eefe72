"""What every model is for and what its limits are, and what is known of the data behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from fertools.data import synthetic

_TEXT: Final = Path(__file__).with_suffix(".md")

#: First digits of a data set's fingerprint -> what is known of the data.
DATA_NOTES: Final = {
    "bb183fb6943ddf60": (
        "FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): faces from a web image search of 2013, published"
        " for a contest. No explicit licence is known, and the people on the pictures were not asked: treat"
        " models trained on it as research use. 1,853 of its 35,887 images are copies of others, also"
        " across the splits (hence the de-duplicated column), 12 are blank, and human agreement with its"
        " labels is about 65 %."
    ),
}
SYNTHETIC_NOTE: Final = (
    "Faces drawn by fertools itself: nobody's picture, and nobody's rights. A model trained on them shows"
    " that the pipeline works; it knows nothing of real faces."
)


def limits() -> list[str]:
    """Return the limits of every model, each as one line of plain text."""
    return [" ".join(item.split()) for item in intended_use().partition("## Limits")[2].split("\n- ")[1:]]


def data_notes(behind: Iterable[Mapping[str, str]]) -> list[str]:
    """Return what is known of each of the data sets behind a model, given ``name`` and ``fingerprint``."""
    return list(dict.fromkeys(map(_data_note, behind)))


def _data_note(data: Mapping[str, str]) -> str:
    if data["name"] == synthetic.NAME:
        return SYNTHETIC_NOTE
    known: str | None = DATA_NOTES.get(data["fingerprint"][:16])
    return known or f"Trained on {data['name']}, of which fertools knows no more: see its own terms."


@cache
def intended_use() -> str:
    """Return what every model is for and its limits, as Markdown."""
    return _TEXT.read_text(encoding="utf-8").strip()
