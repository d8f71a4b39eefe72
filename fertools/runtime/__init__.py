"""Predict expressions on the device, with numpy and onnxruntime alone.

::

    from fertools.runtime import Predictor

    predictor = Predictor()                    # the model that ships with fertools
    prediction = predictor.predict("face.jpg")  # or bytes, a Pillow image, an array
    prediction.label, prediction.confidence

Pillow is imported when the first file is read; nothing of training, TensorFlow included, ever is.
"""

from fertools.errors import (
    ConfigError,
    FertoolsError,
    ForkError,
    ImageError,
    MissingExtraError,
    ModelError,
    ProviderError,
    ProviderWarning,
)
from fertools.runtime.metadata import ModelInfo
from fertools.runtime.prediction import Prediction
from fertools.runtime.predictor import Predictor
from fertools.runtime.preprocessing import to_face, to_faces

__all__ = [
    "ConfigError",
    "FertoolsError",
    "ForkError",
    "ImageError",
    "MissingExtraError",
    "ModelError",
    "ModelInfo",
    "Prediction",
    "Predictor",
    "ProviderError",
    "ProviderWarning",
    "to_face",
    "to_faces",
]
