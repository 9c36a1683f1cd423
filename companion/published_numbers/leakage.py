"""Leakage: lesions that are in training and in test, and what having seen them is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from companion import style, tables, words
from companion.probes.leakage import TRAINING
from companion.published import SKIN_CLASSES
from companion.style import NETWORKS, WIDTH
from varreg.lab.statistics import Interval, mean_interval

EFFECTS = ["model", "quantity", "interval"]
#: As in :func:`worth`, and that of :func:`split_difference`.
QUANTITIES = ["seen", "unseen", "raw", "memory", "control", "worth", "splits"]


def by_lesion(images: pd.DataFrame) -> pd.DataFrame:
    """Images and right answers for each class, seen lesions and unseen ones apart.

    Args:
        images: Of the study ``skin_paper``.

    Returns:
        Columns ``method, label, seen, images, right``, as the probe ``leakage`` has them.
    """
    if images.empty:
        return pd.DataFrame(columns=["method", "label", "seen", "images", "right"])
    grouped = images.astype({"seen": int}).groupby(["method", "label", "seen"], sort=False)
    return grouped["right"].agg(images="size", right="sum").reset_index()


def overlap(rows: pd.DataFrame) -> pd.DataFrame:
    """How many test images show a lesion that the training images show too.

    Args:
        rows: ``label, seen, images`` of one model, as from :func:`by_lesion` or the probe
            ``leakage``.

    Returns:
        A row a class, ``all`` the last: ``label, images, seen, share``.
    """
    if rows.empty:
        return pd.DataFrame(columns=["label", "images", "seen", "share"])
    seen = rows["images"] * rows["seen"]
    found = rows.assign(seen=seen).groupby("label")[["images", "seen"]].sum()
    found.index = [SKIN_CLASSES[int(label)] for label in found.index]
    found.loc["all"] = found.sum()
    return found.assign(share=found["seen"] / found["images"]).rename_axis("label").reset_index()


def worth(rows: pd.DataFrame) -> pd.DataFrame:
    """What seen lesions are worth, for each network; means with intervals over seeds.

    Two models learn from equally many images of each class. One of them has seen the lesions of
    the test images, the other has not; both are asked about the same images.

    Args:
        rows: Details of the probe ``leakage``, as from :func:`companion.records.details`.

    Returns:
        Columns ``model, quantity, interval``. Quantities: ``seen, unseen``, accuracy of
        the model that learns from all images on the two kinds of test image, and ``raw``, their
        difference; ``memory``, what having seen their lesions is worth on the seen images;
        ``control``, the same on the unseen images, where there is nothing to remember; ``worth``,
        what the whole test set gains, ``memory`` times the share of seen images.
    """
    if rows.empty:
        return pd.DataFrame(columns=EFFECTS)
    counts = rows.groupby(["model", "training", "seed", "seen"])[["images", "right"]].sum()
    accuracy = (counts["right"] / counts["images"]).unstack(["training", "seen"]).dropna()
    images = counts["images"].groupby("seen").first()
    effects = []
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
            effects.append((model, name, mean_interval(values, within=within)))
    return pd.DataFrame(effects, columns=EFFECTS)


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
    ends = stats.ttest_ind(a, b, equal_var=False).confidence_interval(confidence)
    return Interval(mean, float(ends.low), float(ends.high), n)


def split_difference(runs: pd.DataFrame) -> pd.DataFrame:
    """The baseline's test accuracy under the split by image minus that under the split by lesion.

    Args:
        runs: Rows of the study ``skin``.

    Returns:
        Columns ``model, quantity, interval``; the quantity is ``splits``.
    """
    if runs.empty:
        return pd.DataFrame(columns=EFFECTS)
    rows = []
    for model, group in runs[runs["method"] == "baseline"].groupby("model", sort=False):
        values = dict(tuple(group.groupby("split")["test_accuracy"]))
        if {"paper", "lesion"} <= set(values):
            found = unpaired_difference(values["paper"], values["lesion"])
            rows.append((model, "splits", found))
    return pd.DataFrame(rows, columns=EFFECTS)


def by_network(effects: pd.DataFrame) -> pd.DataFrame:
    """Effects side by side: a row a ``model``, a column a quantity; ``None`` where not measured.

    Args:
        effects: Rows of :func:`worth` and :func:`split_difference` together.
    """
    wide = effects.pivot(index="model", columns="quantity", values="interval")
    wide = wide.reindex(effects["model"].unique(), columns=QUANTITIES)
    return wide.astype(object).where(wide.notna(), None).reset_index()


def facts(effects: pd.DataFrame, overlap: pd.DataFrame) -> dict[str, object]:
    """How many test lesions were seen, and what that is worth.

    Args:
        effects: Rows of :func:`worth` and :func:`split_difference` together.
        overlap: As from :func:`overlap`.

    Returns:
        Test ``images``, those ``seen`` and their ``share`` in percent; and, for each network,
        ``worth`` in test accuracy with its interval. Each behind ``leakage_``.
    """
    if overlap.empty:
        return {}
    last = overlap.iloc[-1]
    found = {"leakage_images": int(last["images"]), "leakage_seen": int(last["seen"])}
    found["leakage_share"] = float(100 * last["share"])
    rows = effects[effects["quantity"] == "worth"].itertuples()
    return found | {f"leakage_worth_{row.model}": words.change(row.interval) for row in rows}


def figure(effects: pd.DataFrame) -> Figure:
    """What seen lesions are worth, a row a way to measure it, a mark a network.

    Args:
        effects: Rows of :func:`worth` and :func:`split_difference` together.
    """
    names = {
        "raw": "Seen minus unseen lesions",
        "memory": "Having seen the lesion,\non those images",
        "control": "The same two models\non unseen lesions",
        "worth": "Worth in accuracy on\nall test images",
        "splits": "Split by image minus\nsplit by lesion",
    }
    if effects.empty:
        return style.empty()
    figure, ax = plt.subplots(figsize=(WIDTH, 4.4))
    ax.axvline(0, color="black", lw=1)
    shifts = {"paper_cnn": -0.12, "small_cnn": 0.12}
    for row in effects[effects["quantity"].isin(names)].itertuples():
        y = list(names).index(row.quantity) + shifts[row.model]
        style.bar(ax, row.interval, y, 2.2, ms=7, **NETWORKS[row.model])
    style.rows(ax, list(names.values()))
    ax.set_xlabel("Difference in test accuracy")
    marks = {tables.MODEL_NAMES[model]: look for model, look in NETWORKS.items()}
    style.legend(figure, marks, ncols=2, handletextpad=0.4)
    return figure
