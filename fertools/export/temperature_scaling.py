"""Temperature scaling: confidence that matches accuracy (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.data import Split
from fertools.evaluation.metrics import calibration_error

if TYPE_CHECKING:
    import keras


Probabilities = NDArray[np.float32]

#: Range of temperatures. For a network without a mistake on the split the optimum is 0, which would multiply
#: the rounding errors of its logits without bound.
TEMPERATURES = (0.2, 5.0)
#: Smaller probabilities are replaced by this one: float32 ends there, and 0 has no logarithm.
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class TemperatureScaling:
    """A temperature, and the calibration error on the validation split before and after; shares in 0..1."""

    #: The last layer's logits are divided by it; 1.0 if the network was left as it was.
    temperature: float
    ece_before: float
    ece_after: float
    #: Why the network was left as it was, or None.
    unscaled_because: str | None = None

    def __str__(self) -> str:
        before = f"ECE {self.ece_before:.2%} on the validation split"
        if self.unscaled_because:
            return f"no temperature scaling ({self.unscaled_because}): {before}"
        return f"temperature {self.temperature:.4g}: {before} before, {self.ece_after:.2%} after"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def scale_temperature(network: keras.Model, validation: Split) -> TemperatureScaling:
    """Fit a temperature and, if it lowers the calibration error, divide the last layer by it, in place.

    Arguments:
        network: is changed only if its last layer is a Dense one with softmax.
        validation: images and labels to fit on, and to measure on with a single view.

    The classes keep their order, so no label changes.
    """
    from fertools.models.inference import probabilities

    trained = probabilities(network, validation.images)
    before = calibration_error(trained, validation.labels)
    if not _ends_in_softmax(network):
        return TemperatureScaling(1.0, before, before, "the last layer is not a Dense one with softmax")
    temperature = fit_temperature(trained, validation.labels)
    after = calibration_error(rescaled(trained, temperature), validation.labels)
    if not after < before:
        return TemperatureScaling(
            1.0, before, before, f"{temperature:.4g}, the best, does not lower the error"
        )
    last = network.layers[-1]
    last.set_weights([array / np.float32(temperature) for array in last.get_weights()])
    return TemperatureScaling(temperature, before, after)


def fit_temperature(probabilities: Probabilities, labels: NDArray[np.uint8]) -> float:
    """Return the temperature with the lowest log loss, for (n, 7) and (n,), n at least 1."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = _logits(probabilities)
    true = logits[np.arange(len(labels)), labels]

    def loss(logarithm: float) -> float:
        factor = np.exp(-logarithm)
        return float(np.mean(logsumexp(logits * factor, axis=1) - true * factor))

    # Convex in 1/T, so there is a single minimum over log T, too.
    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def rescaled(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return the softmax of the logits divided by ``temperature``: p ** (1 / T), normalized to sum to 1.

    float32 (n, 7) in and out.
    """
    from scipy.special import softmax

    rows: NDArray[np.float64] = softmax(_logits(probabilities) / temperature, axis=1)
    return rows.astype(np.float32)


def _logits(probabilities: Probabilities) -> NDArray[np.float64]:
    """Logits that softmax turns into ``probabilities``."""
    logits: NDArray[np.float64] = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
    return logits


def _ends_in_softmax(network: keras.Model) -> bool:
    import keras

    last = network.layers[-1]
    return isinstance(last, keras.layers.Dense) and last.activation is keras.activations.softmax
