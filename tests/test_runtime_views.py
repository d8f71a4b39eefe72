import numpy as np
import pytest
from tiny_model import tiny_export, tiny_reference

from fertools.errors import ConfigError
from fertools.runtime import Predictor
from fertools.runtime.prediction import VIEWS, averaged, stacked

FACES = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
MIRRORED = np.stack([np.fliplr(face) for face in FACES])


class Counted:
    """A session that counts its runs."""

    def __init__(self, session):
        self.session, self.batches = session, []

    def run(self, names, feeds):
        self.batches.append(len(feeds["image"]))
        return self.session.run(names, feeds)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def flip(export):
    return Predictor(export, views="flip")


def test_flip_is_the_mean_over_the_image_and_its_mirror(flip):
    rows = flip.probabilities(FACES)
    assert (rows.dtype, rows.shape) == (np.float32, (5, 7))
    expected = (tiny_reference(FACES) + tiny_reference(MIRRORED)) / 2
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert np.abs(expected - tiny_reference(FACES)).max() > 0.01  # the network is not symmetric by itself
    np.testing.assert_array_equal(flip.probabilities(FACES[..., None]), rows)
    np.testing.assert_array_equal(flip.probabilities(np.asfortranarray(FACES)), rows)


def test_flip_does_not_tell_an_image_from_its_mirror(flip):
    np.testing.assert_allclose(flip.probabilities(MIRRORED), flip.probabilities(FACES), atol=1e-6)
    one, other = (flip.predict(faces[0]) for faces in (FACES, MIRRORED))
    assert one.label == other.label
    assert one.confidence == pytest.approx(other.confidence, abs=1e-6)


def test_every_entry_takes_one_run_a_batch(export, monkeypatch):
    predictor = Predictor(export, views="flip")
    counted = Counted(predictor._session)
    monkeypatch.setattr(predictor, "_session", counted)
    rows = predictor.probabilities(FACES)
    single = predictor.predict(FACES[0])
    batch = predictor.predict_batch(FACES, batch_size=3)
    assert counted.batches == [10, 2, 6, 4]
    for prediction, row in zip([single, *batch], [rows[0], *rows], strict=True):
        np.testing.assert_allclose([*prediction.probabilities.values()], row, atol=1e-6)


def test_single_is_the_default_and_shows_the_image_alone(export):
    predictor, named = Predictor(export), Predictor(export, views="single")
    assert predictor.views == named.views == "single"
    np.testing.assert_array_equal(predictor.probabilities(FACES), named.probabilities(FACES))
    np.testing.assert_array_equal(stacked(FACES, "single"), FACES)
    rows = tiny_reference(FACES)
    np.testing.assert_array_equal(averaged(rows, "single"), rows)


def test_the_images_themselves_stand_first():
    for views in VIEWS:
        np.testing.assert_array_equal(stacked(FACES, views)[: len(FACES)], FACES)
    np.testing.assert_array_equal(stacked(FACES, "flip")[len(FACES) :], MIRRORED)


def test_they_show_in_repr(flip, export):
    assert "views=flip" in repr(flip)
    assert "views=single" in repr(Predictor(export))


def test_unknown_views(export):
    with pytest.raises(ConfigError, match="views must be single or flip, not 'ten'"):
        Predictor(export, views="ten")
    with pytest.raises(ConfigError, match="views must be single or flip, not 'ten'"):
        stacked(FACES, "ten")
