"""The optimizer, the learning-rate schedule and early stopping of a configuration.

Decisions by validation figures are a function of the history alone, so a resumed run needs no other state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from fertools.training.config import TrainConfig
from fertools.training.run import Epoch, best_epoch


class TimeDecay:
    """A mixin for optimizers: divides the learning rate by 1 + ``rate_decay`` x step.

    Not a schedule, because the plateau schedule sets the rate, which an optimizer with a schedule does not
    allow.
    """

    rate_decay: float

    def _get_current_learning_rate(self) -> Any:
        rate = super()._get_current_learning_rate()  # type: ignore[misc]  # the optimizer's
        return rate / (1 + self.rate_decay * ops.cast(self.iterations, "float32"))  # type: ignore[attr-defined]


def build_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Build the optimizer, with its schedule, decoupled weight decay and moving average."""
    steps = config.epochs * steps_per_epoch
    rate: float | keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.schedule == "cosine":
        warmup = min(config.warmup_epochs * steps_per_epoch, steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=max(steps - warmup, 1),
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    common = {
        "weight_decay": config.weight_decay or None,
        "use_ema": config.ema > 0,
        "ema_momentum": ema_momentum(config, steps),
    }
    if config.optimizer == "sgd":
        kind = keras.optimizers.SGD
        common |= {"momentum": config.momentum, "nesterov": config.momentum > 0}
    elif config.optimizer == "adam":
        kind = keras.optimizers.Adam
    else:
        kind = keras.optimizers.AdamW
        common |= {"weight_decay": config.weight_decay}  # Keras requires one
    if config.learning_rate_decay:
        kind = type(kind.__name__, (TimeDecay, kind), {"rate_decay": config.learning_rate_decay})
    optimizer = kind(rate, **common)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def ema_momentum(config: TrainConfig, steps: int) -> float:
    """Return the momentum of the average, lowered so that it reaches back over at most a tenth of the run.

    In a short run, an average over 1000 steps would still contain the random first weights at the end.
    """
    return max(min(config.ema, 1 - 10 / steps), 0.0)


#: By how much the validation loss must fall to count as lower.
SMALLEST_GAIN = 1e-4


def epoch_rate(config: TrainConfig, history: Sequence[Epoch]) -> float:
    """The learning rate of the next epoch, unless the cosine schedule sets it step by step."""
    rate = plateau_rate(config, history) if config.schedule == "plateau" else config.learning_rate
    factors = config.rate_factors()
    last = max((epoch for epoch in factors if epoch <= len(history)), default=None)
    return rate if last is None else rate * factors[last]


def plateau_rate(config: TrainConfig, history: Sequence[Epoch]) -> float:
    """The learning rate of the next epoch under the plateau schedule.

    It is multiplied by ``plateau_factor`` each time the validation loss has not fallen below its
    lowest value for ``plateau_patience`` epochs.
    """
    rate, lowest, waited = config.learning_rate, float("inf"), 0
    for row in history:
        if row.val_loss < lowest - SMALLEST_GAIN:
            lowest, waited = row.val_loss, 0
        else:
            waited += 1
        if waited == config.plateau_patience:
            rate, waited = rate * config.plateau_factor, 0
    return rate


def is_over(config: TrainConfig, history: Sequence[Epoch]) -> bool:
    """Whether all epochs are done, or the best is ``early_stopping`` epochs ago."""
    if len(history) >= config.epochs:
        return True
    if not (history and config.early_stopping):
        return False
    return history[-1].epoch - best_epoch(history).epoch >= config.early_stopping
