"""The output of a scoring: a folder that reads as one Parquet data set.

::

    predictions.parquet/
      _manifest.json          source and model by digest, the options, the number of parts
      _pictures               the list of a folder's pictures, as it was at the start
      part-00000.parquet      the answers to the source's piece 0
      part-00001.parquet
      _summary.json           counts and accuracy, once every part is there

A part appears whole or not at all, and its content is always the same, so it does not matter which process
writes it, or how often. Readers of such folders (pyarrow, pandas, DuckDB, Spark) ignore names that begin with
an underscore.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from fertools.errors import DataError
from fertools.files import replacing, write_json
from fertools.scoring.source import import_parquet
from fertools.tables import text_table

SCHEMA_VERSION: Final = 1

#: Files of the folder.
_MANIFEST: Final = "_manifest.json"
_PICTURES: Final = "_pictures"
#: Key of the accuracy of rows without a split.
ALL: Final = "all"

#: Prefix of the columns of probabilities; the label follows.
PREFIX: Final = "p_"

#: Seconds after which a partly written file belongs to no process that still writes it.
_ABANDONED: Final = 3600.0

#: Rows per row group, and rows that a part holds in memory while it is written.
_ROWS: Final = 65536


Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """A row: the prediction for a picture or a face in it."""

    path: str
    #: Position in the table that ``path`` is, from 0; None for a picture.
    row: int | None
    #: x, y, width and height of the face in pixels of the picture; None if none was looked for.
    box: Box | None = None
    #: The detector's confidence in the face, 0..1.
    face_confidence: float | None = None
    truth: str | None = None
    split: str | None = None
    #: Why there is no prediction, else None.
    error: str | None = None


@dataclass(frozen=True)
class Summary:
    """The totals over all rows."""

    rows: int
    #: Rows without a prediction.
    errors: int
    #: Label -> number of rows with that prediction, in the model's order.
    labels: dict[str, int]
    #: Split, or "all" in a source without splits -> number of labelled rows with a prediction, and the share
    #: of correct ones.
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, with the share of each label."""
        return asdict(self) | {"shares": self.shares}

    @property
    def shares(self) -> dict[str, float]:
        """Label -> its share of the predictions."""
        answers = sum(self.labels.values())
        return {label: count / answers if answers else 0.0 for label, count in self.labels.items()}

    def to_text(self) -> str:
        """A table for a terminal."""
        shares = self.shares
        rows = [(label, f"{count:,}", f"{shares[label]:.2%}") for label, count in self.labels.items()]
        counts = text_table(("prediction", "rows", "share"), rows)
        lines = [f"{self.rows:,} rows, {self.errors:,} without an answer", "", counts]
        if self.accuracy:
            lines.append("")
        for split, known in self.accuracy.items():
            where = "" if split == ALL else f" on {split}"
            lines.append(f"accuracy{where}: {known['value']:.2%} of {known['rows']:,} rows")
        return "\n".join(lines)


