"""Figures of the studies: curves, differences, published numbers, the grid.

Bands and bars are 95 % t intervals over seeds. Every function takes rows of a ledger (or a table
made from them), draws, and returns the figure; without rows it says so instead of failing, so that
a book can be built while a study is still running.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from companion import grid_search, style, tables
from companion.published import Number
from companion.records import details
from companion.style import COLORS, WIDTH, bar, legend, say_empty
from companion.words import capital
from varreg.lab.methods import GREEN
from varreg.lab.statistics import mean_interval

PALER = "#A0A0A0"
MODEL_STYLE = {"paper_cnn": {"marker": "o"}, "small_cnn": {"marker": "D", "fillstyle": "none"}}


def learning_curves(runs: pd.DataFrame, curves: pd.DataFrame, method: str) -> Figure:
    """Accuracy and cross-entropy in training and validation, epoch by epoch, for one method.

    Thin lines are single seeds (drawn up to five of them); the thick line is their mean, with its
    95 % band, as far as every seed was trained. The limits of the axes are those of all methods in
    ``runs``, so that figures of several methods can be laid side by side.

    Args:
        runs: Rows of a ledger, of one data set, split and network.
        curves: Their epochs.
        method: Which of the methods.
    """
    epochs = details(runs, curves)
    if epochs.empty or method not in set(epochs["method"]):
        return style.empty()
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 5.4), sharex=True)
    mine = epochs[epochs["method"] == method]
    training = {"color": PALER if method == "baseline" else COLORS["baseline"], "ls": "--"}
    validation = {"color": COLORS[method], "ls": "-"}
    for ax, metric in zip(axes, ("accuracy", "cross_entropy"), strict=True):
        ax.set_ylabel(capital(tables.MEASURES[metric]))
        _curve(ax, mine, f"train_{metric}", **training)
        _curve(ax, mine, f"val_{metric}", **validation)
        _limit(ax, epochs, metric)
    legend(axes[0], {"training": training, "validation": validation}, "lower right", ncols=2)
    axes[0].set_title(capital(tables.METHOD_NAMES[method]))
    axes[1].set_xlabel("Epoch")
    return figure


def auroc_curves(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """AUROC epoch by epoch, a colour a method; training above, validation below.

    Args:
        runs: Rows of a ledger, of one data set, split and network.
        curves: Their epochs.
    """
    epochs = details(runs, curves)
    if epochs.empty:
        return style.empty()
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 5.2), sharex=True)
    for ax, part, name in zip(axes, ("train", "val"), ("training", "validation"), strict=True):
        ax.set_ylabel(f"AUROC, {name}")
        for method in _methods(epochs):
            mine = epochs[epochs["method"] == method]
            # A broad baseline stays visible where another line covers it.
            width = 4.5 if method == "baseline" else 1.8
            _curve(ax, mine, f"{part}_auroc", COLORS[method], "-", singles=False, width=width)
        _limit(ax, epochs, "auroc")
    legend(axes[0], _method_marks(epochs), "lower right")
    axes[1].set_xlabel("Epoch")
    return figure


def against_published(runs: pd.DataFrame, numbers: Sequence[Number]) -> Figure:
    """Every run as a dot beside the published numbers of the same protocol.

    The bar is the mean with its 95 % interval. Losses are on one scale: divided by lambda. A
    number of the log that is another quantity than our runs are drawn in is left out.

    Args:
        runs: Rows of a ledger, of one data set and network.
        numbers: Published test numbers of one experiment, from the paper and the released log.
    """
    methods = list(dict.fromkeys(number.method for number in numbers))
    figure, axes = plt.subplots(
        2, 1, figsize=(WIDTH, 1.5 + 0.95 * len(methods)), layout="constrained"
    )
    paper = {"marker": "X", "color": "black", "mec": "black", "ms": 9, "ls": ""}
    log = {"marker": "P", "color": "white", "mec": "black", "ms": 8, "ls": ""}
    for ax, column in zip(axes, ("test_accuracy", "test_cross_entropy"), strict=True):
        for place, method in enumerate(methods):
            color = COLORS[method]
            values = runs.loc[runs["method"] == method, column] if len(runs) else pd.Series()
            if len(values):
                found = mean_interval(values.to_numpy(), within=tables.possible(column))
                bar(ax, found, place, 3, color=color, marker="|", ms=14, mew=3)
                spread = place + 0.24 + np.zeros(len(values))
                ax.plot(values, spread, "o", color=color, ms=5, alpha=0.7, mew=0)
            for number in numbers:
                if (number.method, f"test_{number.column}") == (method, column):
                    printed = number.source.startswith("Table")
                    y, mark = (place - 0.32, paper) if printed else (place - 0.16, log)
                    ax.plot(number.comparable, y, clip_on=False, **mark)
        style.rows(ax, [capital(method) for method in methods], 0.4, 0.6)
        ax.set_xlabel(capital(tables.METRIC_NAMES[column]))
    marks = {
        "paper": paper,
        "released log": log,
        "our runs": {"color": COLORS["baseline"], "marker": "o", "ls": "", "ms": 5},
        "mean, 95 %": {"color": COLORS["baseline"], "lw": 3},
    }
    legend(figure, marks, ncols=4, handletextpad=0.3)
    return figure


def forest(differences: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Paired differences with their 95 % intervals, a panel a metric.

    The shaded side is better. Filled marks are the paper's network, hollow ones the small CNN.

    Args:
        differences: As from :func:`companion.tables.differences`, of one data set and split.
        metrics: Which of them, a panel each.
    """
    if differences.empty:
        return style.empty()
    lines = -(-len(metrics) // 2)
    height = 0.85 + 0.42 * differences["method"].nunique()
    figure, axes = style.panels(lines, 2, lines * height + 0.4, sharey=True)
    for ax in axes.flat[len(metrics) :]:
        ax.set_visible(False)
    for ax, metric in zip(axes.flat, metrics, strict=False):
        _forest_panel(ax, differences[differences["metric"] == metric], metric)
    _model_legend(figure, differences)
    return figure


def comparison(parts: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> Figure:
    """What each measure changes, for several data sets (or splits) at once.

    Args:
        parts: Name of a row of panels -> its table from :func:`companion.tables.differences`.
        metrics: A column of panels each.
    """
    names = list(parts)
    heights = [max(1, parts[name]["method"].nunique()) + 0.6 for name in names]
    shape = len(names), len(metrics), 0.46 * sum(heights) + 1.5
    figure, axes = style.panels(*shape, wider=0.8, height_ratios=heights)
    every = pd.concat(parts.values())
    for row, name in zip(axes, names, strict=True):
        for place, (ax, metric) in enumerate(zip(row, metrics, strict=True)):
            table = parts[name]
            same = every[every["metric"] == metric]
            limits = _reach(same) if len(same) else None
            _forest_panel(ax, table[table["metric"] == metric], metric, limits)
            ax.set_title(name if place == 0 else "")
            ax.set_xlabel("")
            if place:
                ax.set_yticklabels([])
    for ax, metric in zip(axes[-1], metrics, strict=True):
        ax.set_xlabel(f"Change in\n{tables.METRIC_NAMES[metric]}")
    _model_legend(figure, every)
    return figure


def combinations(runs: pd.DataFrame, metric: str = "val_cross_entropy") -> Figure:
    """The paper's 12 settings and no penalty as a heat map of the mean over seeds, the best boxed.

    Args:
        runs: The combinations from :func:`companion.grid_search.split_grid`, of one data set and
            network.
        metric: What to show and to choose by.
    """
    if runs.empty:
        return style.empty()
    figure, ax = plt.subplots(figsize=(WIDTH, 3.5))
    wide = grid_search.grid_means(runs, [metric]).pivot(
        index=["variance_weight", "feature_sampling_ratio"], columns="lambda_", values=metric
    )
    sns.heatmap(
        wide,
        ax=ax,
        annot=True,
        fmt=".4f",
        cmap="cividis" if tables.better(metric) > 0 else "cividis_r",
        linewidths=1.5,
        cbar_kws={"label": capital(tables.METRIC_NAMES[metric])},
    )
    names = [f"{weight:g}, {ratio:g}" if weight else "no penalty" for weight, ratio in wide.index]
    ax.set_yticklabels(names, rotation=0)
    ax.set_ylabel("variance_weight,\nfeature_sampling_ratio")
    ax.set_xlabel("lambda")
    ax.tick_params(length=0)
    ax.grid(visible=False)  # no penalty has no lambda of its own: empty cells stay empty
    for best in grid_search.chosen(runs, metric).itertuples():
        row = wide.index.get_loc((best.variance_weight, best.feature_sampling_ratio))
        place = (wide.columns.get_loc(best.lambda_), row)
        ax.add_patch(Rectangle(place, 1, 1, fill=False, ec=COLORS["penalized"], lw=3.5))
    return figure


def weights(
    runs: pd.DataFrame, metrics: Sequence[str], picked: Mapping[str, float] | None = None
) -> Figure:
    """Metrics against the weight of the penalty, validation and test, a column a network.

    The weight 0 stands at the left of a logarithmic axis. Bands are 95 % intervals over seeds.

    Args:
        runs: Rows of the study ``grid``, of one data set, all with the same lambda and ratio.
        metrics: Without their split, as in ``("cross_entropy", "auroc")``; a row of panels each.
        picked: Network -> the weight that validation chose, a vertical line; 0 for no penalty.
    """
    if runs.empty:
        return style.empty()
    models = _models(runs)
    shape = len(metrics), len(models), 2.4 * len(metrics) + 0.7
    figure, axes = style.panels(*shape, wider=0.4, sharex=True, sharey="row")
    steps = sorted(runs["variance_weight"].unique())
    validation = {"color": COLORS["augmented"], "marker": "o"}
    test = {"color": COLORS["penalized"], "marker": "s"}
    chosen = {"color": "black", "lw": 1.2, "ls": ":"}
    for line, metric in zip(axes, metrics, strict=True):
        line[0].set_ylabel(capital(tables.MEASURES[metric]))
        for ax, model in zip(line, models, strict=True):
            mine = runs[runs["model"] == model].groupby("variance_weight")
            places = [steps.index(step) for step, _ in mine]
            for column, look in ((f"val_{metric}", validation), (f"test_{metric}", test)):
                values = [group[column].to_numpy() for _, group in mine]
                _band(ax, places, values, column, alpha=0.18, ms=5.5, **look)
            if picked and model in picked:
                ax.axvline(steps.index(picked[model]), **chosen)
    for ax, model in zip(axes[0], models, strict=True):
        ax.set_title(capital(tables.MODEL_NAMES[model]))
    figure.align_ylabels(axes[:, 0])
    for ax in axes[-1]:
        powers = [f"$10^{{{round(np.log10(step))}}}$" if step else "0" for step in steps]
        ax.set_xticks(range(len(steps)), powers)
        ax.set_xlabel("variance_weight")
    lines = {"validation": validation, "test": test, "chosen on validation": chosen}
    legend(figure, lines, ncols=3)
    return figure


def picks(counts: pd.DataFrame) -> Figure:
    """How often each setting wins when every seed chooses for itself.

    Args:
        counts: As from :func:`companion.grid_search.pick_counts`; a panel a data set and network.
    """
    if counts.empty:
        return style.empty()
    groups = counts.groupby(["dataset", "model"], sort=False)
    figure, axes = style.panels(len(groups), 1, 1.5 * len(groups) + 0.9, sharex=True)
    settings = list(
        counts[grid_search.SETTING].drop_duplicates().itertuples(index=False, name=None)
    )
    for ax, ((dataset, model), group) in zip(axes[:, 0], groups, strict=True):
        mine = group[grid_search.SETTING].itertuples(index=False, name=None)
        places = [settings.index(setting) for setting in mine]
        ax.bar(places, group["picked"], color=COLORS["augmented"], width=0.7)
        seeds = int(group["seeds"].max())
        ax.set_ylim(0, seeds)
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        ax.set_ylabel(f"of {seeds} seeds")
        ax.grid(axis="x", visible=False)
        ax.set_title(f"{tables.DATASET_NAMES[dataset]}, {tables.MODEL_NAMES[model]}")
    labels = [grid_search.setting_text(*setting) for setting in settings]
    alone = all("," not in label for label in labels)
    axes[-1, 0].set_xticks(range(len(labels)), labels, rotation=0 if alone else 90)
    axes[-1, 0].set_xlabel(
        "variance_weight" if alone else "variance_weight, feature_sampling_ratio, lambda"
    )
    return figure


def recall(table: pd.DataFrame) -> Figure:
    """Recall of every class, mean and 95 % interval over seeds, a colour a method.

    Args:
        table: As from :func:`companion.tables.recalls`, of one data set, split and network.
    """
    if table.empty:
        return style.empty()
    classes = list(dict.fromkeys(table["class"]))
    figure, ax = plt.subplots(figsize=(WIDTH, 1.0 + 0.55 * len(classes)))
    shifts = _shifts(_methods(table))
    known = table.dropna(subset="recall")
    for (place, name), (method, shift) in itertools.product(enumerate(classes), shifts.items()):
        mine = known[(known["class"] == name) & (known["method"] == method)]
        if len(mine):
            found = mean_interval(mine["recall"], within=(0, 1))
            bar(ax, found, place + shift, 2.5, color=COLORS[method], marker="o", ms=6)
    style.rows(ax, [capital(name) for name in classes], 0.4, 0.6)
    ax.grid(axis="y", visible=True)
    ax.set_xlim(0, 1)
    ax.set_xlabel("Recall on test images")
    legend(figure, _method_marks(table), ncols=2)
    return figure


def pairs(runs: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Without and with the penalty, a line a seed, a panel a metric.

    Args:
        runs: Columns ``method`` (``"baseline"`` and ``"penalized"``), ``seed`` and the metrics.
        metrics: As in ``("cross_entropy", "auroc")``.
    """
    figure, axes = style.panels(1, len(metrics), 3.0)
    order = ["baseline", "penalized"]
    for ax, metric in zip(axes[0], metrics, strict=True):
        wide = runs.pivot(index="seed", columns="method", values=metric)[order]
        for values in wide.to_numpy():
            ax.plot([0, 1], values, color=PALER, lw=1.5, zorder=1)
        for place, method in enumerate(order):
            ax.scatter([place] * len(wide), wide[method], color=COLORS[method], s=42, zorder=2)
        ax.set_xticks([0, 1], ["without", "with penalty"])
        ax.set_xlim(-0.4, 1.4)
        ax.grid(axis="x", visible=False)
        ax.set_title(capital(tables.MEASURES[metric]))
    return figure


def images(rows: Mapping[str, np.ndarray], columns: int = 6) -> Figure:
    """Rows of images with a name each.

    Args:
        rows: Name of the row -> uint8 images ``(N, C, H, W)`` with 1 or 3 channels.
        columns: Images a row.
    """
    height = WIDTH / columns * len(rows) + 0.35 * len(rows)
    figure, axes = style.panels(len(rows), columns, height)
    for line, (name, stack) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.set_axis_off()
        for ax, image in zip(line, stack[:columns], strict=False):
            shown = np.moveaxis(np.asarray(image), 0, -1)
            ax.imshow(shown.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        line[0].set_title(name, loc="left")
    return figure


def _curve(
    ax: Axes,
    epochs: pd.DataFrame,
    column: str,
    color: str,
    ls: str,
    *,
    singles: bool = True,
    width: float = 2.0,
) -> None:
    wide = epochs.pivot(index="epoch", columns="seed", values=column)
    seeds = wide.shape[1]
    if singles and 1 < seeds <= 5:
        ax.plot(wide.index, wide.to_numpy(), color=color, ls=ls, lw=0.9, alpha=0.45)
    # Seeds that stopped early leave the mean: beyond that point it would be one of survivors.
    common = wide.dropna()
    # The interval of two values says nothing that the two lines do not.
    alpha = 0.15 if seeds > 2 else 0.0
    _band(ax, common.index, common.to_numpy(), column, alpha, color=color, ls=ls, lw=width)


def _forest_panel(
    ax: Axes, table: pd.DataFrame, metric: str, limits: tuple[float, float] | None = None
) -> None:
    ax.set_title(capital(tables.METRIC_NAMES[metric]))
    ax.axvline(0, color="black", lw=1)
    if table.empty:
        say_empty(ax)
        return
    methods = _methods(table)
    shifts = _shifts(_models(table))
    for row in table.itertuples():
        y = methods.index(row.method) + shifts.get(row.model, 0.0)
        bar(ax, row, y, 2.2, ms=6.5, mew=1.8, **_model_mark(row.model, COLORS[row.method]))
    ax.set_xlim(limits or _reach(table))
    style.shade_better(ax, tables.better(metric))
    names = [tables.METHOD_NAMES[method].replace(", ", ",\n") for method in methods]
    style.rows(ax, [capital(name) for name in names])
    ax.xaxis.set_major_locator(MaxNLocator(3 if limits else 4))


def _reach(table: pd.DataFrame) -> tuple[float, float]:
    """Limits that hold every interval and zero, with room on both sides of it."""
    values = table[["low", "high", "mean"]].to_numpy()
    low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
    room = 0.25 * max(high - low, 0.01)
    return min(1.1 * low, -room), max(1.1 * high, room)


def _shifts(names: Sequence[str]) -> dict[str, float]:
    """How far each of several marks in a row stands from its middle."""
    places = np.linspace(-0.2, 0.2, len(names)) if len(names) > 1 else [0.0] * len(names)
    return dict(zip(names, places, strict=True))


def _methods(table: pd.DataFrame) -> list[str]:
    return [method for method in COLORS if method in set(table["method"])]


def _models(table: pd.DataFrame) -> list[str]:
    return [model for model in MODEL_STYLE if model in set(table["model"])]


def _model_legend(figure: Figure, table: pd.DataFrame) -> None:
    grey = COLORS["baseline"]
    marks = {tables.MODEL_NAMES[model]: _model_mark(model, grey) for model in _models(table)}
    better = {"better": Rectangle((0, 0), 1, 1, color=GREEN, alpha=0.15)}
    legend(figure, marks | better, ncols=4)


def _band(
    ax: Axes, x: Sequence[float], values: Iterable[np.ndarray], column: str, alpha: float, **style
) -> None:
    """A line of means with the 95 % intervals around it; no band where ``alpha`` is 0."""
    found = [mean_interval(each, within=tables.possible(column)) for each in values]
    if alpha:
        low, high = [each.low for each in found], [each.high for each in found]
        ax.fill_between(x, low, high, color=style["color"], alpha=alpha, lw=0)
    ax.plot(x, [each.mean for each in found], **style)


def _limit(ax: Axes, epochs: pd.DataFrame, metric: str) -> None:
    """Whole epochs, and the limits of all methods."""
    values = epochs[[f"train_{metric}", f"val_{metric}"]].to_numpy()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    pad = 0.06 * max(high - low, 0.01)
    loss = metric == "cross_entropy"
    ax.set_ylim(*((0.0, high + pad) if loss else (max(0.0, low - pad), min(1.005, high + pad))))
    ax.set_xlim(1, max(2, epochs["epoch"].max()))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _method_marks(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    return {
        tables.METHOD_NAMES[method]: {"color": COLORS[method], "marker": "o"}
        for method in _methods(table)
    }


def _model_mark(model: str, color: str) -> dict[str, str]:
    return {"color": color} | MODEL_STYLE.get(model, {"marker": "s"})
