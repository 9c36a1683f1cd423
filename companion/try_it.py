"""The page to try the penalty on: what a few seeds say, in words."""

from __future__ import annotations

from collections.abc import Mapping

from companion import tables, verdicts, words
from varreg.lab.statistics import PairedDifference


def in_plain_words(changes: Mapping[str, PairedDifference]) -> str:
    """Whether a penalty helps, in words that follow from the intervals.

    Args:
        changes: Metric, as in ``"auroc"`` -> with the penalty minus without it.

    Example:
        >>> from varreg.lab.statistics import paired_difference
        >>> worse = paired_difference([0.80, 0.81, 0.79], [0.90, 0.91, 0.90])
        >>> print(in_plain_words({"auroc": worse}).partition(" (")[0])
        Here the penalty makes the model worse: it lowers AUROC by 0.103
    """
    if any(change.n < 2 for change in changes.values()):
        return "One pair of models cannot tell an effect from luck: try more seeds."
    # Ends of the interval, seen from the side that is better.
    ends = [
        sorted((tables.better(name) * change.low, tables.better(name) * change.high))
        for name, change in changes.items()
    ]
    helps, hurts = any(low > 0 for low, _ in ends), any(high < 0 for _, high in ends)
    verdict = {
        (True, False): "helps",
        (False, True): "makes the model worse",
        (True, True): "helps in one thing and hurts in another",
        (False, False): "makes no clear difference",
    }[helps, hurts]
    phrases = [verdicts.phrase(each, tables.MEASURES[name]) for name, each in changes.items()]
    return f"Here the penalty {verdict}: it {words.listed(phrases)}."
