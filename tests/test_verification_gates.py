import json
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from fertools.verification.gates import (
    DECISIVE_IMAGES,
    INT8_AGREEMENT,
    INT8_POINTS_LOST,
    State,
    difference_interval,
    float_gates,
    int8_gates,
    share_interval,
    stress_gate,
)
from fertools.verification.report import gate_values

#: Images of FER2013's PrivateTest.
FER2013 = 3_589


def sure(classes, certainty=0.9):
    """float32 (n, 7): probabilities with this confidence in these classes."""
    rows = np.full((len(classes), 7), (1 - certainty) / 6, np.float32)
    rows[np.arange(len(classes)), classes] = certainty
    return rows


def verdicts(gates):
    return [gate.passed for gate in gates]


def paired(images, lost, won=0):
    """Gates of an int8 file: only it is wrong on ``lost`` images, and only it is right on ``won``."""
    labels = np.zeros(images, np.uint8)
    before, after = np.zeros(images, int), np.zeros(images, int)
    after[:lost] = 1
    before[lost : lost + won] = 1
    return int8_gates(sure(before), sure(after), labels)


def test_equal_outputs_of_many_images_prove_every_gate():
    labels = (np.arange(FER2013) % 7).astype(np.uint8)
    rows = sure(labels)
    gates = [*float_gates(rows, rows), *int8_gates(rows, rows, labels)]
    assert [gate.state for gate in gates] == [State.PROVED] * 5
    assert all(str(gate).startswith("proved ") for gate in gates)


def test_float_difference():
    keras = sure(np.zeros(5, int))
    onnx = keras.copy()
    onnx[3, 0] -= 0.9e-4
    assert verdicts(float_gates(keras, onnx)) == [True, True]
    onnx[3, 0] -= 0.3e-4
    gates = float_gates(keras, onnx)
    assert verdicts(gates) == [False, True]
    assert gates[0].measured == pytest.approx(1.2e-4, rel=0.01)
    assert "(at most 0.0001); most at image 3;" in str(gates[0])


def test_swapped_classes_count_unless_keras_was_undecided():
    keras = sure(np.zeros(4, int), 0.4)
    keras[1, 1] = keras[1, 0] - 0.5e-4
    keras[2, 1] = keras[2, 0] - 1.5e-4
    onnx = keras.copy()
    onnx[:, 1] += 1.8e-4 * np.array([0, 1, 0, 0])
    assert verdicts(float_gates(keras, onnx))[1]
    onnx[:, 1] += 1.8e-4 * np.array([0, 0, 1, 0])
    gate = float_gates(keras, onnx)[1]
    assert not gate.passed
    assert gate.measured == 1
    assert "first image 2;" in str(gate)


@pytest.mark.parametrize("images", [DECISIVE_IMAGES, FER2013])
def test_on_a_large_split_the_measured_loss_decides(images):
    """Half a point is as strict as without an interval; if it is kept, the interval may leave it open."""
    most = int(images * INT8_POINTS_LOST / 100)
    for won in (0, 9):
        kept, beyond = (paired(images, won + lost, won)[0] for lost in (most, most + 1))
        assert (kept.state, beyond.state) == (State.NOT_PROVED, State.BROKEN)
        assert beyond.measured == pytest.approx(100 * (most + 1) / images)


@pytest.mark.parametrize("images", [DECISIVE_IMAGES, FER2013])
def test_on_a_large_split_the_measured_agreement_decides(images):
    most = int(images * (1 - INT8_AGREEMENT))
    kept, beyond = (paired(images, other)[1] for other in (most, most + 1))
    assert kept.state is not State.BROKEN
    assert beyond.state is State.BROKEN
    # Not "0.985 (at least 0.985; ...)".
    assert float(str(beyond).partition("agreement: ")[2].partition(" ")[0]) < INT8_AGREEMENT


def test_the_large_split_is_where_a_file_that_loses_nothing_keeps_the_limit():
    """The number of images that decides follows from the two limits."""
    spread = norm.ppf(0.975) * math.sqrt(1 - INT8_AGREEMENT)
    assert math.ceil((spread / (INT8_POINTS_LOST / 100)) ** 2) == DECISIVE_IMAGES < FER2013


