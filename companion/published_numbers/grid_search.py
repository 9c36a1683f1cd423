"""The grid search that could not choose: weights that carry over, and sixteen images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from companion import style, tables, words
from companion.grid_search import SETTING, setting_text
from companion.probes.bits import unpack
from varreg.lab.methods import BLUE, RED
from varreg.lab.statistics import mean_interval, paired_difference

#: Ways to choose among the combinations of the search.
CHOICES = {
    "small": "accuracy on 16,\nfirst of the best",
    "small_random": "accuracy on 16,\nties at random",
    "accuracy": "accuracy\non all",
    "cross_entropy": "cross-entropy\non all",
}
MODE_COLORS = {"carried": RED, "fresh": BLUE}


def small_searches(
    right: np.ndarray, labels: np.ndarray, *, draws: int, per_class: int = 8, seed: int = 0
) -> np.ndarray:
    """Searches that see only a few validation images, drawn at random from all of them.

    Args:
        right: ``(K, n)``: whether combination ``k`` has image ``i`` right.
        labels: ``(n,)``, 0 or 1.
        draws: Number of searches.
        per_class: Images of each class a search sees; the released search had 8.
        seed: Of the draw.

    Returns:
        ``(draws, K)``: images that each combination has right.

    Example:
        >>> right = np.array([[True] * 40, [False] * 40])
        >>> small_searches(right, np.arange(40) % 2, draws=2).tolist()
        [[16, 0], [16, 0]]
    """
    random = np.random.default_rng(seed)
    hits = np.zeros((draws, len(right)), dtype=int)
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        order = random.random((draws, len(members))).argsort(axis=1)[:, :per_class]
        hits += right[:, members[order]].sum(axis=2).T
    return hits


def first_best(scores: np.ndarray) -> np.ndarray:
    """Share of searches in which each combination wins when a later one must be strictly better.

    Example:
        >>> first_best(np.array([[15, 15, 14], [13, 15, 15]])).tolist()
        [0.5, 0.5, 0.0]
    """
    return np.bincount(scores.argmax(axis=1), minlength=scores.shape[1]) / len(scores)


def best_at_random(scores: np.ndarray) -> np.ndarray:
    """Share of searches in which each combination wins when a tie is settled by lot.

    Example:
        >>> best_at_random(np.array([[15, 15, 14], [13, 15, 14]])).tolist()
        [0.25, 0.75, 0.0]
    """
    return _shared(scores).mean(axis=0)


def choice_shares(rows: pd.DataFrame, draws: int = 10_000) -> pd.DataFrame:
    """How often each rule of :data:`CHOICES` chooses each combination of the search.

    Args:
        rows: Details of the probe ``carried``, as from :func:`companion.records.details`.
        draws: Random sets of 16 images for each mode and seed.

    Returns:
        A row a mode, seed, rule and combination: the columns of the setting, ``place``, ``share``
        (sums to 1 over the combinations), ``test_cross_entropy`` and ``tied`` (combinations that
        share the first place, mean over searches) and ``ties`` (share of searches that end in a
        tie), both the same for all combinations.
    """
    parts = []
    for (mode, seed), group in [] if rows.empty else rows.groupby(["mode", "seed"], sort=False):
        group = group.sort_values("place")
        count, whose = int(group["val_images"].iloc[0]), str(group["val_labels"].iloc[0])
        right = np.array([unpack(str(text), count) for text in group["val_right"]])
        hits = small_searches(right, unpack(whose, count), draws=draws, seed=int(seed))
        scores = {
            "small": (hits, first_best),
            "small_random": (hits, best_at_random),
            "accuracy": (right.sum(axis=1)[None], first_best),
            "cross_entropy": (-group["val_cross_entropy"].to_numpy()[None], first_best),
        }
        for rule, (score, choose) in scores.items():
            winners = _shared(score) > 0
            parts.append(
                group[["place", *SETTING, "test_cross_entropy"]].assign(
                    mode=mode,
                    seed=seed,
                    rule=rule,
                    share=choose(score),
                    tied=winners.sum(axis=1).mean(),
                    ties=(winners.sum(axis=1) > 1).mean(),
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def choices(shares: pd.DataFrame) -> pd.DataFrame:
    """What each rule chooses most often, a row a mode and rule.

    Args:
        shares: As from :func:`choice_shares`.

    Returns:
        Columns ``mode, rule, ties, tied`` as there, over the seeds; ``place``, ``setting`` and
        ``share`` of the combination chosen most often; and ``gain``, the expected test
        cross-entropy of the chosen combination minus the mean of all, paired over seeds.
    """
    rows = []
    for (mode, rule), group in [] if shares.empty else shares.groupby(["mode", "rule"], sort=False):
        picked = group.groupby(["place", *SETTING])["share"].mean()
        place, *setting = picked.idxmax()
        expected = (group["share"] * group["test_cross_entropy"]).groupby(group["seed"]).sum()
        blind = group.groupby("seed")["test_cross_entropy"].mean()
        chosen = place, setting_text(*setting), picked.max()
        tied = group["ties"].mean(), group["tied"].mean()
        rows.append((mode, rule, *tied, *chosen, paired_difference(expected, blind)))
    columns = ["mode", "rule", "ties", "tied", "place", "setting", "share", "gain"]
    return pd.DataFrame(rows, columns=columns)


def facts(shares: pd.DataFrame) -> dict[str, object]:
    """How often the combination that is tried first wins, in percent.

    Args:
        shares: As from :func:`choice_shares`.

    Returns:
        For each mode: searches on 16 images that end in ``ties`` (percent) and how many
        combinations are ``tied`` on average; and the share (percent) of the combination tried first
        by the ``small`` rule, by a lot among the tied (``small_random``), and by a ``blind``
        choice. Each behind ``search_`` and the mode.
    """
    found = {}
    for mode, group in [] if shares.empty else shares.groupby("mode", sort=False):
        first = group[group["place"] == 1].groupby("rule")["share"].mean()
        small = group[group["rule"] == "small"]
        shown = {"ties": small["ties"].mean(), "blind": 1 / small["place"].nunique()}
        shown |= {rule: first[rule] for rule in ("small", "small_random")}
        found |= {f"search_{mode}_{name}": float(100 * share) for name, share in shown.items()}
        found[f"search_{mode}_tied"] = float(small["tied"].mean())
    return found


def halves(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over the later half of the search minus mean over the earlier half, a row a seed.

    Args:
        rows: Details of the probe ``carried``.
        metric: A column, such as ``"val_cross_entropy"``.

    Returns:
        Index ``seed``, a column a mode.

    Example:
        >>> rows = pd.DataFrame({"mode": "fresh", "seed": 0, "place": [1, 2, 3, 4],
        ...                      "val_accuracy": [0.5, 0.7, 0.8, 0.8]})
        >>> halves(rows, "val_accuracy")["fresh"].round(3).tolist()
        [0.2]
    """
    later = rows["place"] > rows["place"].max() / 2
    means = rows.groupby(["seed", "mode", later.rename("later")])[metric].mean().unstack("later")
    return (means[True] - means[False]).unstack("mode")


