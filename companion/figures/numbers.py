"""Figures of what the published numbers are: bars, sevenths, halves, images, lesions, shares."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from companion import explained, published, tables
from companion.explained.words import capital
from companion.figures.style import COLORS, WIDTH, say_empty
from companion.published import CHEST_IMAGES, RELEASED_BAR, RELEASED_LOG, TABLES
from varreg.lab.statistics import mean_interval, wilson

__all__ = ["class_shift", "four_images", "half", "leakage", "progress_bar", "six_sevenths"]

GREY, RED, GREEN, BLUE = COLORS.values()
PALE = "#DDDDDD"
NETWORKS = {"paper_cnn": (BLUE, "o"), "small_cnn": (RED, "D")}
DATA = {"chest": "Chest", "skin": "Skin"}
SPLITS = {"train": "training", "val": "validation", "test": "test"}
RULES = {
    "0.5": "0.5",
    "prior-corrected": "prior-\ncorrected",
    "validation": "best on\nvalidation",
    "hindsight": "best in\nhindsight",
}


def progress_bar(images: pd.DataFrame, method: str = "baseline") -> Figure:
    """How the bar comes about for one model, and what it shows for every accuracy.

    Above, batch by batch: the accuracy over the images so far and the bar, which is its mean.
    Below, for each accuracy on the class-sorted chest test images, what the bar can end at: with
    errors anywhere (pale), or with errors at random places within each class (dark).

    Args:
        images: As from :func:`companion.explained.images`, of the study ``chest_paper``.
        method: Of the model above.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(WIDTH, 9.6), height_ratios=[1, 2.1], layout="constrained"
    )
    _batches(above, images[images["method"] == method])
    _map(below)
    rows = explained.bars(images)
    for row in rows[rows["measure"] == "accuracy"].itertuples():
        size = 13 if row.method == "baseline" else 8  # seen behind a mark that covers it
        below.plot(row.metric, row.closing, "o", color=COLORS[row.method], mec="white", ms=size)
    for name in explained.METHODS:
        true, shown = (
            published.find("chest", name, "accuracy", source=source).value
            for source in (RELEASED_LOG, RELEASED_BAR)
        )
        below.plot(true, shown, "P", color="white", mec=COLORS[name], mew=1.6, ms=9)
    return figure


def _batches(ax: Axes, model: pd.DataFrame) -> None:
    ax.set_title("One recorded model, batch by batch")
    ax.set_ylabel("Accuracy")
    if model.empty:
        say_empty(ax)
        return
    right = model["right"].to_numpy(dtype=float)
    orders = {
        "in file order": (right, RED),
        "shuffled once": (np.random.default_rng(0).permutation(right), BLUE),
    }
    for name, (scores, color) in orders.items():
        values = explained.running(scores)
        batch = np.arange(1, len(values) + 1)
        ax.plot(batch, values, color=color, lw=1.4, ls="--", label=f"accuracy so far, {name}")
        ax.plot(batch, np.cumsum(values) / batch, color=color, lw=2.4, label=f"the bar, {name}")
    ax.axhline(right.mean(), color="black", lw=1, ls=":", label="accuracy on all images")
    first = CHEST_IMAGES["test"][0] / explained.BATCH
    ax.axvspan(0, first, color=PALE, alpha=0.5, lw=0, zorder=0)
    ax.annotate("normal images", (first / 2, 0.04), xycoords=("data", "axes fraction"), ha="center")
    ax.annotate(
        "pneumonia",
        ((first + len(values)) / 2, 0.04),
        xycoords=("data", "axes fraction"),
        ha="center",
    )
    ax.set_xlim(0.5, len(values) + 0.5)
    low = min(explained.running(right).min(), right.mean())
    ax.set_ylim(max(0.0, low - 0.2), 1.02)
    ax.set_xticks([1, 5, 10, 15, 20])
    ax.set_xlabel("Batch")
    ax.legend(loc="lower center", bbox_to_anchor=(0.47, 1.1), ncols=2, fontsize=9.5)