def test_one_image_of_150_says_nothing():
    """A case that once broke an export by chance: neither broken nor, with no loss, proved."""
    for lost, won in ((0, 0), (1, 0), (0, 1), (2, 0), (2, 2)):
        loss, agreement, _ = paired(150, lost, won)
        assert loss.state is State.NOT_PROVED, (lost, won)
        assert agreement.state is State.NOT_PROVED, (lost, won)
    loss = paired(150, 1)[0]
    assert loss.measured == pytest.approx(2 / 3)
    assert loss.interval == pytest.approx((-1.85, 3.66), abs=0.01)
    assert loss.passed
    assert str(loss) == (
        "not proved  int8: points of accuracy lost: 0.6667 (at most 0.5; 95% interval -1.848 to 3.658;"
        " 1 right only before, 0 right only in int8, 150 images); too few images to say;"
        f" {DECISIVE_IMAGES:,} like these would do"
    )


def test_many_lost_of_few_break():
    loss, agreement, _ = paired(150, 15)
    assert (loss.state, agreement.state) == (State.BROKEN, State.BROKEN)
    assert loss.interval[0] > INT8_POINTS_LOST
    assert agreement.interval[1] < INT8_AGREEMENT
    assert "validation figures" in str(loss)
    assert loss.images_needed is None


def test_accuracy_may_rise():
    labels = np.zeros(100, np.uint8)
    gate = int8_gates(sure(np.ones(100, int)), sure(labels), labels)[0]
    assert gate.measured == -100
    assert gate.state is State.PROVED


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (2, 3), (0, 2)])
def test_so_many_images_would_do(counts):
    """With the same shares, that number of images decides, and one less does not."""
    images = 150
    for which in (0, 1):
        needed = paired(images, *counts)[which].images_needed

        def decided(other, which=which):
            # Fractions of images do not exist, but the intervals accept them.
            lost, won = (count * other / images for count in counts)
            if which:
                low, high = share_interval(lost + won, other)
                limit, kept = 1 - INT8_AGREEMENT, (lost + won) / other <= 1 - INT8_AGREEMENT
            else:
                low, high = difference_interval(lost, won, other)
                limit, kept = INT8_POINTS_LOST / 100, (lost - won) / other <= INT8_POINTS_LOST / 100
            return high <= limit or (not kept if other >= DECISIVE_IMAGES else low > limit)

        assert needed > images
        assert decided(needed)
        assert not decided(needed - 1)


def test_without_a_difference_so_many_images_prove_it():
    assert [gate.images_needed for gate in paired(150, 0)[:2]] == [736, 245]
    assert paired(736, 0)[0].state is State.PROVED
    assert paired(735, 0)[0].state is State.NOT_PROVED


def test_at_the_limit_no_number_will_do():
    loss = paired(200, 1)[0]
    assert (loss.state, loss.images_needed) == (State.NOT_PROVED, None)
    assert "too close to the limit" in str(loss)
    agreement = paired(268, 4)[1]  # 10,192,465 would
    assert (agreement.state, agreement.images_needed) == (State.NOT_PROVED, None)


def test_exact_interval_of_a_share():
    """The values of Clopper and Pearson, from tables and by their definition."""
    assert share_interval(0, 10) == pytest.approx((0, 0.3085), abs=1e-4)
    assert share_interval(10, 10) == pytest.approx((0.6915, 1), abs=1e-4)
    low, high = share_interval(7, 50)
    assert binom.sf(6, 50, low) == pytest.approx(0.025)
    assert binom.cdf(7, 50, high) == pytest.approx(0.025)


def test_interval_of_a_difference():
    assert difference_interval(0, 0, 736)[1] == pytest.approx(share_interval(0, 736)[1])
    assert difference_interval(9, 0, 400)[1] == pytest.approx(share_interval(9, 400)[1])
    low, high = difference_interval(12, 5, 300)
    assert difference_interval(5, 12, 300) == pytest.approx((-high, -low))
    assert low < 7 / 300 < high


