"""Measure what each kind of the camera's degradations teaches: ``fertools train --camera``.

    python benchmarks/camera.py fer2013.csv --start compact-d --out camera

Trains the network of --start further, with itself as the teacher, once without a bad camera, once with all
of its kinds, then without each of them, and with less and more of it. Each run is measured on the validation
split as it is and on worse images (``fertools stress``), and its table is written to docs/stress.md, with the
figures in docs/camera.json. What is finished in the folder is not done again. Needs the extra ``train``.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from completing import complete

from fertools.files import write_json, write_text
from fertools.training import Run
from fertools.training.config import CAMERA_KINDS

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"(?<=<!-- begin camera -->\n).*?(?=<!-- end camera -->)", re.DOTALL)

#: What all runs have in common.
COMMON = "--label-share 0.2 --learning-rate 0.015 --warmup-epochs 0 --augmentation wide --start-share 0.5"

#: Name of a run -> the options that are its own.
RUNS = {
    "no camera": "",
    "all kinds": "--camera 0.6",
    **{
        f"without {kind}": f"--camera 0.6 --camera-kinds {','.join(k for k in CAMERA_KINDS if k != kind)}"
        for kind in CAMERA_KINDS
    },
    "three in ten images": "--camera 0.3",
    "nine in ten images": "--camera 0.9",
    "half the strength": "--camera 0.6 --camera-strength 0.5",
}

#: The changes of the stress list that the camera's kinds resemble.
COLUMNS = ("small face", "defocus", "motion blur", "sensor noise", "JPEG", "side light")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="FER2013, in any form that fertools reads")
    parser.add_argument("--start", type=Path, required=True, metavar="EXPORT", help="export to begin with")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the runs go there")
    parser.add_argument("--epochs", type=int, default=1, help="of each run (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1024, help="for the measurement (default: %(default)s)")
    options = parser.parse_args()
    common = shlex.split(f"{COMMON} --epochs {options.epochs}")
    common += ["--weights", str(options.start / "model.keras"), "--teachers", str(options.start)]
    model = json.loads((options.start / "report.json").read_text(encoding="utf-8"))["model"]["name"]
    rows = []
    for name, own in RUNS.items():
        run = options.out / name.replace(" ", "-")
        if not complete(run, options.source, "distill", *common, "--model", model, *shlex.split(own)):
            raise SystemExit(f"{run}: failed")
        rows.append({"name": name, "options": own, "stress": measured(run, options.source, options.images)})
    facts = Run(run).facts
    document = {
        "model": model,
        "common": f"{COMMON} --epochs {options.epochs}",
        "device": facts["device"]["name"],
        "precision": facts["precision"],
        "rows": rows,
    }
    write_json(DOCS / "camera.json", document)
    page = DOCS / "stress.md"
    text = page.read_text(encoding="utf-8")
    write_text(page, BLOCK.sub(lambda _: table(document), text))


def measured(run: Path, source: str, images: int) -> dict[str, Any]:
    """Return what ``fertools stress`` says of a run; measured once."""
    file = run / "stress.json"
    if not file.is_file():
        words = ["stress", run, "--data", source, "--images", images, "--json"]
        command = [sys.executable, "-m", "fertools", *map(str, words)]
        write_json(file, json.loads(subprocess.check_output(command, text=True)))
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def table(document: dict[str, Any]) -> str:
    """Return the table and its conditions as Markdown."""
    any_row = document["rows"][0]["stress"]
    lines = [
        f"`{document['model']}`, every run with `{document['common']}` from the same weights, which are its"
        f" teacher, too; {any_row['images']:,} images of the {any_row['split']} split, Keras, single view,"
        f" seed 0; {document['device']}, {document['precision']}. The changes are means over their three"
        " severities.",
        "",
        f"| | options | clean | mean on worse images | {' | '.join(COLUMNS)} |",
        f"|---|---|{'---:|' * (2 + len(COLUMNS))}",
    ]
    for row in document["rows"]:
        stress = row["stress"]
        means = {change["name"]: change["mean"] for change in stress["changes"]}
        shown = (stress["clean"], stress["mean"], *(means[name] for name in COLUMNS))
        own = row["options"] and f"`{row['options']}`"
        lines.append(f"| {row['name']} | {own} | {' | '.join(f'{value:.1%}' for value in shown)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
