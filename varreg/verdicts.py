"""From numbers to words, by rules that are stated once and hold everywhere.

A published *number* comes from one run. It is

- ``reproduced`` when it lies in the 95 % prediction interval for one further run of ours,
- ``not reproduced`` when it lies outside,
- ``cannot be known`` with fewer than three runs.

A claimed *direction* is judged by the paired difference over seeds. It is

- ``reproduced`` when the 95 % interval lies wholly on the claimed side of zero,
- ``not reproduced`` when the interval holds no improvement larger than :data:`MARGIN`,
- ``cannot be known`` otherwise: the interval holds both no change and one worth having, or there
  are fewer than two pairs.

A claim about *several* of these is ``reproduced`` when all are, ``partly`` when some are, ``not
reproduced`` when none is, and ``cannot be known`` when none is and some cannot be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from varreg.statistics import PairedDifference, prediction_interval

__all__ = ["MARGIN", "VERDICTS", "of_difference", "of_number", "phrase", "together"]

VERDICTS = ("reproduced", "partly", "not reproduced", "cannot be known")

#: Smallest improvement worth having, in the unit of the metric: one point of accuracy, 0.01 of
#: AUROC, cross-entropy or calibration error.
MARGIN = 0.01


def of_number(published: float, values: Sequence[float]) -> str:
    """Judge a published number by our runs of the same protocol.

    Args:
        published: The number, on the scale of ``values``.
        values: One number a seed; may be empty.

    Raises:
        ValueError: The published number is not finite.

    Example:
        >>> of_number(0.80, [0.79, 0.80, 0.82]), of_number(0.30, [0.79, 0.80, 0.82])
        ('reproduced', 'not reproduced')
        >>> of_number(0.80, [0.80, 0.81])  # the interval of two runs would hold anything
        'cannot be known'
    """
    if not math.isfinite(published):
        raise ValueError(f"the published number is {published}: a verdict needs a finite one")
    if len(values) < 3:
        return "cannot be known"
    return "reproduced" if published in prediction_interval(values) else "not reproduced"


def of_difference(
    difference: PairedDifference | None, direction: int, margin: float = MARGIN
) -> str:
    """Judge a claimed direction by a paired difference.

    Args:
        difference: ``method - reference`` over seeds; ``None`` where nothing is recorded.
        direction: +1 where the claim says that the method's value is higher, -1 for lower.
        margin: Smallest improvement worth having, 0 or more.

    Raises:
        ValueError: The direction is neither +1 nor -1, or the margin is negative.

    Example:
        >>> from varreg.statistics import paired_difference
        >>> of_difference(paired_difference([0.50, 0.52, 0.51], [0.60, 0.61, 0.62]), -1)
        'reproduced'
    """
    if direction not in (1, -1):
        raise ValueError(f"direction is {direction}: +1 (claimed higher) or -1 (claimed lower)")
    if not margin >= 0:
        raise ValueError(f"margin is {margin}: give 0 or more")
    if difference is None or difference.n < 2:
        return "cannot be known"
    # Seen from the claimed side: positive is as claimed.
    worst, best = sorted((direction * difference.low, direction * difference.high))
    if worst > 0:
        return "reproduced"
    return "not reproduced" if best < margin else "cannot be known"


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
    return "partly" if words & {"reproduced", "partly"} else "cannot be known"


def phrase(difference: PairedDifference | None, what: str, digits: int = 3) -> str:
    """Say a paired difference in words that follow from its interval.

    Args:
        difference: ``method - reference`` over seeds; ``None`` where nothing is recorded.
        what: Name of the metric, as in ``"test cross-entropy"``.
        digits: Digits after the point.

    Returns:
        A verb phrase: ``lowers`` or ``raises`` where the interval excludes zero, ``does not
        measurably change`` where it includes zero.

    Example:
        >>> from varreg.statistics import paired_difference
        >>> lower = paired_difference([0.50, 0.52, 0.51], [0.60, 0.61, 0.62])
        >>> print(phrase(lower, "cross-entropy", 2))
        lowers cross-entropy by 0.10 (95 % interval 0.08 to 0.12)
    """
    if difference is None or difference.n < 2:
        return f"has too few recorded runs to speak about {what}"
    low, high, mean = difference.low, difference.high, difference.mean
    if low > 0 or high < 0:
        verb = "raises" if low > 0 else "lowers"
        near, far = sorted((abs(low), abs(high)))
        return (
            f"{verb} {what} by {abs(mean):.{digits}f} "
            f"(95 % interval {near:.{digits}f} to {far:.{digits}f})"
        )
    return (
        f"does not measurably change {what} "
        f"(95 % interval {_signed(low, digits)} to {_signed(high, digits)})"
    )


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\u2212")
