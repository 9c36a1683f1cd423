"""The progress bar is not the metric."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import optimize

from companion import published, style, tables, words
from companion.predictions import BATCH, COMPARED, EPSILON, bar_weights, progress_bar, running
from companion.published import CHEST_IMAGES, RELEASED_BAR, RELEASED_LOG, TABLES
from companion.style import COLORS, PALE, WIDTH
from varreg.lab.methods import BLUE, GREY, RED

#: A printed number with four digits stands for all numbers this close to it.
ROUNDING = 0.00005
NORMAL, PNEUMONIA = CHEST_IMAGES["test"]
TOTAL = NORMAL + PNEUMONIA
MIDDLE_BLUE = "#9CC7E3"


def bars(table: pd.DataFrame, shuffles: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The metric of each model, and what a progress bar shows for it.

    Args:
        table: As from :func:`images`.
        shuffles: Random orders of the images, to tell what the order alone does.
        seed: Of the random orders.

    Returns:
        A row a method and measure: ``method, measure, metric, last_batch, closing`` and, over the
        random orders, ``shuffled`` (mean of the closing line), ``low, high`` (its central 95 %).
    """
    rows = []
    for method, group in table.groupby("method", sort=False):
        weights = bar_weights(len(group))
        for measure, column in (("accuracy", "right"), ("cross-entropy", "cross_entropy")):
            scores = group[column].to_numpy(dtype=np.float64)
            random = np.random.default_rng(seed)
            shown = random.permuted(np.tile(scores, (shuffles, 1)), axis=1) @ weights
            low, high = np.quantile(shown, [0.025, 0.975])
            ends = progress_bar(scores), progress_bar(scores, closing=True)
            rows.append((method, measure, scores.mean(), *ends, shown.mean(), low, high))
    columns = ["method", "measure", "metric", "last_batch", "closing", "shuffled", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def constant_loss(probability: float) -> float:
    """The cross-entropy that the bar shows if every chest image gets one probability of pneumonia.

    Example:
        >>> round(constant_loss(0.5), 4)  # the order of the images does not matter then
        0.6931
    """
    return _bar_of_constant(-math.log(1 - probability), -math.log(probability))


def constant_probability(loss: float) -> float:
    """The one probability above one half for which the bar shows this cross-entropy.

    Raises:
        ValueError: The loss is below that of one half.

    Example:
        >>> round(constant_loss(constant_probability(0.8)), 6)
        0.8
    """
    if loss < constant_loss(0.5):
        raise ValueError(f"loss is {loss}; a probability above one half shows {math.log(2):.4f} up")
    return float(optimize.brentq(lambda p: constant_loss(p) - loss, 0.5, 1 - EPSILON))


def constant_facts() -> dict[str, float]:
    """Which constant classifier would be shown with the baseline's numbers in Table I.

    Returns:
        Its ``probability`` of pneumonia, ``accuracy``, and what the bar shows for it, ``shown``
        and ``loss``; what is printed for the baseline, ``printed`` and ``printed_loss``. Each
        behind ``constant_``.
    """
    loss = _published("baseline", TABLES["chest"], "loss")
    chance = constant_probability(loss)
    return {
        "constant_probability": chance,
        "constant_accuracy": PNEUMONIA / TOTAL,
        "constant_shown": _bar_of_constant(0, 1),
        "constant_loss": constant_loss(chance),
        "constant_printed": _published("baseline", TABLES["chest"]),
        "constant_printed_loss": loss,
    }


def attainable(
    counts: tuple[int, int] = CHEST_IMAGES["test"], batch_size: int = BATCH
) -> pd.DataFrame:
    """Which accuracies the bar can end at for each true accuracy.

    Args:
        counts: Images of the class that comes first, and of the one that comes second.
        batch_size: Images a batch.

    Returns:
        A row for each number of ``right`` images, with ``accuracy``; ``low, high``: displayed if
        the errors may stand anywhere; ``even_low, even_high``: displayed, on average, if each
        class has its errors at random places. Their ends are all errors in one class, as far as
        they fit.

    Example:
        >>> attainable((1, 1), 1).round(3).values.tolist()[1]
        [1.0, 0.5, 0.333, 0.667, 0.333, 0.667]
    """
    first, second = counts
    weights = bar_weights(first + second, batch_size)
    right = np.arange(first + second + 1)
    ordered = np.sort(weights)
    share = weights[:first].mean(), weights[first:].mean()

    def even(right_of_first: np.ndarray) -> np.ndarray:
        return right_of_first * share[0] + (right - right_of_first) * share[1]

    return pd.DataFrame(
        {
            "right": right,
            "accuracy": right / (first + second),
            "low": np.append(0, np.cumsum(ordered)),
            "high": np.append(0, np.cumsum(ordered[::-1])),
            "even_low": even(np.maximum(0, right - second)),
            "even_high": even(np.minimum(first, right)),
        }
    )


def compatible(shown: float, *, even: bool = True) -> tuple[float, float]:
    """Lowest and highest true accuracy on the chest images for which the bar ends at this number.

    Args:
        shown: The displayed accuracy, with four digits.
        even: Whether the errors of a class stand at random places; otherwise anywhere.

    Raises:
        ValueError: The number can never be shown.

    Example:
        >>> [round(end, 4) for end in compatible(0.2984)]
        [0.1603, 0.625]
    """
    table = attainable()
    low, high = ("even_low", "even_high") if even else ("low", "high")
    fits = table[(table[low] <= shown + ROUNDING) & (table[high] >= shown - ROUNDING)]
    if fits.empty:
        raise ValueError(f"shown is {shown}; an accuracy lies between 0 and 1")
    return float(fits["accuracy"].min()), float(fits["accuracy"].max())


def compatible_table(runs: pd.DataFrame) -> pd.DataFrame:
    """True accuracies that are compatible with the published chest accuracies, as printed.

    Args:
        runs: Rows of the study ``chest_paper``; their recall of pneumonia fixes a single value.
    """
    rows = []
    for method in COMPARED:
        shown, recall = _published(method, TABLES["chest"]), _recalls(runs, method)[1]
        rows.append(
            {
                "Model": words.capital(method),
                "Published": f"{shown:.4f}",
                "Errors anywhere": words.between(*compatible(shown, even=False), 4),
                "Errors spread evenly in each class": words.between(*compatible(shown), 4),
                "Recall of pneumonia, our runs": words.number(recall),
                "Accuracy at that recall": words.number(_accuracy_at(shown, recall), 4),
            }
        )
    return pd.DataFrame(rows)


def implied_recalls(accuracy: float, shown: float) -> tuple[float, float]:
    """Recall of normal and of pneumonia images that give this accuracy and this bar.

    Two numbers, two unknowns; the errors of a class are taken to be spread evenly.

    Example:
        >>> [round(recall, 3) for recall in implied_recalls(0.625, 0.298449)]
        [0.0, 1.0]
    """
    weight, share = _normal_weight(), NORMAL / TOTAL
    normal, pneumonia = np.linalg.solve(
        [[share, 1 - share], [weight, 1 - weight]], [accuracy, shown]
    )
    return float(normal), float(pneumonia)


def pairs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The three models of which the released log keeps the metric and the bar, as printed.

    Args:
        runs: Rows of the study ``chest_paper``, for comparison.
    """
    table = attainable().set_index("right")
    rows = []
    for method in COMPARED:
        true, shown = (_published(method, source) for source in (RELEASED_LOG, RELEASED_BAR))
        here = table.loc[round(true * TOTAL)]
        rows.append(
            {
                "Model": words.capital(method),
                "evaluate()": f"{true:.4f}",
                "Bar": f"{shown:.4f}",
                "Bars possible for that accuracy": words.between(
                    here["even_low"], here["even_high"], 4
                ),
                "Implied recall, normal / pneumonia": _slashed(implied_recalls(true, shown)),
                "Recall of our runs": _slashed(_recalls(runs, method)),
            }
        )
    return pd.DataFrame(rows)


def traced() -> pd.DataFrame:
    """Each number of Tables I to IV beside the two numbers that the released log keeps for it.

    Returns:
        Columns ``experiment, method, metric, published, bar, log`` and ``fits``: ``"both"``,
        ``"the bar"``, ``"the metric"`` or ``"neither"``.
    """
    rows, fits = [], {(1, 1): "both", (1, 0): "the bar", (0, 1): "the metric"}
    for experiment in published.EXPERIMENTS:
        for number in published.select(experiment, source=TABLES[experiment]):
            bar, log = (
                published.find(experiment, number.method, number.metric, source=source).value
                for source in (RELEASED_BAR, RELEASED_LOG)
            )
            hits = [abs(number.value - other) <= ROUNDING + 1e-9 for other in (bar, log)]
            fit = fits.get(tuple(hits), "neither")
            rows.append((experiment, number.method, number.metric, number.value, bar, log, fit))
    columns = ["experiment", "method", "metric", "published", "bar", "log", "fits"]
    return pd.DataFrame(rows, columns=columns)


def facts(images: pd.DataFrame) -> dict[str, float]:
    """What the progress bar did to the published chest accuracies.

    Args:
        images: Of the study ``chest_paper``.

    Returns:
        ``numbers`` of Tables I to IV and ``shown``, those that are what the bar showed; the
        accuracy ``printed`` for the chest baseline and the true ones that it can stand for, from
        ``low`` to ``high``; how many points the bar ends below the accuracy of recorded models,
        from ``least`` to ``most`` (NaN without one). Each behind ``bar_``.
    """
    found = traced()
    printed = _published("baseline", TABLES["chest"])
    low, high = compatible(printed)
    rows = bars(images).query("measure == 'accuracy'")
    drops = 100 * (rows["metric"] - rows["closing"])
    return {
        "bar_numbers": len(found),
        "bar_shown": int(found["fits"].isin(["the bar", "both"]).sum()),
        "bar_printed": printed,
        "bar_low": low,
        "bar_high": high,
        "bar_least": float(drops.min()),
        "bar_most": float(drops.max()),
    }


def figure(images: pd.DataFrame, method: str = "baseline") -> Figure:
    """How the bar comes about for one model, and what it shows for every accuracy.

    Above, batch by batch: the accuracy over the images so far and the bar, which is its mean.
    Below, for each accuracy on the class-sorted chest test images, what the bar can end at: with
    errors anywhere (pale), or with errors at random places within each class (dark).

    Args:
        images: Of the study ``chest_paper``.
        method: Of the model above.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(WIDTH, 9.6), height_ratios=[1, 2.1], layout="constrained"
    )
    _batches(above, images[images["method"] == method])
    _map(below)
    for row in bars(images).query("measure == 'accuracy'").itertuples():
        size = 13 if row.method == "baseline" else 8  # seen behind a mark that covers it
        below.plot(row.metric, row.closing, "o", color=COLORS[row.method], mec="white", ms=size)
    for name in COMPARED:
        true, shown = (_published(name, source) for source in (RELEASED_LOG, RELEASED_BAR))
        below.plot(true, shown, "P", color="white", mec=COLORS[name], mew=1.6, ms=9)
    return figure


