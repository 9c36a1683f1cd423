"""Half a cross-entropy: a total loss with lambda = 0.5 beside a baseline's."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from companion import published, style, words
from companion.published import RELEASED_LOG
from companion.records import details
from companion.style import WIDTH
from companion.tables import SPLIT_NAMES
from varreg.lab.methods import GREY, RED


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
        if (number.method, number.metric) == ("penalized", "loss"):
            where = {"source": number.source, "split": number.split}
            baseline = published.find(number.experiment, "baseline", "loss", **where)
            rows.append(vars(number) | {"baseline": baseline.value, "most": number.comparable})
    # A stable sort: the sources keep their order.
    rows.sort(key=lambda row: (row["experiment"], list(SPLIT_NAMES).index(row["split"])))
    names = ["experiment", "split", "source", "baseline", "total", "most"]
    table = pd.DataFrame(rows).rename(columns={"value": "total"})[names]
    return table.assign(
        printed=table["total"] / table["baseline"] - 1,
        least_drop=table["most"] / table["baseline"] - 1,
        left=table["total"] - published.LAMBDA["penalized"] * table["baseline"],
    )


def variance(
    studies: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], predictions: pd.DataFrame
) -> pd.DataFrame:
    """How large the penalty is in our runs of the published setting, at the epoch that was kept.

    Args:
        studies: Name of the data -> runs and curves of ``chest_paper`` or ``skin_paper``.
        predictions: Rows of the probe ``predictions``, for the test images.

    Returns:
        Columns ``data, seeds, variance, penalty``, the last two means over seeds.
    """
    rows = []
    for name, (runs, curves) in studies.items():
        mine = details(runs[runs["method"] == "penalized"] if len(runs) else runs, curves)
        if mine.empty:
            continue
        kept = mine[mine["epoch"] == mine["best_epoch"]]
        parts = {"train": kept, "val": kept}
        if len(predictions):
            same = predictions["source"] == kept["study"].iloc[0]
            parts["test"] = predictions[same & (predictions["method"] == "penalized")]
        for split, part in parts.items():
            if len(values := part[f"{split}_feature_variance"]):
                rows.append((f"{name}, {SPLIT_NAMES[split]}", len(values), values.mean()))
    table = pd.DataFrame(rows, columns=["data", "seeds", "variance"])
    return table.assign(penalty=published.VARIANCE_WEIGHT * table["variance"])


def facts() -> dict[str, object]:
    """What the halved loss does to the printed changes.

    Returns:
        ``lambda`` and, for each experiment, the change of the test loss in percent from the
        baseline to the penalized model: as ``printed`` in Tables I to IV, ``unscaled``, and in
        the released ``log``, unscaled too. Each behind ``half_``.
    """
    rows = decomposition()
    rows = rows[rows["split"] == "test"]
    found = {"half_lambda": published.LAMBDA["penalized"]}
    for name in published.EXPERIMENTS:
        mine = rows[rows["experiment"] == name].set_index("source")
        table, log = mine.loc[published.TABLES[name]], mine.loc[RELEASED_LOG]
        changes = {"printed": table["printed"], "unscaled": table["least_drop"]}
        for kind, change in (changes | {"log": log["least_drop"]}).items():
            found[f"half_{name}_{kind}"] = words.percent(change, 1, signed=True)
    return found


def figure() -> Figure:
    """Each published total loss of a penalized model, beside its baseline and on one scale."""
    rows = decomposition()
    figure, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.62 * len(rows)))
    place = np.arange(len(rows))
    ax.barh(place - 0.2, rows["baseline"], height=0.34, color=GREY)
    ax.barh(place + 0.2, rows["most"], height=0.34, color="white", ec=RED, hatch="////", lw=1.2)
    ax.barh(place + 0.2, rows["total"], height=0.34, color=RED)
    labels = [
        f"{row.experiment.capitalize()}, {SPLIT_NAMES[row.split]}\n"
        f"{row.source.replace('released log, ', '')}"
        for row in rows.itertuples()
    ]
    style.rows(ax, labels)
    ax.set_xlabel("Loss")
    bars = {
        "baseline: cross-entropy": Patch(color=GREY),
        "penalized: total, as printed": Patch(color=RED),
        "its cross-entropy, at most": Patch(fc="white", ec=RED, hatch="////"),
    }
    style.legend(figure, bars, ncols=2)
    return figure
