"""Scale: what a penalty on the variance lowers first."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor, nn

from companion import style, tables, words
from companion.probes.norms import variance_parts
from companion.style import NETWORKS
from varreg.checks import check_range
from varreg.lab.methods import BLUE, GREEN, RED
from varreg.lab.models import PaperCNN, SmallCNN
from varreg.lab.statistics import Interval
from varreg.variance import feature_variance

WEIGHT_STYLES = (
    {"color": "#9A9A9A", "lw": 4.5},
    {"color": BLUE, "lw": 1.8},
    {"color": GREEN, "lw": 1.8},
    {"color": RED, "lw": 1.8},
)
#: An interval around no change that reaches no farther gives a bound.
NARROW = 0.1
NORMS = {
    "feature_rms": "Feature RMS",
    "head_norm": "Norm of the head",
    "feature_variance": "Feature variance",
    "relative_variance": "Relative variance",
}


def rescale(model: PaperCNN | SmallCNN, factor: float) -> PaperCNN | SmallCNN:
    """The same function with other weights: features times ``factor``, head divided by it.

    ReLU and max pooling pass a positive factor on, so that it is enough to scale the last
    convolution.

    Args:
        model: The network; it stays as it is.
        factor: Positive.

    Raises:
        ValueError: If the factor is not positive.

    Example:
        >>> model = PaperCNN(in_channels=1, size=8, n_outputs=1)
        >>> twice = rescale(model, 2.0)
        >>> images = torch.rand(3, 1, 8, 8)
        >>> torch.equal(twice.features(images), 2 * model.features(images))
        True
        >>> torch.equal(twice(images), model(images))
        True
    """
    check_range("factor", factor, ends="()")
    scaled = copy.deepcopy(model)
    last = [layer for layer in scaled.features if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.mul_(factor)
        scaled.head.weight.div_(factor)
    return scaled


def rescaled(model: PaperCNN | SmallCNN, images: Tensor, factors: Sequence[float]) -> pd.DataFrame:
    """What :func:`rescale` does to logits and penalty.

    Returns:
        Columns ``factor``, ``logits`` (largest difference to those of ``model``) and ``penalty``
        (divided by that of ``model``).
    """
    rows = []
    with torch.no_grad():
        logits, penalty = model(images), feature_variance(model.features(images))
        for factor in factors:
            other = rescale(model, factor)
            moved = float((other(images) - logits).abs().max())
            rows.append((factor, moved, float(feature_variance(other.features(images)) / penalty)))
    return pd.DataFrame(rows, columns=["factor", "logits", "penalty"])


def share(variance: Interval, scale: Interval) -> str:
    """Share of the scale in a fall of the variance, where that is clear of zero; else a dash.

    Args:
        variance: Logarithm of the factor by which the variance changes.
        scale: Logarithm of the part of it that is scale.
    """
    return words.percent(scale.mean / variance.mean) if variance.high < 0 else words.DASH


def facts(rows: pd.DataFrame) -> dict[str, str]:
    """How much of the fall of the variance is scale, in words that follow from the intervals.

    Args:
        rows: Details of the probe ``norms``.

    Returns:
        For each network and weight, ``variance``, ``shape`` and ``head``: a verb phrase, such as
        "is 12 times smaller", "is at most 7 % smaller or larger" where the interval around no
        change is narrow, and "may be smaller or larger" where it is not; ``scale``: the same
        without a verb; and ``share`` of the scale. Each behind ``scale_``, the network and the
        weight.
    """
    found = {}
    for row in variance_parts(rows).itertuples():
        said = {name: _moved(getattr(row, name)) for name in ("variance", "shape", "head")}
        said |= {"scale": _turn(row.scale), "share": share(row.variance, row.scale)}
        start = f"scale_{row.model}_{row.variance_weight:g}"
        found |= {f"{start}_{name}": text for name, text in said.items()}
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """How features and head move during training, a line a weight of the penalty.

    Lines are geometric means over seeds, bands go from the lowest seed to the highest: where one
    seed starts to learn later than another, an interval for the mean would say little. All axes
    are logarithmic but the last, which no scale of the features can move.

    Args:
        rows: Details of the probe ``norms``, as from :func:`companion.records.details`.
    """
    if rows.empty:
        return style.empty()
    models = [name for name in NETWORKS if name in set(rows["model"])]
    shape = len(NORMS), len(models), 1.85 * len(NORMS) + 0.6
    figure, axes = style.panels(*shape, wider=0.2, sharex=True)
    looks = dict(zip(sorted(rows["variance_weight"].unique()), WEIGHT_STYLES, strict=False))
    for line, (column, name) in zip(axes, NORMS.items(), strict=True):
        line[0].set_ylabel(name.replace(" ", "\n", 1))
        for ax, model in zip(line, models, strict=True):
            for weight, look in looks.items():
                mine = rows[(rows["model"] == model) & (rows["variance_weight"] == weight)]
                _seed_band(ax, mine, column, **look)
            if column == "relative_variance":
                ax.set_ylim(bottom=0)
            else:
                _log_axis(ax)
    for ax, model in zip(axes[0], models, strict=True):
        ax.set_title(words.capital(tables.MODEL_NAMES[model]))
    for ax in axes[-1]:
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(axes[:, 0])
    lines = {f"weight {weight:g}": look for weight, look in looks.items()}
    style.legend(figure, lines, ncols=4, handlelength=1.4, columnspacing=1.2)
    return figure


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


def _turn(log: Interval) -> str:
    side = "larger" if log.mean > 0 else "smaller"
    return f"{words.short(math.exp(abs(log.mean)))} times {side}"


def _moved(log: Interval) -> str:
    """A bound is said only of a narrow interval; one that is wide says that it is not known."""
    if log.n < 2:
        return f"is {_turn(log)} (one seed)"
    if not log.low <= 0 <= log.high:
        return f"is {_turn(log)}"
    if (most := max(1 - math.exp(log.low), math.exp(log.high) - 1)) <= NARROW:
        return f"is at most {max(math.ceil(100 * most), 1)} % smaller or larger"
    low, high = (words.factor(Interval(end, end, end, 1)) for end in (log.low, log.high))
    return f"may be smaller or larger (95 % interval {low} to {high} times)"