def _batches(ax: Axes, model: pd.DataFrame) -> None:
    ax.set_title("One recorded model, batch by batch")
    ax.set_ylabel("Accuracy")
    if model.empty:
        style.say_empty(ax)
        return
    right = model["right"].to_numpy(dtype=float)
    shuffled = np.random.default_rng(0).permutation(right)
    for name, scores, color in (("in file order", right, RED), ("shuffled once", shuffled, BLUE)):
        values = running(scores)
        batch = np.arange(1, len(values) + 1)
        ax.plot(batch, values, color=color, lw=1.4, ls="--", label=f"accuracy so far, {name}")
        ax.plot(batch, np.cumsum(values) / batch, color=color, lw=2.4, label=f"the bar, {name}")
    ax.axhline(right.mean(), color="black", lw=1, ls=":", label="accuracy on all images")
    first = NORMAL / BATCH
    ax.axvspan(0, first, color=PALE, alpha=0.5, lw=0, zorder=0)
    for name, place in (("normal images", first), ("pneumonia", first + len(values))):
        at = (place / 2, 0.04)
        ax.annotate(name, at, xycoords=("data", "axes fraction"), ha="center")
    ax.set_xlim(0.5, len(values) + 0.5)
    ax.set_ylim(max(0.0, min(running(right).min(), right.mean()) - 0.2), 1.02)
    ax.set_xticks([1, 5, 10, 15, 20])
    ax.set_xlabel("Batch")
    ax.legend(loc="lower center", bbox_to_anchor=(0.47, 1.1), ncols=2, fontsize=9.5)


