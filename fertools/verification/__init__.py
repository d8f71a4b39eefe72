"""Proof that the exported files give what the trained network gave."""

from fertools.verification.gates import Gate, State
from fertools.verification.report import BrokenGateError, Report, Row
from fertools.verification.verify import verify

__all__ = ["BrokenGateError", "Gate", "Report", "Row", "State", "verify"]
