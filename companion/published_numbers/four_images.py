"""Four images: what the difference between two released models is worth."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from companion import published, style, tables, words
from companion.predictions import COMPARED
from companion.published import CHEST_IMAGES, RELEASED_LOG
from companion.style import COLORS
from varreg.lab.statistics import wilson

TOTAL = sum(CHEST_IMAGES["test"])
PAIRS = (("penalized", "baseline"), ("baseline", "augmented"), ("penalized", "augmented"))


def counts() -> dict[str, int]:
    """Chest test images that each released model has right, by method.

    Example:
        >>> counts()
        {'baseline': 500, 'penalized': 504, 'augmented': 496}
    """
    return {
        method: round(
            TOTAL * published.find("chest", method, "accuracy", source=RELEASED_LOG).value
        )
        for method in COMPARED
    }


def released() -> pd.DataFrame:
    """:func:`counts` with Wilson's interval: ``method`` and, in images, ``right, low, high``."""
    rows = [
        (method, right, *(TOTAL * end for end in wilson(right, TOTAL)))
        for method, right in counts().items()
    ]
    return pd.DataFrame(rows, columns=["method", "right", "low", "high"])


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of two classifiers on the same images.

    Args:
        only_first: Images that only the first classifier has right.
        only_second: Images that only the second one has right.

    Source:
        Q. McNemar, Note on the sampling error of the difference between correlated proportions or
        percentages, Psychometrika 12, 153-157, 1947; in its exact, binomial form.

    Example:
        >>> mcnemar(4, 0), mcnemar(3, 3)
        (0.125, 1.0)
    """
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def largest_disagreement(net: int, alpha: float = 0.05) -> int | None:
    """On how many images two models may disagree while a net difference still stands out.

    Args:
        net: Images that one model has right more than the other.
        alpha: Level of the exact McNemar test.

    Returns:
        The largest number of images that just one of them has right for which the p-value is
        below ``alpha``; ``None`` where even perfect agreement on the rest is not enough.

    Example:
        >>> largest_disagreement(4), largest_disagreement(6), largest_disagreement(8)
        (None, 6, 12)
    """
    found = None
    total = net
    while mcnemar((total + net) // 2, (total - net) // 2) < alpha:
        found, total = total, total + 2
    return found


def agreement_table() -> pd.DataFrame:
    """What paired agreement each published difference would need, as printed."""
    rows = []
    for better, worse in PAIRS:
        net = counts()[better] - counts()[worse]
        most = largest_disagreement(net)
        rows.append(
            {
                "Difference": f"{better} over {worse}",
                "Images": net,
                "p if they agree on all others": words.p_value(mcnemar(net, 0)),
                "Images they may differ on": "none is few enough" if most is None else most,
                "Agreement needed": words.DASH if most is None else f"{TOTAL - most} of {TOTAL}",
            }
        )
    return pd.DataFrame(rows)


def disagreement(images: pd.DataFrame) -> pd.DataFrame:
    """On how many images our recorded models differ.

    Args:
        images: Of the study ``chest_paper``.

    Returns:
        Columns ``models, first, second, p``: images that only the first or only the second model
        has right, and the p-value of :func:`mcnemar`.
    """
    right = {name: group["right"].to_numpy() == 1 for name, group in images.groupby("method")}
    rows = []
    for first, second in PAIRS:
        if {first, second} <= set(right):
            only = [
                int((right[one] & ~right[other]).sum())
                for one, other in itertools.permutations((first, second))
            ]
            rows.append((f"{first} and {second}", *only, mcnemar(*only)))
    return pd.DataFrame(rows, columns=["models", "first", "second", "p"])


def seeds(runs: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """How far the seed alone moves the accuracy, in images.

    Args:
        runs: Rows of a study each.

    Returns:
        A row a setting: ``dataset, size, model, method`` and, over the seeds, ``count, mean, std``
        (NaN for one seed), ``min, max``.
    """
    names = ["dataset", "size", "model", "method"]
    known = [study.assign(right=_right) for study in runs if len(study)]
    if not known:
        return pd.DataFrame(columns=[*names, "mean"])
    by = pd.concat(known).groupby(names, sort=False)["right"]
    return by.agg(["count", "mean", "std", "min", "max"]).reset_index()


def facts(protocol: pd.DataFrame, powered: pd.DataFrame) -> dict[str, object]:
    """What a difference of four images is worth.

    Args:
        protocol: Rows of the study ``chest_paper``.
        powered: Rows of the study ``chest``.

    Returns:
        By how many images, ``net`` of ``total``, the released penalized model is ahead of the
        baseline, and the ``p`` if they agreed on all others; standard deviation over seeds of the
        baseline with the paper's network, in images, ``protocol`` and ``powered`` (absent without
        two seeds). Each behind ``four_``.
    """
    net = counts()["penalized"] - counts()["baseline"]
    found = {"four_net": net, "four_total": TOTAL, "four_p": words.p_value(mcnemar(net, 0))}
    for name, runs in (("protocol", protocol), ("powered", powered)):
        rows = seeds([runs])
        mine = rows[(rows["model"] == "paper_cnn") & (rows["method"] == "baseline")]
        found |= {f"four_{name}": float(row.std) for row in mine.itertuples() if row.count > 1}
    return found


def figure(studies: Mapping[str, pd.DataFrame]) -> Figure:
    """The released accuracies as images with their intervals, above the scatter over seeds.

    Args:
        studies: Title of a panel -> rows of the study ``chest_paper`` or ``chest``.
    """
    panels = 1 + len(studies)
    figure, axes = style.panels(panels, 1, 1.9 * panels + 0.5, sharex=True)
    top, *rest = axes[:, 0]
    for place, method, right, low, high in released().itertuples():
        top.plot([low, high], [place, place], color=COLORS[method], lw=2.6)
        top.plot(right, place, "P", color="white", mec=COLORS[method], mew=1.8, ms=10)
        top.annotate(str(right), (right, place - 0.22), ha="center", va="bottom", fontsize=10)
    top.set_title("Released log: one model each, Wilson's 95 % interval")
    style.rows(top, [name.capitalize() for name in counts()], 0.4, 0.7)
    for ax, (title, runs) in zip(rest, studies.items(), strict=True):
        ax.set_title(title)
        points = tables.of_model(runs)
        if points.empty:
            style.say_empty(ax)
            continue
        methods = [name for name in COMPARED if name in set(points["method"])]
        for place, method in enumerate(methods):
            right = _right(points[points["method"] == method])
            dots = {"color": COLORS[method], "ms": 6, "alpha": 0.5, "mew": 0}
            ax.plot(right, [place] * len(right), "o", **dots)
            ax.plot(right.mean(), place, "|", color="black", ms=18, mew=2)
        style.rows(ax, [name.capitalize() for name in methods], 0.4, 0.7)
    axes[-1, 0].set_xlabel(f"Test images right, of {TOTAL}")
    axes[-1, 0].xaxis.set_tick_params(labelbottom=True)
    return figure


def _right(runs: pd.DataFrame) -> pd.Series:
    """Test images that each run has right."""
    return (runs["test_accuracy"] * TOTAL).round().astype(int)
