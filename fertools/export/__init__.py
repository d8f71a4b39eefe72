"""Exporting trained networks to ONNX (or .ort) and int8 files, verified before they appear."""

from fertools.export.exporter import Export, export, export_subject
from fertools.export.quantization import QuantizeConfig

__all__ = ["Export", "QuantizeConfig", "export", "export_subject"]