def _map(ax: Axes) -> None:
    ax.set_title("Every accuracy, and what the bar can show for it")
    table = explained.attainable()
    ax.fill_between(table["accuracy"], table["low"], table["high"], color=PALE, lw=0)
    ax.fill_between(table["accuracy"], table["even_low"], table["even_high"], color="#9CC7E3", lw=0)
    ax.plot([0, 1], [0, 1], color="black", lw=1, ls="--")
    spread: dict[str, tuple[float, tuple[float, float]]] = {}
    for method in explained.METHODS:
        shown = published.find("chest", method, "accuracy", source=TABLES["chest"]).value
        low, high = explained.compatible(shown)
        spread[method] = (shown, (low, high))
        ax.plot([low, high], [shown, shown], color=COLORS[method], lw=2.6, solid_capstyle="butt")
    for method, below in (("baseline", False), ("penalized", False), ("augmented", True)):
        shown, (low, _) = spread[method]
        ax.annotate(
            f"printed {shown:.4f}",
            (0.012, shown + (-0.012 if below else 0.012)),
            color=COLORS[method],
            va="top" if below else "bottom",
            fontsize=10,
        )
        ax.plot([0, low], [shown, shown], color=COLORS[method], lw=0.9, ls=":")
    normal, pneumonia = CHEST_IMAGES["test"]
    share = pneumonia / (normal + pneumonia)
    bar = explained.progress_bar([0] * normal + [1] * pneumonia, closing=True)
    ax.plot(share, bar, "*", color="black", ms=14)
    ax.annotate(
        "every image\npneumonia", (share + 0.03, bar - 0.01), fontsize=10, va="top", ha="left"
    )
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="True accuracy", ylabel="Accuracy shown by the bar")
    ax.set_aspect("equal")
    handles = [
        Patch(color=PALE, label="errors anywhere"),
        Patch(color="#9CC7E3", label="errors spread evenly"),
        Line2D([], [], color="black", lw=1, ls="--", label="shown = true"),
        Line2D([], [], color=GREY, marker="o", ls="", ms=8, label="our runs"),
        Line2D(
            [], [], color="white", marker="P", mec=GREY, mew=1.6, ls="", ms=9, label="released log"
        ),
    ]
    handles += [
        Line2D([], [], color=COLORS[method], lw=2.6, label=method) for method in explained.METHODS
    ]
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=9.5
    )


def six_sevenths(images: pd.DataFrame) -> Figure:
    """The released skin metric beside accuracy and balanced accuracy, a row a model.

    Args:
        images: As from :func:`companion.explained.images`, of the study ``skin_paper``.
    """
    rows = explained.sevenths(images)
    figure, ax = plt.subplots(figsize=(WIDTH, 1.3 + 0.36 * max(4, len(rows))))
    ax.axvline(6 / 7, color="black", lw=1, ls=":")
    if rows.empty:
        say_empty(ax)
        return figure
    place = np.arange(len(rows))
    marks = {
        "released": ("released metric", {"marker": "X", "color": "black", "ms": 9}),
        "accuracy": ("accuracy", {"marker": "o", "color": BLUE, "ms": 7.5}),
        "balanced_accuracy": (
            "balanced accuracy",
            {"marker": "D", "color": RED, "mfc": "none", "mew": 1.8, "ms": 8},
        ),
    }
    for column, (name, style) in marks.items():
        ax.plot(rows[column], place, ls="", label=name, **style)
    ax.set_yticks(place, [capital(name) for name in rows["model"]])
    ax.set_ylim(len(rows) - 0.5, -0.9)
    ax.annotate("6/7", (6 / 7, -0.85), xytext=(4, -1), textcoords="offset points", va="top")
    ax.set_xlim(-0.02, 1)
    ax.set_xlabel("Score on the test images")
    ax.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.3)
    return figure


def half() -> Figure:
    """Each published total loss of a penalized model, beside its baseline and on one scale."""
    rows = explained.decomposition()
    figure, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.62 * len(rows)))
    place = np.arange(len(rows))
    ax.barh(place - 0.2, rows["baseline"], height=0.34, color=GREY)
    ax.barh(place + 0.2, rows["most"], height=0.34, color="white", ec=RED, hatch="////", lw=1.2)
    ax.barh(place + 0.2, rows["total"], height=0.34, color=RED)
    labels = [
        f"{DATA[row.experiment]}, {SPLITS[row.split]}\n{row.source.replace('released log, ', '')}"
        for row in rows.itertuples()
    ]
    ax.set_yticks(place, labels)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("Loss")
    ax.grid(axis="y", visible=False)
    handles = [
        Patch(color=GREY, label="baseline: cross-entropy"),
        Patch(color=RED, label="penalized: total, as printed"),
        Patch(fc="white", ec=RED, hatch="////", label="its cross-entropy, at most"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def four_images(studies: Mapping[str, pd.DataFrame]) -> Figure:
    """The released accuracies as images with their intervals, above the scatter over seeds.

    Args:
        studies: Title of a panel -> rows of the study ``chest_paper`` or ``chest``.
    """
    total = sum(CHEST_IMAGES["test"])
    figure, axes = plt.subplots(
        1 + len(studies), 1, figsize=(WIDTH, 1.9 * (1 + len(studies)) + 0.5), sharex=True
    )
    top, *rest = np.atleast_1d(axes)
    for place, (method, right) in enumerate(explained.counts().items()):
        low, high = (total * end for end in wilson(right, total))
        top.plot([low, high], [place, place], color=COLORS[method], lw=2.6)
        top.plot(right, place, "P", color="white", mec=COLORS[method], mew=1.8, ms=10)
        top.annotate(str(right), (right, place - 0.22), ha="center", va="bottom", fontsize=10)
    top.set_title("Released log: one model each, Wilson's 95 % interval")
    _method_rows(top, list(explained.counts()))
    for ax, (title, runs) in zip(rest, studies.items(), strict=True):
        ax.set_title(title)
        points = explained.seeds_in_images(tables.of_model(runs) if len(runs) else runs)
        if points.empty:
            say_empty(ax)
            continue
        methods = [name for name in explained.METHODS if name in set(points["method"])]
        for place, method in enumerate(methods):
            right = points.loc[points["method"] == method, "right"].to_numpy()
            ax.plot(
                right, np.full(len(right), place), "o", color=COLORS[method], ms=6, alpha=0.5, mew=0
            )
            ax.plot(right.mean(), place, "|", color="black", ms=18, mew=2)
        _method_rows(ax, methods)
    axes = np.atleast_1d(axes)
    axes[-1].set_xlabel(f"Test images right, of {total}")
    axes[-1].xaxis.set_tick_params(labelbottom=True)
    return figure


def leakage(effects: pd.DataFrame) -> Figure:
    """What seen lesions are worth, a row a way to measure it, a mark a network.

    Args:
        effects: Rows of :func:`companion.explained.leakage_table` and
            :func:`companion.explained.split_difference` together.
    """
    names = {
        "raw": "Seen minus unseen lesions",
        "memory": "Having seen the lesion,\non those images",
        "control": "The same two models\non unseen lesions",
        "worth": "Worth in accuracy on\nall test images",
        "splits": "Split by image minus\nsplit by lesion",
    }
    figure, ax = plt.subplots(figsize=(WIDTH, 4.4))
    ax.axvline(0, color="black", lw=1)
    shown = effects[effects["quantity"].isin(names)] if len(effects) else effects
    if shown.empty:
        say_empty(ax)
        return figure
    shifts = {"paper_cnn": -0.12, "small_cnn": 0.12}
    for row in shown.itertuples():
        color, marker = NETWORKS[row.model]
        y = list(names).index(row.quantity) + shifts[row.model]
        ax.plot([row.low, row.high], [y, y], color=color, lw=2.2)
        ax.plot(row.mean, y, marker, color=color, ms=7)
    ax.set_yticks(range(len(names)), list(names.values()))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("Difference in test accuracy")
    ax.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], color=color, marker=marker, label=tables.MODEL_NAMES[model])
        for model, (color, marker) in NETWORKS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, handletextpad=0.4)
    return figure


