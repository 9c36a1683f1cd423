"""The progress bar is not the metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize

from companion import published, tables
from companion.explained.words import between, capital, digits, slashed
from companion.published import CHEST_IMAGES, RELEASED_BAR, RELEASED_LOG, TABLES

__all__ = [
    "BATCH",
    "EPSILON",
    "METHODS",
    "ROUNDING",
    "attainable",
    "bar_sentence",
    "bar_weights",
    "bars",
    "bars_table",
    "compatible",
    "compatible_table",
    "constant_loss",
    "constant_probability",
    "constant_sentence",
    "constant_table",
    "images",
    "implied_recalls",
    "pairs_table",
    "progress_bar",
    "running",
    "traced_table",
]

#: Images a batch in the released notebooks.
BATCH = 32
#: A printed number with four digits stands for all numbers this close to it.
ROUNDING = 0.00005
#: Keras keeps a probability this far from 0 and 1 before it takes a logarithm.
EPSILON = 1e-7
METHODS = ("baseline", "penalized", "augmented")


def running(scores: Sequence[float], batch_size: int = BATCH) -> np.ndarray:
    """The metric over all samples so far, at the end of each batch.

    Args:
        scores: One number a sample in the order of evaluation, such as 1 for right, 0 for wrong.
        batch_size: Samples a batch.

    Raises:
        ValueError: No score, or a batch size below 1.

    Example:
        >>> running([0, 0, 1, 1], 2).tolist()
        [0.0, 0.5]
    """
    if len(scores) == 0 or batch_size < 1:
        raise ValueError(
            f"{len(scores)} scores in batches of {batch_size}: give one or more of each"
        )
    stops = np.append(np.arange(batch_size, len(scores), batch_size), len(scores))
    return np.cumsum(np.asarray(scores, dtype=np.float64))[stops - 1] / stops


def progress_bar(
    scores: Sequence[float], batch_size: int = BATCH, *, closing: bool = False
) -> float:
    """What the progress bar of Keras 3 shows for an evaluation.

    It is the unweighted mean, over the batches so far, of the running metric. Where the samples
    come sorted by class, that is far from the metric itself. Before Keras 3.11 the last line is
    printed once more when the evaluation closes, and the final value then counts a second time.

    Args:
        scores: One number a sample in the order of evaluation, such as 1 for right, 0 for wrong.
        batch_size: Samples a batch.
        closing: The line that stays on the screen instead of the one after the last batch.

    Raises:
        ValueError: No score, or a batch size below 1.

    Source:
        ``keras/src/utils/progbar.py`` and ``keras/src/callbacks/progbar_logger.py``, Keras 3.10.

    Example:
        A model that calls each of the 624 chest test images pneumonia; the 234 normal ones come
        first.

        >>> right = [0] * 234 + [1] * 390
        >>> round(progress_bar(right), 4), round(progress_bar(right, closing=True), 4)
        (0.2821, 0.2984)
    """
    values = running(scores, batch_size)
    return float(np.append(values, values[-1:] if closing else []).mean())


def bar_weights(count: int, batch_size: int = BATCH, *, closing: bool = True) -> np.ndarray:
    """How much each sample counts in the progress bar: it shows the sum of weights times scores.

    Args:
        count: Samples in all.
        batch_size: Samples a batch.
        closing: As for :func:`progress_bar`.

    Returns:
        ``(count,)``, in the order of evaluation, with the sum 1; the metric itself has equal ones.

    Example:
        >>> bar_weights(4, 2, closing=False).tolist()
        [0.375, 0.375, 0.125, 0.125]
    """
    stops = np.append(np.arange(batch_size, count, batch_size), count)
    each = 1 / stops
    each[-1] *= 1 + closing
    later = np.cumsum(each[::-1])[::-1] / (len(stops) + closing)
    return np.repeat(later, np.diff(stops, prepend=0))


def images(runs: pd.DataFrame, details: pd.DataFrame, source: str) -> pd.DataFrame:
    """What recorded models said about every test image, in the order of evaluation.

    Args:
        runs: Rows of the probe ``predictions``.
        details: Its ``curves()``.
        source: The study that the models are from.

    Returns:
        Columns ``method, index, label, seen, right, cross_entropy, p_0, p_1, ...``.

    Example:
        >>> runs = pd.DataFrame({"key": ["a"], "source": ["s"], "method": ["baseline"]})
        >>> details = pd.DataFrame({"key": ["a"], "index": [0], "label": [1], "seen": [None],
        ...                         "p_0": [0.2], "p_1": [0.8]})
        >>> images(runs, details, "s")[["method", "right"]].values.tolist()
        [['baseline', 1]]
    """
    mine = runs[runs["source"] == source] if len(runs) else runs
    joined = mine[["key", "method"]].merge(details, on="key") if len(mine) else pd.DataFrame()
    if joined.empty:
        return pd.DataFrame(columns=["method", "index", "label", "seen", "right", "cross_entropy"])
    joined = joined.drop(columns="key")
    names = [name for name in joined if name.startswith("p_") and joined[name].notna().all()]
    chances = joined[names].to_numpy(dtype=np.float64)
    labels = joined["label"].to_numpy(dtype=int)
    own = np.clip(chances[np.arange(len(labels)), labels], EPSILON, 1 - EPSILON)
    return joined[["method", "index", "label", "seen"]].assign(
        right=(chances.argmax(1) == labels).astype(int), cross_entropy=-np.log(own), **joined[names]
    )


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
            rows.append(
                {
                    "method": method,
                    "measure": measure,
                    "metric": scores.mean(),
                    "last_batch": progress_bar(scores),
                    "closing": progress_bar(scores, closing=True),
                    "shuffled": shown.mean(),
                    "low": low,
                    "high": high,
                }
            )
    columns = ["method", "measure", "metric", "last_batch", "closing", "shuffled", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def bars_table(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`bars` as printed."""
    return pd.DataFrame(
        {
            "Model": capital(tables.METHOD_NAMES[row.method]),
            "Measure": row.measure,
            "The metric": f"{row.metric:.4f}",
            "Bar after the last batch": f"{row.last_batch:.4f}",
            "Bar at the end": f"{row.closing:.4f}",
            "At the end, shuffled": f"{row.shuffled:.4f} ({between((row.low, row.high))})",
        }
        for row in bars(table).itertuples()
    )


