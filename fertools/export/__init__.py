"""Exporting a run to ONNX (or .ort) and int8 files, verified before they appear."""

from fertools.export.exporter import Export, export
from fertools.export.quantization import QuantizeConfig

__all__ = ["Export", "QuantizeConfig", "export"]