def class_shift(rows: pd.DataFrame) -> Figure:
    """Share of pneumonia in each split, and test accuracy by the rule that sets the threshold.

    Args:
        rows: Details of the probe ``thresholds``, with ``model, method, seed``.
    """
    figure = plt.figure(figsize=(WIDTH, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[0.62, 1])
    top = figure.add_subplot(grid[0, :])
    shares = {split: explained.prevalence(split) for split in CHEST_IMAGES}
    place = np.arange(len(shares))
    top.barh(place, shares.values(), color=RED, height=0.6)
    top.barh(
        place,
        [1 - share for share in shares.values()],
        left=list(shares.values()),
        color=PALE,
        height=0.6,
    )
    for each, share in zip(place, shares.values(), strict=True):
        top.annotate(
            f"{100 * share:.1f} % pneumonia",
            (0.015, each),
            va="center",
            color="white",
            fontweight="bold",
        )
    top.set_yticks(place, [SPLITS[split].capitalize() for split in shares])
    top.set_ylim(len(shares) - 0.5, -0.5)
    top.set_xlim(0, 1)
    top.grid(visible=False)
    top.set_title("Share of pneumonia in the chest data")
    first = None
    for column, model in enumerate(NETWORKS):
        first = ax = figure.add_subplot(grid[1, column], sharey=first)
        ax.set_title(capital(f"{tables.MODEL_NAMES[model]}, 28 px"))
        mine = rows[rows["model"] == model] if len(rows) else rows
        if mine.empty:
            say_empty(ax)
            continue
        _rules(ax, mine)
        if column == 0:
            ax.set_ylabel("Test accuracy")
        else:
            ax.tick_params(labelleft=False)
    handles = [
        Line2D([], [], color=COLORS[method], marker="o", label=method)
        for method in explained.METHODS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _rules(ax: Axes, rows: pd.DataFrame) -> None:
    methods = [name for name in explained.METHODS if name in set(rows["method"])]
    for shift, method in zip(np.linspace(-0.16, 0.16, len(methods)), methods, strict=True):
        mine = rows[rows["method"] == method]
        intervals = [
            mean_interval(mine.loc[mine["rule"] == rule, "accuracy"].to_numpy(), within=(0, 1))
            for rule in explained.RULES
        ]
        x = np.arange(len(intervals)) + shift
        ax.plot(x, [each.mean for each in intervals], "o", color=COLORS[method], ms=6)
        ax.vlines(
            x,
            [each.low for each in intervals],
            [each.high for each in intervals],
            color=COLORS[method],
            lw=2,
        )
    ax.set_xticks(
        range(len(explained.RULES)), [RULES[rule] for rule in explained.RULES], fontsize=8.5
    )
    ax.set_xlim(-0.5, len(explained.RULES) - 0.5)
    ax.grid(axis="x", visible=False)


def _method_rows(ax: Axes, methods: list[str]) -> None:
    ax.set_yticks(range(len(methods)), [name.capitalize() for name in methods])
    ax.set_ylim(len(methods) - 0.4, -0.7)
    ax.grid(axis="y", visible=False)
