"""Six sevenths: a released metric that is the same for almost every model."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import published, style, tables, words
from companion.predictions import released_accuracy
from companion.published import RELEASED_LOG, SKIN_CLASSES
from companion.style import WIDTH
from varreg.lab.methods import BLUE, RED


def sevenths(table: pd.DataFrame) -> pd.DataFrame:
    """The released metric beside the accuracy, for recorded models and for constant ones.

    Args:
        table: As from :func:`companion.predictions.images`, of the study ``skin_paper``.

    Returns:
        Columns ``model, released, last_above, accuracy, balanced_accuracy``; ``last_above``
        counts images to which the last class gets more than one half.
    """
    columns = ["model", "released", "last_above", "accuracy", "balanced_accuracy"]
    if table.empty:
        return pd.DataFrame(columns=columns)
    names = [f"p_{place}" for place in range(len(SKIN_CLASSES))]
    models = {
        tables.METHOD_NAMES.get(method, method): group[names].to_numpy()
        for method, group in table.groupby("method", sort=False)
    }
    # The test images, and so their labels, are the same for every model.
    label = table.loc[table["method"] == table["method"].iloc[0], "label"].to_numpy(dtype=int)
    for place, name in enumerate(SKIN_CLASSES):
        models[f"always {name}"] = np.eye(len(names))[[place] * len(label)]
    rows = []
    for model, chances in models.items():
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
    return pd.DataFrame(rows, columns=columns)


def facts(images: pd.DataFrame) -> dict[str, float]:
    """What the released metric can tell apart.

    Args:
        images: Of the study ``skin_paper``.

    Returns:
        The skin accuracy ``printed`` in the released log and the ``fraction`` that it is; of the
        ``models`` tried, the ``same`` ones that never give the last class more than one half, and
        their real accuracies, ``low`` to ``high`` (NaN without one). Each behind ``sevenths_``.
    """
    rows = sevenths(images)
    same = rows.loc[rows["last_above"] == 0, "accuracy"]
    numbers = {
        "printed": published.find("skin", "penalized", "accuracy", source=RELEASED_LOG).value,
        "fraction": (len(SKIN_CLASSES) - 1) / len(SKIN_CLASSES),
        "models": len(rows),
        "same": len(same),
        "low": float(same.min()),
        "high": float(same.max()),
    }
    return {f"sevenths_{name}": value for name, value in numbers.items()}


def figure(images: pd.DataFrame) -> Figure:
    """The released skin metric beside accuracy and balanced accuracy, a row a model.

    Args:
        images: Of the study ``skin_paper``.
    """
    rows = sevenths(images)
    if rows.empty:
        return style.empty()
    figure, ax = plt.subplots(figsize=(WIDTH, 1.3 + 0.36 * len(rows)))
    ax.axvline(6 / 7, color="black", lw=1, ls=":")
    place = np.arange(len(rows))
    hollow = {"mfc": "none", "mew": 1.8, "ms": 8}
    ax.plot(rows["released"], place, "X", color="black", ms=9, label="released metric")
    ax.plot(rows["accuracy"], place, "o", color=BLUE, ms=7.5, label="accuracy")
    ax.plot(rows["balanced_accuracy"], place, "D", color=RED, label="balanced accuracy", **hollow)
    style.rows(ax, [words.capital(name) for name in rows["model"]], above=0.9)
    ax.annotate("6/7", (6 / 7, -0.85), xytext=(4, -1), textcoords="offset points", va="top")
    ax.set_xlim(-0.02, 1)
    ax.set_xlabel("Score on the test images")
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.3)
    return figure
