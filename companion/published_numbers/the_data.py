"""What the data are: the share of pneumonia, and what it does to a threshold of 0.5."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion import style, tables, words
from companion.predictions import COMPARED
from companion.probes.thresholds import best_threshold, prior_corrected
from companion.published import CHEST_IMAGES
from companion.style import COLORS, NETWORKS, PALE, WIDTH
from varreg.lab.methods import RED
from varreg.lab.statistics import PairedDifference, mean_interval, paired_difference

#: Ways to set the threshold, and what they are called in the table.
CUTOFFS = {
    "0.5": "At 0.5",
    "prior-corrected": "Prior-corrected",
    "validation": "Best on validation",
    "hindsight": "Best in hindsight",
}


def prevalence(split: str) -> float:
    """Share of pneumonia in a split of the chest data.

    Example:
        >>> round(prevalence("train"), 3), prevalence("test")
        (0.743, 0.625)
    """
    normal, pneumonia = CHEST_IMAGES[split]
    return pneumonia / (normal + pneumonia)


def by_rule(images: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of recorded chest models by the rule that sets their threshold.

    Args:
        images: Of the study ``chest_paper``.

    Returns:
        Columns ``method, rule, threshold, accuracy, balanced_accuracy``; without the rule that
        needs predictions for validation images.
    """
    rows = []
    for method, group in images.groupby("method", sort=False):
        chance, truth = group["p_1"].to_numpy(dtype=float), group["label"].to_numpy() == 1
        rules = {
            "0.5": 0.5,
            "prior-corrected": prior_corrected(prevalence("train"), prevalence("test")),
            "hindsight": best_threshold(torch.tensor(chance), torch.tensor(truth)),
        }
        for rule, threshold in rules.items():
            right = (chance > threshold) == truth
            balanced = (right[truth].mean() + right[~truth].mean()) / 2
            rows.append((method, rule, threshold, right.mean(), balanced))
    columns = ["method", "rule", "threshold", "accuracy", "balanced_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def table(rows: pd.DataFrame, single: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """A metric by the rule that sets the threshold, and what 0.5 costs, as printed.

    Args:
        rows: Details of the probe ``thresholds``.
        single: As from :func:`by_rule`: the 224 px models, one seed each.
        metric: ``"accuracy"`` or ``"balanced_accuracy"``.
    """
    columns = {"Network": ("model", words.capital), "Model": ("method", tables.METHOD_NAMES)}
    columns |= {name: (rule, ".3f") for rule, name in CUTOFFS.items()}
    columns["Price of 0.5"] = ("price", words.change)
    single = single.assign(model="paper_cnn", size=224, seed=0)
    known = pd.concat([rows.assign(size=28), single] if len(rows) else [single])
    found = []
    for (model, size, method), group in known.groupby(["model", "size", "method"], sort=False):
        head = {"model": f"{tables.MODEL_NAMES[model]}, {size} px", "method": method}
        means = group.groupby("rule")[metric].mean().reindex(list(CUTOFFS))
        found.append(head | dict(means) | {"price": _price(group, metric)})
    return words.printed(
        pd.DataFrame(found, columns=["model", "method", *CUTOFFS, "price"]), columns
    )


def facts(rows: pd.DataFrame) -> dict[str, object]:
    """What the class shift costs at a threshold of 0.5.

    Args:
        rows: Details of the probe ``thresholds``.

    Returns:
        Share of pneumonia in percent, in ``train`` and ``test``; and, for each network, the
        ``price`` of 0.5 to the baseline's accuracy with its interval. Each behind ``shift_``.
    """
    found = {f"shift_{split}": 100 * prevalence(split) for split in ("train", "test")}
    if rows.empty:
        return found
    for model, group in rows[rows["method"] == "baseline"].groupby("model", sort=False):
        found[f"shift_price_{model}"] = words.change(_price(group, "accuracy"))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Share of pneumonia in each split, and test accuracy by the rule that sets the threshold.

    Args:
        rows: Details of the probe ``thresholds``.
    """
    figure = plt.figure(figsize=(WIDTH, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[0.62, 1])
    _shares(figure.add_subplot(grid[0, :]))
    first = None
    for column, model in enumerate(NETWORKS):
        first = ax = figure.add_subplot(grid[1, column], sharey=first)
        ax.set_title(words.capital(f"{tables.MODEL_NAMES[model]}, 28 px"))
        mine = tables.of_model(rows, model)
        if mine.empty:
            style.say_empty(ax)
            continue
        _rules(ax, mine)
        if column == 0:
            ax.set_ylabel("Test accuracy")
        else:
            ax.tick_params(labelleft=False)
    marks = {name: {"color": COLORS[name], "marker": "o"} for name in COMPARED}
    style.legend(figure, marks, "outside lower center", ncols=3)
    return figure


def _shares(ax: Axes) -> None:
    shares = np.array([prevalence(split) for split in CHEST_IMAGES])
    place = np.arange(len(shares))
    ax.barh(place, shares, color=RED, height=0.6)
    ax.barh(place, 1 - shares, left=shares, color=PALE, height=0.6)
    bold = {"va": "center", "color": "white", "fontweight": "bold"}
    for each, share in zip(place, shares, strict=True):
        ax.annotate(f"{100 * share:.1f} % pneumonia", (0.015, each), **bold)
    style.rows(ax, [tables.SPLIT_NAMES[split].capitalize() for split in CHEST_IMAGES])
    ax.set_xlim(0, 1)
    ax.grid(visible=False)
    ax.set_title("Share of pneumonia in the chest data")


def _rules(ax: Axes, rows: pd.DataFrame) -> None:
    methods = [name for name in COMPARED if name in set(rows["method"])]
    for shift, method in zip(np.linspace(-0.16, 0.16, len(methods)), methods, strict=True):
        mine = rows[rows["method"] == method].groupby("rule")["accuracy"]
        found = [mean_interval(mine.get_group(rule), within=(0, 1)) for rule in CUTOFFS]
        x, color = np.arange(len(found)) + shift, COLORS[method]
        ax.plot(x, [each.mean for each in found], "o", color=color, ms=6)
        low, high = [each.low for each in found], [each.high for each in found]
        ax.vlines(x, low, high, color=color, lw=2)
    names = ["0.5", "prior-\ncorrected", "best on\nvalidation", "best in\nhindsight"]
    ax.set_xticks(range(len(CUTOFFS)), names, fontsize=8.5)
    ax.set_xlim(-0.5, len(CUTOFFS) - 0.5)
    ax.grid(axis="x", visible=False)


def _price(rows: pd.DataFrame, metric: str) -> PairedDifference:
    """Prior-corrected minus 0.5, seed by seed."""
    wide = rows.pivot(index="seed", columns="rule", values=metric)
    return paired_difference(wide["prior-corrected"].to_numpy(), wide["0.5"].to_numpy())
