"""Train a network into a run folder. New and resumed runs use the same code."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

import fertools
from fertools.backend import Device
from fertools.contract import LABELS, METRICS_FILE
from fertools.data import SPLITS, Dataset, Split
from fertools.data.source import lasting
from fertools.errors import ConfigError, MissingExtraError, ModelError, RunError
from fertools.evaluation import evaluate
from fertools.files import write_json
from fertools.models import IMAGENET, NETWORKS, build, build_pretrained, ensemble
from fertools.models.inference import load, load_as, probabilities, weights_sha256
from fertools.provenance import (
    earlier_commands,
    label,
    origins,
    train_command,
    unknown_note,
    unknown_origins,
)
from fertools.training.augmentation import AugmentedInput, to_levels
from fertools.training.batches import Batches, for_fit
from fertools.training.callbacks import EpochEnd, EpochSeeds, Observer
from fertools.training.camera import Camera
from fertools.training.checkpoint import load_state
from fertools.training.config import AUGMENTATIONS, Augmentation, TrainConfig
from fertools.training.distillation import DistillConfig, soft_targets, teacher_file
from fertools.training.figures import history_figure
from fertools.training.network import IMAGES as STATISTICS_IMAGES
from fertools.training.network import Mixup, SoftTargetLoss, Store, in_fast_layers, scale_dropout
from fertools.training.optimizer import build_optimizer, epoch_rate, is_over
from fertools.training.parallel import check_agreement, check_split, split_over
from fertools.training.run import Run, best_epoch
from fertools.training.versions import Versions

#: Steps per call on a GPU, to save Python's overhead; a CPU step is long enough by itself.
GPU_STEPS_PER_CALL = 16


def new_run(
    path: Path,
    config: TrainConfig,
    dataset: Dataset,
    source: str,
    device: Device,
    weights: Path | str | None = None,
    distillation: DistillConfig | None = None,
    teachers: Sequence[Path] = (),
    *,
    other_data: bool = False,
) -> Run:
    """Make a run folder.

    Arguments:
        path: the folder; it must be missing or empty.
        config: the configuration.
        dataset: the training data.
        source: where the data was read from, to find it again.
        device: the device, from ``select_device``.
        weights: first weights instead of random ones: a ``.keras`` file of the same network, or, for networks
            that have them, "imagenet", which Keras may download, or its ``.h5`` file.
        distillation: how ``teachers`` count; None to learn from the labels alone.
        teachers: runs, export folders or ``.keras`` files of networks of ours to learn from.
        other_data: accept ``weights`` and ``teachers`` trained on other data than ``dataset``, which may
            contain images of its test split. The run's notes then say so.

    Raises:
        RunError: ``path`` is taken, a teacher has no finished epoch, or weights or a teacher were made from
            other data.
        DataError: the data lacks a split; without a test split nothing could be exported.
        ModelError: ``weights`` or a teacher is damaged, of another network or unavailable.
        ConfigError: there are no ImageNet weights for the network, it has no dropout to scale, a batch cannot
            be split over the devices, or mixup is to blend versions that the teachers have answered.
    """
    for name in SPLITS:
        dataset.split(name)
    with split_over(config.devices):
        check_split(min(config.batch_size, len(dataset.split("train"))))
    if config.mixup and distillation is not None and distillation.versions:
        raise ConfigError(
            f"mixup={config.mixup:g}: not with versions, whose blends the teachers would not see"
        )
    if config.start_share and weights is None:
        raise ConfigError(f"start_share={config.start_share}: only with weights to start from")
    if 0 < config.dropout_scale < 1:
        # Raises if the network has no dropout to scale.
        scale_dropout(build(config.model), config.dropout_scale)
    given = [*teachers, *([Path(weights)] if weights is not None and _is_file_of_ours(weights) else [])]
    others, unknown, notes = _other_origins(given, dataset, meant=other_data)
    facts: dict[str, Any] = {
        "data": {
            "source": lasting(source),
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "images": dataset.counts,
            "notes": [*dataset.notes, *notes],
        },
        "device": asdict(device),
        "precision": resolve_precision(config, device),
        "versions": versions(device.backend),
    }
    if others:
        facts["other_data"] = others
    if unknown:
        facts["unknown_data"] = unknown
    start = None
    if weights is not None:
        start = _start_network(config.model, weights)
        facts["weights"] = {"name": label(Path(weights)), "sha256": weights_sha256(start)}
    networks = []
    if distillation is not None:
        networks = [_teacher(teacher_file(teacher)) for teacher in teachers]
        facts["distillation"] = distillation.to_dict() | {
            "teachers": [
                {"name": label(teacher), "model": network.name, "sha256": weights_sha256(network)}
                for teacher, network in zip(teachers, networks, strict=True)
            ]
        }
    facts["commands"] = [*earlier_commands(given), train_command(label(path), config.told(), facts)]
    return Run.create(path, config, facts, start, networks)


def train(run: Run, dataset: Dataset, *, observer: Observer | None = None, tensorboard: bool = False) -> Run:
    """Train ``run`` from its last finished epoch (or the beginning) to its end.

    Arguments:
        run: the folder, from ``new_run`` or ``Run.open``.
        dataset: the data it was made for.
        observer: is notified of each step and epoch.
        tensorboard: also write TensorBoard logs into ``run/tensorboard``.

    Raises:
        RunError: the run is finished or was made for other data, another process trains it, or processes
            that train together disagree.
        DataError: the data lacks a train or validation split.
        ConfigError: a batch cannot be split over the devices.
    """
    run.check_unfinished()
    with run.alone(), split_over(run.config.devices):
        return _train(run, dataset, observer, tensorboard)


def _train(run: Run, dataset: Dataset, observer: Observer | None, tensorboard: bool) -> Run:
    config, facts = run.config, run.facts
    if facts["data"]["fingerprint"] != dataset.fingerprint:
        raise RunError(f"{run.path}: made with other data than {dataset.name}; give --data the same source")
    train_split, validation = dataset.split("train"), dataset.split("validation")
    history = run.history()
    check_agreement(f"{config} {dataset.fingerprint} {len(history)}")
    run.clean_up()

    keras.utils.set_random_seed(config.seed)
    with dtype_policy("float32"), split_over(config.devices, here=True):
        network = build(config.model)
    with dtype_policy(facts["precision"]):
        trained = in_fast_layers(build(config.model), on_cpu=facts["device"]["kind"] == "cpu")
    scale_dropout(trained, config.dropout_scale)
    batches = Batches(
        train_split,
        batch_size=config.batch_size,
        balance=config.class_balance,
        mixup=config.mixup,
        seed=config.seed,
        weighs_inside=_weighs_inside(config, facts),
    )
    check_split(batches.batch_size)
    model, versions = _model_around(trained, run, train_split)
    optimizer = build_optimizer(config, len(batches))
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        loss_weights=facts["distillation"]["label_share"] if "distillation" in facts else None,
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        steps_per_execution=GPU_STEPS_PER_CALL if facts["device"]["kind"] == "gpu" else 1,
    )
    start = load(run.start).get_weights() if run.start.is_file() else None
    if start is not None:
        trained.set_weights(start)
    # Here, and the metric above as an object: variables that a step makes have TensorFlow trace it twice.
    optimizer.build(model.trainable_variables)
    if history:
        load_state(run.state(len(history)), trained, optimizer)
    if config.schedule != "cosine":
        optimizer.learning_rate = epoch_rate(config, history)

    sample = np.random.default_rng(config.seed).permutation(len(train_split))[
        : STATISTICS_IMAGES * (4 if config.camera else 1)
    ]
    statistics, degraded = train_split.images[sample], None
    if config.camera:
        # BatchNorm statistics must come from images like those of training, degraded ones included. And the
        # best epoch is the one that is best on clean and degraded images together.
        with split_over(config.devices, here=True):
            statistics = spoilt(config, statistics, augmented=True)
            degraded = spoilt(config, validation.images)
    end = EpochEnd(run, trained, network, statistics, validation, degraded, observer, start)
    callbacks = [EpochSeeds(config.seed, batches), end, *versions]
    if tensorboard:
        callbacks.append(_tensorboard(run.path / "tensorboard"))
    if not is_over(config, history):
        model.fit(
            for_fit(batches),
            epochs=config.epochs,
            initial_epoch=len(history),
            callbacks=callbacks,
            shuffle=False,  # Batches does the shuffling
            verbose=0,
        )
    _finish(run, network, validation)
    return run


def _is_file_of_ours(weights: Path | str) -> bool:
    """Whether these weights are a network of ours, and not ImageNet's."""
    return weights != IMAGENET and Path(weights).suffix != ".h5"


