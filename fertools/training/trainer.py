"""Train a network into a run folder. A new run and a resumed one take the same path."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

import fertools
from fertools.backend import Device
from fertools.data import SPLITS, Dataset, Split
from fertools.errors import MissingExtraError, ModelError, RunError
from fertools.evaluation import evaluate
from fertools.files import write_json
from fertools.models import build
from fertools.models.prediction import load, probabilities, weights_sha256
from fertools.training.augmentation import AugmentedInput
from fertools.training.batches import Batches
from fertools.training.callbacks import EpochEnd, EpochSeeds, Observer
from fertools.training.config import AUGMENTATIONS, TrainConfig
from fertools.training.feedback import best_epoch, is_over, plateau_rate
from fertools.training.figure import history_figure
from fertools.training.optimizer import build_optimizer
from fertools.training.run import Run


def new_run(
    path: Path,
    config: TrainConfig,
    dataset: Dataset,
    source: str,
    device: Device,
    weights: Path | None = None,
) -> Run:
    """Make a run folder.

    Arguments:
        path: where; must not hold anything.
        config: what the run is told.
        dataset: what to train on.
        source: where it was read from, to find it again.
        device: what to train on, from ``select_device``.
        weights: a ``.keras`` file of the same network to start from instead of random weights.

    Raises RunError if ``path`` is taken, DataError if the data lacks a train or validation split,
    ModelError if ``weights`` is damaged or of another network.
    """
    for name in ("train", "validation"):
        dataset.split(name)
    facts: dict[str, Any] = {
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
    start = None
    if weights is not None:
        start = _start_network(config.model, weights)
        facts["weights"] = {"name": weights.name, "sha256": weights_sha256(start)}
    return Run.create(path, config, facts, start)


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
    run.remove_leftovers()

    keras.utils.set_random_seed(config.seed)
    with dtype_policy("float32"):
        network = build(config.model)
    with dtype_policy(facts["precision"]):
        trained = build(config.model)
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    augmented = AugmentedInput(AUGMENTATIONS[config.augmentation], config.seed)(images)
    model = keras.Model(images, trained(augmented))

    batches = Batches(
        train_split, batch_size=config.batch_size, balance=config.class_balance, seed=config.seed
    )
    optimizer = build_optimizer(config, len(batches))
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
    )
    if run.start.is_file():
        trained.set_weights(load(run.start).get_weights())
    if history:
        _restore(run.weights(len(history)), model)
    if config.schedule == "plateau":
        optimizer.learning_rate = plateau_rate(config, history)

    callbacks = [EpochSeeds(config.seed, batches), EpochEnd(run, trained, network, validation, observer)]
    if tensorboard:
        callbacks.append(_tensorboard(run.path / "tensorboard"))
    if not is_over(config, history):
        model.fit(
            batches,
            epochs=config.epochs,
            initial_epoch=len(history),
            callbacks=callbacks,
            shuffle=False,  # Batches shuffles by itself, see there
            verbose=0,
        )
    _finish(run, network, validation)
    return run


def _start_network(name: str, weights: Path) -> keras.Model:
    """The network ``name`` with the weights of a file."""
    given = load(weights).get_weights()
    with dtype_policy("float32"):
        network = build(name)
    if [array.shape for array in given] != [array.shape for array in network.get_weights()]:
        raise ModelError(f"{weights}: is not a {name} network; choose another file, or --model")
    network.set_weights(given)
    return network


def _restore(state: Path, model: keras.Model) -> None:
    """Load what ``EpochEnd`` saved: weights, averages and the optimizer's state."""
    model.optimizer.build(model.trainable_variables)
    try:
        model.load_weights(state)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{state}: missing or damaged ({error}); train anew") from error


def _finish(run: Run, network: keras.Model, validation: Split) -> None:
    """Draw and measure; the last file to be written is the one that makes the run a finished one."""
    history = run.history()
    history_figure(history, run.path / "history.png")
    network.load_weights(run.best)
    measured = evaluate(probabilities(network, validation.images), validation.labels)
    write_json(
        run.path / "metrics.json",
        {
            "best_epoch": best_epoch(history).epoch,
            "epochs": len(history),
            "seconds": round(sum(row.seconds for row in history), 1),
            "validation": measured.to_dict(),
        },
    )


def _tensorboard(path: Path) -> keras.callbacks.Callback:
    # Keras finds out in the middle of fit.
    if find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard")
    return keras.callbacks.TensorBoard(path, write_graph=False)


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


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, fertools, Keras, numpy and ``packages``, which are named as they are imported."""
    names = ("keras", "numpy", *packages)
    found = {name: str(import_module(name).__version__) for name in names}
    return {"python": platform.python_version(), "fertools": fertools.__version__, **found}
