"""What the data are: lesions seen in training, and the class shift."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats

from companion import tables
from companion.explained.words import capital, listed
from companion.probes.leakage import TRAINING
from companion.probes.thresholds import best_threshold, prior_corrected
from companion.published import CHEST_IMAGES, SKIN_CLASSES
from varreg.lab.statistics import Interval, mean_interval, paired_difference

__all__ = [
    "RULES",
    "by_lesion",
    "leakage_sentence",
    "leakage_table",
    "lesion_table",
    "overlap_table",
    "prevalence",
    "prevalence_table",
    "shift_sentence",
    "split_difference",
    "threshold_rows",
    "thresholds_table",
    "unpaired_difference",
]

RULES = ("0.5", "prior-corrected", "validation", "hindsight")


def by_lesion(table: pd.DataFrame) -> pd.DataFrame:
    """Images and right answers for each class, seen lesions and unseen ones apart.

    Args:
        table: As from :func:`images`, of the study ``skin_paper``.

    Returns:
        Columns ``method, label, seen, images, right``, as the probe ``leakage`` has them.
    """
    if table.empty:
        return pd.DataFrame(columns=["method", "label", "seen", "images", "right"])
    grouped = table.astype({"seen": int}).groupby(["method", "label", "seen"], sort=False)
    return grouped["right"].agg(images="size", right="sum").reset_index()


def overlap_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How many test images show a lesion that the training images show too, as printed.

    Args:
        rows: ``label, seen, images`` of one model, as from :func:`by_lesion` or the probe
            ``leakage``.
    """
    if rows.empty:
        return pd.DataFrame()
    wide = rows.pivot_table(index="label", columns="seen", values="images", aggfunc="sum")
    wide = wide.reindex(columns=[0, 1]).fillna(0).astype(int)
    wide.loc["all"] = wide.sum()
    return pd.DataFrame(
        {
            "Class": "all" if label == "all" else SKIN_CLASSES[int(label)],
            "Test images": unseen + seen,
            "Lesion seen in training": seen,
            "Share": f"{100 * seen / (unseen + seen):.1f} %",
        }
        for label, unseen, seen in wide.itertuples()
    )


def leakage_table(runs: pd.DataFrame, details: pd.DataFrame) -> pd.DataFrame:
    """What seen lesions are worth, for each network; means with intervals over seeds.

    Two models learn from equally many images of each class. One of them has seen the lesions of
    the test images, the other has not; both are asked about the same images.

    Args:
        runs: Rows of the probe ``leakage``.
        details: Its ``curves()``.

    Returns:
        Columns ``model, quantity, mean, low, high, n``. Quantities: ``seen, unseen``, accuracy of
        the model that learns from all images on the two kinds of test image, and ``raw``, their
        difference; ``memory``, what having seen their lesions is worth on the seen images;
        ``control``, the same on the unseen images, where there is nothing to remember; ``worth``,
        what the whole test set gains, ``memory`` times the share of seen images.
    """
    columns = ["model", "quantity", "mean", "low", "high", "n"]
    if runs.empty:
        return pd.DataFrame(columns=columns)
    joined = details.merge(runs[["key", "model", "training", "seed"]], on="key")
    counts = joined.groupby(["model", "training", "seed", "seen"])[["images", "right"]].sum()
    accuracy = (counts["right"] / counts["images"]).unstack(["training", "seen"]).dropna()
    images = counts["images"].groupby("seen").first()
    rows = []
    for model, wide in accuracy.groupby("model", sort=False):
        whole, without, others = (wide[name] for name in TRAINING)
        memory = others[1] - without[1]
        found = {
            "seen": whole[1],
            "unseen": whole[0],
            "raw": whole[1] - whole[0],
            "memory": memory,
            "control": others[0] - without[0],
            "worth": memory * images[1] / images.sum(),
        }
        for name, values in found.items():
            within = (0.0, 1.0) if name in ("seen", "unseen") else (-1.0, 1.0)
            rows.append(_row(model, name, mean_interval(values, within=within)))
    return pd.DataFrame(rows, columns=columns)


