import os
from pathlib import Path

import numpy as np
import pytest

from fertools import data


@pytest.fixture(scope="session")
def small():
    """42 drawn faces in an order that mixes splits and classes, one of them standing in all splits."""
    drawn = data.synthetic.generate(21, 10, 11, seed=5)
    order = np.random.default_rng(0).permutation(42)
    images, labels = drawn.images[order], drawn.labels[order]
    usage = drawn.usage[order]
    images[[int(np.flatnonzero(usage == code)[0]) for code in range(3)]] = images[0]
    return data.Dataset("small", images, labels, usage)


@pytest.fixture
def save(tmp_path):
    """Write text or bytes to a file and give its path."""

    def save(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return save


@pytest.fixture(scope="session")
def fer2013():
    folder = os.environ.get("FERTOOLS_TEST_DATA")
    if not folder:
        pytest.skip("FERTOOLS_TEST_DATA does not name a folder with fer2013.npz")
    return data.read(Path(folder) / "fer2013.npz")
