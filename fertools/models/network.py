"""The facts about a network besides its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Published:
    """A result that a network was published with: not ours, and not measured here."""

    #: A share of the images of ``split``.
    accuracy: float
    #: What it was measured on, in the words of FER2013: "PublicTest", "PrivateTest".
    split: str
    #: How it was trained.
    training: str
    #: The ensemble whose result this is, if it is not the network's own.
    ensemble: str = ""

    def __str__(self) -> str:
        whose = f", {self.ensemble}" if self.ensemble else ""
        return f"{self.accuracy:.2%} on {self.split}, {self.training}{whose}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network by name.

    Its parameters and multiply-adds are written down so that a list need not build it; a test holds them
    equal to those of the layers.
    """

    name: str
    #: One line.
    text: str
    #: Builds it with fresh weights under the current dtype policy: float32 (batch, 48, 48, 1) in 0..1 ->
    #: float32 (batch, 7) probabilities, a softmax. Other inputs are made by its own first layers.
    build: Callable[[], keras.Model]
    #: Builds it on ImageNet's weights, where there are any for it: "imagenet", which Keras may download, or
    #: the ``.h5`` file that it would.
    pretrained: Callable[[str], keras.Model] | None = None
    parameters: int
    #: Of one image, in convolutions and dense layers.
    multiply_adds: int
    #: What the first layers make of the image.
    input: str = "48x48x1, 0..1"
    published: tuple[Published, ...] = ()
    #: The recipes that it was published with, by name: fields of ``TrainConfig``. "original" is that of the
    #: published results. What they leave out is ``fertools.training.config.PLAIN``.
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
