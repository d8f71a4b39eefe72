"""From images to expressions."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE, INPUT_NAME, OUTPUT_NAME
from fertools.errors import ImageError, ModelError
from fertools.reading import LARGEST_MODEL, read_bytes, reason
from fertools.runtime.arguments import texts, whole_number
from fertools.runtime.location import find_model
from fertools.runtime.metadata import CHECKSUM_KEY, METADATA_KEY, ModelInfo, verify_checksum
from fertools.runtime.prediction import Prediction, averaged, check_views, stacked
from fertools.runtime.preprocessing import to_batches, to_face
from fertools.runtime.session import Session, open_session, thread_count


class Predictor:
    """A loaded model. It keeps no state between calls and may be shared among threads.

    It does not survive a fork: in the forked process it raises ``ForkError``, while a new one works if it is
    on the CPU. A pickle, as for worker processes, holds the path of the file and the arguments; unpickling
    opens the same file.

    Arguments:
        model: an export folder, an .onnx or .ort file of fertools, or a model that ships with the package:
            ``"sequential"`` (also None) or ``"compact"``.
        precision: ``"auto"`` (int8 if the folder has it, else float32), ``"int8"`` or ``"float32"``.
        providers: ``"auto"`` (CUDA if it works, else OpenVINO if it works, else the CPU; a provider that
            fails causes a ``ProviderWarning``; ``fertools.runtime.providers`` explains the order), or the
            execution providers to use, in order of preference: ``"cpu"``, ``"cuda"``, ``"tensorrt"``,
            ``"openvino"``, ``"coreml"``, ``"xnnpack"`` or onnxruntime's own names. An explicit provider is
            never silently replaced: if it is not available, ``ProviderError`` is raised. An .ort file runs
            only on the CPU.
        threads: threads that work on one prediction; by default the processors that this process may use,
            by its affinity and its container's quota. For single images at a camera's pace, 1 costs the
            least (docs/speed.md).
        views: ``"single"``, or ``"flip"`` for the mean over each image and its mirror, which takes twice the
            work, in one run of the network.

    Raises:
        ModelError: the file is missing, not ours, truncated or altered, or has another precision.
        ProviderError: a provider is not installed, does not work or has nothing to do in this model.
        ConfigError: an argument makes no sense.
        MissingExtraError: onnxruntime is not installed.
    """

    #: The model file.
    path: Path
    #: Metadata of the file.
    info: ModelInfo
    #: The execution provider in use, by onnxruntime's name, e.g. ``"CPUExecutionProvider"``.
    provider: str
    #: All providers of the session in order of preference; the CPU runs what the first cannot.
    providers: tuple[str, ...]
    #: Size of the thread pool.
    threads: int
    #: The views of each image: ``"single"`` or ``"flip"``.
    views: str

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        precision: str = "auto",
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        views: str = "single",
    ) -> None:
        self.views = check_views(views)
        self.threads = thread_count(threads)
        providers = texts("providers", providers)
        self.path, wanted = find_model(model, precision)
        try:
            verify_checksum(read_bytes(self.path, LARGEST_MODEL), self.path)
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read: {reason(error)}") from error
        # By path and not by the bytes that were read, since onnxruntime would keep those in memory.
        session = open_session(self.path, providers, self.threads)
        self.providers = tuple(session.get_providers())
        self.provider = self.providers[0]
        facts = session.get_modelmeta().custom_metadata_map
        try:
            self.info = ModelInfo.from_json(facts.get(METADATA_KEY, ""))
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error
        if wanted not in (None, self.info.precision):
            raise ModelError(f"{self.path}: its precision is {self.info.precision}, not {wanted}")
        self._session = Session(session)
        self._checksum = facts[CHECKSUM_KEY]
        self._arguments = {"providers": providers, "threads": threads, "views": views}

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return self.info.labels

    def predict(self, image: Any) -> Prediction:
        """Predict the expression of one face.

        Arguments:
            image: anything that ``to_face`` takes: a path, the bytes of an image file, a Pillow image, or an
                array, grey or RGB, of any size, uint8 or floating in 0..1.

        Raises:
            ImageError: the image cannot be used.
        """
        return self._predictions(to_face(image)[None])[0]

    def predict_batch(self, images: Iterable[Any], *, batch_size: int = 64) -> list[Prediction]:
        """Predict the expressions of several faces.

        Arguments:
            images: an iterable of what ``predict`` takes, e.g. a list of paths, a generator, or an array
                (n, height, width). It is consumed in pieces, so it may be larger than the memory.
            batch_size: images per run of the network; memory grows with it, and with the views.

        Raises:
            ImageError: there are no images, or one cannot be used.
            ConfigError: ``batch_size`` is not a positive integer.
        """
        batch_size = whole_number("batch_size", batch_size)
        predictions: list[Prediction] = []
        for faces in to_batches(images, batch_size):
            predictions += self._predictions(faces)
        if not predictions:
            raise ImageError("there are no images to predict")
        return predictions

    def predict_stream(
        self,
        frames: Iterable[Any],
        *,
        batch_size: int = 8,
        max_delay: float = 0.02,
        queue_size: int = 32,
    ) -> Generator[Prediction | ImageError, None, None]:
        """Predict the expressions of frames that come one after another, e.g. from a camera, without end.

        A thread reads the frames and prepares them while the network runs. Waiting frames go through the
        network together, so the batches grow with the load. A frame that cannot be used does not end the
        stream. Closing or dropping the generator ends the thread; if the source is waiting for a frame then,
        the thread ends when that frame arrives, and drops it.

        Arguments:
            frames: an iterable of what ``predict`` takes. A frame is read to the end before the next is asked
                for, so the source may use one array for all of them.
            batch_size: most frames per run of the network.
            max_delay: seconds that a frame waits for others to share a run; 0 is no wait.
            queue_size: most frames that are read ahead of the network; then the source has to wait.

        Returns:
            A generator of one result per frame, in their order: the prediction, or the error of a frame that
            cannot be used. An exception of the source is raised after the results of the earlier frames.

        Raises:
            ConfigError: an argument makes no sense.
            ImageError: ``frames`` is a single image.
            ForkError: raised by the generator in a forked process.
        """
        from fertools.runtime.stream import stream  # imports threading, which nothing else here needs

        return stream(
            self._predictions,
            frames,
            batch_size=batch_size,
            max_delay=max_delay,
            queue_size=queue_size,
        )

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network once on prepared images, without any preprocessing except ``views``.

        Arguments:
            images: uint8 (n, 48, 48) or (n, 48, 48, 1), 0..255, n at least 1; all in one batch.

        Returns:
            float32 (n, 7), rows sum to 1, columns in the order of ``labels``.

        Raises:
            ImageError: the array has another shape or dtype, or is empty.
            ForkError: this process was forked from the one that made the Predictor.
        """
        size = (IMAGE_SIZE, IMAGE_SIZE)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            kind = getattr(images, "dtype", type(images).__name__)
            raise ImageError(f"images must be an array of uint8, not {kind}: use predict or to_faces")
        if images.shape[1:] not in (size, (*size, 1)):
            raise ImageError(f"images must have shape (n, 48, 48) or (n, 48, 48, 1), not {images.shape}")
        if len(images) == 0:
            raise ImageError("there are no images to predict")
        batch = np.ascontiguousarray(stacked(images.reshape(-1, *size, 1), self.views))
        return averaged(self._session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0], self.views)

    def _predictions(self, faces: npt.NDArray[np.uint8]) -> list[Prediction]:
        return [Prediction.of(self.labels, row) for row in self.probabilities(faces).tolist()]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.path.absolute(), self._checksum, self._arguments)

    def __repr__(self) -> str:
        model = f"{self.info.name} {self.info.precision}"
        how = f"{self.provider}, threads={self.threads}, views={self.views}"
        return f"<Predictor {model}, {how}, {str(self.path)!r}>"


def _reopen(kind: type[Predictor], path: Path, checksum: str, arguments: dict[str, Any]) -> Predictor:
    """Unpickle. Raises ModelError if the file is not the one that was pickled, and as ``Predictor`` does."""
    predictor = kind(path, **arguments)
    if predictor._checksum != checksum:
        raise ModelError(f"{path}: not the model of the pickled Predictor any more: make a new one")
    return predictor
