"""A network without edges: blocks of pixels shuffled, and the head's weights with them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from companion import style, tables, verdicts, words
from companion.style import NETWORKS, PALE
from varreg.lab.augment import shuffle_blocks
from varreg.lab.methods import GREY
from varreg.lab.models import PaperCNN, SmallCNN
from varreg.lab.statistics import PairedDifference, mean_interval

IN_PLACE, SHUFFLED = "in place", "shuffled"


def block_order(size: int, block: int = 4, seed: int = 0) -> Tensor:
    """Where the blocks come from: entry ``k`` is the place that block ``k`` had before shuffling.

    Args:
        size: Height and width of the image.
        block: As in :func:`varreg.lab.augment.shuffle_blocks`.
        seed: The same.

    Example:
        >>> sorted(block_order(8).tolist())
        [0, 1, 2, 3]
    """
    across = size // block
    places = torch.arange(across**2).view(1, 1, across, across)
    marked = places.repeat_interleave(block, 2).repeat_interleave(block, 3)
    return shuffle_blocks(marked, block, seed)[0, 0, ::block, ::block].flatten()


def permute_head(model: PaperCNN | SmallCNN, order: Tensor) -> PaperCNN | SmallCNN:
    """A copy whose head reads each position where ``order`` has moved it.

    Args:
        model: A network with ``P`` positions a channel; it stays as it is.
        order: ``(P,)``, as from :func:`block_order`.

    Example:
        >>> model = PaperCNN(in_channels=1, size=8, n_outputs=1).double()
        >>> images = torch.rand(2, 1, 8, 8, dtype=torch.float64)
        >>> moved = permute_head(model, block_order(8))(shuffle_blocks(images))
        >>> torch.allclose(moved, model(images))
        True
    """
    moved = copy.deepcopy(model)
    weight = model.head.weight.detach().unflatten(1, (-1, len(order)))
    with torch.no_grad():
        moved.head.weight.copy_(weight[..., order].flatten(1))
    return moved


def changed_predictions(model: PaperCNN | SmallCNN, images: Tensor) -> int:
    """Number of binary predictions that change when blocks and head are shuffled together.

    Args:
        model: A network with one output.
        images: What it is fed, ``(N, C, H, W)``, of the same type as its weights.

    Example:
        >>> model = PaperCNN(in_channels=1, size=28, n_outputs=1).double()
        >>> changed_predictions(model, torch.rand(4, 1, 28, 28, dtype=torch.float64))
        0
    """
    moved = permute_head(model, block_order(images.shape[-1]))
    with torch.no_grad():
        before, after = model(images) > 0, moved(shuffle_blocks(images)) > 0
    return int((before != after).sum())


def by_blocks(runs: pd.DataFrame) -> pd.DataFrame:
    """Name the runs of the study ``edges`` by what was done to their images.

    Returns:
        The rows with :data:`IN_PLACE` or :data:`SHUFFLED` in the column ``method``.

    Example:
        >>> by_blocks(pd.DataFrame({"shuffle_blocks": [None, True]}))["method"].tolist()
        ['in place', 'shuffled']
    """
    if runs.empty:
        return runs
    shuffled = [str(value) == "True" for value in runs["shuffle_blocks"]]
    return runs.assign(method=np.where(shuffled, SHUFFLED, IN_PLACE))


def edges(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """What shuffling the blocks changes, paired over seeds.

    Args:
        runs: Rows of the study ``edges``, as from :func:`by_blocks`.
        metrics: Columns, such as ``"test_accuracy"``.

    Returns:
        Columns ``model, metric``; the levels ``in_place`` and ``shuffled``, an interval each;
        ``change`` (a :class:`~varreg.lab.statistics.PairedDifference`, shuffled minus in place);
        and ``verdict``: ``"worse"`` or ``"better"`` where the interval lies on one side of zero,
        ``"equal"`` where it holds zero and lies within ``companion.verdicts.MARGIN`` of it,
        ``"open"`` otherwise.
    """
    rows = []
    for model, group in [] if runs.empty else runs.groupby("model", sort=False):
        for metric in metrics:
            change = tables.difference(group, metric, SHUFFLED, IN_PLACE)
            if change is not None:
                values = group.groupby("method")[metric].get_group
                levels = (
                    mean_interval(values(method), within=tables.possible(metric))
                    for method in (IN_PLACE, SHUFFLED)
                )
                verdict = _verdict(change, tables.better(metric))
                rows.append((model, metric, *levels, change, verdict))
    columns = ["model", "metric", "in_place", "shuffled", "change", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def facts(runs: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """What shuffling does, as a verb phrase with its verdict: ``edges_``, network, metric."""
    return {
        f"edges_{row.model}_{row.metric}": (
            f"{verdicts.phrase(row.change, tables.METRIC_NAMES[row.metric])}: {row.verdict}"
        )
        for row in edges(runs, metrics).itertuples()
    }


def figure(runs: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Change when the blocks of every image are shuffled, a panel a metric.

    Small dots are pairs with one seed, marks their mean with its 95 % interval; the grey band is
    a change too small to matter.

    Args:
        runs: Rows of the study ``edges``, as from :func:`by_blocks`.
        metrics: Columns, such as ``"test_accuracy"``.
    """
    found = edges(runs, metrics)
    if found.empty:
        return style.empty()
    models = [name for name in NETWORKS if name in set(runs["model"])]
    figure, axes = style.panels(len(metrics), 1, 1.35 * len(metrics) + 0.6)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        name = tables.METRIC_NAMES[metric]
        side = "higher" if tables.better(metric) > 0 else "lower"
        ax.set_title(f"{words.capital(name)} ({side} is better)")
        ax.axvspan(-verdicts.MARGIN, verdicts.MARGIN, color=PALE, lw=0, zorder=0)
        ax.axvline(0, color="black", lw=1)
        for row in found[found["metric"] == metric].itertuples():
            y = models.index(row.model)
            look = NETWORKS[row.model]
            mine = runs[runs["model"] == row.model]
            wide = mine.pivot(index="seed", columns="method", values=metric).dropna()
            pairs = wide[SHUFFLED] - wide[IN_PLACE]
            ax.plot(pairs, np.full(len(pairs), y + 0.27), ".", color=look["color"], alpha=0.6, ms=7)
            style.bar(ax, row.change, y, 2.6, ms=7.5, **look)
        style.rows(ax, [words.capital(tables.MODEL_NAMES[name]) for name in models], below=0.4)
    axes[-1, 0].set_xlabel("Shuffled minus in place")
    marks = {
        "one seed": {"color": GREY, "marker": ".", "ls": ""},
        "mean, 95 %": {"color": GREY, "lw": 2.6, "marker": "o"},
        "too small to matter": Patch(color=PALE),
    }
    style.legend(figure, marks, ncols=3)
    return figure


def _verdict(change: PairedDifference, direction: int) -> str:
    if change.n < 2:
        return "open"
    small = change.low > -verdicts.MARGIN and change.high < verdicts.MARGIN
    worst, best = sorted((direction * change.low, direction * change.high))
    if worst > 0 or best < 0:
        word = "better" if worst > 0 else "worse"
        return f"{word}, by less than {verdicts.MARGIN}" if small else word
    return "equal" if small else "open"
