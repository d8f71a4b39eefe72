"""Labelled faces: read, draw, inspect, preview and convert data sets."""

from fertools.data import synthetic
from fertools.data.dataset import SPLITS, Dataset, Split
from fertools.data.inspection import Inspection, inspect
from fertools.data.preview import preview
from fertools.data.source import load, read, write

__all__ = [
    "SPLITS",
    "Dataset",
    "Inspection",
    "Split",
    "inspect",
    "load",
    "preview",
    "read",
    "synthetic",
    "write",
]
