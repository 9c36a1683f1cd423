"""Six sevenths, half a cross-entropy and four images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from companion import published, tables
from companion.explained.bar import METHODS
from companion.explained.words import (
    between,
    capital,
    counted,
    digits,
    listed,
    minus,
    p_value,
    percent,
    percents,
)
from companion.published import CHEST_IMAGES, RELEASED_LOG, SKIN_CLASSES
from varreg.lab.statistics import wilson

__all__ = [
    "agreement_table",
    "counts",
    "counts_table",
    "decomposition",
    "decomposition_table",
    "disagreement_table",
    "four_sentence",
    "half_sentence",
    "largest_disagreement",
    "mcnemar",
    "released_accuracy",
    "seeds_in_images",
    "seeds_table",
    "sevenths",
    "sevenths_sentence",
    "sevenths_table",
    "variance_table",
]


def released_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The skin notebook's accuracy of the penalized model, step by step.

    Args:
        probabilities: Softmax, ``(N, K)``.
        labels: Classes, ``(N,)``.

    Example:
        Right about both images, and wrong about both:

        >>> right, wrong = np.eye(7)[[4, 0]], np.eye(7)[[0, 4]]
        >>> [round(released_accuracy(p, np.array([4, 0])), 6) for p in (right, wrong)]
        [0.857143, 0.857143]
    """
    truth = np.eye(probabilities.shape[1])[labels]  # (N, K): one-hot
    column = probabilities[:, -1:]  # (N, 1): only the last class
    called = (column > 0.5).astype(float)  # (N, 1)
    hits = called == truth  # (N, 1) against (N, K) is broadcast to (N, K)
    return float(hits.mean(axis=1).mean())