def _other_origins(
    paths: Sequence[Path], dataset: Dataset, *, meant: bool
) -> tuple[list[dict[str, str]], list[str], list[str]]:
    """Return what data is behind weights and teachers.

    Returns:
        Name and fingerprint of the data that is not the run's own, the networks whose data is unknown, and
        notes on both.

    Raises:
        RunError: there is other data and ``meant`` is false: its training images may be test images here.
    """
    notes = []
    others: dict[str, dict[str, str]] = {}
    unknown = unknown_origins(paths)
    for path in paths:
        found = origins(path)
        for data in found:
            if data["fingerprint"] == dataset.fingerprint:
                continue
            how = "was trained on" if data is found[0] else "learned from a network of"
            if not meant:
                raise RunError(
                    f"{path}: {how} other data ({data['name']}) than {dataset.name}, perhaps images that are"
                    " test images here; --other-data accepts that"
                )
            notes.append(f"{label(path)} {how} other data, {data['name']}")
            others[data["fingerprint"]] = data
    return list(others.values()), unknown, [*notes, *map(unknown_note, unknown)]


def _start_network(name: str, weights: Path | str) -> keras.Model:
    """Build the network ``name`` with the requested weights."""
    with dtype_policy("float32"):
        if _is_file_of_ours(weights):
            return load_as(name, Path(weights))
        keras.utils.set_random_seed(0)  # the new head is random, and all seeds start from the same network
        return build_pretrained(name, str(weights))


