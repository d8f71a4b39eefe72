"""Learning from other networks: Hinton et al. 2015, arXiv:1503.02531.

The teachers see the very pixels that the student sees, augmented and mixed, inside the same step: a
consistent teacher gives a better student than predictions made once for the plain images (Beyer et al.
2022, arXiv:2106.05237). The camera (``--camera``) is the exception: teachers see the image before it. They
would be wrong about the degraded image, and the student should answer as for the good one. With
``--versions`` they see a few augmented versions once (``fertools.training.versions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertools import contract
from fertools.errors import ConfigError, ModelError, RunError
from fertools.evaluation import is_run
from fertools.training.options import check, number
from fertools.training.run import Run

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How the teachers' probabilities count. Raises ConfigError for bad values."""

    temperature: float = number(
        1.0,
        0.1,
        100,
        "Temperature that softens the probabilities of teachers and student before they are compared.",
    )
    label_share: float = number(0.1, 0, 1, "Share of the labels in the loss; the teachers have the rest.")
    versions: int = number(
        0,
        0,
        1_000,
        "Make this many augmented versions of each image and ask the teachers once about each, in as"
        " many epochs; later epochs reuse them. Faster with large teachers. 0 makes new ones in every step.",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.label_share == 1:
            raise ConfigError("label_share=1.0: the teachers would have no influence; use fertools train")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def teacher_file(path: Path) -> Path:
    """Return the ``.keras`` file of a run folder or an export folder, or the file itself.

    Raises:
        RunError: a run has no finished epoch yet.
        ModelError: there is no such file.
    """
    if is_run(path):
        best = Run(path).best
        if not best.is_file():
            raise RunError(f"{path}: has no finished epoch yet; resume it first")
        return best
    file = path / contract.KERAS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"{file}: no such file; a teacher is a run, an export folder or a .keras file")
    return file


def soft_targets(teachers: Sequence[keras.Model], images: Any) -> Any:
    """Return the mean of the teachers' probabilities for float32 images (batch, 48, 48, 1)."""
    from keras import layers

    answers = [teacher(images, training=False) for teacher in teachers]
    return answers[0] if len(answers) == 1 else layers.Average(dtype="float32")(answers)
