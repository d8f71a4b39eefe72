"""The state from which an interrupted run continues: weights, averages and the optimizer's variables."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np

from fertools.errors import RunError
from fertools.files import replacing


def save_state(path: Path, trained: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Write all variables of ``trained`` and ``optimizer`` to an ``.npz`` file, in Keras' order.

    Keras' own ``save_weights`` would also write what surrounds the network during training: the training
    images and the teachers.
    """
    arrays = {str(number): np.asarray(v.numpy()) for number, v in enumerate(_variables(trained, optimizer))}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_state(path: Path, trained: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Set the variables of ``trained`` and ``optimizer``, which must be built, from a file.

    Raises:
        RunError: the file is missing, damaged or of another network or optimizer.
    """
    variables = _variables(trained, optimizer)
    try:
        # Opened here, because numpy does not close a file that is not an archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if len(arrays.files) != len(variables):
                raise ValueError(f"{len(arrays.files)} variables, not {len(variables)}")
            for number, variable in enumerate(variables):
                variable.assign(arrays[str(number)])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: missing or damaged ({error}); train again") from error


def _variables(trained: keras.Model, optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    return [*trained.variables, *optimizer.variables]
