"""The page about what a network learns: its features, what it goes by, and where it looks.

Every method is beside the same network without it. Only data sets of which every method is
recorded are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import style, when, words
from companion.probes import scales
from companion.probes.inside import ARMS, LEADING
from companion.records import details
from companion.tables import pairs_of
from varreg.lab.datasets import phantom
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.statistics import mean_interval

DATA = {
    "breastmnist": "BreastMNIST",
    "phantom_shortcut": "phantom with a shortcut",
    "phantom": "phantom as it is",
}
TITLES = {
    name: when.TITLES.get(name, METHODS[str(given["method"])].title) for name, given in ARMS.items()
}
#: Networks and columns of the probe ``scales``.
NETWORK_TITLES = {
    "small_cnn": "Small CNN",
    "small_cnn_norm": "With batch normalization",
    "small_resnet": "Residual, with batch normalization",
}
SCALES = {
    "variance": "Feature variance",
    "scales": "Squared scales",
    "rest": "What the scales leave",
    "normalized": "Variance of normalized values",
    "shape": "Variance over mean square",
    "head": "Squared norm of the head",
}
OTHERS = tuple(name for name in ARMS if name != "none")


class Measure(NamedTuple):
    """What is compared.

    Attributes:
        title: As printed.
        better: +1 if more is better, -1 if less is, 0 if neither.
        digits: Decimals.
        least: Smallest effect of interest of the plan; 0 where it names none.
    """

    title: str
    better: int = 0
    digits: int = 3
    least: float = 0.0


MEASURES = {
    "cka": Measure("CKA between seeds", 1, least=0.05),
    "disagree": Measure("share of images on which two seeds disagree", -1),
    "flipped": Measure("answers flipped by moving the marker", -1, least=0.01),
    "flipped_removed": Measure("answers flipped by removing the marker", -1),
    "pull": Measure("pull of the marker, in deviations of the logits", -1, 2),
    "accuracy_aligned": Measure("accuracy, marker with the class"),
    "accuracy_conflicting": Measure("accuracy, marker against the class", 1),
    "accuracy_without": Measure("accuracy without a marker", 1),
    "auroc_conflicting": Measure("AUROC, marker against the class", 1),
    "auroc_without": Measure("AUROC without a marker", 1),
    "cam_lesion": Measure("share of Grad-CAM in the lesion", 1, least=0.02),
    "cam_points": Measure("Grad-CAM points into the lesion", 1),
    "cam_marker": Measure("share of Grad-CAM at the markers", -1),
    "gradient_lesion": Measure("share of the gradient in the lesion", 1),
    "gradient_points": Measure("gradient points into the lesion", 1),
    "gradient_marker": Measure("share of the gradient at the markers", -1),
    "effective_rank": Measure("effective rank", 0, 1),
    "share_1": Measure("variance in the first direction"),
    "between_share": Measure("variance between the classes"),
    "dead": Measure("dead features"),
    "feature_rms": Measure("size of the features"),
    "head_norm": Measure("norm of the head", 0, 2),
    "test_cross_entropy": Measure("test cross-entropy", -1),
    "test_auroc": Measure("test AUROC", 1),
}
#: The question that each primary outcome answers, and where the plan asks it.
QUESTIONS = {
    "cka": ("stable", "breastmnist"),
    "flipped": ("led", "phantom_shortcut"),
    "cam_lesion": ("relevant", "phantom_shortcut"),
}

HEADINGS = {
    "cka": "Two seeds alike",
    "flipped": "Not led by the marker",
    "cam_lesion": "Looks at the lesion",
}


def recorded(results: Path | None = None) -> dict[str, pd.DataFrame]:
    """The rows of the probes, of data sets of which every method is recorded.

    Args:
        results: Folder of the ledgers; default: the recorded results.

    Returns:
        ``seed``: a row a data set, method and seed, with the pseudovalues of what is measured
        between two seeds (``cka``, ``disagree``). ``epochs``: the sizes over the training.
        ``unit``: a row a data set and method. All empty where there is none.
    """
    found = {"seed": [], "epochs": [], "unit": []}
    for probe in ("inside", "nuisance"):
        ledger = Ledger(probe, results)
        units = ledger.runs()
        rows = details(units, ledger.curves())
        for dataset, mine in rows.groupby("dataset", sort=False) if len(rows) else ():
            if set(mine["method"]) == set(ARMS):
                found["unit"].append(units[units["dataset"] == dataset])
                found["epochs"].append(mine[mine["kind"] == "epochs"])
                found["seed"].append(_by_seed(mine))
    return {
        kind: pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        for kind, frames in found.items()
    }


def _by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds of a data set, with the pseudovalues of their pairs."""
    seeds = rows[rows["kind"] == "seed"].drop(columns=["cka", "disagree", "epochs", "other_seed"])
    pairs = [
        pd.DataFrame({name: pseudovalues(mine, name) for name in ("cka", "disagree")})
        .rename_axis("seed")
        .assign(method=method)
        .reset_index()
        for method, mine in rows[rows["kind"] == "pair"].groupby("method")
    ]
    return seeds.merge(pd.concat(pairs), on=["method", "seed"])


