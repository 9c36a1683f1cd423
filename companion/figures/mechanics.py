"""Figures of how the loss and the search work: lambda, sampling, scale, choice, edges."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from companion import mechanics, tables, verdicts
from companion.figures.style import COLORS, WIDTH, say_empty

__all__ = [
    "block_shuffling",
    "choice_heat",
    "feature_scale",
    "lambda_trajectories",
    "sampling_noise",
    "search_places",
]

GREY, RED, GREEN, BLUE = COLORS.values()
MODEL_COLORS = {"paper_cnn": (BLUE, "o"), "small_cnn": (RED, "D")}
#: A broad pale line stays visible under a thin dark one that covers it.
LAYERS = ({"color": "#BDBDBD", "lw": 6}, {"color": BLUE, "lw": 2.6}, {"color": "black", "lw": 1.1})
WEIGHT_STYLES = (
    {"color": "#9A9A9A", "lw": 4.5},
    {"color": BLUE, "lw": 1.8},
    {"color": GREEN, "lw": 1.8},
    {"color": RED, "lw": 1.8},
)
MODE_COLORS = {"carried": RED, "fresh": BLUE}
NORMS = {
    "feature_rms": "Feature RMS",
    "head_norm": "Norm of the head",
    "feature_variance": "Feature variance",
    "relative_variance": "Relative variance",
}


def lambda_trajectories(epochs: pd.DataFrame, metric: str = "val_cross_entropy") -> Figure:
    """Cross-entropy over epochs for several lambdas, a panel an optimizer, a line a seed.

    Args:
        epochs: As from :func:`companion.mechanics.details`, with ``family``.
        metric: A column, unscaled by lambda.
    """
    families = list(dict.fromkeys(epochs["family"])) if len(epochs) else []
    lines = max(1, -(-(len(families) + 1) // 2))
    figure, axes = plt.subplots(
        lines, 2, figsize=(WIDTH, 2.0 * lines + 0.4), sharex=True, squeeze=False
    )
    for ax in axes.flat[len(families) :]:
        ax.set_axis_off()
    if not families:
        say_empty(axes[0, 0])
        return figure
    lambdas = sorted(epochs["lambda_"].unique())
    for ax, family in zip(axes.flat, families, strict=False):
        mine = epochs[epochs["family"] == family]
        for lambda_, style in zip(lambdas, LAYERS, strict=False):
            for _, track in mine[mine["lambda_"] == lambda_].groupby("seed"):
                ax.plot(track["epoch"], track[metric], **style)
        ax.set_title(_wrapped(family))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.xaxis.set_tick_params(labelbottom=True)
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel("Epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel(_capital(tables.METRIC_NAMES[metric]).replace(" ", "\n"))
    handles = [
        Line2D([], [], label=f"lambda = {lambda_:g}", **style)
        for lambda_, style in zip(lambdas, LAYERS, strict=False)
    ]
    axes.flat[len(families)].legend(handles=handles, loc="center", fontsize=11)
    return figure


def sampling_noise(rows: pd.DataFrame) -> Figure:
    """Noise of the penalty's gradient against the sampling ratio.

    Filled marks are single seeds with the released recipe, open ones with this package's comb;
    lines are the theory, dotted lines the noise of the mini-batch.

    Args:
        rows: Details of the probe ``sampling``, as from :func:`companion.mechanics.details`.
    """
    figure, noise = plt.subplots(figsize=(WIDTH, 3.8))
    noise.set_ylabel("Noise, share of\nthe squared gradient")
    noise.set_xlabel("Sampling ratio")
    if rows.empty:
        say_empty(noise)
        return figure
    theory = mechanics.with_theory(rows)
    for model, (color, marker) in _present(rows).items():
        mine = theory[theory["model"] == model]
        noise.plot(mine["ratio"], mine["gradient_noise"], marker, color=color, ms=6, alpha=0.75)
        noise.plot(mine["ratio"], mine["comb_noise"], marker, color=color, ms=6, mfc="white")
        curve = mine.groupby("ratio")["predicted"].mean()
        noise.plot(curve.index, curve, color=color, lw=1.6)
        noise.axhline(mine["batch_noise"].mean(), color=color, lw=1.6, ls=":")
    noise.set_xscale("log")
    noise.set_yscale("log")
    ratios = sorted(theory["ratio"].unique())
    noise.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    noise.minorticks_off()
    handles = [
        Line2D([], [], color=color, marker=marker, ls="", label=tables.MODEL_NAMES[model])
        for model, (color, marker) in _present(rows).items()
    ]
    handles += [
        Line2D([], [], color="black", marker="s", mfc="white", ls="", label="drawn as a comb"),
        Line2D([], [], color="black", lw=1.6, label="theory, at random"),
        Line2D([], [], color="black", lw=1.6, ls=":", label="mini-batch"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, columnspacing=1.2)
    return figure


def feature_scale(rows: pd.DataFrame) -> Figure:
    """How features and head move during training, a line a weight of the penalty.

    Lines are geometric means over seeds, bands go from the lowest seed to the highest: where one
    seed starts to learn later than another, an interval for the mean would say little. All axes
    are logarithmic but the last, which no scale of the features can move.

    Args:
        rows: Details of the probe ``norms``, as from :func:`companion.mechanics.details`.
    """
    models = list(_present(rows))
    figure, axes = plt.subplots(
        len(NORMS),
        max(1, len(models)),
        figsize=(WIDTH + 0.2, 1.85 * len(NORMS) + 0.6),
        sharex=True,
        squeeze=False,
    )
    if not models:
        for ax in axes[:, 0]:
            say_empty(ax)
        return figure
    weights = sorted(rows["variance_weight"].unique())
    styles = dict(zip(weights, WEIGHT_STYLES, strict=False))
    for line, (column, name) in zip(axes, NORMS.items(), strict=True):
        line[0].set_ylabel(name.replace(" ", "\n", 1))
        for ax, model in zip(line, models, strict=True):
            for weight, style in styles.items():
                mine = rows[(rows["model"] == model) & (rows["variance_weight"] == weight)]
                _seed_band(ax, mine, column, **style)
            if column == "relative_variance":
                ax.set_ylim(bottom=0)
                continue
            _log_axis(ax)
    for ax, model in zip(axes[0], models, strict=True):
        ax.set_title(_capital(tables.MODEL_NAMES[model]))
    for ax in axes[-1]:
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(axes[:, 0])
    handles = [
        Line2D([], [], label=f"weight {weight:g}", **style) for weight, style in styles.items()
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=4, handlelength=1.4, columnspacing=1.2
    )
    return figure


def search_places(
    rows: pd.DataFrame, metrics: Sequence[str] = ("val_accuracy", "val_cross_entropy")
) -> Figure:
    """Each combination in the order of the search, with weights carried over and fresh ones.

    Thin lines are single seeds, thick ones their mean; the bands go from the lowest seed to the
    highest, because a seed that has not started to learn makes an interval meaningless.

    Args:
        rows: Details of the probe ``carried``, as from :func:`companion.mechanics.details`.
        metrics: A panel each.
    """
    figure, axes = plt.subplots(
        len(metrics), 1, figsize=(WIDTH, 2.35 * len(metrics) + 0.9), sharex=True, squeeze=False
    )
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        ax.set_ylabel(_capital(tables.METRIC_NAMES[metric]).replace(" ", "\n", 1))
        if rows.empty:
            say_empty(ax)
            continue
        for mode, color in MODE_COLORS.items():
            wide = rows[rows["mode"] == mode].pivot(index="place", columns="seed", values=metric)
            ax.plot(wide.index, wide.to_numpy(), color=color, lw=0.8, alpha=0.4)
            low, high = wide.min(axis=1), wide.max(axis=1)
            ax.fill_between(wide.index, low, high, color=color, alpha=0.12, lw=0)
            ax.plot(wide.index, wide.mean(axis=1), color=color, marker="o", ms=4.5)
    if rows.empty:
        return figure
    first = rows.drop_duplicates("place").sort_values("place")
    settings = [tables.setting_text(*each) for each in first[tables.SETTING].to_numpy()]
    axes[-1, 0].set_xticks(first["place"], settings, rotation=90)
    axes[-1, 0].set_xlabel("In the order of the search (weight, ratio, lambda)")
    handles = [
        Line2D([], [], color=MODE_COLORS["carried"], marker="o", label="weights carried over"),
        Line2D([], [], color=MODE_COLORS["fresh"], marker="o", label="fresh weights"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def choice_heat(shares: pd.DataFrame) -> Figure:
    """How often each rule chooses each combination, in percent.

    Args:
        shares: As from :func:`companion.mechanics.choice_shares`.
    """
    modes = [mode for mode in MODE_COLORS if len(shares) and mode in set(shares["mode"])]
    figure, axes = plt.subplots(
        1, max(1, len(modes)), figsize=(WIDTH + 1.0, 6.4), sharey=True, squeeze=False
    )
    if not modes:
        say_empty(axes[0, 0])
        return figure
    wide = 100 * shares.pivot_table(
        index=["place", *tables.SETTING], columns=["mode", "rule"], values="share"
    )
    for ax, mode in zip(axes[0], modes, strict=True):
        table = wide[mode].reindex(columns=list(mechanics.RULES))
        sns.heatmap(
            table,
            ax=ax,
            annot=True,
            fmt=".0f",
            cmap="Blues",
            vmin=0,
            vmax=100,
            cbar=False,
            linewidths=1,
            annot_kws={"size": 10.5},
        )
        ax.set_title("Carried over" if mode == "carried" else "Fresh weights")
        ax.set_xticklabels(mechanics.RULES.values(), rotation=90)
        ax.set_xlabel("")
        ax.set_ylabel("")
        ax.tick_params(length=0)
    labels = [tables.setting_text(*setting) for _, *setting in wide.index]
    axes[0, 0].set_yticklabels(labels, rotation=0)
    axes[0, 0].set_ylabel("Weight, ratio, lambda, in the order of the search")
    return figure


def block_shuffling(runs: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Change when the blocks of every image are shuffled, a panel a metric.

    Small dots are pairs with one seed, marks their mean with its 95 % interval; the grey band is
    a change too small to matter.

    Args:
        runs: Rows of the study ``edges``, as from :func:`companion.mechanics.by_blocks`.
        metrics: Columns, such as ``"test_accuracy"``.
    """
    models = list(_present(runs))
    figure, axes = plt.subplots(
        len(metrics), 1, figsize=(WIDTH, 1.35 * len(metrics) + 0.6), squeeze=False
    )
    found = mechanics.edges(runs, metrics)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        name = tables.METRIC_NAMES[metric]
        side = "higher" if tables.better(metric) > 0 else "lower"
        ax.set_title(f"{_capital(name)} ({side} is better)")
        if found.empty:
            say_empty(ax)
            continue
        ax.axvspan(-verdicts.MARGIN, verdicts.MARGIN, color="#DDDDDD", lw=0, zorder=0)
        ax.axvline(0, color="black", lw=1)
        for row in found[found["metric"] == metric].itertuples():
            y = models.index(row.model)
            color, marker = MODEL_COLORS[row.model]
            mine = runs[runs["model"] == row.model]
            wide = mine.pivot(index="seed", columns="method", values=metric).dropna()
            pairs = wide[mechanics.SHUFFLED] - wide[mechanics.IN_PLACE]
            ax.plot(pairs, np.full(len(pairs), y + 0.27), ".", color=color, alpha=0.6, ms=7)
            ax.plot([row.change.low, row.change.high], [y, y], color=color, lw=2.6)
            ax.plot(row.change.mean, y, marker, color=color, ms=7.5)
        ax.set_yticks(range(len(models)), [_capital(tables.MODEL_NAMES[m]) for m in models])
        ax.set_ylim(len(models) - 0.4, -0.5)
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("Shuffled minus in place")
    handles = [
        Line2D([], [], color=GREY, marker=".", ls="", label="one seed"),
        Line2D([], [], color=GREY, lw=2.6, marker="o", label="mean, 95 %"),
        Patch(color="#DDDDDD", label="too small to matter"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _present(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and marker of the networks in the rows."""
    there = set(rows["model"]) if len(rows) else set()
    return {model: style for model, style in MODEL_COLORS.items() if model in there}


def _seed_band(ax: Axes, rows: pd.DataFrame, column: str, *, color: str, lw: float) -> None:
    wide = rows.pivot(index="epoch", columns="seed", values=column)
    wide = wide.where(wide > 0).dropna()
    ax.fill_between(wide.index, wide.min(axis=1), wide.max(axis=1), color=color, alpha=0.2, lw=0)
    ax.plot(wide.index, np.exp(np.log(wide).mean(axis=1)), color=color, lw=lw)


def _log_axis(ax: Axes) -> None:
    """A logarithmic axis with labels at 1, 2 and 5 where it is short, else at powers of ten."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 50 * low:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(FuncFormatter(_two_and_five))
        ax.tick_params(axis="y", which="minor", labelsize=9)


def _two_and_five(value: float, _: int) -> str:
    """Label of a minor tick: only at 2 and 5 times a power of ten."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _wrapped(text: str) -> str:
    """In two lines at the first comma: panels are narrow."""
    return _capital(text).replace(", ", ",\n", 1)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
