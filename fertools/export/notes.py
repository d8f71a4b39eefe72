"""What a model card says besides figures: the data, the intended use and the limits."""

from __future__ import annotations

from fertools.data import synthetic

#: Beginnings of data sets' fingerprints -> what is known of them.
DATA_NOTES = {
    "bb183fb6943ddf60": (
        "FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): faces from a web image search of 2013, published"
        " for a contest. No explicit licence is known, and the people on the pictures were not asked: treat"
        " models trained on it as research use. About 2,000 of its 35,887 images occur more than once, also"
        " across the splits (hence the de-duplicated column), 12 are blank, and human agreement with its"
        " labels is about 65 %."
    ),
}
SYNTHETIC_NOTE = (
    "Faces drawn by fertools itself: nobody's picture, and nobody's rights. A model trained on them shows"
    " that the pipeline works; it knows nothing of real faces."
)

USE = """\
## Intended use

Research and prototypes on cropped, upright, roughly frontal faces: one face fills the image, which is
turned into 48x48 grey pixels. The seven outputs say which of seven posed or acted expressions a face
resembles.

## Limits

- An expression is not an emotion: the same face goes with different feelings, and people express the same
  feeling differently (Barrett et al. 2019, doi:10.1177/1529100619832930). Do not read a state of mind
  from it.
- Do not use it to judge people: in hiring, education, policing, border control, insurance or medicine. In
  the European Union, emotion recognition at work and in schools is prohibited (Regulation 2024/1689,
  Art. 5).
- Accuracy differs by age, sex, skin colour and culture wherever the training data is not balanced by them.
  That was not measured here.
- It finds no faces, and answers for pictures without one.
- The confidence is the softmax output. How far it is from the accuracy (ECE) was measured on images like
  those of training; on others it is usually further (Ovadia et al. 2019, arXiv:1906.02530).
"""


def limits() -> list[str]:
    """The limits of `USE`, each as one line of plain text."""
    return [" ".join(item.split()) for item in USE.partition("## Limits")[2].split("\n- ")[1:]]


def data_note(data: dict[str, str]) -> str:
    """What is known of a data set, given its ``name`` and ``fingerprint``."""
    if data["name"] == synthetic.NAME:
        return SYNTHETIC_NOTE
    known: str | None = DATA_NOTES.get(data["fingerprint"][:16])
    return known or f"Trained on {data['name']}, of which fertools knows no more: see its own terms."
