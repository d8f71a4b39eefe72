"""The Keras optimizer and learning-rate schedule that a configuration asks for."""

from __future__ import annotations

import keras

from fertools.training.config import TrainConfig


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
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **common)
    elif config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, **common)
    else:
        # AdamW insists on a decay.
        optimizer = keras.optimizers.AdamW(rate, **common | {"weight_decay": config.weight_decay})
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def ema_momentum(config: TrainConfig, steps: int) -> float:
    """The momentum of the average, lowered so that it reaches back over a tenth of the run at most.

    An average over 1000 steps would still hold the random first weights at the end of a short run.
    """
    return max(min(config.ema, 1 - 10 / steps), 0.0)