def _map(ax: Axes) -> None:
    ax.set_title("Every accuracy, and what the bar can show for it")
    table = attainable()
    for low, high, color in (("low", "high", PALE), ("even_low", "even_high", MIDDLE_BLUE)):
        ax.fill_between(table["accuracy"], table[low], table[high], color=color, lw=0)
    ax.plot([0, 1], [0, 1], color="black", lw=1, ls="--")
    for method in COMPARED:
        shown, color = _published(method, TABLES["chest"]), COLORS[method]
        low, high = compatible(shown)
        ax.plot([low, high], [shown, shown], color=color, lw=2.6, solid_capstyle="butt")
        ax.plot([0, low], [shown, shown], color=color, lw=0.9, ls=":")
        # The last two stand close to each other.
        side, va = (-1, "top") if method == "augmented" else (1, "bottom")
        at = (0.012, shown + 0.012 * side)
        ax.annotate(f"printed {shown:.4f}", at, color=color, va=va, fontsize=10)
    share = PNEUMONIA / TOTAL
    bar = _bar_of_constant(0, 1)
    ax.plot(share, bar, "*", color="black", ms=14)
    ax.annotate("every image\npneumonia", (share + 0.03, bar - 0.01), fontsize=10, va="top")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="True accuracy", ylabel="Accuracy shown by the bar")
    ax.set_aspect("equal")
    released = {"color": "white", "mec": GREY, "mew": 1.6, "marker": "P", "ls": "", "ms": 9}
    marks = {
        "errors anywhere": Patch(color=PALE),
        "errors spread evenly": Patch(color=MIDDLE_BLUE),
        "shown = true": {"color": "black", "lw": 1, "ls": "--"},
        "our runs": {"color": GREY, "marker": "o", "ls": "", "ms": 8},
        "released log": released,
        **{method: {"color": COLORS[method], "lw": 2.6} for method in COMPARED},
    }
    place = {"bbox_to_anchor": (0.5, -0.14), "ncols": 3, "fontsize": 9.5}
    style.legend(ax, marks, "upper center", **place)


