import math

import numpy as np
import pytest
from scipy import stats

from varreg.lab.timing import BLOCKS, ratio_interval


def timed(random, turns, ratio, disturbed=0.0):
    """Two steps in turns: a machine that drifts, jitter, and turns in which something else ran."""
    drift = np.exp(random.normal(0, 0.02, turns).cumsum())

    def step(level):
        jitter = random.lognormal(0, 0.05, turns)
        spike = np.where(random.random(turns) < disturbed, random.uniform(1.2, 3, turns), 1)
        return (level * drift * jitter * spike).tolist()

    return step(ratio), step(1.0)


@pytest.mark.parametrize("turns", [3, 5, 7, 40, 400])
@pytest.mark.parametrize("disturbed", [0.0, 0.05])
def test_the_interval_covers_the_true_ratio(turns, disturbed):
    random = np.random.default_rng(turns)
    runs, inside = 3000, 0
    for _ in range(runs):
        ratio, low, high = ratio_interval(*timed(random, turns, 1.05, disturbed))
        assert 0 < low < ratio < high
        inside += low <= 1.05 <= high
    assert inside / runs > 0.935
    # Heavy tails make a t interval wide, never narrow; without them it is exact.
    assert inside / runs < (0.965 if disturbed == 0 else 0.99)


def test_a_turn_a_block_is_the_paired_t_test_of_the_logarithms():
    slow, fast = timed(np.random.default_rng(1), BLOCKS, 2.0)
    expected = stats.ttest_rel(np.log(slow), np.log(fast)).confidence_interval()
    mean = np.exp(np.mean(np.log(slow) - np.log(fast)))
    found = ratio_interval(slow, fast)
    assert found == pytest.approx((mean, *np.exp(expected)))
    # The other way round, everything is inverted.
    assert ratio_interval(fast, slow) == pytest.approx((1 / found[0], 1 / found[2], 1 / found[1]))


def test_an_interval_of_a_ratio_stays_positive_however_wide():
    ratio, low, high = ratio_interval([1.0, 100.0, 0.01], [1.0, 1.0, 1.0])
    assert 0 < low < ratio < high


def test_a_single_turn_has_no_interval():
    ratio, low, high = ratio_interval([3.0], [2.0])
    assert ratio == pytest.approx(1.5)
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(
    ("slow", "fast", "said"),
    [
        ([1.0, 2.0], [1.0], "2 and 1 values"),
        ([], [], "0 and 0 values"),
        ([0.0, 1.0], [1.0, 1.0], "must be positive"),
        ([math.nan, 1.0], [1.0, 1.0], "must be positive"),
    ],
)
def test_what_is_no_pair_of_timings_is_refused(slow, fast, said):
    with pytest.raises(ValueError, match=said):
        ratio_interval(slow, fast)
