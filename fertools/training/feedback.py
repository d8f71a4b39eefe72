"""How the validation figures steer a run. Functions of the history alone, so a resumed run needs no more."""

from __future__ import annotations

from collections.abc import Sequence

from fertools.training.config import TrainConfig
from fertools.training.run import Epoch

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
    """Whether all epochs are done, or the validation accuracy has not risen for ``early_stopping`` epochs."""
    if len(history) >= config.epochs:
        return True
    if not (history and config.early_stopping):
        return False
    return history[-1].epoch - best_epoch(history).epoch >= config.early_stopping


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The first of the epochs with the highest validation accuracy."""
    return max(history, key=lambda row: row.val_accuracy)
