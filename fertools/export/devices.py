"""Devices on which an export was checked, in its report and on its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fertools import contract
from fertools.export.card import model_card, report_errors
from fertools.files import file_facts, write_json, write_text
from fertools.reading import read_text
from fertools.verification.kit import DeviceReport


def add_device(folder: Path, device: DeviceReport) -> None:
    """Add the device's line to report.json and the model card of ``folder``; it replaces its earlier one.

    Raises:
        ModelError: the export has no report, or it is damaged or of another version of fertools.
    """
    path = folder / contract.REPORT_FILE
    with report_errors(path):
        document = json.loads(read_text(path))
        files = {**document.pop("files")}
        new = device.to_dict()
        kept = [old for old in document.get("devices", []) if _place(old) != _place(new)]
        document["devices"] = [*kept, new]
        card = model_card(document)
    write_text(folder / contract.CARD_FILE, card)
    files[contract.CARD_FILE] = file_facts(folder / contract.CARD_FILE)
    write_json(path, {**document, "files": files})


def _place(device: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(device[name] for name in ("processor", "machine", "onnxruntime", "provider", "threads"))