def unpaired_difference(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95
) -> Interval:
    """Difference of two means of unpaired values, with Welch's interval.

    Args:
        a: At least one number.
        b: At least one number.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        ``mean(a) - mean(b)``; the ends are NaN where a side has a single value; ``n`` counts both.

    Source:
        B. L. Welch, The generalization of "Student's" problem when several different population
        variances are involved, Biometrika 34, 28-35, 1947.

    Example:
        >>> found = unpaired_difference([0.80, 0.82, 0.81], [0.70, 0.74, 0.72])
        >>> f"{found.mean:.2f} [{found.low:.3f}, {found.high:.3f}]"
        '0.09 [0.048, 0.132]'
    """
    mean, n = float(np.mean(a) - np.mean(b)), len(a) + len(b)
    if min(len(a), len(b)) < 2:
        return Interval(mean, math.nan, math.nan, n)
    test = stats.ttest_ind(a, b, equal_var=False)
    ends = test.confidence_interval(confidence)
    return Interval(mean, float(ends.low), float(ends.high), n)


def split_difference(runs: pd.DataFrame, method: str = "baseline") -> pd.DataFrame:
    """Test accuracy under the split by image minus that under the split by lesion.

    Args:
        runs: Rows of the study ``skin``.
        method: Which of its methods.

    Returns:
        Columns ``model, quantity, mean, low, high, n``; the quantity is ``splits``.
    """
    rows = []
    mine = runs[runs["method"] == method] if len(runs) else runs
    for model, group in [] if mine.empty else mine.groupby("model", sort=False):
        values = {name: part["test_accuracy"] for name, part in group.groupby("split")}
        if {"paper", "lesion"} <= set(values):
            found = unpaired_difference(values["paper"].to_numpy(), values["lesion"].to_numpy())
            rows.append(_row(model, "splits", found))
    return pd.DataFrame(rows, columns=["model", "quantity", "mean", "low", "high", "n"])


def lesion_table(effects: pd.DataFrame) -> pd.DataFrame:
    """All that is measured about seen lesions, as printed.

    Args:
        effects: Rows of :func:`leakage_table` and :func:`split_difference` together.
    """
    names = {
        "seen": "Accuracy, lesion seen",
        "unseen": "Accuracy, lesion unseen",
        "memory": "Having seen it, on those images",
        "control": "The same on unseen lesions",
        "worth": "Worth in test accuracy",
        "splits": "Image split minus lesion split",
    }
    rows = []
    for model, group in effects.groupby("model", sort=False):
        row = {"Network": capital(tables.MODEL_NAMES[model])}
        for each in group[group["quantity"].isin(names)].itertuples():
            signed = each.quantity not in ("seen", "unseen")
            row[names[each.quantity]] = tables.interval_text(
                each.mean, each.low, each.high, signed=signed
            )
        rows.append(row)
    table = pd.DataFrame(rows, columns=["Network", *names.values()])
    return table.dropna(axis=1, how="all").fillna("\u2013")


def leakage_sentence(effects: pd.DataFrame, overlap: pd.DataFrame) -> str:
    """How many test lesions were seen, and what that is worth, in a sentence or two.

    Args:
        effects: Rows of :func:`leakage_table` and :func:`split_difference` together.
        overlap: As from :func:`overlap_table`.
    """
    if overlap.empty:
        return "**Leakage.** No run to measure it on is recorded yet."
    last = overlap.iloc[-1]
    parts = [
        f"{tables.interval_text(row.mean, row.low, row.high, signed=True)} for the "
        f"{tables.MODEL_NAMES[row.model]}"
        for row in effects[effects["quantity"] == "worth"].itertuples()
    ]
    text = (
        f"**Leakage.** {last['Lesion seen in training']} of the {last['Test images']} skin test "
        f"images ({last['Share']}) show a lesion that is in the training images too."
    )
    if not parts:
        return text
    return f"{text} Having seen them is worth {listed(parts)} of test accuracy."


def prevalence(split: str) -> float:
    """Share of pneumonia in a split of the chest data.

    Example:
        >>> round(prevalence("train"), 3), prevalence("test")
        (0.743, 0.625)
    """
    normal, pneumonia = CHEST_IMAGES[split]
    return pneumonia / (normal + pneumonia)


def prevalence_table() -> pd.DataFrame:
    """Images of the chest data and the share of pneumonia, as printed."""
    return pd.DataFrame(
        {
            "Split": {"train": "training", "val": "validation", "test": "test"}[split],
            "Normal": f"{normal:,}",
            "Pneumonia": f"{pneumonia:,}",
            "Share of pneumonia": f"{100 * prevalence(split):.1f} %",
        }
        for split, (normal, pneumonia) in CHEST_IMAGES.items()
    )


