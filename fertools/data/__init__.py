"""Labelled faces: read, draw, inspect, preview and convert data sets."""

from fertools.data import synthetic
from fertools.data.dataset import SPLITS, Dataset, Split
from fertools.data.source import load, read, write

__all__ = ["SPLITS", "Dataset", "Split", "load", "read", "synthetic", "write"]
