"""The configuration of a training run, a frozen dataclass that is saved with the run, and recipes by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fertools.contract import IMAGE_SIZE
from fertools.errors import ConfigError
from fertools.models import NETWORKS, find
from fertools.training.options import check, choice, number, options_of, text

#: The camera's degradations of a training image, in this order; training/camera.py has the strengths.
CAMERA_KINDS = ("light", "defocus", "motion", "resolution", "noise", "jpeg")


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may be moved. Every image draws its own values, uniformly."""

    flip: bool = False
    #: Largest rotation, in degrees, either way.
    rotation: float = 0.0
    #: Largest shift along each axis, in pixels, either way.
    shift: float = 0.0
    #: The size is multiplied by a factor between 1/(1+scale) and 1+scale.
    scale: float = 0.0
    #: Largest change of brightness, on the 0..1 scale, and of contrast, as a share.
    brightness: float = 0.0
    contrast: float = 0.0
    #: Probability of erasing one rectangle (Zhong et al. 2017, arXiv:1708.04896).
    erasing: float = 0.0


AUGMENTATIONS = {
    "none": Augmentation(),
    "flip": Augmentation(flip=True),
    # Named by their zoom, in percent. Shifts are a tenth of the image.
    "zoom10": Augmentation(flip=True, shift=IMAGE_SIZE / 10, scale=0.1),
    "zoom30": Augmentation(flip=True, shift=IMAGE_SIZE / 10, scale=0.3),
    "light": Augmentation(flip=True, rotation=8, shift=3, scale=0.1, brightness=0.1, contrast=0.1),
    "strong": Augmentation(
        flip=True, rotation=12, shift=5, scale=0.2, brightness=0.2, contrast=0.2, erasing=0.4
    ),
    # For the boxes of a detector, which are up to a third too large, too small or beside the face at times.
    "wide": Augmentation(
        flip=True, rotation=15, shift=6, scale=0.3, brightness=0.2, contrast=0.2, erasing=0.4
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training run besides its data. Raises ConfigError for bad values.

    The defaults are a recipe for the reference network without a teacher; docs/recipe.md has the reasons and
    docs/ablation.md the figures.
    """

    model: str = choice("sequential", NETWORKS, "Network to train.")
    epochs: int = number(60, 1, 100_000, "Passes over the training images.")
    batch_size: int = number(128, 2, 65_536, "Images per step.")
    optimizer: str = choice("sgd", ("sgd", "adam", "adamw"), "Optimizer.")
    momentum: float = number(0.9, 0, 0.99999, "Nesterov momentum of SGD; 0 switches it off.")
    learning_rate: float = number(0.05, 1e-9, 100, "Peak of the learning rate.")
    schedule: str = choice("cosine", ("cosine", "plateau", "constant"), "Learning-rate schedule.")
    # As the ``decay`` of earlier versions of Keras did.
    learning_rate_decay: float = number(
        0.0, 0, 1, "The rate is divided by 1 + this x step; 0 switches it off."
    )
    learning_rate_steps: str = text(
        "", "E:F,E:F,...: after epoch E the rate is F times --learning-rate. Not with cosine."
    )
    warmup_epochs: int = number(
        3, 0, 1_000, "Epochs of linear warm-up before the cosine, at most a tenth of all."
    )
    plateau_factor: float = number(
        0.1, 1e-6, 0.999, "Factor by which the plateau schedule multiplies the learning rate."
    )
    plateau_patience: int = number(
        2, 1, 1_000, "Epochs without a lower validation loss before the plateau schedule lowers the rate."
    )
    # Each step shrinks kernels by learning rate x decay; biases and BatchNorm are left alone.
    weight_decay: float = number(0.004, 0, 1, "Decoupled decay of kernels; 0 switches it off.")
    label_smoothing: float = number(0.1, 0, 0.9, "Share of the target spread over all classes.")
    augmentation: str = choice(
        "strong", AUGMENTATIONS, "Random changes of the training images; docs/training.md has a table."
    )
    camera: float = number(
        0.0,
        0,
        1,
        "Share of the images that go through a bad camera, which degrades most; teachers see the originals.",
    )
    camera_kinds: str = text(",".join(CAMERA_KINDS), "The camera's degradations to use, separated by commas.")
    camera_strength: float = number(1.0, 0.1, 1.5, "Factor on the strength of the camera's degradations.")
    mixup: float = number(
        0.0, 0, 10, "Mixup: blend pairs of images by shares from Beta(a, a); 0 switches it off."
    )
    dropout_scale: float = number(0.0, 0, 1, "Factor on the network's dropout rates; 0 switches dropout off.")
    class_balance: str = choice("none", ("none", "weights", "oversample"), "Class balancing.")
    early_stopping: int = number(
        0, 0, 100_000, "Stop after this many epochs without a better accuracy; 0 never stops early."
    )
    # The averages are what is validated and saved. They reach back over a tenth of the run at most.
    ema: float = number(
        0.999, 0, 0.99999, "Momentum of the moving average of the weights; 0 switches it off."
    )
    # Keeps what the first weights could do while learning more (Wortsman et al. 2022, arXiv:2109.01903).
    start_share: float = number(
        0.0,
        0,
        0.99,
        "Average the saved weights with those of --weights, which get this share; 0 is no average.",
    )
    precision: str = choice(
        "auto",
        ("auto", "float32", "mixed_bfloat16"),
        "Arithmetic; auto is bfloat16 where it is faster than float32.",
    )
    device: str = choice("auto", ("auto", "cpu", "gpu"), "Where to train; auto is the GPU if there is one.")
    devices: str = choice(
        "one", ("one", "all"), "Use one device, or split each batch over all of them (JAX only)."
    )
    seed: int = number(0, 0, 2**31 - 1, "Random seed.")

    def __post_init__(self) -> None:
        check(self)
        kinds = self.camera_kinds.split(",") if isinstance(self.camera_kinds, str) else [""]
        if len(set(kinds)) < len(kinds) or not set(kinds) <= set(CAMERA_KINDS):
            raise ConfigError(
                f"camera_kinds={self.camera_kinds!r}: must be some of {','.join(CAMERA_KINDS)}, with commas"
            )
        for name, why in idle_options(self.to_dict()).items():
            if getattr(self, name) != getattr(TrainConfig, name):
                raise ConfigError(f"{name}={getattr(self, name)}: has no effect with {why}; leave it out")

        try:
            good = all(epoch > 0 and 0 < factor < 1000 for epoch, factor in self.rate_factors().items())
        except (AttributeError, TypeError, ValueError):
            good = False
        if not good:
            raise ConfigError(
                f"learning_rate_steps={self.learning_rate_steps!r}: must be EPOCH:FACTOR,EPOCH:FACTOR,..."
            )
        if self.learning_rate_steps and self.schedule == "cosine":
            raise ConfigError("learning_rate_steps: go with schedule=plateau or constant, not with cosine")

    def told(self) -> dict[str, Any]:
        """Return the fields that have an effect beside the others, which recreate this configuration."""
        return {name: value for name, value in self.to_dict().items() if name not in idle_options(vars(self))}

    def rate_factors(self) -> dict[int, float]:
        """Epoch -> factor on the learning rate after it, from ``learning_rate_steps``."""
        steps = (step.split(":") for step in self.learning_rate_steps.split(",") if step)
        return {int(epoch): float(factor) for epoch, factor in steps}

    def steps_per_epoch(self, images: int) -> int:
        """Number of steps per epoch for ``images`` training images: whole batches, at least one."""
        return max(images // self.batch_size, 1)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Rebuild a configuration from ``to_dict``'s values. Raises ConfigError for unknown fields."""
        unknown = values.keys() - options_of(cls).keys()
        if unknown:
            raise ConfigError(f"unknown training options: {', '.join(sorted(unknown))}")
        return cls(**values)


def idle_options(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that have no effect -> the option that is responsible, as ``name=value``.

    Arguments:
        values: all fields of a TrainConfig.
    """
    needed = {
        "momentum": ("optimizer", values["optimizer"] == "sgd"),
        "warmup_epochs": ("schedule", values["schedule"] == "cosine"),
        "plateau_factor": ("schedule", values["schedule"] == "plateau"),
        "plateau_patience": ("schedule", values["schedule"] == "plateau"),
        "camera_kinds": ("camera", values["camera"] > 0),
        "camera_strength": ("camera", values["camera"] > 0),
    }
    return {name: f"{other}={values[other]}" for name, (other, used) in needed.items() if not used}


#: What a published recipe does not use unless it says so.
PLAIN: dict[str, Any] = {
    "schedule": "constant",
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "augmentation": "none",
    "dropout_scale": 1.0,
    "ema": 0.0,
    "precision": "float32",
}

#: "default" is ours, for any network; the others are those that some of the networks were published with.
RECIPES = tuple(
    dict.fromkeys(("default", *(name for network in NETWORKS.values() for name in network.recipes)))
)


def recipe(name: str, model: str) -> TrainConfig:
    """Return the recipe ``name`` for the network ``model``; change options with ``dataclasses.replace``.

    Raises:
        ConfigError: the network is unknown or has no such recipe.
    """
    published = find(model).recipes
    if name == "default":
        return TrainConfig(model=model)
    if name not in published:
        raise ConfigError(f"recipe={name!r}: {model} has only {', '.join(('default', *published))}")
    return TrainConfig(model=model, **{**PLAIN, **published[name]})
