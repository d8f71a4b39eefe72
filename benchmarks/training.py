"""Compare the images per second of ``fertools train`` and of plain Keras.

    python benchmarks/training.py
    python benchmarks/training.py --model compact --isa avx2

"keras" is what notebooks do: ``model.fit`` on float32 arrays with Adam, no augmentation, in a process that
gives freed memory back. "float32" and "mixed_bfloat16" are the default recipe in that precision, with
augmentation and moving average as in any run; the second only where the processor has bfloat16 units.
"camera" is the better of the two with ``--camera 0.6``. With ``--isa avx2`` all compute as on a processor
with only AVX2, where TensorFlow does not use oneDNN by default; "keras-onednn" is plain Keras with oneDNN.
Each measurement is a new process; they take turns. The images are drawn: the time of a step does not depend
on them. Needs the extra ``train``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fertools.backend import BFLOAT16_FLAGS
from fertools.data import synthetic
from fertools.processor import processor

#: The instruction sets that decide the speed.
ISA_FLAGS = BFLOAT16_FLAGS | {"avx2", "avx512f", "avx512_vnni", "asimd"}

#: Steps at the start that are not counted: compilation and first memory allocations.
WARM_UP = 4


class Clock:
    """An observer of training that notes when each step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Note the time; ``loss`` is already computed then."""
        self.times.append(time.perf_counter())

    def epoch(self, row: object, best: bool) -> None:
        """Do nothing at the end of an epoch."""

    def seconds(self) -> float:
        """Return the median time of a step."""
        steps = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        return statistics.median(steps[WARM_UP:])


def measure(variant: str, model: str, batch_size: int, steps: int) -> float:
    """Measure the images per second of one variant, in this process."""
    dataset = synthetic.generate(batch_size * (steps + WARM_UP + 1), 7, 7)
    clock = Clock()
    if variant.startswith("keras"):
        import keras  # not by import_keras: this is what users of plain Keras get

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
        from fertools.backend import select_device

        device = select_device("cpu")
        from fertools.training import TrainConfig, trainer

        fields = {"camera": 0.6} if variant == "camera" else {"precision": variant}
        config = TrainConfig(model=model, batch_size=batch_size, epochs=1, **fields)
        with tempfile.TemporaryDirectory() as folder:
            run = trainer.new_run(Path(folder, "run"), config, dataset, synthetic.NAME, device)
            trainer.train(run, dataset, observer=clock)
    return batch_size / clock.seconds()


def variants(isa: str) -> dict[str, dict[str, str]]:
    """Return name -> environment variables of its process."""
    if isa == "avx2":
        limit = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
        return {
            "keras": limit | {"TF_ENABLE_ONEDNN_OPTS": "0"},
            "keras-onednn": limit | {"TF_ENABLE_ONEDNN_OPTS": "1"},
            "float32": limit,
        }
    bfloat16: dict[str, dict[str, str]] = {"mixed_bfloat16": {}} if BFLOAT16_FLAGS & processor()[1] else {}
    return {"keras": {}, "float32": {}, **bfloat16, "camera": {}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sequential")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isa", choices=["own", "avx2"], default="own")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(measure(options.only, options.model, options.batch_size, options.steps))
        return
    environments = variants(options.isa)
    speeds: dict[str, list[float]] = {variant: [] for variant in environments}
    for _ in range(options.rounds):
        for variant, found in speeds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--only", variant]
            environment = {**os.environ, **environments[variant]}
            found.append(float(subprocess.check_output(command, text=True, env=environment).split()[-1]))
    medians = {variant: statistics.median(found) for variant, found in speeds.items()}
    ratios = {variant: median / medians["keras"] for variant, median in medians.items()}
    name, flags = processor()
    where = {
        "processor": name,
        "isa": options.isa,
        "flags": sorted(flags & ISA_FLAGS),
        "cores": os.cpu_count(),
    }
    if options.as_json:
        print(json.dumps({**where, "images_per_second": medians, "ratios": ratios, "all": speeds}, indent=2))
        return
    print(
        f"{options.model}, batch {options.batch_size}, {where['cores']} cores, {name}, {options.isa} ISA",
        end="",
    )
    print(f" ({', '.join(where['flags'])})" if options.isa == "own" else "")
    for variant, found in speeds.items():
        print(
            f"{variant:<14} {medians[variant]:7.1f} images per second"
            f"  (of {min(found):.1f} to {max(found):.1f})  {ratios[variant]:.2f} x keras"
        )


if __name__ == "__main__":
    main()