def _model_around(trained: keras.Model, run: Run, split: Split) -> tuple[keras.Model, list[Versions]]:
    """Return the model for ``fit``: from indices of ``split``'s images to the probabilities of ``trained``.

    With it comes the callback that changes the images between epochs, if the run has versions of them.

    Only the student sees the camera's images: what a teacher cannot see in a degraded picture, it cannot
    teach. The layers in between, and the teachers, are in no saved file.
    """
    config, facts = run.config, run.facts
    distillation = facts.get("distillation", {})
    count = distillation.get("versions", 0)
    versions = []
    inputs = {"number": keras.Input((), dtype="int32", name="number")}
    store = Store(split.images[..., None], "images")
    augmentation = AUGMENTATIONS[config.augmentation]
    if count:
        augmentation = Augmentation(flip=augmentation.flip)  # the rest is in the versions
    images = AugmentedInput(augmentation, config.seed)(store(inputs["number"]))
    if config.mixup:
        inputs["share"] = keras.Input((), dtype="float32", name="share")
        images = Mixup()((images, inputs["share"]))
    seen = images
    if config.camera:
        seen = _camera(config, config.camera, config.seed)(images)
    answers = trained(seen)
    if distillation:
        if count:
            kept = Store(np.zeros((len(split), len(LABELS)), np.float32), "answers")
            targets = kept(inputs["number"])
            with split_over(config.devices, here=True):
                versions.append(Versions(run, count, split.images, _teachers(run), store, kept))
        else:
            targets = soft_targets(_teachers(run), images)
        compare = SoftTargetLoss(distillation["temperature"], share=1 - distillation["label_share"])
        compared = [answers, targets]
        if _weighs_inside(config, facts):
            inputs["weight"] = keras.Input((), dtype="float32", name="weight")
            compared.append(inputs["weight"])
        answers = compare(compared)
    return keras.Model(inputs, answers), versions


def _weighs_inside(config: TrainConfig, facts: dict[str, Any]) -> bool:
    """Whether class weights must be applied to the teachers' part of the loss: ``fit`` does not do it."""
    return "distillation" in facts and config.class_balance == "weights"


def _camera(config: TrainConfig, share: float, seed: int) -> Camera:
    return Camera(share, config.camera_strength, tuple(config.camera_kinds.split(",")), seed)


def spoilt(config: TrainConfig, images: NDArray[np.uint8], *, augmented: bool = False) -> NDArray[np.uint8]:
    """Pass images through the camera: all of them, or augmented and with the share of training.

    Arguments:
        config: of the run; its seed gives the same pixels each time.
        images: uint8 (n, 48, 48), as is the result.
        augmented: augment, and degrade the same share as in training.
    """
    augmentation = AUGMENTATIONS[config.augmentation if augmented else "none"]
    seen = AugmentedInput(augmentation, config.seed)(images[..., None], training=True)
    # From one seed, augmentation and camera would draw the same numbers: all bright images would be shifted.
    share, seed = (config.camera, config.seed + 1) if augmented else (1.0, config.seed)
    seen = _camera(config, share, seed)(seen, training=True)
    return to_levels(seen)


def _teachers(run: Run) -> list[keras.Model]:
    """Load the teachers of a run in its precision, under names that Keras accepts beside each other."""
    with dtype_policy(run.facts["precision"]):
        teachers = [_teacher(file) for file in run.teachers]
    for number, teacher in enumerate(teachers, 1):
        teacher.name = f"teacher{number}"
    return teachers


def _teacher(file: Path) -> keras.Model:
    """Load a network of ours, under the current dtype policy, as not trainable."""
    network = load(file)
    if network.name == ensemble.NAME:
        network = ensemble.under_policy(network)
    elif network.name in NETWORKS:
        network = load_as(network.name, file)
    else:
        raise ModelError(
            f"{file}: not a network of fertools; a teacher is an ensemble or one of {', '.join(NETWORKS)}"
        )
    network.trainable = False
    return network


def _finish(run: Run, network: keras.Model, validation: Split) -> None:
    """Draw and measure; the file that is written last marks the run as finished."""
    history = run.history()
    history_figure(history, run.path / "history.png")
    network.load_weights(run.best)
    with split_over(run.config.devices, here=True):
        measured = evaluate(probabilities(network, validation.images), validation.labels)
    write_json(
        run.path / METRICS_FILE,
        {
            "best_epoch": best_epoch(history).epoch,
            "epochs": len(history),
            "seconds": round(sum(row.seconds for row in history), 1),
            "validation": measured.to_dict(),
        },
    )


def _tensorboard(path: Path) -> keras.callbacks.Callback:
    # Otherwise Keras fails in the middle of fit.
    if find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard")
    return keras.callbacks.TensorBoard(path, write_graph=False)


def resolve_precision(config: TrainConfig, device: Device) -> str:
    """Return the dtype policy of ``config.precision`` on ``device``."""
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
    """Return the versions of Python, fertools, Keras, numpy and ``packages``, given by their import names."""
    names = ("keras", "numpy", *packages)
    found = {name: str(import_module(name).__version__) for name in names}
    return {"python": platform.python_version(), "fertools": fertools.__version__, **found}