def pseudovalues(pairs: pd.DataFrame, measure: str) -> pd.Series:
    """The jackknife's pseudovalues of a mean over all pairs of seeds.

    A pair shares its seeds with others, so pairs are not independent; seeds are. With the mean
    :math:`U` over all pairs of n seeds, and that over the pairs without a seed,
    :math:`U_{-i}`, the value of the seed is :math:`n U - (n - 1) U_{-i}`. Their mean is
    :math:`U`, and what they scatter by gives its interval.

    Args:
        pairs: A row a pair, each once: ``seed``, ``other_seed`` and the measure.
        measure: Name of its column.

    Returns:
        By seed.

    Raises:
        ValueError: If a pair is missing or comes twice, or there are fewer than 3 seeds.

    References:
        J. N. Arvesen, Jackknifing U-statistics, Annals of Mathematical Statistics 40, 2076-2100,
        1969.

    Example:
        >>> rows = {"seed": [0, 0, 1], "other_seed": [1, 2, 2], "cka": [0.25, 0.25, 1.0]}
        >>> pseudovalues(pd.DataFrame(rows), "cka").tolist()
        [-0.5, 1.0, 1.0]
    """
    ends = pairs[["seed", "other_seed"]].astype(int)
    seeds = sorted(set(ends["seed"]) | set(ends["other_seed"]))
    n = len(seeds)
    if n < 3 or len(pairs) != n * (n - 1) // 2 or len(set(map(frozenset, ends.values))) < len(ends):
        raise ValueError(f"{len(pairs)} pairs of {n} seeds; give each pair of 3 or more seeds once")
    whole = pairs[measure].mean()
    without = [pairs.loc[(ends != seed).all(axis=1), measure].mean() for seed in seeds]
    return pd.Series(n * whole - (n - 1) * np.array(without), index=seeds)


def differences(seeds: pd.DataFrame) -> pd.DataFrame:
    """Every method against none, over the seeds.

    Args:
        seeds: As from :func:`recorded`.

    Returns:
        A row a data set, measure and method: ``dataset, measure, method, mean, low, high, n, p,
        p_holm, text, said``. Holm's correction is over the methods of a data set, for primary
        outcomes; it is NaN for the others. A star in the text is its p below 0.05. ``said`` is
        what follows: *better*, *worse* or *no difference that could be seen*; with Holm for
        primary outcomes, from the interval for others; *more* or *less* where neither is better;
        *too little to matter* where the interval lies within the plan's smallest effect.
    """
    rows = []
    for dataset, mine in seeds.groupby("dataset", sort=False) if len(seeds) else ():
        for name, measure in MEASURES.items():
            if mine[name].isna().all() if name in mine else True:
                continue
            pairs = {method: (method, "none") for method in OTHERS}
            how = {"corrected": name in QUESTIONS, "digits": measure.digits}
            for row in pairs_of(mine, name, pairs, dataset=dataset, **how):
                rows.append(row | {"said": _said(row, measure)})
    return pd.DataFrame(rows)


def _said(row: Mapping[str, object], measure: Measure) -> str:
    if -measure.least < row["low"] and row["high"] < measure.least:
        return "too little to matter"
    if not (row["p"] if math.isnan(row["p_holm"]) else row["p_holm"]) < 0.05:
        return "no difference that could be seen"
    if not measure.better:
        return "more" if row["mean"] > 0 else "less"
    return "better" if row["mean"] * measure.better > 0 else "worse"


