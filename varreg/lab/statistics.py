"""Intervals and tests for a handful of seeds.

A training run is one draw: another seed gives another number. With 3 to 20 seeds the t interval is
the sound choice; the percentile bootstrap covers far too rarely at such sizes (about 73 % instead
of 95 % for three values), so there is none here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats


@dataclass(frozen=True)
class Interval:
    """A mean with the interval around it.

    Attributes:
        mean: Mean of the values, in their unit.
        low: Lower end of the interval; NaN where one value leaves it undefined.
        high: Upper end of the interval; NaN where one value leaves it undefined.
        n: Number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class PairedDifference(Interval):
    """Mean difference over pairs, with its interval and its two-sided p-value.

    Attributes:
        p: p-value of the paired t test; NaN for a single pair.
        prediction: Interval in which the difference of one further pair is expected.
    """

    p: float
    prediction: Interval


@dataclass(frozen=True)
class Ranking:
    """Methods in their order over data sets.

    Attributes:
        ranks: Mean rank of each method over the data sets, 1 for the lowest score.
        statistic: Friedman's chi-square.
        p: Its p-value, for the hypothesis that all methods are alike.
        critical_difference: Nemenyi's: mean ranks closer than this cannot be told apart.
        n: Number of data sets.
    """

    ranks: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float
    n: int


def mean_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Student's t interval for the mean.

    Args:
        values: One finite number a seed, at least one.
        confidence: Coverage of the interval, in (0, 1).
        within: Range of the quantity, such as (0, 1) for an accuracy: the interval ends there,
            which leaves out nothing that could be.

    Returns:
        The mean and ``mean +- t * s / sqrt(n)`` with ``n - 1`` degrees of freedom. For one value
        the ends are NaN: one run says nothing about the spread.

    Raises:
        ValueError: No value, a value that is not finite, or a confidence outside (0, 1).

    Example:
        >>> interval = mean_interval([0.80, 0.81, 0.79])
        >>> f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        '0.800 [0.775, 0.825]'
    """
    return _t_interval(_checked(values, "values"), confidence, 0.0, within)


def prediction_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Interval in which one further run is expected.

    This is the yardstick for a published number that comes from a single run: it covers the run's
    own scatter as well as the doubt about the mean.

    Args:
        values: One finite number a seed, at least one.
        confidence: Coverage of the interval, in (0, 1).
        within: Range of the quantity, such as (0, 1) for an accuracy: the interval ends there,
            which leaves out nothing that could be.

    Returns:
        The mean and ``mean +- t * s * sqrt(1 + 1/n)``; NaN ends for one value.

    Raises:
        ValueError: No value, a value that is not finite, or a confidence outside (0, 1).

    References:
        G. J. Hahn and W. Q. Meeker, Statistical Intervals, 1991, section 4.7.

    Example:
        >>> interval = prediction_interval([0.80, 0.81, 0.79])
        >>> 0.84 in interval, 0.86 in interval
        (True, False)
    """
    return _t_interval(_checked(values, "values"), confidence, 1.0, within)


def paired_difference(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95
) -> PairedDifference:
    """Mean of ``a - b`` over pairs that share a seed.

    Args:
        a: One number a seed.
        b: One number a seed, in the same order of seeds as ``a``.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        Mean difference, t interval, two-sided p-value of the paired t test, number of pairs, and
        the prediction interval for one further pair.

    Raises:
        ValueError: Different lengths, no pair, or a value that is not finite.

    Example:
        >>> d = paired_difference([0.83, 0.85, 0.84], [0.80, 0.83, 0.80])
        >>> f"{d.mean:.3f} [{d.low:.3f}, {d.high:.3f}], p = {d.p:.3f}, n = {d.n}"
        '0.030 [0.005, 0.055], p = 0.035, n = 3'
    """
    first, second = _pairs(a, b, "a", "b")
    differences = first - second
    return PairedDifference(
        **vars(_t_interval(differences, confidence, extra=0.0)),
        p=_paired_p(differences),
        prediction=_t_interval(differences, confidence, extra=1.0),
    )


