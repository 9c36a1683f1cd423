"""One function a figure, one style, one colour a method.

Bands and bars are 95 % t intervals over seeds. Every function takes rows of a ledger (or a table
made from them), draws, and returns the figure; without rows it says so instead of failing, so that
a book can be built while a study is still running.
"""

from companion.figures.sensitivity import sensitivity_forest
from companion.figures.studies import (
    against_published,
    auroc_curves,
    combinations,
    comparison,
    forest,
    images,
    learning_curves,
    pairs,
    picks,
    recall,
    weights,
)
from companion.figures.style import COLORS, front_page, use_style

__all__ = [
    "COLORS",
    "against_published",
    "auroc_curves",
    "combinations",
    "comparison",
    "forest",
    "front_page",
    "images",
    "learning_curves",
    "pairs",
    "picks",
    "recall",
    "sensitivity_forest",
    "use_style",
    "weights",
]
