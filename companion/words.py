"""How numbers and lists are printed on every page: a minus sign, a dash for what is not known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from varreg.lab.statistics import Interval

DASH = "\u2013"
Format = str | Mapping[object, str] | Callable[..., object]


def minus(text: str) -> str:
    """The same with a minus sign for each hyphen."""
    return text.replace("-", "\u2212")


def capital(text: str) -> str:
    """The same with a capital.

    Example:
        >>> capital("paper's network, ResNet-18")
        "Paper's network, ResNet-18"
    """
    return text[:1].upper() + text[1:]


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number with so many decimals; a dash for NaN.

    Example:
        >>> number(0.5, 2), number(0.5, signed=True), number(1234.5, 0)
        ('0.50', '+0.500', '1,234')
    """
    return DASH if math.isnan(value) else minus(f"{value:{'+' * signed},.{digits}f}")


def between(low: float, high: float, digits: int = 3, *, signed: bool = False) -> str:
    """A range; a dash where the lower end is NaN.

    Example:
        >>> between(0.5, 1, 1)
        '0.5 to 1.0'
    """
    ends = (number(end, digits, signed=signed) for end in (low, high))
    return DASH if math.isnan(low) else " to ".join(ends)


def interval(mean: float, low: float, high: float, digits: int = 3, *, signed: bool = False) -> str:
    """A mean with its interval, or alone where the interval is NaN.

    Example:
        >>> interval(0.8, 0.775, 0.825), interval(0.8, math.nan, math.nan)
        ('0.800 [0.775, 0.825]', '0.800')
    """
    text, *ends = (number(value, digits, signed=signed) for value in (mean, low, high))
    return text if math.isnan(mean) or math.isnan(low) else f"{text} [{', '.join(ends)}]"


def percent(share: float, digits: int = 0, *, signed: bool = False) -> str:
    """A share of 1 in percent; a dash for NaN.

    Example:
        >>> percent(0.123), percent(0.123, 1, signed=True)
        ('12 %', '+12.3 %')
    """
    return DASH if math.isnan(share) else f"{number(100 * share, digits, signed=signed)} %"


def short(value: float) -> str:
    """Two digits that say something, and no power of ten; a dash for NaN.

    Example:
        >>> short(0.01234), short(12345)
        ('0.012', '12,000')
    """
    return DASH if math.isnan(value) else minus(f"{float(f'{value:.2g}'):,.12g}")


def percent_short(share: float) -> str:
    """A share of 1 in percent: whole ones, two digits where that is below 10 %; a dash for NaN.

    Example:
        >>> percent_short(2.056), percent_short(0.0261)
        ('206 %', '2.6 %')
    """
    return f"{short(100 * share)} %" if share < 0.1 else percent(share)


def duration(seconds: float) -> str:
    """Seconds in a unit in which they are easily read.

    Example:
        >>> duration(0.0123), duration(75)
        ('12.3 ms', '75 s')
    """
    shown = float(f"{seconds:.3g}")
    for unit, size in (("s", 1), ("ms", 1e-3), ("\u00b5s", 1e-6)):
        if shown >= size:
            return f"{shown / size:,.4g} {unit}"
    return "0"


def factor(log: Interval) -> str:
    """A factor with its interval, from those of its logarithm.

    Example:
        >>> factor(Interval(math.log(0.5), math.log(0.4), math.log(0.6), 5))
        '0.50 [0.40, 0.60]'
    """
    times = (math.exp(value) for value in (log.mean, log.low, log.high))
    mean, *ends = (f"{value:.2f}" if 0.1 <= value < 10 else short(value) for value in times)
    return f"{mean} [{', '.join(ends)}]" if log.n > 1 else mean


def p_value(p: float) -> str:
    """A p-value, with a bound where three digits show none of it.

    Example:
        >>> p_value(0.125), p_value(1e-5)
        ('0.125', 'below 0.001')
    """
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def count(number: int, noun: str) -> str:
    """How many of something.

    Example:
        >>> count(1, "run"), count(1200, "run")
        ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(parts: Iterable[str]) -> str:
    """One part or more as in a sentence.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def level(found: Interval | None, digits: int = 3, *, signed: bool = False) -> str:
    """A mean with its interval; a dash for ``None``.

    Example:
        >>> level(Interval(0.8, 0.775, 0.825, 3)), level(None) == DASH
        ('0.800 [0.775, 0.825]', True)
    """
    if found is None:
        return DASH
    return interval(found.mean, found.low, found.high, digits, signed=signed)


def change(found: Interval | None, digits: int = 3) -> str:
    """A difference with its interval, signed; a dash for ``None``.

    A row with these columns will do as well.

    Example:
        >>> change(Interval(0.1, 0.05, 0.15, 5))
        '+0.100 [+0.050, +0.150]'
    """
    return level(found, digits, signed=True)


def printed(
    frame: pd.DataFrame, columns: Mapping[str, str | tuple[str | list[str], Format]]
) -> pd.DataFrame:
    """A frame as printed: which columns, under which headings, in which format.

    Args:
        frame: A row a line of the table; without rows, it may lack the columns.
        columns: Heading -> column, or column and format: a format such as ``".4f"`` (a dash
            for NaN), names by value, or a function of the value; of several, for a list of columns.

    Example:
        >>> frame = pd.DataFrame({"method": ["a"], "low": [0.5], "high": [0.75]})
        >>> columns = {"Low": ("low", ".2f"), "Range": (["low", "high"], between)}
        >>> printed(frame, columns).iloc[0].tolist()
        ['0.50', '0.500 to 0.750']
    """
    found = {}
    if frame.empty:
        return pd.DataFrame(columns=list(columns))
    for heading, entry in columns.items():
        names, form = entry if isinstance(entry, tuple) else (entry, lambda value: value)
        names = [names] if isinstance(names, str) else names
        values = zip(*(frame[name] for name in names), strict=True)
        found[heading] = [say(form)(*each) for each in values]
    return pd.DataFrame(found)


def glued(facts: Mapping[str, object]) -> None:
    """Glue facts by their names, for the text of the same page or of another."""
    from myst_nb import glue

    for name, value in facts.items():
        glue(name, value, display=False)


def say(form: Format) -> Callable[..., object]:
    """The function that a format stands for.

    Example:
        >>> say(".1f")(-0.25), say({"a": "first"})("a")
        ('\u22120.2', 'first')
    """
    if isinstance(form, str):
        return lambda value: DASH if math.isnan(value) else minus(f"{value:{form}}")
    return form.__getitem__ if isinstance(form, Mapping) else form
