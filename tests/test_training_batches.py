import numpy as np
import pytest
from tiny_training import dataset

from fertools.backend import import_keras
from fertools.contract import LABELS
from fertools.data import Split

import_keras()

from fertools.training.batches import Batches, class_weights  # noqa: E402


def numbered(labels):
    """A split of black images."""
    return Split(np.zeros((len(labels), 48, 48), np.uint8), np.asarray(labels, np.uint8))


def batches(split, **options):
    return Batches(split, **{"batch_size": 8, "balance": "none", "mixup": 0.0, "seed": 3, **options})


def drawn(found):
    """The numbers of the images of an epoch, in order."""
    return np.concatenate([found[index][0]["number"] for index in range(len(found))])


def test_shapes_and_dtypes():
    split = dataset().split("train")
    inputs, labels, weights = batches(split)[0]
    assert inputs.keys() == {"number"}
    assert (inputs["number"].dtype, inputs["number"].shape) == (np.int32, (8,))
    assert (labels.dtype, labels.shape) == (np.float32, (8, 7))
    assert (weights.dtype, weights.shape) == (np.float32, (8,))


def test_images_keep_their_labels():
    split = numbered(np.arange(64) % 7)
    found = batches(split)
    labels = np.concatenate([found[index][1] for index in range(len(found))]).argmax(axis=1)
    np.testing.assert_array_equal(labels, drawn(found) % 7)


def test_every_image_once_an_epoch():
    found = batches(numbered(np.arange(64) % 7))
    assert len(found) == 8
    for epoch in range(3):
        found.shuffle(epoch)
        assert sorted(drawn(found)) == [*range(64)]


def test_last_incomplete_batch_is_left_out():
    found = batches(numbered(np.arange(30) % 7))
    assert len(found) == 3
    assert len(set(drawn(found))) == 24


def test_batches_are_no_larger_than_the_split():
    found = batches(numbered([0, 1, 2]))
    assert len(found) == 1
    assert len(found[0][0]["number"]) == 3


@pytest.mark.parametrize("balance", ["none", "oversample"])
def test_order_depends_on_seed_and_epoch_alone(balance):
    split = numbered(np.arange(64) % 7)
    one, other = batches(split, balance=balance), batches(split, balance=balance)
    for epoch in range(5):
        one.shuffle(epoch)
    np.random.default_rng().random()
    other.shuffle(4)
    np.testing.assert_array_equal(drawn(one), drawn(other))
    other.shuffle(3)
    assert (drawn(one) != drawn(other)).any()
    stranger = batches(split, balance=balance, seed=4)
    stranger.shuffle(4)
    assert (drawn(one) != drawn(stranger)).any()


def test_class_weights_give_classes_the_same_total():
    labels = np.repeat([0, 1, 3], [10, 50, 40]).astype(np.uint8)
    weights = class_weights(labels)
    assert weights.shape == (len(LABELS),)
    totals = np.bincount(labels, weights=weights[labels], minlength=7)
    np.testing.assert_allclose(totals[[0, 1, 3]], 100 / 3, rtol=1e-6)
    assert weights[[2, 4, 5, 6]].sum() == 0
    found = batches(numbered(labels), balance="weights", batch_size=100)[0]
    np.testing.assert_array_equal(found[2], weights[found[1].argmax(axis=1)])
    assert found[2].mean() == pytest.approx(1)


def test_without_balance_all_weights_are_one():
    assert set(batches(numbered([0, 0, 0, 1] * 4))[0][2]) == {1}


def test_oversampling_draws_classes_equally_often():
    labels = np.repeat([0, 1, 3], [100, 1500, 400]).astype(np.uint8)
    found = batches(numbered(labels), balance="oversample", batch_size=2000)
    counts = np.bincount(found[0][1].argmax(axis=1), minlength=7)
    assert counts[[2, 4, 5, 6]].sum() == 0
    assert (np.abs(counts[[0, 1, 3]] - 2000 / 3) < 100).all()


def test_mixup_blends_labels_and_weights():
    labels = np.repeat([0, 1, 3], [10, 50, 40]).astype(np.uint8)
    found = batches(numbered(labels), mixup=0.4, balance="weights", batch_size=20)
    inputs, targets, weights = found[1]
    shares, numbers = inputs["share"], inputs["number"]
    assert (shares.dtype, shares.shape) == (np.float32, (20,))
    assert 0 <= shares.min() < 0.3 < 0.7 < shares.max() <= 1
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    plain = class_weights(labels)
    own, before = labels[numbers], labels[np.roll(numbers, 1)]
    for row, (mine, other) in enumerate(zip(own, before, strict=True)):
        expected = np.zeros(7)
        expected[mine] += plain[mine] * shares[row]
        expected[other] += plain[other] * (1 - shares[row])
        np.testing.assert_allclose(weights[row] * targets[row], expected, atol=1e-6)
    np.testing.assert_allclose(weights, shares * plain[own] + (1 - shares) * plain[before], rtol=1e-6)


def test_shares_depend_on_seed_and_epoch_alone():
    split = numbered(np.arange(64) % 7)
    one, other = batches(split, mixup=0.2), batches(split, mixup=0.2)
    one.shuffle(1)
    one.shuffle(2)
    other.shuffle(2)
    np.testing.assert_array_equal(one[3][0]["share"], other[3][0]["share"])
