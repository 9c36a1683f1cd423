"""How numbers and lists of them are printed in the notebook on the published numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = [
    "between",
    "capital",
    "counted",
    "digits",
    "listed",
    "minus",
    "p_value",
    "percent",
    "percents",
    "slashed",
]

COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def digits(value: float, places: int = 4) -> str:
    """A number with its digits, or a dash for NaN.

    Example:
        >>> digits(0.5, 2)
        '0.50'
    """
    return "\u2013" if math.isnan(value) else f"{value:.{places}f}"


def between(ends: Sequence[float], places: int = 4) -> str:
    """A range.

    Example:
        >>> between((0.5, 1), 1)
        '0.5 to 1.0'
    """
    return f"{digits(ends[0], places)} to {digits(ends[1], places)}"


def slashed(values: Sequence[float]) -> str:
    """Several numbers side by side.

    Example:
        >>> slashed([0.5, 1])
        '0.500 / 1.000'
    """
    return " / ".join(digits(value, 3) for value in values)


def minus(text: str) -> str:
    """The same with a minus sign for each hyphen."""
    return text.replace("-", "\u2212")


def p_value(p: float) -> str:
    """A p-value, with a bound where three digits show none of it.

    Example:
        >>> p_value(0.125), p_value(1e-5)
        ('0.125', 'below 0.001')
    """
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def percent(value: float) -> str:
    """A change, signed.

    Example:
        >>> percent(0.123)
        '+12.3 %'
    """
    return minus(f"{100 * value:+.1f} %")


def listed(parts: Iterable[str]) -> str:
    """One part or more as in a sentence.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def percents(changes: Iterable[float]) -> str:
    """Several changes as in a sentence."""
    return listed([percent(change) for change in changes])


def counted(count: int) -> str:
    """A count at the start of a sentence.

    Example:
        >>> counted(4), counted(12)
        ('Four', '12')
    """
    return COUNTS[count] if count < len(COUNTS) else str(count)


def capital(text: str) -> str:
    """The same with a capital."""
    return text[:1].upper() + text[1:]