def constant_table() -> pd.DataFrame:
    """The bar for two classifiers that need no training, on the chest test images."""
    normal, pneumonia = CHEST_IMAGES["test"]
    rows = []
    for name, right in (
        ("every image pneumonia", [0] * normal + [1] * pneumonia),
        ("every image normal", [1] * normal + [0] * pneumonia),
    ):
        rows.append(
            {
                "Classifier": name,
                "Accuracy": f"{np.mean(right):.4f}",
                "Bar after the last batch": f"{progress_bar(right):.4f}",
                "Bar at the end": f"{progress_bar(right, closing=True):.4f}",
            }
        )
    return pd.DataFrame(rows)


def constant_loss(probability: float) -> float:
    """The cross-entropy that the bar shows if every chest image gets one probability of pneumonia.

    Example:
        >>> round(constant_loss(0.5), 4)  # the order of the images does not matter then
        0.6931
    """
    normal, pneumonia = CHEST_IMAGES["test"]
    scores = [-math.log(1 - probability)] * normal + [-math.log(probability)] * pneumonia
    return progress_bar(scores, closing=True)


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


def constant_sentence() -> str:
    """Which constant classifier would be shown with the baseline's numbers in Table I."""
    accuracy, loss = (
        published.find("chest", "baseline", name, source=TABLES["chest"]).value
        for name in ("accuracy", "loss")
    )
    normal, pneumonia = CHEST_IMAGES["test"]
    shown = progress_bar([0] * normal + [1] * pneumonia, closing=True)
    chance = constant_probability(loss)
    return (
        f"A network that gives every image the same probability of pneumonia, {chance:.3f}, has an "
        f"accuracy of {pneumonia / (normal + pneumonia):.4f}. The bar ends at accuracy {shown:.4f} "
        f"and loss {constant_loss(chance):.4f} for it; printed for the baseline are {accuracy} and "
        f"{loss}."
    )


