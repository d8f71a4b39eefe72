"""Train a network into a run folder. A new run and a resumed one take the same path."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from fertools.data import SPLITS, Dataset
from fertools.errors import RunError
from fertools.evaluation import evaluate
from fertools.files import write_json
from fertools.models import build
from fertools.models.prediction import probabilities
from fertools.training.augmentation import AugmentedInput
from fertools.training.backend import Device
from fertools.training.batches import Batches
from fertools.training.callbacks import EpochEnd, EpochSeeds, Observer, Replay
from fertools.training.config import AUGMENTATIONS, TrainConfig
from fertools.training.figure import history_figure
from fertools.training.optimizer import build_optimizer
from fertools.training.run import Run


def new_run(path: Path, config: TrainConfig, dataset: Dataset, source: str, device: Device) -> Run:
    """Make a run folder for training on ``dataset``, read from ``source``, on ``device``.

    Raises RunError if ``path`` is taken, DataError if the data lacks a train or validation split.
    """
    for name in ("train", "validation"):
        dataset.split(name)
    facts = {
        "data": {
            "source": source,
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "images": {name: int((dataset.usage == code).sum()) for code, name in enumerate(SPLITS)},
            "notes": list(dataset.notes),
        },
        "device": asdict(device),
        "precision": resolve_precision(config, device),
        "versions": versions(device.backend),
    }
    return Run.create(path, config, facts)


def train(run: Run, dataset: Dataset, *, observer: Observer | None = None, tensorboard: bool = False) -> Run:
    """Train ``run`` from its last finished epoch (or the beginning) to its end.

    Arguments:
        run: the folder, from ``new_run`` or ``Run.open``.
        dataset: the data it was made for.
        observer: is told of each step and epoch.
        tensorboard: also write TensorBoard logs into ``run/tensorboard``.

    Raises RunError if the run is finished or was made for other data, DataError if the data lacks a
    train or validation split.
    """
    run.check_unfinished()
    config, facts = run.config, run.facts
    if facts["data"]["fingerprint"] != dataset.fingerprint:
        raise RunError(f"{run.path}: made with other data than {dataset.name}; give --data the same source")
    train_split, validation = dataset.split("train"), dataset.split("validation")
    history = run.history()

    keras.utils.set_random_seed(config.seed)
    with dtype_policy("float32"):
        network = build(config.model)
    with dtype_policy(facts["precision"]):
        trained = build(config.model)
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    augmented = AugmentedInput(AUGMENTATIONS[config.augmentation], config.seed)(images)
    model = keras.Model(images, trained(augmented))

    batches = Batches(
        train_split,
        batch_size=config.batch_size,
        balance=config.class_balance,
        seed=config.seed,
        epoch=len(history),
    )
    optimizer = build_optimizer(config, len(batches))
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
    )
    if history:
        optimizer.build(model.trainable_variables)
        model.load_weights(run.weights(len(history)))
        if config.schedule != "cosine":
            optimizer.learning_rate = config.learning_rate  # where the replay starts from

    counting = counting_callbacks(config)
    callbacks = [
        EpochSeeds(config.seed),
        EpochEnd(run, trained, network, validation, observer),
        *counting,
        Replay(history, counting),
    ]
    if tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(run.path / "tensorboard"))
    if len(history) < config.epochs:
        model.fit(batches, epochs=config.epochs, initial_epoch=len(history), callbacks=callbacks, verbose=0)
    _finish(run, dataset)
    return run


def _finish(run: Run, dataset: Dataset) -> None:
    history = run.history()
    history_figure(history, run.path / "history.png")
    best = max(history, key=lambda row: row.val_accuracy)
    validation = dataset.split("validation")
    measured = evaluate(
        probabilities(keras.saving.load_model(run.best), validation.images), validation.labels
    )
    write_json(
        run.path / "metrics.json",
        {
            "best_epoch": best.epoch,
            "epochs": len(history),
            "seconds": round(sum(row.seconds for row in history), 1),
            "validation": measured.to_dict(),
        },
    )


def counting_callbacks(config: TrainConfig) -> list[keras.callbacks.Callback]:
    """Keras' plateau schedule and early stopping, where the configuration wants them."""
    callbacks: list[keras.callbacks.Callback] = []
    if config.schedule == "plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                "val_loss", factor=config.plateau_factor, patience=config.plateau_patience
            )
        )
    if config.early_stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=config.early_stopping)
        )
    return callbacks


def resolve_precision(config: TrainConfig, device: Device) -> str:
    """The dtype policy that ``config.precision`` means on ``device``."""
    if config.precision != "auto":
        return config.precision
    return "mixed_bfloat16" if device.has_bfloat16 else "float32"


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers under the Keras dtype policy ``name``."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def versions(*packages: Any) -> dict[str, str]:
    """Versions of Python, fertools, Keras and ``packages``."""
    names = ("fertools", "keras", "numpy", *packages)
    return {"python": platform.python_version()} | {name: version(name) for name in names}