def _bar_of_constant(normal: float, pneumonia: float) -> float:
    """Where the bar ends if all chest test images of a class have one score."""
    return progress_bar(np.repeat([normal, pneumonia], (NORMAL, PNEUMONIA)), closing=True)


def _published(method: str, source: str, metric: str = "accuracy") -> float:
    return published.find("chest", method, metric, source=source).value


def _normal_weight() -> float:
    """Share of the bar that the normal chest images make."""
    return float(bar_weights(TOTAL)[:NORMAL].sum())


def _accuracy_at(shown: float, recall: float) -> float:
    """Accuracy that a bar stands for once the recall of pneumonia is known; NaN if impossible."""
    weight = _normal_weight()
    normal = (shown - (1 - weight) * recall) / weight
    return (NORMAL * normal + PNEUMONIA * recall) / TOTAL if 0 <= normal <= 1 else math.nan


def _recalls(runs: pd.DataFrame, method: str) -> tuple[float, float]:
    """Mean recall of normal and of pneumonia test images; NaN without a run."""
    found = tables.recalls(runs[runs["method"] == method] if len(runs) else runs)
    return tuple(found.groupby("class")["recall"].mean()) or (math.nan, math.nan)


def _slashed(recalls: tuple[float, float]) -> str:
    return " / ".join(map(words.number, recalls))
