"""The look that all figures share, and the one that leaves the book."""

from __future__ import annotations

from pathlib import Path

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varreg.lab.machine import checkout
from varreg.lab.methods import BLUE, GREEN, GREY, METHODS, RED  # noqa: F401  the palette of the book

__all__ = ["COLORS", "WIDTH", "front_page", "say_empty", "use_style"]

PALE = "#DDDDDD"
COLORS = {name: method.color for name, method in METHODS.items()}
#: Colour and marker of the networks where there are no methods to tell apart.
NETWORKS = {"paper_cnn": (BLUE, "o"), "small_cnn": (RED, "D")}
WIDTH = 6.4  # inches; with 11 point text this stays readable at the width of a phone


def use_style() -> None:
    """Set the style of the book; call it once at the top of a notebook."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "axes.grid": True,
            "axes.labelsize": 11,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11.5,
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 130,
            "font.size": 11,
            "grid.color": "#e6e6e6",
            "legend.fontsize": 10,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "savefig.dpi": 130,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
        },
    )


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


def say_empty(ax: Axes) -> None:
    """Write into a panel that there is nothing recorded to draw."""
    ax.text(0.5, 0.5, "no runs to show", ha="center", va="center", transform=ax.transAxes)
    ax.set_xticks([])
    ax.set_yticks([])
