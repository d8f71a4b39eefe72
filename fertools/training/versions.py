"""Versions of the training images that the teachers answer once.

A teacher that is larger than its student takes most of the time of a step. With ``--versions`` every image
has a few augmented versions instead of a new one in each step, and the teachers' answers to them are kept
(Shen and Xing 2022, arXiv:2112.01528). An epoch shows one version of each image, and epochs take the versions
in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from fertools.contract import LABELS
from fertools.files import replacing
from fertools.models.inference import probabilities
from fertools.training.augmentation import augmented
from fertools.training.config import AUGMENTATIONS
from fertools.training.network import Store
from fertools.training.parallel import split_over
from fertools.training.run import Run


class Versions(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Puts the epoch's version of the images, and the teachers' answers to it, into their stores.

    The answers are kept, so that a resumed run need not ask again, nor another seed (``Run.answers``): the
    versions are the same for all seeds. The images are made anew, which takes no longer than augmenting them
    in the steps.

    Arguments:
        run: the run folder.
        count: how many versions there are.
        originals: uint8 (n, 48, 48).
        teachers: networks of ours. Their answer is the mean over an image and its mirror, so that it holds
            when the student sees either.
        images: the store of the student's images, uint8 (n, 48, 48, 1).
        answers: the store of the teachers' probabilities, float32 (n, 7).
    """

    def __init__(
        self,
        run: Run,
        count: int,
        originals: NDArray[np.uint8],
        teachers: Sequence[keras.Model],
        images: Store,
        answers: Store,
    ) -> None:
        super().__init__()
        self.run = run
        self.count = count
        self.originals = originals
        self.teachers = teachers
        self.images = images
        self.answers = answers
        self.augmentation = AUGMENTATIONS[run.config.augmentation]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the epoch's version."""
        version = epoch % self.count
        seed = np.random.SeedSequence([0, version]).generate_state(1)[0]
        with split_over(self.run.config.devices, here=True):
            images = augmented(self.originals, self.augmentation, int(seed))
            answers = self._answers(version, images)
        self.images.hold(images[..., None])
        self.answers.hold(answers)

    def _answers(self, version: int, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the teachers' answers to a version, kept or new."""
        file = self.run.answers(version)
        try:
            kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
            if kept.shape == (len(images), len(LABELS)):
                return kept
        except (OSError, ValueError, EOFError):  # missing, or damaged: ask again
            pass
        views = (images, images[:, :, ::-1])
        asked = [probabilities(teacher, view) for teacher in self.teachers for view in views]
        answers: NDArray[np.float32] = np.mean(asked, axis=0, dtype=np.float32)
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, answers)
        return answers
