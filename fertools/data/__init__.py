"""Labelled faces: read, draw, inspect, preview and convert data sets."""

from fertools.data import synthetic
from fertools.data.dataset import SPLITS, Dataset, Split
from fertools.data.inspection import Inspection, inspect
from fertools.data.preview import preview
from fertools.data.source import FILES, check_destination, load, read, write

__all__ = [
    "FILES",
    "SPLITS",
    "Dataset",
    "Inspection",
    "Split",
    "check_destination",
    "inspect",
    "load",
    "preview",
    "read",
    "synthetic",
    "write",
]