def crossed_difference(
    differences: Sequence[Sequence[float]] | np.ndarray, confidence: float = 0.95
) -> PairedDifference:
    r"""Mean of differences that each seed has on each image, for other seeds *and* other images.

    A mean over seeds says what another training would give on the same test images; this one also
    asks for other images of the same kind. With the mean squares of the two-way layout of
    :math:`S` seeds and :math:`N` images, the variance of the mean is
    :math:`(MS_S + MS_N - MS_{SN}) / (S N)`, with Satterthwaite's degrees of freedom. Where
    :math:`MS_N - MS_{SN}` is negative it counts as nothing, as in the analysis of several readers
    and cases (Hillis): the error is never less than that over the seeds alone.

    Args:
        differences: ``(S, N)``, a row a seed, two or more of each; for an area under the curve, the
            differences of :func:`varreg.lab.metrics.auroc_pseudovalues`.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        Mean, t interval and its two-sided p-value, number of seeds, and the prediction interval for
        another seed on the same images.

    Raises:
        ValueError: Fewer than two seeds or images, or a value that is not finite.

    References:
        S. R. Searle, G. Casella, C. E. McCulloch, Variance Components, 1992, chapter 4;
        F. E. Satterthwaite, An approximate distribution of estimates of variance components,
        Biometrics Bulletin 2, 110-114, 1946; S. L. Hillis, A comparison of denominator degrees of
        freedom methods for multiple observer ROC analysis, Statistics in Medicine 26, 596-619,
        2007.

    Example:
        >>> rows = [[0.1, 0.3, 0.2, 0.2], [0.0, 0.4, 0.1, 0.2], [0.2, 0.5, 0.3, 0.3]]
        >>> d = crossed_difference(rows)
        >>> f"{d.mean:.2f} [{d.low:.2f}, {d.high:.2f}]"
        '0.23 [0.03, 0.43]'
    """
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(
            f"differences have shape {table.shape}: give a row a seed and a column an image, two "
            "or more of each."
        )
    if not np.isfinite(table).all():
        raise ValueError("differences hold NaN or infinite values: leave those runs out first.")
    seeds, images = table.shape
    by_seed, by_image, mean = table.mean(1), table.mean(0), float(table.mean())
    of_seeds = images * by_seed.var(ddof=1)
    of_images = seeds * by_image.var(ddof=1)
    rest = table - by_seed[:, None] - by_image + mean
    freedom = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    squares = np.array([of_seeds, of_images, float((rest**2).sum()) / freedom[2]])
    # Other images add to what the seeds do, or nothing.
    total = squares[0] + max(squares[1] - squares[2], 0.0)
    error = math.sqrt(total / table.size)
    if total > 0:
        own_freedom = max(total**2 / float((squares**2 / freedom).sum()), 1.0)
        half = float(stats.t.ppf(0.5 + _checked_confidence(confidence) / 2, own_freedom)) * error
        p = float(2 * stats.t.sf(abs(mean) / error, own_freedom))
    else:
        half, p = 0.0, 1.0 if mean == 0 else 0.0
    another = _t_interval(by_seed, confidence, extra=1.0)
    return PairedDifference(mean, mean - half, mean + half, seeds, p=p, prediction=another)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing several hypotheses at once.

    Args:
        p_values: Raw p-values in [0, 1], in any order; NaN (no test was possible) stays NaN and
            does not count.

    Returns:
        Adjusted p-values in the order given. Each one that stays below 0.05 may be called a
        finding while the chance of any false one among them stays below 5 %.

    Raises:
        ValueError: A p-value outside [0, 1].

    References:
        S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
        Statistics 6, 65-70, 1979.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1:
        raise ValueError(f"p_values has shape {raw.shape}: give a flat list of numbers.")
    known = np.flatnonzero(~np.isnan(raw))
    if known.size and not ((raw[known] >= 0) & (raw[known] <= 1)).all():
        raise ValueError(f"p_values holds {list(p_values)}: every p-value lies between 0 and 1.")
    order = known[np.argsort(raw[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted = raw.copy()
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1.0)
    return [float(p) for p in adjusted]


def detectable(
    differences: Sequence[float], *, power: float = 0.8, confidence: float = 0.95
) -> float:
    r"""Smallest mean difference that would have been found in so many pairs that vary so much.

    With the standard deviation :math:`s` of :math:`n` pairs it is :math:`\delta s / \sqrt n`, where
    a noncentral t distribution of noncentrality :math:`\delta` exceeds the critical value of the
    two-sided t test with the probability ``power``.

    Args:
        differences: One a pair; only their spread and number count.
        power: How often it is to be found, in (0, 1).
        confidence: Of the test; for the smallest p of ``m`` in Holm's procedure, ``1 - 0.05 / m``.

    Returns:
        In the unit of the differences; NaN for a single one.

    Raises:
        ValueError: As :func:`mean_interval`, or a power outside (0, 1).

    References:
        J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2.

    Example:
        >>> round(detectable([0.01, 0.03, 0.02, 0.02]), 4)
        0.0174
    """
    values = _checked(differences, "differences")
    quantile, freedom = 0.5 + _checked_confidence(confidence) / 2, values.size - 1
    missed = 1 - _checked_confidence(power, "power")
    if freedom == 0:
        return math.nan
    away = special.nctdtrinc(freedom, missed, stats.t.ppf(quantile, freedom))
    return float(away * values.std(ddof=1) / math.sqrt(values.size))


def probability_of_improvement(values: Sequence[float], reference: Sequence[float]) -> float:
    """How often a run is above one of the reference that has another seed; ties count half.

    Runs with the same seed share initial weights and batches, so they are no two independent draws:
    these pairs are left out.

    Args:
        values: One number a seed.
        reference: One number a seed, in the same order of seeds.

    Returns:
        From 0 to 1; NaN for a single seed.

    Raises:
        ValueError: Different lengths, no value, or a value that is not finite.

    References:
        R. Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice,
        NeurIPS 2021, where all pairs are independent.

    Example:
        >>> probability_of_improvement([0.8, 0.6], [0.6, 0.7])  # 0.8 over 0.7, and a tie
        0.75
    """
    first, second = _pairs(values, reference, "values", "reference")
    if first.size == 1:
        return math.nan
    above = (np.sign(first[:, None] - second) + 1) / 2
    return float(above[~np.eye(first.size, dtype=bool)].mean())


def ranking(scores: Sequence[Sequence[float]] | np.ndarray, confidence: float = 0.95) -> Ranking:
    r"""Methods over data sets: mean ranks, Friedman's test and Nemenyi's critical difference.

    Two of :math:`k` methods differ over :math:`N` data sets where their mean ranks are
    :math:`q_\alpha \sqrt{k (k + 1) / (6 N)}` apart, with :math:`q_\alpha`, the quantile of the
    studentized range of :math:`k` values over :math:`\sqrt 2`. Scores of different data sets are
    compared nowhere. With a handful of data sets only large differences can be seen, and the
    chi-square distribution of the statistic is an approximation.

    Args:
        scores: ``(N, k)``, a row a data set and a column a method; lower is better. Two data sets
            and three methods, or more.
        confidence: In (0, 1).

    Raises:
        ValueError: Fewer data sets or methods, or a score that is not finite.

    References:
        J. Demsar, Statistical comparisons of classifiers over multiple data sets, Journal of
        Machine Learning Research 7, 1-30, 2006.

    Example:
        >>> found = ranking([[0.1, 0.2, 0.3], [1.5, 1.6, 1.7], [8.0, 7.0, 9.0]])
        >>> [round(rank, 2) for rank in found.ranks], round(found.critical_difference, 2)
        ([1.33, 1.67, 3.0], 1.91)
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2 or table.shape[1] < 3:
        raise ValueError(
            f"scores have shape {table.shape}: give a row a data set, two or more, and a column a "
            "method, three or more."
        )
    if not np.isfinite(table).all():
        raise ValueError("scores hold NaN or infinite values: leave those methods out first.")
    n, methods = table.shape
    alike = (table == table[:, :1]).all()  # the statistic is 0/0
    statistic, p = (0.0, 1.0) if alike else stats.friedmanchisquare(*table.T)
    quantile = stats.studentized_range.ppf(_checked_confidence(confidence), methods, np.inf)
    return Ranking(
        tuple(stats.rankdata(table, axis=1).mean(0).tolist()),
        float(statistic),
        float(p),
        float(quantile / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * n))),
        n,
    )


def variance_shares(
    values: np.ndarray, factors: Sequence[str], order: int = 2
) -> dict[tuple[str, ...], float]:
    """How much of the variation each factor explains, and each interaction of some of them.

    Sums of squares of a balanced layout with one value a cell, over their total: they add up to 1.

    Args:
        values: An axis a factor.
        factors: Their names, in the order of the axes.
        order: Of the interactions: 1 for none, 2 for those of two factors.

    Returns:
        By the names of the factors, and by ``()`` what is left. NaN where nothing varies.

    Raises:
        ValueError: Names that do not fit the axes, or a value that is not finite.

    References:
        H. Scheffe, The Analysis of Variance, 1959, chapter 4.

    Example:
        >>> variance_shares(np.array([[0.0, 1.0], [2.0, 3.0]]), ["method", "seed"])
        {('method',): 0.8, ('seed',): 0.2, ('method', 'seed'): 0.0, (): 0.0}
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != len(factors) or not table.size:
        raise ValueError(
            f"values have shape {table.shape} and the factors are {list(factors)}: give an axis a "
            "factor, with a value or more."
        )
    if not np.isfinite(table).all():
        raise ValueError("values hold NaN or infinite values: keep the cells that all have.")
    total, axes = float(table.var()), range(table.ndim)
    effects: dict[tuple[int, ...], np.ndarray] = {(): table.mean(keepdims=True)}
    for count in range(1, order + 1):
        for kept in itertools.combinations(axes, count):
            cells = table.mean(tuple(set(axes) - set(kept)), keepdims=True)
            smaller = (effect for some, effect in effects.items() if set(some) < set(kept))
            effects[kept] = cells - sum(smaller)
    rest = table - sum(effects.values())
    named = {tuple(factors[axis] for axis in kept): effects[kept] for kept in effects if kept}
    squares = {name: float((effect**2).mean()) for name, effect in {**named, (): rest}.items()}
    return {name: square / total if total else math.nan for name, square in squares.items()}


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion, sound for small counts too.

    Args:
        k: Number of successes, 0 to ``n``.
        n: Number of trials, at least 1.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        Lower and upper end, both in [0, 1].

    Raises:
        ValueError: A count outside its range, or a confidence outside (0, 1).

    References:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal
        of the American Statistical Association 22, 209-212, 1927.

    Example:
        >>> [round(end, 3) for end in wilson(15, 16)]
        [0.717, 0.989]
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"k = {k} of n = {n}: n must be at least 1 and k between 0 and n.")
    test = stats.binomtest(k, n)
    found = test.proportion_ci(_checked_confidence(confidence), method="wilson")
    return float(found.low), float(found.high)


def _checked(values: Sequence[float], name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}: give a flat list with one number a seed, at least "
            "one; is the study recorded?"
        )
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array)).tolist()
        raise ValueError(f"{name} is not finite at positions {bad}: leave those runs out first.")
    return array


