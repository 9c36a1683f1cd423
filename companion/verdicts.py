"""From numbers to words, by rules that are stated once and hold everywhere.

A published *number* comes from one run. It is

- ``not reproduced`` when it lies outside the 95 % prediction interval for one further run of ours,
- ``reproduced`` when it lies inside, and the interval could have excluded it: it reaches no farther
  than :data:`REACH` standard deviations to either side, which takes six runs, and for a *change* it
  does not hold "no change" as well,
- ``cannot be known`` when it lies inside an interval that is too wide for that, or with fewer than
  three runs.

A claimed *direction* is judged by the paired difference over seeds. It is

- ``reproduced`` when the 95 % interval lies wholly on the claimed side of zero and the mean is at
  least :data:`MARGIN`,
- ``contradicted`` when the same holds on the other side,
- ``not reproduced`` otherwise, when the interval holds no improvement of :data:`MARGIN` or more,
- ``cannot be known`` otherwise: the interval holds both nothing worth having and something that
  is, or there are fewer than two pairs.

A claim about *several* of these is what all of them are; ``partly`` when some are reproduced;
``cannot be known`` when none is and some cannot be known; else ``not reproduced``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

from companion.words import between
from varreg.checks import check_range
from varreg.lab.statistics import Interval, prediction_interval

VERDICTS = ("reproduced", "partly", "not reproduced", "contradicted", "cannot be known")

#: Smallest improvement worth having, in the unit of the metric: one point of accuracy, 0.01 of
#: AUROC, cross-entropy or calibration error. It is what the plans call the smallest effect of
#: interest, too.
MARGIN = 0.01

#: How far, in standard deviations of our runs, a prediction interval may reach to either side for
#: a number inside to count as reproduced. Three runs give 5.0, six 2.8, ten 2.4.
REACH = 3.0


def of_number(published: float, values: Sequence[float], null: float | None = None) -> str:
    """Judge a published number by our runs of the same protocol.

    Args:
        published: The number, on the scale of ``values``.
        values: One number a seed; may be empty.
        null: For a change: the value that says that nothing changed. An interval that holds it
            as well as the published number tells neither from the other.

    Raises:
        ValueError: The published number is not finite.

    Example:
        >>> runs = [0.79, 0.80, 0.82, 0.80, 0.79, 0.81]
        >>> of_number(0.80, runs), of_number(0.30, runs)
        ('reproduced', 'not reproduced')
        >>> of_number(0.80, runs[:3])  # the interval of three runs would hold nearly anything
        'cannot be known'
    """
    if not math.isfinite(published):
        raise ValueError(f"the published number is {published}: a verdict needs a finite one")
    if len(values) < 3:
        return "cannot be known"
    interval = prediction_interval(values)
    if published not in interval:
        return "not reproduced"
    too_wide = interval.high - interval.mean > REACH * float(np.std(values, ddof=1))
    blind = null is not None and null in interval
    return "cannot be known" if too_wide or blind else "reproduced"


def pass_rate(runs: int, away: float) -> float:
    """How often a number that is off lies inside the prediction interval all the same.

    Args:
        runs: Number of runs, 2 or more.
        away: How far the number is from the mean of all possible runs, in their standard
            deviations.

    Returns:
        The probability, for normally distributed runs. The distance of the number from the mean
        of the runs, over its standard error, has a noncentral t distribution.

    Example:
        >>> [round(pass_rate(runs, 3.0), 2) for runs in (3, 6, 10)]
        [0.69, 0.34, 0.14]
    """
    freedom = runs - 1
    bound = float(stats.t.ppf(0.975, freedom)) * math.sqrt(runs + 1)
    centre = away * math.sqrt(runs)
    below = stats.nct.sf(bound, freedom, -centre)  # the other tail, by symmetry
    return float(stats.nct.cdf(bound, freedom, centre) - below)


def of_difference(difference: Interval | None, direction: int, margin: float = MARGIN) -> str:
    """Judge a claimed direction by a paired difference.

    Args:
        difference: ``method - reference`` over seeds; ``None`` where nothing is recorded.
        direction: +1 where the claim says that the method's value is higher, -1 for lower.
        margin: Smallest difference that matters, 0 or more.

    Raises:
        ValueError: The direction is neither +1 nor -1, or the margin is negative.

    Example:
        >>> from varreg.lab.statistics import paired_difference
        >>> lower = paired_difference([0.50, 0.52, 0.51], [0.60, 0.61, 0.62])
        >>> of_difference(lower, -1), of_difference(lower, +1)
        ('reproduced', 'contradicted')
    """
    if direction not in (1, -1):
        raise ValueError(f"direction is {direction}: +1 (claimed higher) or -1 (claimed lower)")
    check_range("margin", margin)
    if difference is None or difference.n < 2:
        return "cannot be known"
    # Seen from the claimed side: positive is as claimed.
    mean = direction * difference.mean
    worst, best = sorted((direction * difference.low, direction * difference.high))
    if worst > 0 and mean >= margin:
        return "reproduced"
    if best < 0 and mean <= -margin:
        return "contradicted"
    return "not reproduced" if best < margin else "cannot be known"


def reads(mean: float, low: float, high: float, p_holm: float) -> str:
    """What a difference of the primary outcome says, by the rules of the plan of the comparison.

    Example:
        >>> reads(-0.05, -0.08, -0.02, 0.001), reads(0.001, -0.004, 0.006, 0.7)
        ('lower', 'negligible')
        >>> reads(0.02, -0.02, 0.06, 0.4), reads(-0.003, -0.005, -0.001, 0.001)
        ('unclear', 'negligible')
    """
    if low > -MARGIN and high < MARGIN:
        return "negligible"
    if p_holm < 0.05:
        return "lower" if mean < 0 else "higher"
    return "unclear"


def together(verdicts: Iterable[str]) -> str:
    """Verdict on a claim that consists of several.

    Raises:
        ValueError: A word that is not one of :data:`VERDICTS`.

    Example:
        >>> together(["reproduced", "cannot be known"])
        'partly'
        >>> together(["not reproduced", "cannot be known"]), together([])
        ('cannot be known', 'cannot be known')
    """
    words = set(verdicts)
    if unknown := words - set(VERDICTS):
        raise ValueError(f"verdicts are {sorted(unknown)}: allowed are {', '.join(VERDICTS)}")
    if len(words) == 1:
        return words.pop()
    if words & {"reproduced", "partly"}:
        return "partly"
    return "not reproduced" if words and "cannot be known" not in words else "cannot be known"


def phrase(difference: Interval | None, what: str, digits: int = 3, margin: float = MARGIN) -> str:
    """Say a paired difference in words that follow from its interval.

    Args:
        difference: ``method - reference`` over seeds; ``None`` where nothing is recorded.
        what: Name of the metric, as in ``"test cross-entropy"``.
        digits: Digits after the point.
        margin: What an interval around zero must stay within to be called no change.

    Returns:
        A verb phrase: ``lowers`` or ``raises`` where the interval excludes zero; ``changes ... by
        less than`` a bound where it includes zero and the bound is at most ``margin``; ``may lower
        or raise`` where it is wider, which says that it is not known; ``leaves ... as it is`` where
        no pair differs, as where both are the same runs.

    Example:
        >>> from varreg.lab.statistics import paired_difference
        >>> lower = paired_difference([0.50, 0.52, 0.51], [0.60, 0.61, 0.62])
        >>> print(phrase(lower, "cross-entropy", 2))
        lowers cross-entropy by 0.10 (95 % interval 0.08 to 0.12)
        >>> print(phrase(paired_difference([0.800, 0.801], [0.801, 0.800]), "accuracy"))
        may lower or raise accuracy (95 % interval \u22120.013 to +0.013)
    """
    if difference is None or difference.n < 2:
        return f"has too few recorded runs to speak about {what}"
    low, high, mean = difference.low, difference.high, difference.mean
    if low > 0 or high < 0:
        verb = "raises" if low > 0 else "lowers"
        ends = between(*sorted((abs(low), abs(high))), digits)
        return f"{verb} {what} by {abs(mean):.{digits}f} (95 % interval {ends})"
    if low == high == 0:
        return f"leaves {what} as it is"
    most, unit = max(-low, high), 10.0**-digits
    interval = f"(95 % interval {between(low, high, digits, signed=True)})"
    if most <= margin:
        # Rounded up, so that it is a bound as printed too.
        bound = max(math.ceil(most / unit - 1e-9), 1) * unit
        return f"changes {what} by less than {bound:.{digits}f} {interval}"
    return f"may lower or raise {what} {interval}"
