"""The configuration of a training run, a frozen dataclass that is saved with the run, and recipes by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fertools.contract import IMAGE_SIZE
from fertools.errors import ConfigError
from fertools.models import NETWORKS, find

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("cosine", "plateau", "constant")
BALANCES = ("none", "weights", "oversample")
PRECISIONS = ("auto", "float32", "mixed_bfloat16")
DEVICES = ("auto", "cpu", "gpu")
DEVICE_COUNTS = ("one", "all")

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

    The defaults are the recipe of the shipped reference model without its teacher; docs/recipe.md has the
    reasons and docs/ablation.md the figures.
    """

    model: str = "sequential"
    epochs: int = 60
    batch_size: int = 128
    optimizer: str = "sgd"
    #: Nesterov momentum of SGD; 0 switches it off.
    momentum: float = 0.9
    #: The peak of the schedule.
    learning_rate: float = 0.05
    schedule: str = "cosine"
    #: At step s, the rate is divided by 1 + decay * s, as the ``decay`` of earlier Keras did.
    learning_rate_decay: float = 0.0
    #: "E:F,E:F,...": from epoch E to the next one, the schedule's rate is multiplied by F. Not with cosine.
    learning_rate_steps: str = ""
    #: Epochs of linear warm-up before the cosine; cut to a tenth of the run in short ones.
    warmup_epochs: int = 3
    #: The plateau schedule multiplies the rate by this factor ...
    plateau_factor: float = 0.1
    #: ... after this many epochs without a lower validation loss.
    plateau_patience: int = 2
    #: Decoupled: each step shrinks kernels by learning rate x decay; biases and BatchNorm are left alone.
    weight_decay: float = 4e-3
    label_smoothing: float = 0.1
    augmentation: str = "strong"
    #: Share of the images that are degraded as by a bad camera, after the augmentation; 0 degrades none.
    #: Teachers see them before it.
    camera: float = 0.0
    #: Which degradations it applies, and the factor on their strength.
    camera_kinds: str = ",".join(CAMERA_KINDS)
    camera_strength: float = 1.0
    #: Images and labels are blended in pairs by shares from Beta(mixup, mixup); 0 is no mixup.
    mixup: float = 0.0
    #: Factor on the network's own dropout rates in training; 0 is no dropout.
    dropout_scale: float = 0.0
    class_balance: str = "none"
    #: Stop after this many epochs without a better validation accuracy; 0 never stops early.
    early_stopping: int = 0
    #: Momentum of the moving average of the weights, which is then what is validated and saved;
    #: 0 switches it off. The average reaches back over a tenth of the run at most.
    ema: float = 0.999
    #: Share of the weights that the run started from in those that are validated and saved: keeps what they
    #: could while learning what they could not (Wortsman et al. 2022, arXiv:2109.01903).
    start_share: float = 0.0
    #: "auto" is mixed_bfloat16 where that is faster than float32, see ``fertools.backend``.
    precision: str = "auto"
    device: str = "auto"
    #: "all" splits each batch over all devices of that kind, which Keras does on JAX alone.
    devices: str = "one"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (
            ("model", tuple(NETWORKS)),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("augmentation", tuple(AUGMENTATIONS)),
            ("class_balance", BALANCES),
            ("precision", PRECISIONS),
            ("device", DEVICES),
            ("devices", DEVICE_COUNTS),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 2, 65_536),
            ("momentum", 0.0, 0.99999),
            ("learning_rate", 1e-9, 100.0),
            ("learning_rate_decay", 0.0, 1.0),
            ("warmup_epochs", 0, 1_000),
            ("plateau_factor", 1e-6, 0.999),
            ("plateau_patience", 1, 1_000),
            ("weight_decay", 0.0, 1.0),
            ("label_smoothing", 0.0, 0.9),
            ("camera", 0.0, 1.0),
            ("camera_strength", 0.1, 1.5),
            ("mixup", 0.0, 10.0),
            ("dropout_scale", 0.0, 1.0),
            ("early_stopping", 0, 100_000),
            ("ema", 0.0, 0.99999),
            ("start_share", 0.0, 0.99),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            if type(value) is not int and not (type(value) is float and type(low) is float):
                kind = "number" if type(low) is float else "whole number"
                raise ConfigError(f"{name}={value!r}: must be a {kind}")
            if not low <= value <= high:
                raise ConfigError(f"{name}={value}: must lie between {low} and {high}")

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
    def from_dict(cls, fields: dict[str, Any]) -> TrainConfig:
        """Rebuild a configuration from ``to_dict``'s fields. Raises ConfigError for unknown ones."""
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ConfigError(f"unknown training options: {', '.join(sorted(unknown))}")
        return cls(**fields)


def idle_options(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that have no effect -> the option that is responsible, as ``name=value``.

    Arguments:
        fields: all fields of a TrainConfig.
    """
    needed = {
        "momentum": ("optimizer", fields["optimizer"] == "sgd"),
        "warmup_epochs": ("schedule", fields["schedule"] == "cosine"),
        "plateau_factor": ("schedule", fields["schedule"] == "plateau"),
        "plateau_patience": ("schedule", fields["schedule"] == "plateau"),
        "camera_kinds": ("camera", fields["camera"] > 0),
        "camera_strength": ("camera", fields["camera"] > 0),
    }
    return {name: f"{other}={fields[other]}" for name, (other, used) in needed.items() if not used}


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
