"""What is in a data set, and what is odd about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fertools.contract import LABELS
from fertools.data.dataset import SPLITS, Dataset
from fertools.tables import text_table


@dataclass(frozen=True)
class Inspection:
    """Counts of a data set. "Identical" means byte for byte.

    Attributes:
        name: the data set's name.
        rows: number of images.
        distinct: different images among them.
        counts: split -> class -> images.
        repeated: split -> images that repeat an earlier one of the same split.
        shared: (split, other split) -> images of the first that are in the second too, as
            ``"test in train"``.
        blank: images whose pixels are all equal.
        conflicts: groups of identical images, blank ones aside, that carry more than one label.
        fingerprint: SHA-256 over images, labels and usage.
        notes: what was done to the source on the way.
    """

    name: str
    rows: int
    distinct: int
    counts: dict[str, dict[str, int]]
    repeated: dict[str, int]
    shared: dict[str, int]
    blank: int
    conflicts: int
    fingerprint: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self) | {"notes": list(self.notes)}

    def to_text(self) -> str:
        """Return a table and a list for a terminal, without a final newline."""
        head = f"{self.name}: {self.rows:,} images, {self.distinct:,} distinct"
        totals = (sum(self.counts[split].values()) for split in SPLITS)
        rows = [(label, *(f"{self.counts[split][label]:,}" for split in SPLITS)) for label in LABELS]
        table = text_table(("", *SPLITS), [*rows, ("all", *(f"{total:,}" for total in totals))])
        facts = [f"repeated within {split}: {count:,}" for split, count in self.repeated.items()]
        facts += [f"identical images, {pair}: {count:,}" for pair, count in self.shared.items()]
        facts += [
            f"blank images: {self.blank:,}",
            f"groups of identical images with conflicting labels: {self.conflicts:,}",
        ]
        facts += [*self.notes, f"fingerprint: {self.fingerprint}"]
        return "\n".join([head, "", table, "", *facts])


def inspect(dataset: Dataset) -> Inspection:
    """Count classes, identical and blank images, and conflicting labels."""
    ids = dataset.image_ids
    splits = {split: dataset.usage == code for code, split in enumerate(SPLITS)}
    counts = {
        split: {
            label: int(np.count_nonzero(dataset.labels[rows] == code)) for code, label in enumerate(LABELS)
        }
        for split, rows in splits.items()
    }
    repeated = {split: int(rows.sum()) - len(np.unique(ids[rows])) for split, rows in splits.items()}
    shared = {
        f"{split} in {other}": int(np.isin(ids[splits[split]], ids[splits[other]]).sum())
        for split, other in (("validation", "train"), ("test", "train"), ("test", "validation"))
    }
    blank = (dataset.images == dataset.images[:, :1, :1]).all(axis=(1, 2))
    # Identical images conflict if they occur with more than one label.
    pairs = np.unique(np.stack([ids[~blank], dataset.labels[~blank]], axis=1), axis=0)
    return Inspection(
        name=dataset.name,
        rows=len(dataset),
        distinct=len(np.unique(ids)),
        counts=counts,
        repeated=repeated,
        shared=shared,
        blank=int(blank.sum()),
        conflicts=int((np.bincount(pairs[:, 0]) > 1).sum()),
        fingerprint=dataset.fingerprint,
        notes=dataset.notes,
    )
