import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from varreg.lab.statistics import (
    crossed_difference,
    detectable,
    holm,
    mean_interval,
    paired_difference,
    prediction_interval,
    probability_of_improvement,
    ranking,
    variance_shares,
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
    draws = np.random.default_rng(0).normal(size=(8000, 4))
    hits = [next_run in prediction_interval(runs) for *runs, next_run in draws]
    assert abs(np.mean(hits) - 0.95) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 10, 20])
def test_intervals_of_a_mean_and_of_paired_differences_cover_as_they_say(seeds):
    random, draws = np.random.default_rng(seeds), 8000
    of_mean = of_pairs = false = 0
    for _ in range(draws):
        shared = random.normal(size=seeds)
        runs, reference = (shared + random.normal(size=seeds) for _ in range(2))
        of_mean += 0 in mean_interval(runs)
        found = paired_difference(runs, reference)
        of_pairs += 0 in found
        false += found.p < 0.05
    assert [of_mean / draws, of_pairs / draws] == pytest.approx([0.95, 0.95], abs=0.01)
    assert false / draws == pytest.approx(0.05, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("real", [0, 4])
def test_holm_calls_a_false_finding_in_one_family_of_twenty_or_less(real):
    # 12 methods against one reference, so that their differences hang together; some have effects.
    random, draws, methods = np.random.default_rng(0), 6000, 12
    effects = np.where(np.arange(methods) < real, 0.7, 0.0)
    false, found = 0, 0
    for _ in range(draws):
        shared = random.normal(size=(20, 1))
        gains = effects + 0.5 * shared + random.normal(size=(20, methods))
        adjusted = np.array(holm(stats.ttest_1samp(gains, 0).pvalue))
        false += (adjusted[real:] < 0.05).any()
        found += (adjusted[:real] < 0.05).sum()
    assert false / draws < 0.05 + 0.01
    if real:
        assert found / draws / real > 0.2  # it is no rule that finds nothing
    else:
        assert false / draws > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_wilsons_interval_covers_on_average_over_close_shares(share):
    # For one share it jumps with the count; over shares close to it, it covers as it says.
    random, hits = np.random.default_rng(0), []
    for p in random.uniform(share - 0.05, share + 0.05, 6000):
        low, high = wilson(random.binomial(60, p), 60)
        hits.append(low <= p <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.01)


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
        (lambda: detectable([]), "at least one"),
        (lambda: detectable([1.0, 2.0], power=1.0), "power is 1.0"),
        (lambda: detectable([1.0, 2.0], confidence=5), "confidence is 5"),
        (lambda: probability_of_improvement([1.0], [1.0, 2.0]), "values has 1 values"),
        (lambda: probability_of_improvement([], []), "at least one"),
        (lambda: probability_of_improvement([1.0, math.nan], [1.0, 2.0]), r"positions \[1\]"),
        (lambda: ranking([[1.0, 2.0, 3.0]]), r"\(1, 3\): give a row a data set, two or more"),
        (lambda: ranking([[1.0, 2.0]] * 3), "a method, three or more"),
        (lambda: ranking([1.0, 2.0, 3.0]), "a row a data set"),
        (lambda: ranking([[1.0, 2.0, math.nan]] * 3), "NaN"),
        (lambda: ranking([[1.0, 2.0, 3.0]] * 3, 1.5), "confidence is 1.5"),
        (lambda: variance_shares(np.zeros((2, 3)), ["seed"]), "an axis a factor"),
        (lambda: variance_shares(np.zeros((0, 3)), ["method", "seed"]), "a value or more"),
        (lambda: variance_shares(np.array([1.0, math.inf]), ["seed"]), "infinite"),
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
    [
        (20, 150, 0.1, 1.0, 1.0),
        (20, 150, 0.02, 2.0, 5.0),
        (10, 150, 1.0, 0.0, 0.5),
        (20, 150, 0.0, 0.0, 1.0),
        (8, 156, 0.0, 0.3, 1.0),
        (5, 100, 0.1, 0.3, 1.0),
    ],
)
@pytest.mark.slow
def test_crossed_intervals_cover_as_they_say(seeds, images, of_seeds, of_images, rest):
    random = np.random.default_rng(1)
    covered, draws = 0, 6000
    for _ in range(draws):
        table = random.normal(size=(seeds, 1)) * of_seeds
        table = table + random.normal(size=(1, images)) * of_images
        covered += 0 in crossed_difference(table + random.normal(size=(seeds, images)) * rest)
    assert covered / draws == pytest.approx(0.95, abs=0.01)


