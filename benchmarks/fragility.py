"""What makes a network less fragile: which changes of --camera, how strong, and what is kept of the start.

    python benchmarks/fragility.py fer2013.csv --out fragility --start compact.keras --run compact-e

Trains a short run of `compact` from the network START, with itself as its teacher, for every change of a
recipe alone, and measures each on images of PublicTest, the validation split: as they are and made worse, as
`fertools stress` does. Then it takes a longer run apart: how much of START's weights is kept, and from which
images BatchNormalization's statistics come. What is finished in the folder is not trained again. Writes
docs/stress.json, and its tables into docs/stress.md. Needs the extra ``train``.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from completing import complete, read_options

from fertools import data
from fertools.backend import import_keras
from fertools.data import Dataset
from fertools.evaluation import is_run
from fertools.evaluation.measurement import Network
from fertools.evaluation.stress import Stress, stress
from fertools.files import write_json, write_text
from fertools.models import build
from fertools.models.prediction import load, probabilities
from fertools.training import Run
from fertools.training.callbacks import copy_weights, mix_weights
from fertools.training.state import load_state
from fertools.training.statistics import IMAGES as STATISTICS_IMAGES
from fertools.training.statistics import estimate_statistics
from fertools.training.trainer import spoilt

PAGE = Path(__file__).parent.parent / "docs" / "stress.md"
BEGIN, END = "<!-- begin ablation -->\n", "<!-- end ablation -->"
#: Images of PublicTest that are made worse.
IMAGES = 400

#: One epoch: what is compared is how it begins.
COMMON = "--model compact --label-share 0.2 --epochs 1 --warmup-epochs 0 --learning-rate 0.01"
RUNS = {
    "strong": "--augmentation strong",
    "wide": "--augmentation wide",
    "camera": "--augmentation wide --camera 0.6",
    "camera for three in ten": "--augmentation wide --camera 0.3",
    "camera of half the strength": "--augmentation wide --camera 0.6 --camera-strength 0.5",
    "without light": "--augmentation wide --camera 0.6 --camera-kinds defocus,motion,resolution,noise,jpeg",
    "without blur and low resolution": "--augmentation wide --camera 0.6 --camera-kinds light,noise,jpeg",
    "without noise and JPEG": (
        "--augmentation wide --camera 0.6 --camera-kinds light,defocus,motion,resolution"
    ),
}
#: Kinds of changes -> those of the list.
KINDS = {
    "small face": ("small face",),
    "blur": ("defocus", "motion blur"),
    "noise, JPEG": ("sensor noise", "JPEG"),
    "light": ("contrast", "brightness", "gamma", "side light"),
    "box": ("large box", "tight box", "shifted box", "turned box"),
    "occlusion": ("occlusion",),
}


#: Shares of START's weights that are tried.
SHARES = (0.0, 0.5, 0.7)


def main() -> None:
    options = read_options(
        __doc__,
        "the runs go there",
        start="the .keras file to start from",
        run="a run of --camera from START",
    )
    dataset = data.load(options.source)
    import_keras()
    found: dict[str, Any] = {"images": IMAGES, "common": COMMON, "run": options.run.name}
    rows = {"START": ("", options.start)}
    for name, words in RUNS.items():
        run = options.out / name.replace(" ", "-")
        if options.training:
            start = ("--teachers", options.start, "--weights", options.start)
            complete(run, options.source, "distill", *start, *COMMON.split(), *words.split())
        if is_run(run) and Run(run).finished:
            rows[name] = (words, run / "best.keras")
    networks = {name: network_of(load(file)) for name, (_, file) in rows.items()}
    stressed = stress(networks, dataset, images=IMAGES)
    found["runs"] = {name: {"options": rows[name][0], **figures(each)} for name, each in stressed.items()}
    found["apart"] = {
        name: figures(each) for name, each in stress(apart(options, dataset), dataset, images=IMAGES).items()
    }
    write_json(PAGE.with_suffix(".json"), found)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    write_text(PAGE, before + BEGIN + "\n".join(tables(found)) + "\n" + END + rest.partition(END)[2])


def network_of(network: keras.Model) -> Network:
    return partial(probabilities, network)


def apart(options: argparse.Namespace, dataset: Dataset) -> dict[str, Network]:
    """The last epoch of a run, with shares of its start and statistics of clean images or the camera's."""
    from fertools.training.optimizer import build_optimizer

    run, train = Run.open(options.run), dataset.split("train")
    trained, start = build(run.config.model), load(options.start).get_weights()
    optimizer = build_optimizer(run.config, run.config.steps_per_epoch(len(train)))
    optimizer.build(trained.trainable_variables)
    load_state(run.state(len(run.history())), trained, optimizer)
    sample = np.random.default_rng(run.config.seed).permutation(len(train))[: 4 * STATISTICS_IMAGES]
    clean = train.images[sample]
    networks = {}
    for share in SHARES:
        for name, images in (("clean", clean), ("the camera's", spoilt(run.config, clean, augmented=True))):
            network = build(run.config.model)
            copy_weights(optimizer, trained, network)
            mix_weights(network, start, share)
            estimate_statistics(network, images)
            networks[f"{share:g}, {name}"] = network_of(network)
    return networks


def figures(found: Stress) -> dict[str, float]:
    """Shares: clean, the mean, and that of each kind of change."""
    kinds = {kind: float(np.mean([found.of(name).mean for name in names])) for kind, names in KINDS.items()}
    return {"clean": found.clean, "mean": found.mean, **kinds}


def tables(found: dict[str, Any]) -> list[str]:
    """The page's block."""
    columns = ("clean", "mean", *KINDS)
    lines = [
        f"{found['images']:,} images of PublicTest, the same in all rows, seed 0; one epoch of",
        "",
        "```sh",
        f"fertools distill --teachers START --weights START --data SRC {found['common']} ...",
        "```",
        "",
        f"| run | options | {' | '.join(columns)} |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for name, row in found["runs"].items():
        values = " | ".join(f"{row[column]:.1%}" for column in columns)
        words = row["options"] and f"`{row['options']}`"
        lines.append(f"| {name} | {words} | {values} |")
    lines += [
        "",
        f"The last epoch of {found['run']}, with a share of START's weights, by where BatchNormalization's"
        " statistics come from:",
        "",
        f"| share of START | statistics of images | {' | '.join(columns)} |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for name, row in found["apart"].items():
        share, statistics = name.split(", ")
        values = " | ".join(f"{row[column]:.1%}" for column in columns)
        lines.append(f"| {share} | {statistics} | {values} |")
    return lines


if __name__ == "__main__":
    main()
