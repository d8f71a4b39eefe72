"""Training a network into a run folder.

``TrainConfig``, ``RECIPES`` and ``Run`` are light; ``fertools.training.trainer`` imports Keras.
"""

from fertools.training.config import AUGMENTATIONS, RECIPES, Augmentation, TrainConfig, recipe
from fertools.training.distillation import DistillConfig
from fertools.training.run import Epoch, Run

__all__ = [
    "AUGMENTATIONS",
    "RECIPES",
    "Augmentation",
    "DistillConfig",
    "Epoch",
    "Run",
    "TrainConfig",
    "recipe",
]