def levels(seeds: pd.DataFrame, dataset: str) -> dict[str, str]:
    """Measure -> mean and interval without a penalty, as printed."""
    mine = seeds[(seeds["dataset"] == dataset) & (seeds["method"] == "none")]
    return {
        name: words.level(mean_interval(list(mine[name])), measure.digits)
        for name, measure in MEASURES.items()
        if name in mine and mine[name].notna().all()
    }


def table(
    seeds: pd.DataFrame, found: pd.DataFrame, dataset: str, measures: Sequence[str]
) -> pd.DataFrame:
    """A row a method, a column a measure: the level without a penalty, and differences from it.

    Empty where the data set is not recorded.
    """
    if seeds.empty or dataset not in set(seeds["dataset"]):
        return pd.DataFrame()
    none = levels(seeds, dataset)
    shown = {"Method": [_title("none"), *(_title(name) for name in OTHERS)]}
    mine = found[found["dataset"] == dataset].set_index(["measure", "method"])["text"]
    for name in measures:
        shown[words.capital(MEASURES[name].title)] = [none[name], *mine[name].loc[list(OTHERS)]]
    return pd.DataFrame(shown)


def said_table(found: pd.DataFrame) -> pd.DataFrame:
    """What follows for each question of the plan, in words: a row a method.

    Without the columns of what is not recorded.
    """
    shown = pd.DataFrame({"Method": [_title(name) for name in OTHERS]}, index=list(OTHERS))
    for measure, (_, dataset) in QUESTIONS.items() if len(found) else ():
        mine = found[(found["measure"] == measure) & (found["dataset"] == dataset)]
        if len(mine):
            shown[HEADINGS[measure]] = mine.set_index("method")["said"]
    return shown.reset_index(drop=True)


def scales_table(results: Path | None = None) -> pd.DataFrame:
    """By how much the penalty changes scales and what they scale, network by network.

    Empty where not every run of the probe is recorded.
    """
    ledger = Ledger("scales", results)
    rows = details(ledger.runs(), ledger.curves())
    if not len(rows) or rows["key"].nunique() < len(scales.SETTINGS):
        return pd.DataFrame()
    parts = {
        heading: (name, lambda each: words.factor(each) if each else words.DASH)
        for name, heading in SCALES.items()
    }
    return words.printed(scales.parts(rows), {"Network": ("model", NETWORK_TITLES), **parts})


def facts(seeds: pd.DataFrame, found: pd.DataFrame, units: pd.DataFrame) -> dict[str, object]:
    """What the text of the page says in numbers and in words that follow from them.

    Args:
        seeds: As from :func:`recorded`.
        found: As from :func:`differences`.
        units: As from :func:`recorded`.

    Returns:
        By name of data set, method and measure: differences, and levels for ``none``; for each
        question of the plan and method what is ``said``; ``learns_yes``, whether the plan's yes
        holds; and the areas that lesion and markers take of an image.
    """
    said: dict[str, object] = {}
    for dataset in dict.fromkeys(seeds["dataset"]) if len(seeds) else ():
        said[f"learns_{dataset}_seeds"] = int(
            seeds.loc[seeds["dataset"] == dataset, "seed"].nunique()
        )
        for name, text in levels(seeds, dataset).items():
            said[f"learns_{dataset}_none_{name}"] = text
    for row in found.itertuples():
        said[f"learns_{row.dataset}_{row.method}_{row.measure}"] = row.text.rstrip("*")
        if QUESTIONS.get(row.measure, ("", ""))[1] == row.dataset:
            said[f"learns_{QUESTIONS[row.measure][0]}_{row.method}"] = row.said
    yes = any(
        all(
            said.get(f"learns_{question}_{method}") == "better"
            for question, _ in QUESTIONS.values()
        )
        for method in ("published", "fixed")
    )
    said["learns_yes"] = "yes" if yes else "no"
    if "lesion_area" in units:
        for name in ("lesion_area", "marker_area"):
            said[f"learns_{name}"] = words.percent_short(float(units[name].dropna().iloc[0]))
    return said


