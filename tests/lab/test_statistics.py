import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from varreg.lab.statistics import (
    crossed_difference,
    holm,
    mean_interval,
    paired_difference,
    prediction_interval,
    wilson,
)

numbers = st.floats(-1e3, 1e3)
several = st.lists(numbers, min_size=2, max_size=30)


@given(several, st.sampled_from([0.8, 0.95, 0.99]))
def test_mean_interval_is_scipys_t_interval(values, confidence):
    interval = mean_interval(values, confidence)
    error = stats.sem(values)
    low, high = (
        stats.t.interval(confidence, len(values) - 1, np.mean(values), error)
        if error > 0
        else (np.mean(values), np.mean(values))
    )
    assert interval.n == len(values)
    np.testing.assert_allclose(
        [interval.mean, interval.low, interval.high], [np.mean(values), low, high], atol=1e-6
    )


@given(several)
def test_prediction_interval_is_wider_by_the_scatter_of_one_run(values):
    mean, one = mean_interval(values), prediction_interval(values)
    half = (mean.high - mean.low) / 2
    np.testing.assert_allclose(
        (one.high - one.low) / 2, half * math.sqrt(len(values) + 1), rtol=1e-6, atol=1e-9
    )


def test_prediction_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 4))
    hits = [next_run in prediction_interval(runs) for *runs, next_run in draws]
    assert abs(np.mean(hits) - 0.95) < 0.012


def test_one_value_has_a_mean_and_no_interval():
    interval = mean_interval([0.8])
    assert interval.mean == 0.8
    assert math.isnan(interval.low)
    assert 0.8 not in interval


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30))
def test_paired_difference_is_scipys_paired_t_test(pairs):
    a, b = np.array(pairs).T
    found = paired_difference(a, b)
    np.testing.assert_allclose(found.mean, np.mean(a - b), atol=1e-9)
    if np.ptp(a - b) > 1e-6:
        np.testing.assert_allclose(found.p, stats.ttest_rel(a, b).pvalue, rtol=1e-6, atol=1e-12)
        # The test and the interval are two sides of one coin.
        if abs(found.p - 0.05) > 1e-6:
            assert (found.p < 0.05) == (0 not in found)


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_constant_differences_have_a_p_value(shift, p):
    found = paired_difference([0.5 + shift, 0.75 + shift], [0.5, 0.75])
    assert (found.mean, found.low, found.high, found.p) == (shift, shift, shift, p)


def test_one_pair_has_no_test():
    found = paired_difference([0.5], [0.4])
    assert math.isnan(found.p)
    assert math.isnan(found.low)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_follows_its_definition(p_values):
    adjusted = holm(p_values)
    for i, p in enumerate(p_values):
        smaller = [q for q in p_values if q <= p]
        bound = max(q * (len(p_values) - sum(r < q for r in p_values)) for q in smaller)
        assert adjusted[i] == pytest.approx(min(1.0, bound))


def test_holm_leaves_out_what_could_not_be_tested():
    assert holm([0.01, math.nan, 0.03])[0] == pytest.approx(0.02)
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]) == []


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts):
    k, n = counts
    found = stats.binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(k, n), (found.low, found.high), atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one"),
        (lambda: mean_interval([[1.0]]), "flat list"),
        (lambda: mean_interval([1.0, math.nan]), r"positions \[1\]"),
        (lambda: mean_interval([1.0, 2.0], 95), "as in 0.95"),
        (lambda: prediction_interval([1.0, math.inf]), "not finite"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "1 values and b has 2"),
        (lambda: holm([0.5, 1.5]), "between 0 and 1"),
        (lambda: holm([[0.5]]), "flat list"),
        (lambda: wilson(3, 2), "k = 3 of n = 2"),
        (lambda: wilson(0, 0), "at least 1"),
        (lambda: wilson(1, 2, 0.0), "confidence is 0.0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_interval_ends_where_the_quantity_does():
    recalls = [0.0, 0.0, 0.1]
    free = mean_interval(recalls)
    held = mean_interval(recalls, within=(0, 1))
    assert free.low < 0
    assert (held.low, held.high, held.mean) == (0, free.high, free.mean)
    one = prediction_interval([0.1, 0.9, 0.5], within=(0, math.inf))
    assert one.low == 0
    assert math.isnan(mean_interval([0.5], within=(0, 1)).low)


@pytest.mark.parametrize(
    ("seeds", "images", "of_seeds", "of_images", "rest"),
    [(20, 150, 0.1, 1.0, 1.0), (20, 150, 0.02, 2.0, 5.0), (10, 150, 1.0, 0.0, 0.5)],
)
def test_crossed_intervals_cover_as_they_say(seeds, images, of_seeds, of_images, rest):
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(1500):
        table = random.normal(size=(seeds, 1)) * of_seeds
        table = table + random.normal(size=(1, images)) * of_images
        covered += 0 in crossed_difference(table + random.normal(size=(seeds, images)) * rest)
    assert covered / 1500 == pytest.approx(0.95, abs=0.015)


def test_crossed_mean_squares_are_those_of_an_analysis_of_variance():
    table = np.random.default_rng(2).normal(size=(4, 6)) + np.arange(6)
    mean = table.mean()
    squares = {
        "seed": 6 * ((table.mean(1) - mean) ** 2).sum() / 3,
        "image": 4 * ((table.mean(0) - mean) ** 2).sum() / 5,
    }
    rest = ((table - table.mean(1, keepdims=True) - table.mean(0) + mean) ** 2).sum() / 15
    total = max(squares["seed"] + squares["image"] - rest, *squares.values(), rest)
    freedom = total**2 / (squares["seed"] ** 2 / 3 + squares["image"] ** 2 / 5 + rest**2 / 15)
    half = stats.t.ppf(0.975, max(freedom, 1)) * np.sqrt(total / 24)
    found = crossed_difference(table)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))


def test_crossed_differences_without_spread():
    same, one = crossed_difference(np.zeros((3, 4))), crossed_difference(np.ones((3, 4)))
    assert (same.low, same.high, same.p) == (0, 0, 1)
    assert (one.low, one.high, one.p) == (1, 1, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [([[1.0, 2.0]], "two or more of each"), ([1.0, 2.0], "shape"), ([[1, np.nan]] * 2, "NaN")],
)
def test_crossed_differences_refuse(wrong, message):
    with pytest.raises(ValueError, match=message):
        crossed_difference(wrong)