def threshold_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of recorded chest models by the rule that sets their threshold.

    Args:
        table: As from :func:`images`, of the study ``chest_paper``.

    Returns:
        Columns ``method, rule, threshold, accuracy, balanced_accuracy``; without the rule that
        needs predictions for validation images.
    """
    rows = []
    for method, group in table.groupby("method", sort=False):
        chance, truth = group["p_1"].to_numpy(dtype=float), group["label"].to_numpy() == 1
        rules = {
            "0.5": 0.5,
            "prior-corrected": prior_corrected(prevalence("train"), prevalence("test")),
            "hindsight": best_threshold(torch.tensor(chance), torch.tensor(truth)),
        }
        for rule, threshold in rules.items():
            right = (chance > threshold) == truth
            rows.append(
                {
                    "method": method,
                    "rule": rule,
                    "threshold": threshold,
                    "accuracy": right.mean(),
                    "balanced_accuracy": (right[truth].mean() + right[~truth].mean()) / 2,
                }
            )
    columns = ["method", "rule", "threshold", "accuracy", "balanced_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def thresholds_table(
    rows: pd.DataFrame, single: pd.DataFrame, metric: str = "accuracy"
) -> pd.DataFrame:
    """A metric by the rule that sets the threshold, and what 0.5 costs, as printed.

    Args:
        rows: Details of the probe ``thresholds``, with ``model, method, seed``.
        single: As from :func:`threshold_rows`: the 224 px models, one seed each.
        metric: ``"accuracy"`` or ``"balanced_accuracy"``.
    """
    printed = []
    for (model, method), group in (
        [] if rows.empty else rows.groupby(["model", "method"], sort=False)
    ):
        wide = group.pivot(index="seed", columns="rule", values=metric)
        price = paired_difference(wide["prior-corrected"].to_numpy(), wide["0.5"].to_numpy())
        row = {
            "Network": f"{tables.MODEL_NAMES[model]}, 28 px",
            "Model": tables.METHOD_NAMES[method],
        }
        row |= {_rule_name(rule): f"{wide[rule].mean():.3f}" for rule in RULES}
        row["Price of 0.5"] = tables.interval_text(price.mean, price.low, price.high, signed=True)
        printed.append(row)
    for method, group in single.groupby("method", sort=False):
        values = group.set_index("rule")[metric]
        row = {"Network": "paper's network, 224 px", "Model": tables.METHOD_NAMES[method]}
        row |= {_rule_name(rule): f"{value:.3f}" for rule, value in values.items()}
        price = values["prior-corrected"] - values["0.5"]
        row["Price of 0.5"] = tables.interval_text(price, math.nan, math.nan, signed=True)
        printed.append(row)
    columns = ["Network", "Model", *map(_rule_name, RULES), "Price of 0.5"]
    table = pd.DataFrame(printed, columns=columns).fillna("\u2013")
    table["Network"] = [capital(name) for name in table["Network"]]
    return table


def shift_sentence(rows: pd.DataFrame) -> str:
    """What the class shift costs at a threshold of 0.5, in a sentence or two.

    Args:
        rows: Details of the probe ``thresholds``, with ``model, method, seed``.
    """
    text = (
        f"**The data.** Pneumonia makes {100 * prevalence('train'):.1f} % of the training images "
        f"and {100 * prevalence('test'):.1f} % of the test images."
    )
    parts = []
    for model, group in (
        [] if rows.empty else rows[rows["method"] == "baseline"].groupby("model", sort=False)
    ):
        wide = group.pivot(index="seed", columns="rule", values="accuracy")
        price = paired_difference(wide["prior-corrected"].to_numpy(), wide["0.5"].to_numpy())
        printed = tables.interval_text(price.mean, price.low, price.high, signed=True)
        parts.append(f"{printed} for the {tables.MODEL_NAMES[model]}")
    if not parts:
        return text
    return (
        f"{text} A threshold moved by these shares changes the baseline's accuracy by "
        f"{listed(parts)}."
    )


def _row(model: str, quantity: str, interval: Interval) -> dict[str, object]:
    values = {name: getattr(interval, name) for name in ("mean", "low", "high", "n")}
    return {"model": model, "quantity": quantity, **values}


def _rule_name(rule: str) -> str:
    return {
        "0.5": "At 0.5",
        "prior-corrected": "Prior-corrected",
        "validation": "Best on validation",
        "hindsight": "Best in hindsight",
    }[rule]
