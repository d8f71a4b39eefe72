"""Load trained networks, run them on uint8 faces, identify their weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import IMAGE_SIZE, LABELS, PIXEL_MAX
from fertools.errors import ModelError
from fertools.models import NETWORKS, build
from fertools.models.structure import images_at_once

if TYPE_CHECKING:
    import keras


BATCH_SIZE = 256


def probabilities(
    network: keras.Model, images: NDArray[np.uint8], *, batch_size: int | None = None
) -> NDArray[np.float32]:
    """Run ``network`` on uint8 (n, 48, 48) images. Returns float32 (n, 7).

    Arguments:
        network: any of ours.
        images: the faces, which are scaled to 0..1.
        batch_size: images per batch; None is ``BATCH_SIZE``, or fewer if the layers are large.
    """
    batch_size = batch_size or min(BATCH_SIZE, images_at_once(network))
    devices = _split_over()
    batch_size = max(batch_size // devices, 1) * devices
    padded = np.pad(images, ((0, -len(images) % devices), (0, 0), (0, 0)))[..., None]
    # One call per batch: ``predict`` first sets up a tf.data pipeline, which takes longer than a small
    # network.
    rows = [
        network.predict_on_batch(
            padded[start : start + batch_size].astype(np.float32) / np.float32(PIXEL_MAX)
        )
        for start in range(0, len(padded), batch_size)
    ]
    return np.concatenate(rows)[: len(images)]


def _split_over() -> int:
    """The devices that Keras splits a batch over at present; it must have a multiple of them."""
    import keras

    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(distribution.device_mesh.devices.size)


def load(path: Path) -> keras.Model:
    """Load a ``.keras`` file in safe mode, without an optimizer.

    Raises:
        ModelError: it cannot be read, is not a network from (batch, 48, 48, 1) to (batch, 7), or has weights
            that are NaN or infinite.
    """
    from fertools.backend import import_keras

    keras = import_keras()
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; name the .keras file in it")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zip, HDF5 and JSON errors: Keras has no common type for them
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: not a Keras model that can be loaded: {why}") from error
    _check_contract(network, path)
    if not all(np.isfinite(array).all() for array in network.get_weights()):
        raise ModelError(f"{path}: has weights that are NaN or infinite; train it again")
    if isinstance(getattr(network, "input", None), dict | list) or isinstance(
        getattr(network, "output", None), dict | list
    ):  # of one each
        network = keras.Model(network.inputs[0], network.outputs[0], name=network.name)
    return network


def load_as(name: str, path: Path) -> keras.Model:
    """The network ``name`` of ours, built under the current dtype policy, with the weights of a file.

    Raises:
        ModelError: as ``load``, or the file is of another network.
    """
    loaded, network = load(path), build(name)
    given = loaded.get_weights()
    other = loaded.name in NETWORKS and loaded.name != network.name  # mlp and mlp-scaled have the same shapes
    if other or [array.shape for array in given] != [array.shape for array in network.get_weights()]:
        raise ModelError(f"{path}: is not a {name} network; choose another file, or --model")
    network.set_weights(given)
    return network


def _check_contract(network: Any, path: Path) -> None:
    """Raise ModelError unless ``network`` maps float (batch, 48, 48, 1) to (batch, 7), any batch."""
    for kind, wanted in (("inputs", (IMAGE_SIZE, IMAGE_SIZE, 1)), ("outputs", (len(LABELS),))):
        # What is no network, or has never been built, has none.
        tensors = getattr(network, kind, None) or []
        found = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in tensors]
        if len(found) != 1 or found[0][0] != (None, *wanted) or "float" not in found[0][1]:
            actual = ", ".join(f"{dtype} {shape}" for shape, dtype in found) or "none"
            raise ModelError(
                f"{path}: its {kind} must be one, float32 {(None, *wanted)}, not {actual}; it is not a"
                " network of fertools"
            )


def weights_sha256(network: keras.Model) -> str:
    """SHA-256 over the bytes of all weights in Keras' order, as float32, little-endian."""
    digest = hashlib.sha256()
    for array in network.get_weights():
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()
