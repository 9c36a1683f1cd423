"""One function a figure, one style, one colour a method.

Bands and bars are 95 % t intervals over seeds. Every function takes rows of a ledger (or a table
made from them), draws, and returns the figure; without rows it says so instead of failing, so that
a book can be built while a study is still running.
"""

from companion.figures.cost import (
    cost_growth,
    cost_memory,
    cost_overhead,
    cost_roofline,
    cost_throughput,
)
from companion.figures.mechanics import (
    block_shuffling,
    choice_heat,
    feature_scale,
    lambda_trajectories,
    sampling_noise,
    search_places,
)
from companion.figures.numbers import (
    class_shift,
    four_images,
    half,
    leakage,
    progress_bar,
    six_sevenths,
)
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
    "block_shuffling",
    "choice_heat",
    "class_shift",
    "combinations",
    "comparison",
    "cost_growth",
    "cost_memory",
    "cost_overhead",
    "cost_roofline",
    "cost_throughput",
    "feature_scale",
    "forest",
    "four_images",
    "front_page",
    "half",
    "images",
    "lambda_trajectories",
    "leakage",
    "learning_curves",
    "pairs",
    "picks",
    "progress_bar",
    "recall",
    "sampling_noise",
    "search_places",
    "sensitivity_forest",
    "six_sevenths",
    "use_style",
    "weights",
]
