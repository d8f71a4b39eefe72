"""Callbacks between the epochs of ``fit``. A run can be resumed from the end of an epoch."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from fertools.data import Split
from fertools.errors import RunError
from fertools.evaluation.metrics import accuracy, log_loss
from fertools.files import replacing
from fertools.models.inference import probabilities
from fertools.training.batches import Batches
from fertools.training.checkpoint import save_state
from fertools.training.network import estimate_statistics
from fertools.training.optimizer import epoch_rate, is_over
from fertools.training.parallel import split_over
from fertools.training.run import Epoch, Run

#: What Keras calls the variable of a random layer's generator.
SEED_STATE = "seed_generator_state"


class Observer(Protocol):
    """Receives the progress of a training."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A training step is done; both count from 1."""

    def epoch(self, row: Epoch, best: bool) -> None:
        """An epoch is done, measured and saved."""


class EpochSeeds(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Makes all randomness a function of the seed and the epoch, so that it need not be saved."""

    def __init__(self, seed: int, batches: Batches) -> None:
        super().__init__()
        self.seed = seed
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Shuffle the images, seed dropout and augmentation."""
        self.batches.shuffle(epoch)
        states = [variable for variable in self.model.variables if variable.name == SEED_STATE]
        for index, variable in enumerate(states):
            state = np.random.SeedSequence([self.seed, epoch, index]).generate_state(2)
            variable.assign(ops.convert_to_tensor(state, dtype=variable.dtype))


class EpochEnd(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Measures the network on the validation split and commits the epoch to the run folder.

    It adds ``val_loss`` and ``val_accuracy`` to the logs, for the callbacks after it, and with a camera
    ``val_degraded_accuracy``.

    Arguments:
        run: the folder to write.
        trained: the network inside the model that is being fitted.
        network: its float32 twin, which gets the (averaged) weights, is validated and saved.
        statistics: uint8 (n, 48, 48) images, from which the BatchNormalization statistics of averaged weights
            are estimated.
        validation: the split that decides which epoch is the best.
        degraded: its images as the camera degrades them, which then decide as much; None without a camera.
        observer: is notified of each epoch.
        start: the weights that the run started from, or None for random ones.
    """

    def __init__(
        self,
        run: Run,
        trained: keras.Model,
        network: keras.Model,
        statistics: NDArray[np.uint8],
        validation: Split,
        degraded: NDArray[np.uint8] | None,
        observer: Observer | None,
        start: list[NDArray[np.float32]] | None = None,
    ) -> None:
        super().__init__()
        self.start = start
        self.run = run
        self.trained = trained
        self.network = network
        self.statistics = statistics
        self.validation = validation
        self.degraded = degraded
        self.observer = observer
        self.config = run.config
        self.history = run.history()
        self.best = max((row.score for row in self.history), default=-1.0)
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the observer."""
        if self.observer is not None:
            # With several steps per call, Keras counts the last call of an epoch as a full one.
            step = min(batch + 1, self.params["steps"])
            self.observer.step(len(self.history) + 1, step, float((logs or {}).get("loss", math.nan)))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate, save the network if it is the best, then the state, then the history: in this order.

        Writing the history commits the epoch: if killed before, the run repeats it.
        """
        logs = {} if logs is None else logs
        model = self.model  # on JAX, reading the attribute writes the trained state back into it
        copy_weights(model.optimizer, self.trained, self.network)
        if self.start is not None and self.config.start_share:
            mix_weights(self.network, self.start, self.config.start_share)
        if self.config.ema or self.config.start_share:
            estimate_statistics(self.network, self.statistics)
        labels = self.validation.labels
        with split_over(self.config.devices, here=True):
            predicted = probabilities(self.network, self.validation.images)
            logs["val_loss"], logs["val_accuracy"] = log_loss(predicted, labels), accuracy(predicted, labels)
            if self.degraded is not None:
                logs["val_degraded_accuracy"] = accuracy(probabilities(self.network, self.degraded), labels)
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            raise RunError(
                f"{self.run.path}: the loss is NaN or infinite in epoch {epoch + 1}; train again with a lower"
                " learning rate"
            )
        row = Epoch(
            epoch=epoch + 1,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]),
            val_loss=logs["val_loss"],
            val_accuracy=logs["val_accuracy"],
            val_degraded_accuracy=logs.get("val_degraded_accuracy"),
            learning_rate=float(model.optimizer.learning_rate),
            seconds=round(time.perf_counter() - self.started, 3),
        )
        best = row.score > self.best
        if best:
            self.best = row.score
            with replacing(self.run.candidate(row.epoch)) as temporary:
                self.network.save(temporary)
        save_state(self.run.state(row.epoch), self.trained, model.optimizer)
        self.history.append(row)
        self.run.commit(self.history)
        if self.config.schedule != "cosine":
            model.optimizer.learning_rate = epoch_rate(self.config, self.history)
        model.stop_training = is_over(self.config, self.history)
        if self.observer is not None:
            self.observer.epoch(row, best)


def mix_weights(network: keras.Model, start: list[NDArray[np.float32]], share: float) -> None:
    """Average the weights of ``network`` with ``start``, which get this share."""
    network.set_weights(
        [
            (1 - share) * weight + share * other
            for weight, other in zip(network.get_weights(), start, strict=True)
        ]
    )


def copy_weights(optimizer: keras.optimizers.Optimizer, trained: keras.Model, network: keras.Model) -> None:
    """Copy the averaged weights, where the optimizer keeps them, and all others into ``network``.

    The values are copied, because on JAX ``predict`` donates the network's own buffers.
    """
    network.set_weights([np.array(value) for value in trained.get_weights()])
    if optimizer.use_ema:
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(network.trainable_variables, averages, strict=True):
            variable.assign(np.array(average.numpy()))