def test_crossed_mean_squares_are_those_of_an_analysis_of_variance():
    table = np.random.default_rng(2).normal(size=(4, 6)) + np.arange(6)
    mean = table.mean()
    squares = {
        "seed": 6 * ((table.mean(1) - mean) ** 2).sum() / 3,
        "image": 4 * ((table.mean(0) - mean) ** 2).sum() / 5,
    }
    rest = ((table - table.mean(1, keepdims=True) - table.mean(0) + mean) ** 2).sum() / 15
    total = squares["seed"] + max(squares["image"] - rest, 0)
    freedom = total**2 / (squares["seed"] ** 2 / 3 + squares["image"] ** 2 / 5 + rest**2 / 15)
    half = stats.t.ppf(0.975, max(freedom, 1)) * np.sqrt(total / 24)
    found = crossed_difference(table)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))


@given(st.integers(0, 1000), st.integers(3, 9))
def test_images_that_differ_less_than_by_chance_make_no_interval_narrower(seed, seeds):
    table = np.random.default_rng(seed).normal(size=(seeds, 6))
    table -= table.mean(0)
    crossed, alone = crossed_difference(table), paired_difference(table.mean(1), [0] * seeds)
    assert crossed.high - crossed.low >= alone.high - alone.low


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


# ---------------------------------------------------------------- what could have been seen


@pytest.mark.parametrize(("power", "confidence"), [(0.8, 0.95), (0.9, 0.95), (0.8, 1 - 0.05 / 29)])
@pytest.mark.parametrize("pairs", [3, 10, 20])
def test_what_is_detectable_is_found_as_often_as_was_asked(power, confidence, pairs):
    random = np.random.default_rng(3)
    sample = random.normal(size=pairs)
    mean = detectable(sample, power=power, confidence=confidence)
    drawn = random.normal(mean, sample.std(ddof=1), (20_000, pairs))
    found = stats.ttest_1samp(drawn, 0, axis=1).pvalue < 1 - confidence
    assert found.mean() == pytest.approx(power, abs=0.012)
    assert math.isnan(detectable([0.1]))
    assert detectable([0.1, 0.1]) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_probability_of_improvement_equals_a_loop_over_the_pairs(pairs):
    values, reference = np.array(pairs).T
    counted = [
        1.0 if first > second else 0.5 if first == second else 0.0
        for i, first in enumerate(values)
        for j, second in enumerate(reference)
        if i != j
    ]
    found = probability_of_improvement(values, reference)
    assert found == pytest.approx(np.mean(counted))
    assert probability_of_improvement(reference, values) == pytest.approx(1 - found)


def test_probability_of_improvement_of_independent_runs_is_that_of_all_pairs():
    random = np.random.default_rng(0)
    values, reference = random.normal(0.5, 1, 3000), random.normal(0, 1, 3000)
    expected = stats.norm.cdf(0.5 / math.sqrt(2))
    assert probability_of_improvement(values, reference) == pytest.approx(expected, abs=0.02)
    assert math.isnan(probability_of_improvement([1.0], [0.0]))


# ---------------------------------------------------------------- over data sets