def _pairs(
    a: Sequence[float], b: Sequence[float], first: str, second: str
) -> tuple[np.ndarray, np.ndarray]:
    values = _checked(a, first), _checked(b, second)
    if values[0].size != values[1].size:
        raise ValueError(
            f"{first} has {values[0].size} values and {second} has {values[1].size}: pairs need "
            "one value a seed in each, in the same order; keep the seeds that both have."
        )
    return values


def _checked_confidence(confidence: float, name: str = "confidence") -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"{name} is {confidence}: give a share between 0 and 1, as in 0.95.")
    return confidence


def _t_interval(
    values: np.ndarray,
    confidence: float,
    extra: float,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    quantile = 0.5 + _checked_confidence(confidence) / 2
    mean, n = float(values.mean()), int(values.size)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    deviation = float(values.std(ddof=1))
    half = float(stats.t.ppf(quantile, n - 1)) * deviation * math.sqrt(extra + 1 / n)
    return Interval(mean, max(mean - half, within[0]), min(mean + half, within[1]), n)


def _paired_p(differences: np.ndarray) -> float:
    n = differences.size
    if n == 1:
        return math.nan
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error == 0:  # the t statistic is 0/0 or x/0: settle both cases by hand
        return 1.0 if differences[0] == 0 else 0.0
    return float(2 * stats.t.sf(abs(differences.mean()) / error, n - 1))
