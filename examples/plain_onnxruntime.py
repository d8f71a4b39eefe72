"""Use an exported file without fertools: python examples/plain_onnxruntime.py MODEL.onnx.

The file holds its own scaling and labels, so any ONNX runtime in any language can do the same: feed uint8
grey faces (batch, 48, 48, 1), read float32 probabilities (batch, 7). Set ORT_DISABLE_TELEMETRY=1 to
switch off onnxruntime's telemetry.
"""

import json
import sys

import numpy as np
import onnxruntime as ort


def main(path: str) -> None:
    """Predict a batch of two noise images and print the labels."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["fertools"])
    faces = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 1), dtype=np.uint8)
    (probabilities,) = session.run(["probabilities"], {"image": faces})
    for row in probabilities:
        print(f"{facts['labels'][row.argmax()]:<10}{row.max():.1%}")


if __name__ == "__main__":
    main(sys.argv[1])
