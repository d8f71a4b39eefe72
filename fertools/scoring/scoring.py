"""Score a source piece by piece, each into a part of the output, in this process or in Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fertools.cluster import ENGINES, connected
from fertools.errors import ConfigError, FertoolsError, ImageError
from fertools.evaluation.measurement import in_batches
from fertools.files import file_facts
from fertools.runtime import Predictor, to_face
from fertools.runtime.providers import NVIDIA, PROVIDERS
from fertools.scoring.output import Answer, Box, Output, PartWriter, Summary
from fertools.scoring.source import Item, Source, import_parquet, open_source

if TYPE_CHECKING:
    from fertools.faces import FaceFinder

#: Where to compute.

#: Faces per run of the network.
BATCH: Final = 64

#: Takes the number of finished parts, of all parts, and of rows written by this call.
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Scoring:
    """How to score.

    Attributes:
        model, precision, provider, views: as ``fertools.runtime.Predictor`` takes them.
        threads: threads of onnxruntime; None for the processors that this process may use. On Ray also the
            CPUs per actor, where None is 1.
        find_faces: look for faces in each picture, one row per face; else each picture is one cropped face.
        detector, min_confidence: as ``fertools.faces.FaceFinder`` takes them.
        image_column, label_column: columns of a Parquet file, see ``fertools.scoring.source.open_source``.
        engine: ``"local"`` or ``"ray"``.
        address: address of the Ray cluster; None for ``$RAY_ADDRESS``, else a cluster on this machine.
        actors: most actors; None for as many as the cluster's CPUs allow.

    Raises:
        ConfigError: the values do not go together.
    """

    model: str | None = None
    precision: str = "auto"
    provider: str = "auto"
    views: str = "single"
    threads: int | None = None
    find_faces: bool = False
    detector: str | None = None
    min_confidence: float | None = None
    image_column: str | None = None
    label_column: str | None = None
    engine: str = "local"
    address: str | None = None
    actors: int | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine must be {' or '.join(ENGINES)}, not {self.engine!r}")
        if self.engine == "local" and (self.address or self.actors):
            raise ConfigError("an address and a number of actors go with the engine ray")
        if not self.find_faces and (self.detector is not None or self.min_confidence is not None):
            raise ConfigError("a detector and its confidence go with find_faces")

    def predictor(self) -> Predictor:
        """Open the model."""
        threads = self.threads or (1 if self.engine == "ray" else None)
        return Predictor(
            self.model, precision=self.precision, providers=self.provider, threads=threads, views=self.views
        )

    def finder(self) -> FaceFinder | None:
        """Return the face finder, or None."""
        if not self.find_faces:
            return None
        from fertools.faces import FaceFinder

        return FaceFinder(self.detector, min_confidence=self.min_confidence)


def score(source: str, out: Path, how: Scoring | None = None, *, progress: Progress | None = None) -> Summary:
    """Score every image of a source into a folder of Parquet files, or continue with it.

    Memory does not grow with the number of images, except for a data set that ``fertools.data`` reads as a
    whole. A part that is already in ``out`` is not computed again: after an interruption the same call
    continues, and no row is lost or duplicated. An image that cannot be used becomes a row with its error.

    Arguments:
        source: what ``fertools.scoring.source.open_source`` takes.
        out: the folder (see ``fertools.scoring.output``). On a cluster it must be the same folder on all
            machines; so must the model, and the source unless it is a data set in one file.
        how: the model and the engine; by default the shipped model, on this machine.
        progress: takes the progress.

    Raises:
        DataError: there is no such source, or ``out`` holds the output of another scoring.
        FertoolsError: as ``Predictor`` raises.
    """
    how = how or Scoring()
    import_parquet()
    predictor, finder = how.predictor(), how.finder()
    Output.check_free(out)
    opened = open_source(
        source,
        Output.listing(out),
        renew=not Output.begun(out),
        image_column=how.image_column,
        label_column=how.label_column,
    )
    info = predictor.info
    output = Output(
        path=out.absolute(),
        labels=predictor.labels,
        model=f"{info.name} {info.precision}",
        model_sha256=file_facts(predictor.path)["sha256"],
    )
    asked = {
        "source": opened.digest,
        "model": output.model_sha256,
        "views": how.views,
        "face_finder": finder and f"{finder.name}, min_confidence {finder.min_confidence:g}",
        "detector": finder and finder.file and file_facts(finder.file)["sha256"],
    }
    output.begin(asked, opened.pieces, source)
    missing = output.missing(opened.pieces)
    there, rows = opened.pieces - len(missing), 0
    work = _Work(opened, output, predictor, finder)
    if progress:
        progress(there, opened.pieces, rows)
    for count in _on_ray(work, missing, how) if how.engine == "ray" else map(work, missing):
        there, rows = there + 1, rows + count
        if progress:
            progress(there, opened.pieces, rows)
    return output.finish(opened.pieces)


class _Work:
    """Scores a piece. A pickle holds how to open the model again."""

    def __init__(
        self, source: Source, output: Output, predictor: Predictor, finder: FaceFinder | None
    ) -> None:
        self.source, self.output, self.predictor, self.finder = source, output, predictor, finder

    def __call__(self, piece: int) -> int:
        """Write the part of a piece and return its number of rows."""
        rows = 0
        with self.output.writer(piece) as part:
            items = self.source.read(piece)
            while batch := [*islice(items, BATCH)]:
                rows += self._add(part, batch)
        return rows

    def _add(self, part: PartWriter, items: list[Item]) -> int:
        answers: list[Answer] = []
        faces: list[Any] = []
        for item in items:
            try:
                for face, box, confidence in self._faces(item.image):
                    faces.append(face)
                    answers.append(Answer(item.path, item.row, box, confidence, item.truth, item.split))
            except ImageError as error:
                why = str(error)
                answers.append(Answer(item.path, item.row, truth=item.truth, split=item.split, error=why))
        part.add(answers, in_batches(self.predictor, np.stack(faces)) if faces else np.empty((0, 7)))
        return len(answers)

    def _faces(self, image: Any) -> list[tuple[Any, Box | None, float | None]]:
        """Return the faces of an image, uint8 (48, 48), with their boxes and confidences, if any."""
        if image is None:
            raise ImageError("there is no image in the row")
        if self.finder is None:
            return [(to_face(image), None, None)]
        found = self.finder.find(image)
        if not found:
            raise ImageError("no face found")
        return [(face.crop, face.box, face.confidence) for face in found]


def _on_ray(work: _Work, pieces: list[int], how: Scoring) -> Iterator[int]:
    """Score pieces in a pool of actors; yields the number of rows of each, in the order of completion.

    An actor that dies is restarted, and its piece goes to another actor; so do the pieces of a lost machine.
    """
    if not pieces:
        return
    with connected(how.address) as ray:
        cpus = how.threads or 1
        actors = how.actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(actors, len(pieces)))
        items = ray.data.from_items([{"piece": piece} for piece in pieces], override_num_blocks=len(pieces))
        done = items.map_batches(
            _Actor,
            fn_constructor_args=(ray.put(work),),  # once per machine, where actors share its arrays
            batch_size=1,
            compute=pool,
            num_cpus=cpus,
            num_gpus=1 if PROVIDERS.get(how.provider, (how.provider,))[0] in NVIDIA else 0,
        )
        for row in done.iter_rows():
            if row["error"] is not None:
                raise row["error"]
            yield int(row["rows"])


class _Actor:
    """A Predictor in a Ray process."""

    def __init__(self, work: Any) -> None:
        import ray

        self.work: _Work = ray.get(work)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score a piece, in a batch of its own; an error of ours is returned, because Ray would wrap it."""
        rows, error = 0, None
        try:
            rows = self.work(int(batch["piece"][0]))
        except FertoolsError as raised:
            error = raised
        return {"rows": [rows], "error": np.array([error], dtype=object)}
