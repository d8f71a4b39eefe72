"""The Keras optimizer and learning-rate schedule that a configuration asks for."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from fertools.training.config import TrainConfig


class TimeDecay:
    """Before an optimizer among the bases of a class: divides its rate by 1 + ``rate_decay`` x step.

    Not a schedule, because the rate of an optimizer that has one cannot be set, as a plateau does.
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
        common |= {"weight_decay": config.weight_decay}  # it insists on one
    if config.learning_rate_decay:
        kind = type(kind.__name__, (TimeDecay, kind), {"rate_decay": config.learning_rate_decay})
    optimizer = kind(rate, **common)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def ema_momentum(config: TrainConfig, steps: int) -> float:
    """The momentum of the average, lowered so that it reaches back over a tenth of the run at most.

    An average over 1000 steps would still hold the random first weights at the end of a short run.
    """
    return max(min(config.ema, 1 - 10 / steps), 0.0)
