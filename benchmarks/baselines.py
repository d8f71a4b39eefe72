"""Train, export and verify the published networks, and write the results beside the published ones.

    python benchmarks/baselines.py fer2013.csv --out baselines

Every training of ``TRAININGS`` is a ``fertools train --recipe original``, for as many epochs as two CPU cores
can do in a day, followed by a ``fertools export --quantize``, which verifies the files on the test split;
then a ``fertools sweep`` of learning rates. Finished runs in the folder are kept, and interrupted ones
continue. With --no-training, the page is written from what is there: docs/baselines.md with its pictures.
With --only, one network is trained, and the page keeps its pictures and what it has of the others. Its
figures are in docs/baselines.json; ``fertools models`` shows them too, from fertools/models/measured.json.
Needs the extra ``train``.
"""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from baseline_report import RECIPE, Baselines, Outcome, page, read_outcome
from completing import command_line, complete, fertools

from fertools.evaluation import is_run
from fertools.files import write_json, write_text
from fertools.models.measured import Measured, write_measured
from fertools.training import Run
from fertools.training.comparison import compare
from fertools.training.figures import comparison_figure
from fertools.training.sweep import is_sweep

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Training:
    """A network trained by the recipe it was published with, but for ``epochs`` and ``options``."""

    network: str
    epochs: int
    options: tuple[str, ...] = ()


TRAININGS = (
    Training("mlp", 15),
    Training("mlp-scaled", 15),
    Training("cnn3", 15),
    Training("cnn3-sgd", 60),
    Training("shallow", 30),
    Training("sequential", 20, ("--precision", "mixed_bfloat16")),
    Training("resnet18", 30, ("--precision", "mixed_bfloat16")),
    Training("inception-resnet", 8, ("--precision", "mixed_bfloat16")),
)
SWEEP = (
    *("--model", "resnet18", "--recipe", RECIPE, "--precision", "mixed_bfloat16", "--epochs", "3"),
    *("--set", "learning_rate=0.1,0.01,0.001,0.0001,1e-6"),
)


def train(training: Training, source: str, run: Path, export: Path) -> None:
    """Do what is left to do of one network."""
    words = ("--model", training.network, "--recipe", RECIPE, "--epochs", training.epochs, *training.options)
    if not complete(run, source, "train", *words):
        return
    if not (export / "report.json").is_file():
        export_words = ("export", run, "--data", source, "--out", export)
        # Where int8 breaks a gate, nothing was written.
        if fertools(*export_words, "--quantize"):
            fertools(*export_words)


def main() -> None:
    parser = command_line(__doc__, "runs and exports go there")
    parser.add_argument(
        "--only", metavar="NETWORK", choices=[each.network for each in TRAININGS], help="train this one alone"
    )
    options = parser.parse_args()
    runs, exports, sweep = (options.out / name for name in ("runs", "exported", "sweep"))
    outcomes: list[Outcome] = []
    for training in TRAININGS:
        if options.only not in (None, training.network):
            continue
        run, export = runs / training.network, exports / training.network
        if options.training:
            train(training, options.source, run, export)
        if is_run(run) and Run(run).finished:
            outcomes.append(read_outcome(Run(run), export))
    if options.training and not options.only:
        fertools("sweep", *SWEEP, "--data", options.source, "--out", sweep)
    if not outcomes:
        raise SystemExit(f"{options.out}: no run is finished, nothing to write")

    if options.only:
        earlier = Baselines.from_dict(json.loads((DOCS / "baselines.json").read_text(encoding="utf-8")))
        publish(earlier.updated(outcomes))
        return
    compared = compare([runs / outcome.network for outcome in outcomes])
    comparison_figure(compared.entries, DOCS / "baselines.png")
    swept = compare([sweep]) if is_sweep(sweep) else None
    if swept:
        comparison_figure(swept.entries, DOCS / "baselines-sweep.png")
    baselines = Baselines(
        outcomes=tuple(outcomes),
        sweep_command=shlex.join(["fertools", "sweep", *SWEEP, "--data", "SRC", "--out", sweep.name]),
        sweep=tuple(entry.to_dict() for entry in swept.entries) if swept else (),
        pictured=tuple(outcome.network for outcome in outcomes),
    )
    publish(baselines)


def publish(baselines: Baselines) -> None:
    """Write the page, its figures and those that the package has."""
    write_json(DOCS / "baselines.json", baselines.to_dict())
    write_text(DOCS / "baselines.md", page(baselines))
    write_measured(
        {
            outcome.network: [
                Measured(outcome.recipe, outcome.epochs, outcome.best_validation, outcome.test["keras"])
            ]
            for outcome in baselines.outcomes
            if outcome.test
        }
    )
    print(f"wrote {DOCS.name}/baselines.md", file=sys.stderr)


if __name__ == "__main__":
    main()
