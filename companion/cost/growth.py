"""How cost grows: a curve through the seconds of the benchmark ``growth``, one a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares

from companion.cost.recordings import Recordings, Spread

#: What grows in the benchmark, as printed.
QUANTITIES = {
    "batch": "Images in a batch",
    "features": "Features",
    "images": "Training images",
    "ratio": "Sampling ratio",
}


@dataclass(frozen=True)
class Growth:
    """How seconds grow with a quantity: ``fixed + factor * value ** exponent``.

    Attributes:
        fixed: Seconds that do not depend on the quantity.
        factor: Seconds at a value of 1, beyond those.
        exponent: 1: linear; 0: no dependence.
        worst: The largest factor between a measurement and the curve, 1 or more; not a number
            where there are no more measurements than parameters, so that the curve had to fit.
    """

    fixed: float
    factor: float
    exponent: float
    worst: float

    def seconds(self, values: ArrayLike) -> np.ndarray:
        """The curve at some values.

        Example:
            >>> Growth(1.0, 2.0, 1.0, 1.0).seconds([0, 3]).tolist()
            [1.0, 7.0]
        """
        return self.fixed + self.factor * np.asarray(values, float) ** self.exponent


def fit_growth(values: ArrayLike, seconds: ArrayLike, *, fixed_cost: bool = True) -> Growth:
    """Fit ``seconds = fixed + factor * value ** exponent`` by least squares of the logarithms.

    So a measurement of a microsecond counts as much as one of a second.

    Args:
        values: Sizes, all positive, at least two different ones.
        seconds: Measured at these, all positive.
        fixed_cost: Whether there is a fixed part. Without, the curve is a straight line on
            logarithmic axes, whose exponent may be negative. Where a cost hardly depends on the
            quantity, no exponent of anything beyond the fixed part can be told.

    Returns:
        The curve; ``fixed`` and ``exponent`` are 0 or more where there is a fixed part.

    Raises:
        ValueError: If the two do not have the same length, or a number is not positive, or there
            are too few different values to fit.

    Example:
        >>> growth = fit_growth([1, 10, 100, 1000], [3, 12, 102, 1002])
        >>> round(growth.fixed, 3), round(growth.exponent, 3)
        (2.0, 1.0)
    """
    x, y = np.asarray(values, float), np.asarray(seconds, float)
    needed = 3 if fixed_cost else 2
    if x.ndim != 1 or x.shape != y.shape or len(np.unique(x)) < needed:
        raise ValueError(
            f"{x.shape} values and {y.shape} seconds; needed are as many of one as of the other, "
            f"at {needed} or more different values"
        )
    if not (np.isfinite([x, y]).all() and min(x.min(), y.min()) > 0):
        raise ValueError("values and seconds must all be positive and finite to have a logarithm")
    # In units of their geometric means, all parameters are about 1.
    middle, unit = np.exp(np.log(x).mean()), np.exp(np.log(y).mean())
    log_x, log_y = np.log(x / middle), np.log(y / unit)
    slope, height = np.polyfit(log_x, log_y, 1)
    fixed = 0.0
    if fixed_cost:

        def errors(guess: np.ndarray) -> np.ndarray:
            fixed, log_factor, exponent = guess
            return np.log(fixed + np.exp(log_factor + exponent * log_x)) - log_y

        # Once from a line without a fixed part, once from a fixed part of half the shortest time.
        starts = ((1e-3, height, max(slope, 1e-3)), (np.exp(log_y.min()) / 2, height, 1.0))
        bounds = ([0, -np.inf, 0], np.inf)
        tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
        fits = [least_squares(errors, start, bounds=bounds, **tight) for start in starts]
        fixed, height, slope = min(fits, key=lambda fit: fit.cost).x
    factor = np.exp(height - slope * np.log(middle))
    worst = math.nan
    if len(np.unique(x)) > needed:
        away = np.log(fixed + np.exp(height + slope * log_x)) - log_y
        worst = float(np.exp(np.abs(away).max()))
    return Growth(float(fixed * unit), float(factor * unit), float(slope), worst)


def fitted(recordings: Recordings) -> list[dict[str, Any]]:
    """A line a quantity of the benchmark ``growth``, with its curves.

    Returns:
        ``quantity``; ``curves``, a :class:`Growth` a recording; and a :class:`Spread` of their
        ``exponent``, ``fixed`` and ``worst``, and of all the ``sizes`` and ``seconds``. The
        sampling ratio has no fixed part.
    """
    lines = []
    for quantity, rows in recordings.rows.groupby("quantity", sort=False):
        curves = [
            fit_growth(each["value"], each["seconds"], fixed_cost=quantity != "ratio")
            for _, each in rows.groupby("recording", sort=False)
        ]
        found = {
            "exponent": [curve.exponent for curve in curves],
            "fixed": [curve.fixed for curve in curves if quantity != "ratio"],
            "worst": [curve.worst for curve in curves if not math.isnan(curve.worst)],
            "sizes": rows["value"],
            "seconds": rows["seconds"],
        }
        spreads = {name: Spread(tuple(values)) for name, values in found.items()}
        lines.append({"quantity": quantity, "curves": curves, "recordings": len(curves)} | spreads)
    return lines