def sevenths(table: pd.DataFrame) -> pd.DataFrame:
    """The released metric beside the accuracy, for recorded models and for constant ones.

    Args:
        table: As from :func:`images`, of the study ``skin_paper``.

    Returns:
        Columns ``model, released, last_above, accuracy, balanced_accuracy``; ``last_above``
        counts images to which the last class gets more than one half.
    """
    names = [f"p_{place}" for place in range(len(SKIN_CLASSES))]
    models = {
        tables.METHOD_NAMES.get(method, method): (group[names].to_numpy(), group["label"])
        for method, group in table.groupby("method", sort=False)
    }
    if models:
        labels = next(iter(models.values()))[1]
        for place, name in enumerate(SKIN_CLASSES):
            constant = np.eye(len(names))[[place] * len(labels)]
            models[f"always {name}"] = (constant, labels)
    rows = []
    for model, (chances, labels) in models.items():
        label = labels.to_numpy(dtype=int)
        right = chances.argmax(1) == label
        rows.append(
            {
                "model": model,
                "released": released_accuracy(chances, label),
                "last_above": int((chances[:, -1] > 0.5).sum()),
                "accuracy": right.mean(),
                "balanced_accuracy": pd.Series(right).groupby(label).mean().mean(),
            }
        )
    columns = ["model", "released", "last_above", "accuracy", "balanced_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def sevenths_table(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`sevenths` as printed."""
    return pd.DataFrame(
        {
            "Model": capital(row.model),
            "Released metric": f"{row.released:.6f}",
            f"Images with {SKIN_CLASSES[-1]} above 0.5": row.last_above,
            "Accuracy": f"{row.accuracy:.4f}",
            "Balanced accuracy": f"{row.balanced_accuracy:.4f}",
        }
        for row in sevenths(table).itertuples()
    )


def sevenths_sentence(table: pd.DataFrame) -> str:
    """What the released metric can tell apart, in a sentence or two."""
    printed = published.find("skin", "penalized", "accuracy", source=RELEASED_LOG).value
    text = (
        f"**Six sevenths.** The skin accuracy of {printed:.4f} is 6/7 = {6 / 7:.6f}: what the "
        "metric gives whenever the last class stays at one half or below."
    )
    rows = sevenths(table)
    if rows.empty:
        return text
    same = rows[rows["last_above"] == 0]
    return (
        f"{text} {len(same)} of the {len(rows)} models tried here score exactly that, with real "
        f"accuracies from {same['accuracy'].min():.3f} to {same['accuracy'].max():.3f}."
    )


def decomposition() -> pd.DataFrame:
    """Every published total loss of a penalized model beside that of its baseline.

    Returns:
        Columns ``experiment, split, source, baseline, total``; ``printed``: change as printed;
        ``most``: the largest unscaled cross-entropy that the total leaves room for (a penalty is
        never negative); ``least_drop``: change from the baseline to it; ``left``: what the total
        would leave for the penalty if the cross-entropy were the baseline's.
    """
    rows = []
    for number in (*published.NUMBERS, *published.SHOWN):
        if (number.method, number.metric) != ("penalized", "loss"):
            continue
        baseline = published.find(
            number.experiment, "baseline", "loss", source=number.source, split=number.split
        ).value
        rows.append(
            {
                "experiment": number.experiment,
                "split": number.split,
                "source": number.source,
                "baseline": baseline,
                "total": number.value,
                "printed": number.value / baseline - 1,
                "most": number.comparable,
                "least_drop": number.comparable / baseline - 1,
                "left": number.value - published.LAMBDA["penalized"] * baseline,
            }
        )
    table = pd.DataFrame(rows)
    splits = pd.Categorical(table["split"], ["train", "val", "test"], ordered=True)
    order = table.assign(split=splits).sort_values(["experiment", "split"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def decomposition_table() -> pd.DataFrame:
    """:func:`decomposition` as printed."""
    return pd.DataFrame(
        {
            "Data": f"{row.experiment}, {row.split}",
            "Source": row.source,
            "Baseline": f"{row.baseline:.4f}",
            "Penalized, total": f"{row.total:.4f}",
            "Change as printed": percent(row.printed),
            "Its cross-entropy is at most": f"{row.most:.4f}",
            "Change, unscaled": percent(row.least_drop),
            "Left for the penalty at the baseline's": minus(f"{row.left:+.4f}"),
        }
        for row in decomposition().itertuples()
    )


def variance_table(
    studies: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], predictions: pd.DataFrame
) -> pd.DataFrame:
    """How large the penalty is in our runs of the published setting, as printed.

    Args:
        studies: Name of the data -> runs and curves of ``chest_paper`` or ``skin_paper``.
        predictions: Rows of the probe ``predictions``, for the test images.
    """
    rows = []
    for name, (runs, curves) in studies.items():
        mine = runs[runs["method"] == "penalized"] if len(runs) else runs
        if len(mine):
            kept = mine.merge(curves, left_on=["key", "best_epoch"], right_on=["key", "epoch"])
            study = mine["study"].iloc[0]
            found = {
                "training": kept["train_feature_variance"],
                "validation": kept["val_feature_variance"],
                "test": _of_method(predictions, study, "penalized", "test_feature_variance"),
            }
            for split, values in found.items():
                if len(values):
                    penalty = published.VARIANCE_WEIGHT * values.mean()
                    rows.append(
                        {
                            "Data": f"{name}, {split}",
                            "Seeds": len(values),
                            "Feature variance": f"{values.mean():.5f}",
                            f"Penalty: times {published.VARIANCE_WEIGHT:g}": f"{penalty:.6f}",
                        }
                    )
    return pd.DataFrame(rows)


def half_sentence() -> str:
    """What the halved loss does to the printed changes, in a sentence."""
    rows = decomposition()
    printed = rows[rows["source"].isin(published.TABLES.values())]
    log = rows[(rows["source"] == RELEASED_LOG) & (rows["split"] == "test")]
    return (
        "**Half a cross-entropy.** With lambda = "
        f"{published.LAMBDA['penalized']:g} the printed loss falls by half before anything is "
        f"learned. In Tables I to IV the test loss changes by {percents(printed['printed'])}; "
        f"unscaled by {percents(printed['least_drop'])}, and in the released log by "
        f"{percents(log['least_drop'])} ({listed(log['experiment'])})."
    )


def counts() -> dict[str, int]:
    """Chest test images that each released model has right, by method.

    Example:
        >>> counts()
        {'baseline': 500, 'penalized': 504, 'augmented': 496}
    """
    total = sum(CHEST_IMAGES["test"])
    return {
        method: round(
            total * published.find("chest", method, "accuracy", source=RELEASED_LOG).value
        )
        for method in METHODS
    }


def counts_table() -> pd.DataFrame:
    """The released accuracies as images, with Wilson's interval."""
    total = sum(CHEST_IMAGES["test"])
    return pd.DataFrame(
        {
            "Model": capital(method),
            "Right": f"{right} of {total}",
            "Accuracy, 95 % interval": tables.interval_text(right / total, *wilson(right, total)),
            "The interval in images": between([total * end for end in wilson(right, total)], 0),
        }
        for method, right in counts().items()
    )


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
    right, total = counts(), sum(CHEST_IMAGES["test"])
    rows = []
    for better, worse in (
        ("penalized", "baseline"),
        ("baseline", "augmented"),
        ("penalized", "augmented"),
    ):
        net = right[better] - right[worse]
        largest = largest_disagreement(net)
        rows.append(
            {
                "Difference": f"{better} over {worse}",
                "Images": net,
                "p if they agree on all others": p_value(mcnemar(net, 0)),
                "Images they may differ on": "none is few enough" if largest is None else largest,
                "Agreement needed": "\u2013"
                if largest is None
                else f"{total - largest} of {total}",
            }
        )
    return pd.DataFrame(rows)


def disagreement_table(table: pd.DataFrame) -> pd.DataFrame:
    """On how many images our recorded models differ, as printed.

    Args:
        table: As from :func:`images`, of the study ``chest_paper``.
    """
    right = {
        method: group["right"].to_numpy(dtype=bool)
        for method, group in table.groupby("method", sort=False)
    }
    rows = []
    for first, second in (
        ("penalized", "baseline"),
        ("baseline", "augmented"),
        ("penalized", "augmented"),
    ):
        if first in right and second in right:
            only = [
                int((right[one] & ~right[other]).sum())
                for one, other in ((first, second), (second, first))
            ]
            rows.append(
                {
                    "Models": f"{first} and {second}",
                    "Only the first is right": only[0],
                    "Only the second is right": only[1],
                    "Exact McNemar p": p_value(mcnemar(*only)),
                }
            )
    return pd.DataFrame(rows)


def seeds_in_images(runs: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of every chest run as a number of images.

    Args:
        runs: Rows of the study ``chest_paper`` or ``chest``.

    Returns:
        Columns ``dataset, size, model, method, seed, right``.
    """
    columns = ["dataset", "size", "model", "method", "seed"]
    if runs.empty:
        return pd.DataFrame(columns=[*columns, "right"])
    right = (runs["test_accuracy"] * sum(CHEST_IMAGES["test"])).round().astype(int)
    return runs[columns].assign(right=right)


def seeds_table(runs: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """How far the seed alone moves the accuracy, in images, as printed.

    Args:
        runs: Rows of a study each.
    """
    rows = []
    for part in runs:
        table = seeds_in_images(part)
        for names, group in table.groupby(["dataset", "size", "model", "method"], sort=False):
            dataset, size, model, method = names
            rows.append(
                {
                    "Data": tables.data_name(dataset, "", size),
                    "Network": tables.MODEL_NAMES[model],
                    "Model": tables.METHOD_NAMES[method],
                    "Seeds": len(group),
                    "Images right, mean": f"{group['right'].mean():.1f}",
                    "Standard deviation": digits(group["right"].std(), 1),
                    "Lowest to highest": f"{group['right'].min()} to {group['right'].max()}",
                }
            )
    return pd.DataFrame(rows)


def four_sentence(protocol: pd.DataFrame, powered: pd.DataFrame) -> str:
    """What a difference of four images is worth, in a sentence or two.

    Args:
        protocol: Rows of the study ``chest_paper``.
        powered: Rows of the study ``chest``.
    """
    right = counts()
    net = right["penalized"] - right["baseline"]
    text = (
        f"**{counted(net)} images.** The released accuracies of baseline and penalized model "
        f"differ by {net} of {sum(CHEST_IMAGES['test'])} test images; even if they agreed on all "
        f"others, the exact p-value would be {p_value(mcnemar(net, 0))}."
    )
    spreads = [
        f"{group['right'].std():.1f} images at {size} pixels"
        for part in (protocol, powered)
        for (size, model, method), group in seeds_in_images(part).groupby(
            ["size", "model", "method"]
        )
        if (model, method) == ("paper_cnn", "baseline") and len(group) > 1
    ]
    if not spreads:
        return text
    return f"{text} The seed alone moves the baseline by {listed(spreads)} (standard deviation)."


def _of_method(predictions: pd.DataFrame, source: str, method: str, column: str) -> pd.Series:
    if predictions.empty:
        return pd.Series(dtype=float)
    mine = (predictions["source"] == source) & (predictions["method"] == method)
    return predictions.loc[mine, column]