def carried_over(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """:func:`halves` over the seeds, and the difference that is due to carrying over.

    Args:
        rows: Details of the probe ``carried``.
        metrics: Columns, such as ``"val_cross_entropy"``; one without a seed in both modes is left
            out.

    Returns:
        A row a metric: ``metric``; ``carried`` and ``fresh``, an interval each; ``difference``, the
        first minus the second, paired.
    """
    found = []
    for metric in [] if rows.empty else metrics:
        change = halves(rows, metric).reindex(columns=["carried", "fresh"]).dropna()
        if len(change):
            levels = mean_interval(change["carried"]), mean_interval(change["fresh"])
            found.append((metric, *levels, paired_difference(change["carried"], change["fresh"])))
    return pd.DataFrame(found, columns=["metric", "carried", "fresh", "difference"])


def search_places(
    rows: pd.DataFrame, metrics: Sequence[str] = ("val_accuracy", "val_cross_entropy")
) -> Figure:
    """Each combination in the order of the search, with weights carried over and fresh ones.

    Thin lines are single seeds, thick ones their mean; the bands go from the lowest seed to the
    highest, because a seed that has not started to learn makes an interval meaningless.

    Args:
        rows: Details of the probe ``carried``, as from :func:`companion.records.details`.
        metrics: A panel each.
    """
    if rows.empty:
        return style.empty()
    figure, axes = style.panels(len(metrics), 1, 2.35 * len(metrics) + 0.9, sharex=True)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        ax.set_ylabel(words.capital(tables.METRIC_NAMES[metric]).replace(" ", "\n", 1))
        for mode, color in MODE_COLORS.items():
            wide = rows[rows["mode"] == mode].pivot(index="place", columns="seed", values=metric)
            ax.plot(wide.index, wide.to_numpy(), color=color, lw=0.8, alpha=0.4)
            low, high = wide.min(axis=1), wide.max(axis=1)
            ax.fill_between(wide.index, low, high, color=color, alpha=0.12, lw=0)
            ax.plot(wide.index, wide.mean(axis=1), color=color, marker="o", ms=4.5)
    first = rows.drop_duplicates("place").sort_values("place")
    settings = [setting_text(*each) for each in first[SETTING].to_numpy()]
    axes[-1, 0].set_xticks(first["place"], settings, rotation=90)
    axes[-1, 0].set_xlabel("In the order of the search (weight, ratio, lambda)")
    marks = {
        "weights carried over": {"color": MODE_COLORS["carried"], "marker": "o"},
        "fresh weights": {"color": MODE_COLORS["fresh"], "marker": "o"},
    }
    style.legend(figure, marks, ncols=2)
    return figure


def choice_heat(shares: pd.DataFrame) -> Figure:
    """How often each rule chooses each combination, in percent.

    Args:
        shares: As from :func:`choice_shares`.
    """
    if shares.empty:
        return style.empty()
    modes = [mode for mode in MODE_COLORS if mode in set(shares["mode"])]
    figure, axes = style.panels(1, len(modes), 6.4, wider=1.0, sharey=True)
    wide = 100 * shares.pivot_table(
        index=["place", *SETTING], columns=["mode", "rule"], values="share"
    )
    look = {"annot": True, "fmt": ".0f", "annot_kws": {"size": 10.5}, "linewidths": 1}
    look |= {"cmap": "Blues", "vmin": 0, "vmax": 100, "cbar": False}
    for ax, mode in zip(axes[0], modes, strict=True):
        sns.heatmap(wide[mode].reindex(columns=list(CHOICES)), ax=ax, **look)
        ax.set_title("Carried over" if mode == "carried" else "Fresh weights")
        ax.set_xticklabels(CHOICES.values(), rotation=90)
        ax.set_xlabel("")
        ax.set_ylabel("")
        ax.tick_params(length=0)
    labels = [setting_text(*setting) for _, *setting in wide.index]
    axes[0, 0].set_yticklabels(labels, rotation=0)
    axes[0, 0].set_ylabel("Weight, ratio, lambda, in the order of the search")
    return figure


def _shared(scores: np.ndarray) -> np.ndarray:
    """The first place of each search, shared equally among the tied."""
    top = scores == scores.max(axis=1, keepdims=True)
    return top / top.sum(axis=1, keepdims=True)
