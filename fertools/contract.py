"""The facts that every part agrees on. Plain Python: the runtime imports this module."""

from typing import Final

#: Class names in the order of the network's outputs: FER2013's digits 0..6
#: (Goodfellow et al. 2013, arXiv:1307.0414).
LABELS: Final = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")

#: Height and width of a face image, in pixels.
IMAGE_SIZE: Final = 48

#: Divides uint8 pixels into the 0..1 range that every network is trained on.
PIXEL_MAX: Final = 255.0

#: Name of an exported graph's input: uint8 (batch, 48, 48, 1), grey, 0..255.
INPUT_NAME: Final = "image"
#: Name of an exported graph's output: float32 (batch, 7), rows sum to 1.
OUTPUT_NAME: Final = "probabilities"
#: Name of the dynamic first axis of both.
BATCH_NAME: Final = "batch"

#: Files of a run folder; ``fertools.training.Run`` has all of them.
CONFIG_FILE: Final = "config.json"
RUN_FILE: Final = "run.json"
BEST_FILE: Final = "best.keras"
HISTORY_FILE: Final = "history.csv"
METRICS_FILE: Final = "metrics.json"
#: A run with several seeds has a run folder for each; its name begins so.
SEED_PREFIX: Final = "seed-"

#: Files of an export folder.
ONNX_FILE: Final = "model.onnx"
INT8_FILE: Final = "model.int8.onnx"
ORT_FILE: Final = "model.ort"
INT8_ORT_FILE: Final = "model.int8.ort"
OPERATORS_FILE: Final = "required_operators.config"
ARCHITECTURE_FILE: Final = "model.json"
KERAS_FILE: Final = "model.keras"
REPORT_FILE: Final = "report.json"
CARD_FILE: Final = "MODEL_CARD.md"
CONFUSION_FILE: Final = "confusion.png"
TRITON_FOLDER: Final = "triton"
#: The page of an export for browsers: a folder in it.
WEB_FOLDER: Final = "web"