@pytest.mark.parametrize("images", [60, 150, 400, 737, 1500, 2304])
@pytest.mark.parametrize("changed", [0.005, 0.008, 0.015, 0.04])
def test_a_claim_about_the_loss_is_wrong_in_at_most_25_of_1000_samples(images, changed):
    """Summed exactly over all samples of a file that loses exactly the limit, without simulation."""
    limit = INT8_POINTS_LOST / 100
    lost, won = (changed + limit) / 2, (changed - limit) / 2
    proved = broken = seen = 0.0
    for first in range(int(binom.isf(1e-6, images, lost)) + 1):
        weight = binom.pmf(first, images, lost)
        others = images - first
        for second in range(int(binom.isf(1e-6, others, won / (1 - lost))) + 1 if won else 1):
            probability = weight * binom.pmf(second, others, won / (1 - lost))
            seen += probability
            if probability > 1e-9:
                low, high = difference_interval(first, second, images)
                proved += probability * (high <= limit)
                broken += probability * (low > limit)
    assert seen == pytest.approx(1, abs=1e-4)
    assert proved <= 0.025 + 1e-4
    assert broken <= 0.025 + 1e-4


@pytest.mark.parametrize("images", [60, 150, 400, 2304])
def test_a_claim_about_the_agreement_is_wrong_in_at_most_25_of_1000_samples(images):
    limit = 1 - INT8_AGREEMENT
    counts = np.arange(images + 1)
    bounds = np.array([share_interval(int(count), images) for count in counts])
    chances = binom.pmf(counts, images, limit)
    assert chances[bounds[:, 1] <= limit].sum() <= 0.025
    assert chances[bounds[:, 0] > limit].sum() <= 0.025


def test_simulated_files():
    """Whole gates on drawn samples: a file without loss is hardly ever broken, a bad one is detected."""
    random = np.random.default_rng(0)
    good = bad = 0
    for _ in range(200):
        good += not paired(150, *random.binomial(150, [0.005, 0.005]))[0].passed
        bad += not paired(FER2013, *random.binomial(FER2013, [0.02, 0.004]))[0].passed
    assert good == 0
    assert bad == 200


def hits(images, lost):
    """Per-image shares of 42 changes classified correctly: Keras', and int8's, lower by ``lost``."""
    reference = np.random.default_rng(0).integers(0, 43, images) / 42
    return reference, np.clip(reference - lost, 0, 1)


def test_stress_gate():
    proved = stress_gate(*hits(1024, 0.0))
    assert (proved.state, proved.measured) == (State.PROVED, 0)
    few = stress_gate(*hits(14, 0.0))
    assert few.state is State.NOT_PROVED
    assert 14 < few.images_needed <= 1024
    assert stress_gate(*hits(few.images_needed, 0.0)).state is State.PROVED
    assert stress_gate(*hits(few.images_needed - 1, 0.0)).state is State.NOT_PROVED
    broken = stress_gate(*hits(1024, 0.05))
    assert broken.state is State.BROKEN
    assert broken.measured > 4
    assert stress_gate(*hits(1024, 0.05)[::-1]).state is State.PROVED  # int8 is better
    assert gate_values(broken)["counts"] == {"images": 1024}


@pytest.mark.parametrize("images", [400, 442, 960, 1024, 1086, 3589])
def test_a_file_at_the_limit_is_seldom_proved_on_worse_images(images):
    """It loses one image in a hundred, and these under all changes, which is the worst case."""

    def proved(lost):
        reference = np.ones(images)
        int8 = reference.copy()
        int8[:lost] = 0
        return stress_gate(reference, int8).state is State.PROVED

    most = max((lost for lost in range(images // 50) if proved(lost)), default=-1)
    assert 0.005 < binom.cdf(most, images, 0.01) <= 0.041


def test_rows_must_sum_to_one():
    labels = np.zeros(9, np.uint8)
    int8 = sure(labels)
    int8[4] *= 1.0009
    assert verdicts(int8_gates(sure(labels), int8, labels))[2]
    int8[4] *= 1.0009
    gate = int8_gates(sure(labels), int8, labels)[2]
    assert gate.state is State.BROKEN
    assert "most at image 4;" in str(gate)


def test_nan_passes_no_gate_of_values():
    labels = np.zeros(3, np.uint8)
    rows = sure(labels)
    broken = rows.copy()
    broken[1] = np.nan
    assert verdicts(float_gates(rows, broken))[0] is False
    assert verdicts(int8_gates(rows, broken, labels))[2] is False


def test_json_has_the_state_the_interval_and_the_counts():
    values = json.loads(json.dumps(gate_values(paired(150, 1)[0]), allow_nan=False))
    assert (values["state"], values["passed"]) == ("not proved", True)
    assert values["counts"] == {"right only before": 1, "right only in int8": 0, "images": 150}
    assert len(values["interval"]) == 2
    assert values["images_needed"] == DECISIVE_IMAGES
