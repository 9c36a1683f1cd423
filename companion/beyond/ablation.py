"""What features of high and of low variance are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion import style, words
from companion.beyond.effects import recorded_units
from companion.probes.ablation import TENTHS
from companion.records import details
from companion.rivals import DATA
from varreg.lab.methods import BLUE, GREY, ORANGE, RED
from varreg.lab.statistics import Interval, mean_interval

DATASETS = ("breastmnist", "pneumoniamnist")
LINES = {
    "variance": ("by variance", RED),
    "head_weighted": ("by variance times squared weight", BLUE),
    "random": ("at random", GREY),
}
AREAS = {"train_area": ("training images", ORANGE), "test_area": ("test images", BLUE)}


def recorded(results: Path | None = None) -> dict[str, pd.DataFrame]:
    """By data set of which every unit is recorded, a row a tenth, order and run.

    Beside the columns of the probe: ``loss``, what the test cross-entropy is more without the
    tenth, and ``gap``, what the area on the training images is above that on the test images.
    """
    found = {}
    for dataset in DATASETS:
        runs, rows = recorded_units("ablation", results, dataset=dataset)
        if len(runs):
            whole = runs.rename(columns={"test_cross_entropy": "whole"})
            kept = ["key", "dataset", "method", "seed", "whole"]
            mine = details(whole[kept], rows)
            found[dataset] = mine.assign(
                loss=mine["test_cross_entropy"] - mine["whole"],
                gap=mine["train_area"] - mine["test_area"],
            )
    return found


def by_tenth(rows: pd.DataFrame, order: str, column: str, method: str = "none") -> pd.Series:
    """Mean over the seeds with its interval, by tenth, the lowest first."""
    mine = rows[(rows["order"] == order) & (rows["method"] == method)]
    return mine.groupby("tenth")[column].apply(lambda values: mean_interval(list(values)))


def ends(rows: pd.DataFrame, order: str, column: str, method: str = "none") -> Interval:
    """The highest tenth less the lowest, seed by seed."""
    mine = rows[(rows["order"] == order) & (rows["method"] == method)]
    wide = mine.pivot(index="seed", columns="tenth", values=column)
    return mean_interval(list(wide[TENTHS] - wide[1]))


def facts(every: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """What the text says of the highest and of the lowest tenth."""
    found: dict[str, object] = {}
    for dataset, rows in every.items():
        head = f"beyond_ablation_{dataset}"
        found[f"{head}_seeds"] = int(rows["seed"].nunique())
        for method in ("none", "fixed"):
            for column in ("train_area", "test_area", "gap", "loss"):
                name = f"{head}_{method}_{column}"
                tenths = by_tenth(rows, "variance", column, method)
                found[f"{name}_high"] = words.level(tenths[TENTHS])
                found[f"{name}_low"] = words.level(tenths[1])
                found[f"{name}_ends"] = words.change(ends(rows, "variance", column, method))
        for order in LINES:
            most = by_tenth(rows, order, "loss")[TENTHS]
            found[f"{head}_{order}_loss"] = words.change(most)
        gap = ends(rows, "variance", "gap")
        worse = "worse" if gap.mean > 0 else "better"
        found[f"{head}_says"] = (
            "no difference that could be seen"
            if 0 in gap
            else f"features of high variance carry over {worse}"
        )
    return found


def figure(every: Mapping[str, pd.DataFrame]) -> Figure:
    """Tenth by tenth without a penalty: what a feature tells, and what goes without the tenth.

    A row a data set.
    """
    if not every:
        return style.empty()
    count = len(every)
    figure, axes = plt.subplots(count, 2, figsize=(9, 3.2 * count), squeeze=False)
    for row, (dataset, rows) in zip(axes, every.items(), strict=True):
        row[0].set_title(DATA[dataset].split(",")[0])
        for column, (title, color) in AREAS.items():
            _line(row[0], by_tenth(rows, "variance", column), title, color)
        for order, (title, color) in LINES.items():
            _line(row[1], by_tenth(rows, order, "loss"), title, color)
        row[1].axhline(0, color="black", lw=0.8)
        row[0].set_ylabel("area of a feature alone")
        row[1].set_ylabel("cross-entropy without it")
        for ax in row:
            ax.set_xticks(range(1, TENTHS + 1))
    axes[-1, 0].set_xlabel("tenth of the features, by variance")
    axes[-1, 1].set_xlabel("tenth of the features")
    for ax in axes[0]:
        ax.legend()
    return figure


def _line(ax: Axes, tenths: pd.Series, title: str, color: str) -> None:
    ax.plot(tenths.index, [each.mean for each in tenths], "o-", ms=4, color=color, label=title)
    lows, highs = ([getattr(each, end) for each in tenths] for end in ("low", "high"))
    ax.fill_between(tenths.index, lows, highs, color=color, alpha=0.12, lw=0)
