"""What all figures share: their look, rows and intervals, and the one that leaves the book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from varreg.lab.machine import checkout
from varreg.lab.methods import BLUE, GREEN, METHODS, RED
from varreg.lab.statistics import Interval

PALE = "#DDDDDD"
COLORS = {name: method.color for name, method in METHODS.items()}
#: Colour and marker of the networks where there are no methods to tell apart.
NETWORKS = {
    "paper_cnn": {"color": BLUE, "marker": "o"},
    "small_cnn": {"color": RED, "marker": "D"},
}
WIDTH = 6.4  # inches; with 11 point text this stays readable at the width of a phone


def use_style() -> None:
    """Set the style of the book; call it once at the top of a notebook."""
    sns.set_theme(context="notebook", style="ticks")
    plt.style.use("companion.book")


def front_page(figure: Figure, name: str = "answer.png") -> Path | None:
    """Save a figure for the front page and the README, the same bytes every time.

    Args:
        figure: What to save.
        name: File name in ``book/_static`` of the checkout that holds this package.

    Returns:
        The file, or ``None`` where the package is not in a checkout: then there is no front page.
    """
    if (root := checkout()) is None:
        return None
    folder = root / "book" / "_static"
    figure.savefig(folder / name, dpi=160, facecolor="white", metadata={"Software": None})
    return folder / name


def panels(
    rows: int, columns: int, height: float, *, wider: float = 0.0, **more: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of panels.

    Args:
        rows: Of panels.
        columns: Of panels.
        height: Of the figure, in inches.
        wider: How much wider than :data:`WIDTH` it is.
        more: As of Matplotlib's ``subplots``.

    Returns:
        The figure and its panels, ``(rows, columns)``.
    """
    return plt.subplots(rows, columns, figsize=(WIDTH + wider, height), squeeze=False, **more)


def say_empty(ax: Axes) -> None:
    """Write into a panel that there is nothing recorded to draw."""
    ax.text(0.5, 0.5, "no runs to show", ha="center", va="center", transform=ax.transAxes)
    ax.set_xticks([])
    ax.set_yticks([])


def empty() -> Figure:
    """The figure of a study of which nothing is recorded."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.5))
    say_empty(ax)
    return figure


def rows(ax: Axes, names: Sequence[str], below: float = 0.5, above: float = 0.5) -> None:
    """A row a name, from above, without lines between them.

    Args:
        ax: The panel.
        names: Labels of the rows.
        below: Room below the last row; rows are 1 apart.
        above: Room above the first row.
    """
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - below, -above)
    ax.grid(axis="y", visible=False)


def bar(ax: Axes, found: Interval, y: float, width: float, **marker: Any) -> None:
    """An interval as a line of so many points, and its mean as a mark."""
    ax.plot([found.low, found.high], [y, y], color=marker["color"], lw=width)
    ax.plot(found.mean, y, ls="", **marker)


def shade_better(ax: Axes, side: int) -> None:
    """Colour the better side of zero: +1 for the right one, -1 for the left one."""
    ax.axvspan(*sorted((0, 10 * side)), color=GREEN, alpha=0.07, lw=0, zorder=0)


def filled(found: Any, *, corrected: bool) -> bool:
    """Whether a mark is filled: a difference that stands.

    Args:
        found: With ``p_holm``, ``low`` and ``high``.
        corrected: By Holm's correction; else where its interval excludes zero.
    """
    return bool(found.p_holm < 0.05 if corrected else found.low > 0 or found.high < 0)


def legend(
    owner: Figure | Axes,
    entries: Mapping[str, Mapping[str, Any] | Artist],
    loc: str = "outside upper center",
    **look: Any,
) -> None:
    """A legend of lines and marks that need not be drawn anywhere.

    Args:
        owner: Figure or panel.
        entries: Label -> style of a line, or what else to show.
        loc: As in Matplotlib.
        look: As in Matplotlib.
    """
    handles = [
        entry if isinstance(entry, Artist) else Line2D([], [], **entry)
        for entry in entries.values()
    ]
    owner.legend(handles, list(entries), loc=loc, **look)
