"""A network and a data set small enough to train in a test; as a script, a training that kills itself."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

from fertools.data import synthetic
from fertools.models import NETWORKS, Network
from fertools.training import Run, TrainConfig

CONFIGS = {
    "sgd": {"ema": 0.9, "dropout_scale": 1.0, "class_balance": "oversample", "weight_decay": 0.01},
    "adam": {
        "optimizer": "adam",
        "schedule": "plateau",
        "plateau_patience": 1,
        "plateau_factor": 0.5,
        "learning_rate": 0.3,
        "ema": 0.0,
        "early_stopping": 2,
        "dropout_scale": 1.0,
        "class_balance": "weights",
        "precision": "float32",
    },
    "sequential": {"model": "sequential", "batch_size": 32, "epochs": 2},
}


def build():
    from keras import Sequential, layers

    return Sequential(
        [
            layers.Input((48, 48, 1)),
            layers.Conv2D(4, 3, strides=4),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(7, activation="softmax", dtype="float32", name="dense"),
        ],
        name="tiny",
    )


NETWORK = Network(name="tiny", text="For tests.", build=build, parameters=4_095, multiply_adds=9_216)


def config(name="sgd", **changes):
    NETWORKS["tiny"] = NETWORK
    return TrainConfig(**{"model": "tiny", "epochs": 4, "batch_size": 16, **CONFIGS[name], **changes})


def dataset(seed=0):
    return synthetic.generate(70, 35, 14, seed=seed)


def create(path, settings=None, source=None, **options):
    from fertools.backend import select_device
    from fertools.training.trainer import new_run

    settings = settings or config()
    device = select_device(settings.device, settings.devices)
    return new_run(Path(path), settings, source or dataset(), "synthetic", device, **options)


class Stop:
    """An observer that aborts at a step of an epoch."""

    def __init__(self, epoch, step=None, how=None):
        self.at, self.how = (epoch, step), how

    def stop(self):
        if self.how:
            self.how()
        raise KeyboardInterrupt

    def step(self, epoch, step, loss):
        if (epoch, step) == self.at:
            self.stop()

    def epoch(self, row, best):
        if (row.epoch, None) == self.at:
            self.stop()


def comparable(run):
    """Return the history without what differs between runs."""
    return [dataclasses.replace(row, seconds=0) for row in run.history()]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def main(path, name, when):
    """Train in ``path`` and be killed in epoch 2, in its middle or just before it is saved."""
    from fertools.backend import import_keras

    import_keras()
    from fertools.training.trainer import train

    observer, commit = None, Run.commit
    if when == "middle":
        observer = Stop(2, 2, kill)
    else:
        Run.commit = lambda run, history: kill() if len(history) == 2 else commit(run, history)
    train(create(path, config(name)), dataset(), observer=observer)


if __name__ == "__main__":
    main(*sys.argv[1:])
