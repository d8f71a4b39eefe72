"""Change one thing of a training recipe at a time, and write how the accuracy changes.

    python benchmarks/ablation.py fer2013.csv --out ablation

Trains the runs of ``STUDIES``: a few epochs of ``compact``, which has a tenth of the reference network's
multiply-adds, for every change alone (three seeds of the recipe that they start from, whose spread tells
which differences count), then what was to be decided at greater length, or on the reference network. What
is finished in the folder is not done again, and what was interrupted goes on. With --no-training, the page
is written from what is there: docs/ablation.md with its pictures, and docs/ablation.json its figures. All of
it is PublicTest, the validation split. Needs the extra ``train``.
"""

from pathlib import Path

from ablation_report import Ablation, Change, Result, Study, outcome_of, page
from completing import command_line, complete

from fertools.evaluation import is_run
from fertools.files import write_json, write_text
from fertools.training import Run
from fertools.training.comparison import compare
from fertools.training.figures import comparison_figure

DOCS = Path(__file__).parent.parent / "docs"

#: The options of the starting recipe that are varied, spelled out because the defaults may change.
START = (
    "--optimizer sgd --learning-rate 0.05 --schedule cosine --weight-decay 0.002 --label-smoothing 0.1"
    " --augmentation light --mixup 0 --ema 0.999"
)

#: What is compared -> its runs.
STUDIES = {
    Study("Each change alone", model="compact", epochs=12, common=START): (
        Change("the starting recipe"),
        Change("the starting recipe, seed 1", "--seed 1"),
        Change("the starting recipe, seed 2", "--seed 2"),
        Change("no label smoothing", "--label-smoothing 0"),
        Change("mirror images only", "--augmentation flip"),
        Change("strong augmentation", "--augmentation strong"),
        Change("mixup", "--mixup 0.2"),
        Change("a quarter of the weight decay", "--weight-decay 0.0005"),
        Change("twice the learning rate", "--learning-rate 0.1"),
        Change("constant learning rate", "--schedule constant"),
        Change("no averaged weights", "--ema 0"),
        Change("AdamW", "--optimizer adamw --learning-rate 0.001 --weight-decay 0.1"),
        Change("a teacher", "--teachers exported/compact --label-share 0.4", command="distill"),
    ),
    Study("What a longer run wants", model="compact", epochs=40, common=f"{START} --learning-rate 0.1"): (
        Change("light augmentation"),
        Change("strong augmentation", "--augmentation strong"),
        Change("constant learning rate of the same mean", "--schedule constant --learning-rate 0.05"),
    ),
    Study(
        "Dropout of the reference network", model="sequential", epochs=4, common=f"{START} --dropout-scale 1"
    ): (
        Change("dropout"),
        Change("no dropout", "--dropout-scale 0"),
    ),
}


def main() -> None:
    options = command_line(__doc__, "the runs go there").parse_args()
    results = []
    for study, changes in STUDIES.items():
        folder = options.out / study.folder
        if options.training:
            for change in changes:
                given = [*study.common.split(), *change.options.split()]
                words = ("--model", study.model, "--epochs", study.epochs, *given)
                complete(folder / change.folder, options.source, change.command, *words)
        results += summed_up(study, changes, folder)
    if not results:
        raise SystemExit(f"{options.out}: no study's first run is finished, nothing to compare with")

    first = results[0].study
    facts = Run(options.out / first.folder / STUDIES[first][0].folder).facts
    ablation = Ablation(facts["device"]["name"], facts["precision"], tuple(results))
    write_json(DOCS / "ablation.json", ablation.to_dict())
    write_text(DOCS / "ablation.md", page(ablation))


def summed_up(study: Study, changes: tuple[Change, ...], folder: Path) -> list[Result]:
    """Return the outcomes of the finished runs and draw the picture; nothing if the first is unfinished."""
    finished = [
        change
        for change in changes
        if is_run(folder / change.folder) and Run(folder / change.folder).finished
    ]
    if finished[:1] != [*changes[:1]]:
        return []
    entries = compare([folder / change.folder for change in finished]).entries
    comparison_figure(entries, DOCS / f"ablation-{study.folder}.png")
    outcomes = (outcome_of(change, entry) for change, entry in zip(finished, entries, strict=True))
    return [Result(study, tuple(outcomes))]


if __name__ == "__main__":
    main()
