import subprocess
import sys

import numpy as np
import pytest

from fertools import data
from fertools.errors import ConfigError, DataError


def blank(rows, **changes):
    arrays = {
        "images": np.zeros((rows, 48, 48), np.uint8),
        "labels": np.zeros(rows, np.uint8),
        "usage": np.zeros(rows, np.uint8),
    }
    return data.Dataset("blank", **(arrays | changes))


def test_split_keeps_the_order_of_the_source(small):
    for code, name in enumerate(data.SPLITS):
        split = small.split(name)
        rows = np.flatnonzero(small.usage == code)
        assert len(split) == len(rows)
        assert np.array_equal(split.images, small.images[rows])
        assert np.array_equal(split.labels, small.labels[rows])


def test_deduplicated_drops_what_stands_in_another_split(small):
    for name in data.SPLITS:
        deduplicated, others = small.deduplicated(name), [other for other in data.SPLITS if other != name]
        seen = {image.tobytes() for other in others for image in small.split(other).images}
        kept = [image for image in small.split(name).images if image.tobytes() not in seen]
        assert np.array_equal(deduplicated.images, kept)
        assert len(deduplicated) == len(small.split(name)) - 1


def test_deduplicated_keeps_repeats_within_a_split():
    images = np.zeros((3, 48, 48), np.uint8)
    images[2] = 1
    usage = np.array([2, 2, 0], np.uint8)
    assert len(blank(3, images=images, usage=usage).deduplicated("test")) == 2


def test_empty_split_says_what_is_held_and_what_to_do():
    with pytest.raises(DataError, match=r"blank: no test images .*train 3.*PrivateTest"):
        blank(3).split("test")
    with pytest.raises(DataError, match="no test images"):
        blank(2, usage=np.array([0, 2], np.uint8)).deduplicated("test")


def test_unknown_split():
    with pytest.raises(ConfigError, match="train, validation, test"):
        blank(3).split("dev")


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.zeros((3, 48, 48), np.float32)},
        {"images": np.zeros((3, 48, 47), np.uint8)},
        {"images": np.zeros((2, 48, 48), np.uint8)},
        {"labels": np.zeros(3, np.int64)},
        {"labels": np.array([0, 7, 0], np.uint8)},
        {"usage": np.array([0, 0, 3], np.uint8)},
        {"usage": np.zeros(4, np.uint8)},
    ],
)
def test_wrong_arrays(changes):
    with pytest.raises(DataError, match="blank: "):
        blank(3, **changes)


def test_fingerprint_tells_images_labels_usage_and_order(small):
    prints = {small.fingerprint}
    for field in ("images", "labels", "usage"):
        changed = {name: getattr(small, name).copy() for name in ("images", "labels", "usage")}
        changed[field].flat[-1] = (changed[field].flat[-1] + 1) % 3
        prints.add(data.Dataset("small", **changed).fingerprint)
    prints.add(data.Dataset("small", small.images[::-1], small.labels[::-1], small.usage[::-1]).fingerprint)
    assert len(prints) == 5
    assert data.Dataset("renamed", small.images, small.labels, small.usage).fingerprint in prints


def test_arrays_cannot_change_under_the_fingerprint(small):
    with pytest.raises(ValueError, match="read-only"):
        small.images[0] = 0
    assert small.split("train").images.flags.writeable


def test_importing_needs_numpy_alone():
    code = (
        "import sys, fertools.data; "
        "sys.exit(' '.join({'PIL', 'click', 'pandas', 'sklearn', 'rich'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
