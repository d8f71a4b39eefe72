"""Images a second of ``fertools train`` and of plain Keras, side by side.

    python benchmarks/training.py
    python benchmarks/training.py --model compact --batch-size 64 --rounds 5

"keras" is what notebooks do: ``model.fit`` on float32 arrays with Adam, no augmentation. "fertools" is the
default recipe, with everything that a run does in a step: augmentation, moving average, precision as the
processor allows. Each measurement is a process of its own; they take turns. The pictures are drawn ones:
the time of a step does not depend on them. Needs the extra ``train``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fertools.backend import import_keras, select_device
from fertools.data import synthetic

#: Steps at the start that do not count: compilation, and memory that is asked for the first time.
WARM_UP = 4


class Clock:
    """An observer of training that notes when each step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Note the time; ``loss`` had to be there for it."""
        self.times.append(time.perf_counter())

    def epoch(self, row: object, best: bool) -> None:
        """An epoch is done: nothing to note."""

    def seconds(self) -> float:
        """The median time of a step."""
        steps = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        return statistics.median(steps[WARM_UP:])


def measure(variant: str, model: str, batch_size: int, steps: int) -> float:
    """Images a second of one variant, in this process."""
    keras = import_keras()
    device = select_device("auto")
    dataset = synthetic.generate(batch_size * (steps + WARM_UP + 1), 7, 7)
    clock = Clock()
    if variant == "keras":
        from fertools.models import build

        network = build(model)
        network.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        train = dataset.split("train")
        on_step = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda step, logs: clock.step(1, step, 0.0)
        )
        images = train.images[..., None].astype("float32") / 255
        network.fit(images, train.labels, batch_size=batch_size, verbose=0, callbacks=[on_step])
    else:
        from fertools.training import TrainConfig, trainer

        config = TrainConfig(model=model, batch_size=batch_size, epochs=1)
        with tempfile.TemporaryDirectory() as folder:
            run = trainer.new_run(Path(folder, "run"), config, dataset, synthetic.NAME, device)
            trainer.train(run, dataset, observer=clock)
    return batch_size / clock.seconds()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sequential")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--only", choices=["keras", "fertools"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(measure(options.only, options.model, options.batch_size, options.steps))
        return
    speeds: dict[str, list[float]] = {"keras": [], "fertools": []}
    for _ in range(options.rounds):
        for variant, found in speeds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--only", variant]
            found.append(float(subprocess.check_output(command, text=True).split()[-1]))
    medians = {variant: statistics.median(found) for variant, found in speeds.items()}
    ratio = medians["fertools"] / medians["keras"]
    if options.as_json:
        print(json.dumps({"images_per_second": medians, "ratio": ratio, "all": speeds}, indent=2))
        return
    for variant, found in speeds.items():
        print(
            f"{variant:<9} {medians[variant]:7.1f} images a second  (of {min(found):.1f} to {max(found):.1f})"
        )
    print(f"ratio     {ratio:7.2f}")


if __name__ == "__main__":
    main()
