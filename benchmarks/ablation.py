"""Change one thing of the default recipe at a time, and write what becomes of the accuracy.

    python benchmarks/ablation.py fer2013.csv --out ablation

Trains the network `compact`, which has a tenth of the reference network's multiply-adds, for a few epochs by
the default recipe (three seeds, whose spread tells which differences count) and once for every other change
in ``CHANGES``. What is finished in the folder is not done again, and what was interrupted goes on. With
--no-training, the page is written from what is there: docs/ablation.md with its picture, and
docs/ablation.json its figures. All of it is PublicTest, the validation split. Needs the extra ``train``.
"""

from pathlib import Path

from ablation_report import DEFAULT, Ablation, Change, outcome_of, page
from completing import complete, read_options

from fertools.evaluation import is_run
from fertools.files import write_json, write_text
from fertools.training import Run
from fertools.training.compare import compare
from fertools.training.figure import comparison_figure

DOCS = Path(__file__).parent.parent / "docs"
MODEL = "compact"
EPOCHS = 12
CHANGES = (
    Change(DEFAULT),
    Change(f"{DEFAULT}, seed 1", "--seed 1"),
    Change(f"{DEFAULT}, seed 2", "--seed 2"),
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
)


def main() -> None:
    options = read_options(__doc__, "the runs go there")
    finished: list[tuple[Change, Path]] = []
    for change in CHANGES:
        run = options.out / change.folder
        if options.training:
            words = ("--model", MODEL, "--epochs", EPOCHS, *change.options.split())
            complete(run, options.source, change.command, *words)
        if is_run(run) and Run(run).finished:
            finished.append((change, run))
    if [change.name for change, _ in finished[:1]] != [DEFAULT]:
        raise SystemExit(f"{options.out}: the default recipe's run is not finished, nothing to compare with")

    entries = compare([run for _, run in finished]).entries
    comparison_figure(entries, DOCS / "ablation.png")
    facts = Run(finished[0][1]).facts
    ablation = Ablation(
        model=MODEL,
        epochs=EPOCHS,
        device=facts["device"]["name"],
        precision=facts["precision"],
        outcomes=tuple(
            outcome_of(change, entry) for (change, _), entry in zip(finished, entries, strict=True)
        ),
    )
    write_json(DOCS / "ablation.json", ablation.to_dict())
    write_text(DOCS / "ablation.md", page(ablation))


if __name__ == "__main__":
    main()