def attainable(
    counts: tuple[int, int] = CHEST_IMAGES["test"], batch_size: int = BATCH, *, closing: bool = True
) -> pd.DataFrame:
    """Which displayed accuracies are possible for each true accuracy.

    Args:
        counts: Images of the class that comes first, and of the one that comes second.
        batch_size: Images a batch.
        closing: As for :func:`progress_bar`.

    Returns:
        A row for each number of ``right`` images, with ``accuracy``; ``low, high``: displayed if
        the errors may stand anywhere; ``even_low, even_high``: displayed, on average, if each
        class has its errors at random places. Their ends are all errors in one class, as far as
        they fit.

    Example:
        >>> attainable((1, 1), 1, closing=False).round(3).values.tolist()[1]
        [1.0, 0.5, 0.25, 0.75, 0.25, 0.75]
    """
    first, second = counts
    weights = bar_weights(first + second, batch_size, closing=closing)
    right = np.arange(first + second + 1)
    ordered = np.sort(weights)
    least = np.append(0, np.cumsum(ordered))
    most = np.append(0, np.cumsum(ordered[::-1]))
    share = weights[:first].mean(), weights[first:].mean()

    def even(right_of_first: np.ndarray) -> np.ndarray:
        return right_of_first * share[0] + (right - right_of_first) * share[1]

    return pd.DataFrame(
        {
            "right": right,
            "accuracy": right / (first + second),
            "low": least,
            "high": most,
            "even_low": even(np.maximum(0, right - second)),
            "even_high": even(np.minimum(first, right)),
        }
    )


