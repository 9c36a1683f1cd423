"""What a temperature does to a trained baseline, beside what the penalty does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pandas as pd

from companion import tables, verdicts, words
from varreg.lab.statistics import PairedDifference, paired_difference


def effect(units: pd.DataFrame, details: pd.DataFrame, metric: str) -> PairedDifference | None:
    """What dividing the logits by the fitted temperature does to a test metric, paired by seed.

    Args:
        units: Rows of the probe ``temperature``, of one study and network.
        details: Its ``curves()``.
        metric: ``"cross_entropy"``, ``"ece"``, ``"accuracy"`` or ``"auroc"``.

    Returns:
        After minus before; ``None`` where nothing is recorded.
    """
    if units.empty:
        return None
    mine = details[(details["part"] == "test") & details["key"].isin(units["key"])]
    # Two rows a unit, as trained and with the temperature, in this order.
    before, after = (mine.groupby("key", sort=False)[metric].nth(place) for place in (0, 1))
    return paired_difference(after.to_numpy(), before.to_numpy())


def table(
    units: pd.DataFrame,
    details: pd.DataFrame,
    studies: Mapping[str, pd.DataFrame],
    metrics: tuple[str, ...] = ("cross_entropy", "ece"),
) -> pd.DataFrame:
    """A temperature beside the penalty and augmentation: changes of the baseline, as printed.

    Args:
        units: Rows of the probe ``temperature``.
        details: Its ``curves()``.
        studies: Study -> its rows, of one split; their differences are over all their seeds.
        metrics: Of the test images.

    Returns:
        A row a study, network and measure taken; the temperature is a mean over seeds.
    """
    rows = []
    for head, group in tables.groups(units, ["source", "model"]):
        runs = tables.of_model(studies.get(head["source"], pd.DataFrame()), head["model"])
        name = f"temperature, {group['temperature'].mean():.2f} on average"
        found = {(name, metric): effect(group, details, metric) for metric in metrics}
        for method, metric in itertools.product(("penalized", "augmented"), metrics):
            change = tables.difference(runs, f"test_{metric}", method)
            found[tables.METHOD_NAMES[method], metric] = change
        rows += [(*head.values(), *what, each) for what, each in found.items() if each]
    columns = {
        "Data": "source",
        "Network": ("model", lambda name: words.capital(tables.MODEL_NAMES[name])),
        "What is done": "name",
        "Pairs": ("change", lambda change: change.n),
        "Metric": ("metric", lambda name: words.capital(tables.METRIC_NAMES[f"test_{name}"])),
        "text": ("change", words.change),
    }
    long = pd.DataFrame(rows, columns=["source", "model", "name", "metric", "change"])
    return tables.spread(long, columns, metrics)


def phrase(units: pd.DataFrame, details: pd.DataFrame, source: str, metric: str) -> str:
    """What a temperature does to a test metric of the paper's network, in words."""
    mine = tables.of_model(units if units.empty else units[units["source"] == source])
    name = {"cross_entropy": "the test cross-entropy", "ece": "the calibration error"}[metric]
    return verdicts.phrase(effect(mine, details, metric), name)
