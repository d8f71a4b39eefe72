"""Run folders whose histories are given instead of trained."""

import numpy as np

from fertools.files import write_json
from fertools.training import Epoch, Run, TrainConfig
from fertools.training.run import seed_folder, seeded

FACTS = {
    "data": {"source": "synthetic", "name": "drawn", "fingerprint": "f" * 64},
    "device": {"backend": "tensorflow", "kind": "cpu", "name": "some CPU", "has_bfloat16": False},
    "precision": "float32",
    "versions": {},
    "commands": [],
}


def told_run(path, accuracies=(), losses=None, *, config=None, finished=True, seconds=2.0):
    """Write a run with these validation accuracies and losses, one per epoch; training is 0.1 better."""
    losses = [1.0 - value for value in accuracies] if losses is None else losses
    run = Run.create(path, config or TrainConfig(epochs=max(len(accuracies), 1)), FACTS)
    rows = [
        Epoch(number, loss - 0.1, accuracy + 0.1, loss, accuracy, 0.1, seconds)
        for number, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), 1)
    ]
    if rows:
        run.commit(rows)
    if finished:
        told = {
            "best_epoch": int(np.argmax(accuracies)) + 1,
            "epochs": len(rows),
            "seconds": seconds * len(rows),
        }
        write_json(path / "metrics.json", told | {"validation": {"accuracy": max(accuracies)}})
    return run


def told_seeds(path, *histories):
    """Write a folder of seeds with these validation accuracies."""
    configs = seeded(TrainConfig(epochs=len(histories[0])), len(histories))
    return [
        told_run(seed_folder(path, config.seed), accuracies, config=config)
        for config, accuracies in zip(configs, histories, strict=True)
    ]


def rising(epochs, best, seed=0):
    """Return accuracies that rise to about ``best``, with noise."""
    noise = np.random.default_rng(seed).normal(0, 0.01, epochs)
    return (best * (1 - np.exp(-np.arange(1, epochs + 1) / 8)) + noise).tolist()
