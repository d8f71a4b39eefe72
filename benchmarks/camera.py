"""Measure what each kind of the camera's degradations teaches: ``fertools train --camera``.

    python benchmarks/camera.py fer2013.csv --start compact-d --out camera

Trains the network of --start further, with itself as the teacher, once without a bad camera, once with all
of its kinds, then without each of them, and with less and more of it. Each run is measured on the validation
split as it is and on worse images (``fertools stress``). The figures go to docs/camera.json, from which
``python tests/readme.py`` writes the table in docs/stress.md. What is finished in the folder is not done
again. Needs the extra ``train``.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from completing import complete

from fertools.files import write_json
from fertools.training import Run
from fertools.training.config import CAMERA_KINDS

DOCS = Path(__file__).parent.parent / "docs"

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
        stress = measured(run, options.source, options.images)
        means = {change["name"]: change["mean"] for change in stress["changes"]}
        rows.append(
            {"name": name, "options": own, "clean": stress["clean"], "mean": stress["mean"], "changes": means}
        )
    facts = Run(run).facts
    document = {
        "model": model,
        "common": f"{COMMON} --epochs {options.epochs}",
        "device": facts["device"]["name"],
        "precision": facts["precision"],
        "split": stress["split"],
        "images": stress["images"],
        "rows": rows,
    }
    write_json(DOCS / "camera.json", document)


def measured(run: Path, source: str, images: int) -> dict[str, Any]:
    """Return what ``fertools stress`` says of a run; measured once."""
    file = run / f"stress-{images}.json"
    if not file.is_file():
        words = ["stress", run, "--data", source, "--images", images, "--json"]
        command = [sys.executable, "-m", "fertools", *map(str, words)]
        write_json(file, json.loads(subprocess.check_output(command, text=True)))
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
