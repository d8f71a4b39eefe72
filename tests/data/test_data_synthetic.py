import numpy as np
import pytest
from data_checks import same

from fertools import data
from fertools.errors import ConfigError


def test_the_same_seed_draws_the_same_bytes_everywhere():
    # Holds on every machine; a change here is a change of the data set, to be said in the release notes.
    fingerprint = data.synthetic.generate(60, 20, 20, seed=7).fingerprint
    assert fingerprint == "920b11e790bc3bf3b8ba58f1b5bc72dc4f7b214585f17460a7e171cadf6f67e5"


def test_seeds_differ():
    prints = {data.synthetic.generate(7, 7, 7, seed=seed).fingerprint for seed in range(5)}
    assert len(prints) == 5


def test_a_longer_split_begins_like_a_shorter_one():
    short, long = data.synthetic.generate(10, 5, 5), data.synthetic.generate(50, 40, 40)
    for name in data.SPLITS:
        count = len(short.split(name))
        assert np.array_equal(short.split(name).images, long.split(name).images[:count])


def test_no_image_twice_and_classes_even():
    dataset = data.synthetic.generate(210, 70, 70)
    inspection = data.inspect(dataset)
    assert inspection.distinct == inspection.rows == 350
    assert inspection.blank == 0
    assert set(inspection.counts["train"].values()) == {30}


def test_read_knows_the_name():
    assert same(data.read("synthetic", seed=2), data.synthetic.generate(seed=2))


@pytest.mark.parametrize("arguments", [(-1, 0, 0, 0), (1, 1, 1, -1)])
def test_negative_numbers(arguments):
    *counts, seed = arguments
    with pytest.raises(ConfigError, match="0 or more"):
        data.synthetic.generate(*counts, seed=seed)


def test_expressions_can_be_told_apart_but_not_by_a_mean_face():
    dataset = data.synthetic.generate(1400, 0, 350)
    train, test = dataset.split("train"), dataset.split("test")
    means = np.stack([train.images[train.labels == label].mean(axis=0) for label in range(7)])
    distances = np.square(test.images[:, None] - means).sum(axis=(2, 3))
    accuracy = (distances.argmin(axis=1) == test.labels).mean()
    assert 0.2 < accuracy < 0.5
