"""Sampling is noise: what drawing a share of the features costs and saves."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from companion import style, tables, words
from companion.published import FEATURE_SAMPLING_RATIO
from companion.style import NETWORKS, WIDTH
from varreg.variance import feature_variance


def every_draw(features: Tensor, drawn: int) -> Tensor:
    """The penalty for each possible draw of ``drawn`` features, without replacement.

    Args:
        features: ``(N, D)`` with few features: there are "D choose ``drawn``" draws.
        drawn: Features a draw.

    Example:
        >>> features = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 4.0]])  # variances 0, 1, 4
        >>> every_draw(features, 2)
        tensor([0.5000, 2.0000, 2.5000])
    """
    subsets = itertools.combinations(range(features.shape[1]), drawn)
    return torch.stack([feature_variance(features[:, list(subset)]) for subset in subsets])


def with_theory(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the noise that sampling without replacement must have, in the column ``predicted``.

    Drawing ``m`` of ``d`` gradients leaves a variance of ``(1/m - 1/d)`` times a constant of the
    model: one number, set so that theory and measurement agree on the mean of their logarithms.

    Args:
        rows: Details of the probe ``sampling``.

    Returns:
        The rows that sample: a ratio between 0 and 1.

    Example:
        >>> rows = pd.DataFrame({"key": "a", "ratio": [0.2, 0.5, 1.0], "features": 100,
        ...                      "drawn": [20, 50, 100], "gradient_noise": [0.4, 0.1, 0.0]})
        >>> with_theory(rows)["predicted"].round(3).tolist()
        [0.4, 0.1]
    """
    if rows.empty:
        return rows
    kept = rows[(rows["ratio"] > 0) & (rows["drawn"] < rows["features"])]
    factor = 1 / kept["drawn"] - 1 / kept["features"]
    log_constant = np.log(kept["gradient_noise"] / factor).groupby(kept["key"]).transform("mean")
    return kept.assign(predicted=factor * np.exp(log_constant))


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """The noise that the probe ``sampling`` found, mean over seeds, a row a network and ratio.

    Times of a step are those of the benchmark ``overhead``, see
    ``companion.cost.tables``.

    Args:
        rows: Details of the probe, as from :func:`companion.records.details`.

    Returns:
        Its columns, and ``predicted`` as in :func:`with_theory`; 0 with all features.
    """
    if rows.empty:
        return rows
    by = ["model", "ratio"]
    mean = rows[rows["ratio"] > 0].groupby(by, sort=False).mean(numeric_only=True)
    theory = with_theory(rows).groupby(by)["predicted"].mean()
    return mean.assign(predicted=theory.reindex(mean.index, fill_value=0.0)).reset_index()


def facts(rows: pd.DataFrame, ratio: float = FEATURE_SAMPLING_RATIO) -> dict[str, object]:
    """What the probe ``sampling`` says about one ratio.

    Args:
        rows: Details of the probe.
        ratio: At which the noise is given.

    Returns:
        ``sampling_ratio`` and, for each network, in percent of a squared gradient, the noise of
        sampling at ``random``, as a ``comb`` and of the mini-``batch``; in percent, how far
        theory is ``off`` at most; and the ``bias`` and ``comb_bias`` in standard errors, mean over
        all ratios. Each behind ``sampling_`` and the name of the network.
    """
    found = {"sampling_ratio": ratio}
    for model, group in [] if rows.empty else rows.groupby("model", sort=False):
        theory = with_theory(group)
        one = group[group["ratio"] == ratio].mean(numeric_only=True)
        values = {
            "random": words.percent_short(one["gradient_noise"]),
            "comb": words.percent_short(one["comb_noise"]),
            "batch": words.percent_short(one["batch_noise"]),
            "off": words.percent((theory["gradient_noise"] / theory["predicted"] - 1).abs().max()),
            "bias": float(theory["bias"].mean()),
            "comb_bias": float(theory["comb_bias"].mean()),
        }
        found |= {f"sampling_{model}_{name}": value for name, value in values.items()}
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Noise of the penalty's gradient against the sampling ratio.

    Filled marks are single seeds with the released recipe, open ones with this package's comb;
    lines are the theory, dotted lines the noise of the mini-batch.

    Args:
        rows: Details of the probe ``sampling``, as from :func:`companion.records.details`.
    """
    if rows.empty:
        return style.empty()
    figure, noise = plt.subplots(figsize=(WIDTH, 3.8))
    noise.set_ylabel("Noise, share of\nthe squared gradient")
    noise.set_xlabel("Sampling ratio")
    theory = with_theory(rows)
    marks = {}
    for model, network in NETWORKS.items():
        if (mine := theory[theory["model"] == model]).empty:
            continue
        look, line = network | {"ls": ""}, {"color": network["color"], "lw": 1.6}
        noise.plot(mine["ratio"], mine["gradient_noise"], ms=6, alpha=0.75, **look)
        noise.plot(mine["ratio"], mine["comb_noise"], ms=6, mfc="white", **look)
        curve = mine.groupby("ratio")["predicted"].mean()
        noise.plot(curve.index, curve, **line)
        noise.axhline(mine["batch_noise"].mean(), ls=":", **line)
        marks[tables.MODEL_NAMES[model]] = look
    noise.set_xscale("log")
    noise.set_yscale("log")
    ratios = sorted(theory["ratio"].unique())
    noise.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    noise.minorticks_off()
    marks |= {
        "drawn as a comb": {"color": "black", "marker": "s", "mfc": "white", "ls": ""},
        "theory, at random": {"color": "black", "lw": 1.6},
        "mini-batch": {"color": "black", "lw": 1.6, "ls": ":"},
    }
    style.legend(figure, marks, ncols=3, columnspacing=1.2)
    return figure