@dataclass(frozen=True)
class Output:
    """A folder of answers.

    Attributes:
        path: the folder.
        labels: the model's labels, in the order of its answers.
        model: value of the column ``model``.
        model_sha256: SHA-256 of the model's file.
    """

    path: Path
    labels: tuple[str, ...]
    model: str
    model_sha256: str

    @staticmethod
    def begun(path: Path) -> bool:
        """Whether a scoring was begun there before."""
        return (path / _MANIFEST).is_file()

    @staticmethod
    def listing(path: Path) -> Path:
        """Path of the list of a folder's pictures."""
        return path / _PICTURES

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise DataError if ``path`` holds anything but a scoring."""
        if path.exists() and not path.is_dir():
            raise DataError(f"{path}: this is a file, and the output is a folder: choose another name")
        ours = (_PICTURES, _MANIFEST)
        if path.is_dir() and not Output.begun(path):
            other = [each.name for each in path.iterdir() if not each.name.endswith(ours)]
            if other:
                raise DataError(f"{path}: holds other things ({other[0]}, ...); choose another name")

    def begin(self, asked: dict[str, Any], parts: int, source: str) -> None:
        """Write the manifest, or check that an earlier one is the same.

        Arguments:
            asked: everything that determines the output: source, model and options, as JSON values.
            parts: number of parts.
            source: name of the source, for people.

        Raises:
            DataError: the folder holds the output of another scoring.
        """
        manifest = {"schema_version": SCHEMA_VERSION, **asked, "parts": parts}
        names = {"source_name": source, "model_name": self.model}
        if not self.begun(self.path):
            write_json(self.path / _MANIFEST, manifest | names)
            return
        try:
            before = json.loads((self.path / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: its {_MANIFEST} cannot be read ({error}); start anew") from error
        if not isinstance(before, dict):
            raise DataError(f"{self.path}: its {_MANIFEST} is damaged; start anew in another folder")
        differs = [name for name in manifest if before.get(name) != manifest[name]]
        if differs:
            name = differs[0]
            was, now = (_told(name, document) for document in (before, manifest | names))
            raise DataError(
                f"{self.path}: was begun with another {name.replace('_', ' ')} ({was}, not {now});"
                " take the same, or another --out"
            )

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.path / f"part-{number:05d}.parquet"

    def missing(self, parts: int) -> list[int]:
        """The parts that are not there yet."""
        there = {file.name for file in self.path.glob("part-*.parquet")}
        return [number for number in range(parts) if self.part(number).name not in there]

    @contextmanager
    def writer(self, number: int) -> Iterator[PartWriter]:
        """Open a part for writing; the file appears when the block ends without an error."""
        pq = import_parquet()
        with (
            replacing(self.part(number)) as temporary,
            pq.ParquetWriter(temporary, _schema(self.labels), compression="zstd") as file,
        ):
            part = PartWriter(self, file)
            yield part
            # Before the file is closed and gets its name: neither happens if the last rows are not written.
            part.flush()

    def finish(self, parts: int) -> Summary:
        """Sum up all parts and write the summary."""
        pq = import_parquet()
        rows = errors = 0
        labels: Counter[str] = Counter()
        known: Counter[str] = Counter()
        right: Counter[str] = Counter()
        for number in range(parts):
            try:
                table = pq.read_table(self.part(number), columns=["label", "truth", "split", "error"])
            except (OSError, ValueError) as error:
                path = self.part(number)
                raise DataError(f"{path}: cannot be read: {error}; remove it and run again") from error
            rows += table.num_rows
            counts = Counter(
                zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
            )
            for (label, truth, split, why), count in counts.items():
                if why is not None:
                    errors += count
                else:
                    labels[label] += count
                    if truth is not None:
                        known[split or ALL] += count
                        right[split or ALL] += count * (label == truth)
        for leftover in self.path.glob(".*.parquet"):  # partly written files of killed processes
            with suppress(FileNotFoundError):  # removed by another process that is at its end, too
                if time.time() - leftover.stat().st_mtime > _ABANDONED:
                    leftover.unlink()
        summary = Summary(
            rows=rows,
            errors=errors,
            labels={label: labels[label] for label in self.labels},
            accuracy={
                split: {"rows": known[split], "value": right[split] / known[split]} for split in sorted(known)
            },
        )
        write_json(self.path / "_summary.json", summary.to_dict())
        return summary


class PartWriter:
    """Writes the rows of a part."""

    def __init__(self, output: Output, file: Any) -> None:
        import pyarrow as pa

        self._pa, self._output, self._file = pa, output, file
        self._held: list[Any] = []
        self._rows = 0

    def add(self, answers: Sequence[Answer], probabilities: Any) -> None:
        """Add rows.

        Arguments:
            answers: the rows; those without an error have probabilities.
            probabilities: float32 (n, 7), n being the number of those.
        """
        pa, labels = self._pa, self._output.labels
        scores = iter(probabilities.tolist())
        rows = [None if answer.error is not None else next(scores) for answer in answers]
        said = [None if row is None else labels[row.index(max(row))] for row in rows]
        columns = {
            **{name: [getattr(answer, name) for answer in answers] for name in Answer.__slots__},
            "path": [_utf8(answer.path) for answer in answers],
            "error": [answer.error and _utf8(answer.error) for answer in answers],
            "label": said,
            **{
                PREFIX + label: [None if row is None else row[place] for row in rows]
                for place, label in enumerate(labels)
            },
            "model": [self._output.model] * len(rows),
            "model_sha256": [self._output.model_sha256] * len(rows),
        }
        self._held.append(pa.RecordBatch.from_pydict(columns, schema=self._file.schema))
        self._rows += len(rows)
        if self._rows >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held in memory."""
        if self._held:
            self._file.write_table(self._pa.Table.from_batches(self._held, self._file.schema))
        self._held, self._rows = [], 0


def _schema(labels: Sequence[str]) -> Any:
    """Return the columns of a part, as Arrow's schema."""
    import pyarrow as pa

    return pa.schema(
        [
            ("path", pa.string()),
            ("row", pa.int64()),
            ("box", pa.list_(pa.int32())),
            ("face_confidence", pa.float32()),
            ("truth", pa.string()),
            ("split", pa.string()),
            ("label", pa.string()),
            *((PREFIX + label, pa.float32()) for label in labels),
            ("model", pa.string()),
            ("model_sha256", pa.string()),
            ("error", pa.string()),
        ]
    )


def _utf8(text: str) -> str:
    """Return what Parquet can hold of a text with a file's name, which need not be UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace")


def _told(name: str, manifest: dict[str, Any]) -> str:
    """Return an entry of a manifest for people: of a digest its beginning, and what it is of if known."""
    value, known = manifest.get(name), manifest.get(f"{name}_name")
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"{known}, sha256 {value[:12]}" if known else f"sha256 {value[:12]}"
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