def test_ranks_and_friedmans_statistic_by_hand():
    scores = np.array([[0.30, 0.25, 0.20, 0.40], [1.3, 1.2, 1.2, 1.5], [7.0, 9.0, 8.0, 8.5]])
    found = ranking(scores)
    # 3 2 1 4; 3 1.5 1.5 4; 1 4 2 3
    assert found.ranks == pytest.approx((7 / 3, 7.5 / 3, 4.5 / 3, 11 / 3))
    assert (found.statistic, found.p) == pytest.approx(stats.friedmanchisquare(*scores.T))
    untied = scores + np.array([[0] * 4, [0, 0.01, 0, 0], [0] * 4])
    ranks, n, k = np.array(ranking(untied).ranks), 3, 4
    by_hand = 12 * n / (k * (k + 1)) * ((ranks**2).sum() - k * (k + 1) ** 2 / 4)
    assert ranking(untied).statistic == pytest.approx(by_hand)
    assert ranking(untied * [[1], [1000], [0.001]]) == ranking(untied)  # each on its own scale


# Demsar (2006), table 5a; 1.960 is of two methods, for which there is the Wilcoxon test.
@pytest.mark.parametrize(
    ("methods", "quantile"), [(3, 2.343), (4, 2.569), (5, 2.728), (8, 3.031), (10, 3.164)]
)
@pytest.mark.parametrize("n", [3, 14])
def test_critical_differences_are_those_of_the_published_table(methods, quantile, n):
    found = ranking(np.arange(n * methods).reshape(n, methods)).critical_difference
    assert found == pytest.approx(quantile * math.sqrt(methods * (methods + 1) / 6 / n), rel=3e-4)
    exact = stats.studentized_range.ppf(0.95, methods, np.inf) / math.sqrt(2)
    assert found == pytest.approx(exact * math.sqrt(methods * (methods + 1) / 6 / n))


def test_methods_that_are_all_alike_have_one_rank():
    found = ranking(np.ones((3, 4)))
    assert (found.ranks, found.statistic, found.p) == ((2.5,) * 4, 0, 1)


def test_shares_of_effects_that_are_known():
    # Effects that add up to 0 over every axis: the variance is the sum of their mean squares.
    method, seed = np.array([-2.0, 0.0, 2.0]), np.array([-1.0, 1.0, 1.0, -1.0])
    data = np.array([-3.0, 3.0])
    crossed = 0.5 * method[:, None, None] * data
    values = 100 + method[:, None, None] + seed[None, :, None] + data + crossed
    found = variance_shares(values, ["method", "seed", "data"])
    squares = {
        ("method",): 8 / 3,
        ("seed",): 1.0,
        ("data",): 9.0,
        ("method", "data"): (crossed**2).mean(),
    }
    for name, share in found.items():
        assert share == pytest.approx(squares.get(name, 0) / sum(squares.values()), abs=1e-12)
    assert sum(variance_shares(values, ["a", "b", "c"], order=1).values()) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1))
def test_shares_are_those_of_the_marginal_means_and_add_up(seed):
    values = np.random.default_rng(seed).normal(size=(3, 4, 2))
    found = variance_shares(values, ["a", "b", "c"])
    assert found["a",] == pytest.approx(values.mean((1, 2)).var() / values.var())
    assert found["a", "b"] == pytest.approx(
        values.mean(2).var() / values.var() - found["a",] - found["b",]
    )
    assert sum(found.values()) == pytest.approx(1)
    assert min(found.values()) >= 0


def test_shares_where_nothing_varies():
    assert all(math.isnan(share) for share in variance_shares(np.ones((2, 2)), "ab").values())


@pytest.mark.slow
@pytest.mark.parametrize("datasets", [3, 4, 10])
def test_methods_that_are_alike_are_seldom_told_apart(datasets):
    """With a handful of data sets less often than in 5 % of all cases, and never more often."""
    random, methods, draws = np.random.default_rng(0), 13, 1000
    found = [ranking(random.normal(size=(datasets, methods))) for _ in range(draws)]
    friedman = np.mean([each.p < 0.05 for each in found])
    nemenyi = np.mean([np.ptp(each.ranks) > each.critical_difference for each in found])
    error = 2 * math.sqrt(0.05 * 0.95 / draws)
    assert 0 < friedman < 0.05 + error
    assert 0 < nemenyi < 0.05 + error