def compatible(
    shown: float, *, even: bool = True, closing: bool = True, counts=CHEST_IMAGES["test"]
) -> tuple[float, float]:
    """Lowest and highest true accuracy for which the bar can show this number.

    Args:
        shown: The displayed accuracy, with four digits.
        even: Whether the errors of a class stand at random places; otherwise anywhere.
        closing: As for :func:`progress_bar`.
        counts: As for :func:`attainable`.

    Raises:
        ValueError: The number can never be shown.

    Example:
        >>> [round(end, 4) for end in compatible(0.2984)]
        [0.1603, 0.625]
    """
    table = attainable(counts, closing=closing)
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
    for method in METHODS:
        shown = published.find("chest", method, "accuracy", source=TABLES["chest"]).value
        recall = _recalls(runs, method)[1]
        rows.append(
            {
                "Model": capital(method),
                "Published": f"{shown:.4f}",
                "Errors anywhere": between(compatible(shown, even=False)),
                "Errors spread evenly in each class": between(compatible(shown)),
                "Recall of pneumonia, our runs": digits(recall, 3),
                "Accuracy at that recall": digits(_accuracy_at(shown, recall)),
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
    normal, pneumonia = CHEST_IMAGES["test"]
    weight = _normal_weight()
    share = normal / (normal + pneumonia)
    of_normal, of_pneumonia = np.linalg.solve(
        [[share, 1 - share], [weight, 1 - weight]], [accuracy, shown]
    )
    return float(of_normal), float(of_pneumonia)


def pairs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The three models of which the released log keeps the metric and the bar, as printed.

    Args:
        runs: Rows of the study ``chest_paper``, for comparison.
    """
    table = attainable().set_index("right")
    total = sum(CHEST_IMAGES["test"])
    rows = []
    for method in METHODS:
        true, shown = (
            published.find("chest", method, "accuracy", source=source).value
            for source in (RELEASED_LOG, RELEASED_BAR)
        )
        here = table.loc[round(true * total)]
        rows.append(
            {
                "Model": capital(method),
                "evaluate()": f"{true:.4f}",
                "Bar": f"{shown:.4f}",
                "Bars possible for that accuracy": between((here["even_low"], here["even_high"])),
                "Implied recall, normal / pneumonia": slashed(implied_recalls(true, shown)),
                "Recall of our runs": slashed(_recalls(runs, method)),
            }
        )
    return pd.DataFrame(rows)


def traced_table() -> pd.DataFrame:
    """Each number of Tables I to IV beside the two numbers that the released log keeps for it."""
    rows = []
    for experiment in published.EXPERIMENTS:
        for number in published.select(experiment, source=TABLES[experiment]):
            bar, metric = (
                published.find(experiment, number.method, number.metric, source=source).value
                for source in (RELEASED_BAR, RELEASED_LOG)
            )
            rows.append(
                {
                    "Data": experiment,
                    "Model": number.method,
                    "Number": number.metric,
                    "Published": f"{number.value:.4f}",
                    "Bar in the log": f"{bar:.4f}",
                    "evaluate() in the log": f"{metric:.4f}",
                    "Fits": _fits(number.value, bar, metric),
                }
            )
    return pd.DataFrame(rows)


def bar_sentence(table: pd.DataFrame) -> str:
    """What the progress bar did to the published chest accuracies, in a sentence or two.

    Args:
        table: As from :func:`images`, of the study ``chest_paper``.
    """
    found = traced_table()
    shown = found["Fits"].isin(["the bar", "both"]).sum()
    baseline = published.find("chest", "baseline", "accuracy", source=TABLES["chest"]).value
    low, high = compatible(baseline)
    text = (
        f"**The progress bar is not the metric.** {shown} of the {len(found)} numbers in Tables I "
        f"to IV are what the bar showed in the released log. The accuracy of {baseline} printed "
        f"for the chest baseline can stand for a true one of {low:.4f} to {high:.4f}; a model that "
        "calls every image pneumonia is shown with just that number."
    )
    rows = bars(table)
    rows = rows[rows["measure"] == "accuracy"]
    if rows.empty:
        return text
    drops = sorted(100 * (rows["metric"] - rows["closing"]))
    ends = dict.fromkeys(f"{drop:.1f}" for drop in (drops[0], drops[-1]))
    return (
        f"{text} For our recorded models the bar ends {' to '.join(ends)} points below the "
        "accuracy."
    )


def _normal_weight() -> float:
    """Share of the bar that the normal chest images make."""
    normal, pneumonia = CHEST_IMAGES["test"]
    return float(bar_weights(normal + pneumonia)[:normal].sum())


def _accuracy_at(shown: float, recall: float) -> float:
    """Accuracy that a bar stands for once the recall of pneumonia is known; NaN if impossible."""
    normal, pneumonia = CHEST_IMAGES["test"]
    weight = _normal_weight()
    of_normal = (shown - (1 - weight) * recall) / weight
    if not 0 <= of_normal <= 1:
        return math.nan
    return (normal * of_normal + pneumonia * recall) / (normal + pneumonia)


def _recalls(runs: pd.DataFrame, method: str) -> tuple[float, float]:
    """Mean recall of normal and of pneumonia test images; NaN without a run."""
    mine = runs[runs["method"] == method] if len(runs) else runs
    if mine.empty:
        return math.nan, math.nan
    values = np.array([text.split(";") for text in mine["test_recall"]], dtype=float).mean(0)
    return float(values[0]), float(values[1])


def _fits(value: float, bar: float, metric: float) -> str:
    hits = [abs(value - other) <= ROUNDING + 1e-9 for other in (bar, metric)]
    return {
        (True, True): "both",
        (True, False): "the bar",
        (False, True): "the metric",
        (False, False): "neither",
    }[hits[0], hits[1]]