def answer(found: pd.DataFrame) -> Figure:
    """The three primary outcomes: a row a method, difference from none with its interval."""
    if found.empty:
        return style.empty()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 4.2), sharey=True)
    panels = {
        "cka": ("Stable?", "CKA between seeds", "more alike"),
        "flipped": ("Led by the marker?", "answers flipped by moving it", "led less"),
        "cam_lesion": ("Looks at the lesion?", "share of Grad-CAM inside it", "more inside"),
    }
    for ax, (name, (title, label, good)) in zip(axes, panels.items(), strict=True):
        mine = found[found["measure"] == name]
        shown = [dataset for dataset in DATA if dataset in set(mine["dataset"])]
        for place, dataset in enumerate(shown):
            rows = mine[mine["dataset"] == dataset].set_index("method").loc[list(OTHERS)]
            shift = (place - (len(shown) - 1) / 2) * 0.24
            for y, each in enumerate(rows.itertuples()):
                look = LOOKS[dataset] | {"color": _color(each.Index)}
                style.bar(ax, each, y + shift, 2, **look)
        style.rows(ax, [_title(method) for method in OTHERS])
        ax.axvline(0, color="black", lw=0.8)
        ax.set_title(title)
        arrow = f"{good} \u2192" if MEASURES[name].better > 0 else f"\u2190 {good}"
        ax.set_xlabel(f"{label}\n{arrow}")
    entries = {
        words.capital(DATA[dataset]): LOOKS[dataset] | {"color": style.COLORS["baseline"], "ls": ""}
        for dataset in DATA
        if dataset in set(found["dataset"])
    }
    style.legend(figure, entries, loc="outside lower center", ncols=3)
    return figure


#: Mark of a data set.
LOOKS = {
    "breastmnist": {"marker": "s", "ms": 6},
    "phantom_shortcut": {"marker": "o", "ms": 6},
    "phantom": {"marker": "o", "ms": 6, "mfc": "white"},
}


def inner(seeds: pd.DataFrame, epochs: pd.DataFrame, dataset: str = "breastmnist") -> Figure:
    """The spectrum of the features, and sizes of features and head over the training.

    Args:
        seeds: As from :func:`recorded`.
        epochs: As from :func:`recorded`.
        dataset: Which.
    """
    if seeds.empty or dataset not in set(seeds["dataset"]):
        return style.empty()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.8))
    mine, over = seeds[seeds["dataset"] == dataset], epochs[epochs["dataset"] == dataset]
    directions = range(1, LEADING + 1)
    for method in ARMS:
        shares = mine.loc[mine["method"] == method, [f"share_{place}" for place in directions]]
        axes[0].plot(directions, shares.mean(), **_line(method))
        sizes = over[over["method"] == method].groupby("epochs")
        for ax, name in zip(axes[1:], ("feature_rms", "head_norm"), strict=True):
            ax.plot(sizes[name].mean(), **_line(method))
    axes[0].set(xlabel="direction", ylabel="share of the variance", yscale="log")
    axes[0].set_xticks([1, *range(2, LEADING + 1, 2)])
    axes[1].set(xlabel="epoch", ylabel="size of the features", yscale="log")
    axes[2].set(xlabel="epoch", ylabel="norm of the head")
    entries = {_title(method): _line(method) for method in ARMS}
    style.legend(figure, entries, loc="outside lower center", ncols=3)
    return figure


def pictures(size: int = 64) -> Figure:
    """A clear and an ill phantom: with the marker in both places, without it, and its lesion.

    Args:
        size: Pixels.
    """
    given = phantom.part_arguments("phantom", "test", size)
    drawn = phantom.counterfactuals(**given | {"n": 8})
    figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
    titles = ("marker of clear", "marker of opacity", "no marker", "lesion")
    for row, label in zip(axes, (0, 1), strict=True):
        which = int(np.flatnonzero(drawn.labels == label)[0])
        shown = [*drawn.images[:, which, 0], 255 * drawn.lesions[which]]
        for ax, picture, title in zip(row, shown, titles, strict=True):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.set_title(title if label == 0 else "")
        row[0].set_ylabel(phantom.CLASS_NAMES[2][label])
    return figure


def _color(method: str) -> str:
    return METHODS[str(ARMS[method]["method"])].color


def _line(method: str) -> Mapping[str, object]:
    return {"color": _color(method), "ls": DASHES.get(method, "-"), "marker": "o", "ms": 3}


#: Where two methods have one colour.
DASHES = {"self_setting": ":", "within_class": "--", "head_weighted": "--"}


def _title(name: str) -> str:
    return words.capital(TITLES[name])
