"""The plainest facts: does a prediction change, and what does a temperature do?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion import tables, verdicts
from companion.explained.words import capital, listed
from varreg.lab.statistics import PairedDifference, paired_difference

__all__ = [
    "changed_by_penalty",
    "changed_table",
    "in_plain_words",
    "temperature_effect",
    "temperature_phrase",
    "temperature_table",
]


def changed_by_penalty(
    table: pd.DataFrame, method: str = "penalized", reference: str = "baseline"
) -> dict[str, float]:
    """On how many test images another model says another class.

    Args:
        table: As from :func:`images`, of one study.
        method: The model in question.
        reference: The model compared with, of the same seed.

    Returns:
        ``images``; ``changed``, those of them with another most probable class; and ``largest``,
        the largest change of any probability. Empty where one of the models is not recorded.

    Example:
        >>> table = pd.DataFrame({"method": ["baseline", "penalized"], "index": [0, 0],
        ...                       "p_0": [0.52, 0.49], "p_1": [0.48, 0.51]})
        >>> {name: round(value, 2) for name, value in changed_by_penalty(table).items()}
        {'images': 1, 'changed': 1, 'largest': 0.03}
    """
    names = [name for name in table if name.startswith("p_")]
    first, second = (
        table[table["method"] == name].sort_values("index")[names].to_numpy(dtype=float)
        for name in (method, reference)
    )
    if not (len(first) and len(second)):
        return {}
    return {
        "images": len(first),
        "changed": int((first.argmax(1) != second.argmax(1)).sum()),
        "largest": float(np.abs(first - second).max()),
    }


def changed_table(tables_: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """:func:`changed_by_penalty` as printed, a row a data set.

    Args:
        tables_: Name of the data -> as from :func:`images`.
    """
    rows = []
    for name, table in tables_.items():
        found = changed_by_penalty(table)
        if found:
            rows.append(
                {
                    "Data": name,
                    "Test images": f"{found['images']:,}",
                    "Predictions that the penalty changes": found["changed"],
                    "Largest change of a probability": f"{found['largest']:.4f}",
                }
            )
    return pd.DataFrame(rows)


def in_plain_words(changes: Mapping[str, PairedDifference]) -> str:
    """Whether a penalty helps, in words that follow from the intervals.

    Args:
        changes: Metric, as in ``"auroc"`` -> with the penalty minus without it.

    Example:
        >>> worse = paired_difference([0.80, 0.81, 0.79], [0.90, 0.91, 0.90])
        >>> print(in_plain_words({"auroc": worse}).partition(" (")[0])
        Here the penalty makes the model worse: it lowers AUROC by 0.103
    """
    if any(change.n < 2 for change in changes.values()):
        return "One pair of models cannot tell an effect from luck: try more seeds."
    # Ends of the interval, seen from the side that is better.
    ends = [
        sorted((tables.better(name) * change.low, tables.better(name) * change.high))
        for name, change in changes.items()
    ]
    helps, hurts = any(low > 0 for low, _ in ends), any(high < 0 for _, high in ends)
    verdict = {
        (True, False): "helps",
        (False, True): "makes the model worse",
        (True, True): "helps in one thing and hurts in another",
        (False, False): "makes no clear difference",
    }[helps, hurts]
    names = {name: tables.METRIC_NAMES[f"test_{name}"].removeprefix("test ") for name in changes}
    phrases = [verdicts.phrase(change, names[name]) for name, change in changes.items()]
    return f"Here the penalty {verdict}: it {listed(phrases)}."


def temperature_effect(
    units: pd.DataFrame, details: pd.DataFrame, metric: str, part: str = "test"
) -> PairedDifference | None:
    """What dividing the logits by the fitted temperature does to a metric, paired by seed.

    Args:
        units: Rows of the probe ``temperature``, of one study and network.
        details: Its ``curves()``.
        metric: ``"cross_entropy"``, ``"ece"``, ``"accuracy"`` or ``"auroc"``.
        part: ``"val"`` or ``"test"``.

    Returns:
        After minus before; ``None`` where nothing is recorded.
    """
    if units.empty:
        return None
    mine = details[(details["part"] == part) & details["key"].isin(units["key"])]
    # Two rows a unit, as trained and with the temperature, in this order.
    before, after = (mine.groupby("key", sort=False)[metric].nth(place) for place in (0, 1))
    return paired_difference(after.to_numpy(), before.to_numpy())


def temperature_table(
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
    for (source, model), group in (
        [] if units.empty else units.groupby(["source", "model"], sort=False)
    ):
        temperature = group["temperature"].mean()
        runs = tables.of_model(studies.get(source, pd.DataFrame()), model)
        found = {
            f"temperature, {temperature:.2f} on average": [
                temperature_effect(group, details, metric) for metric in metrics
            ]
        }
        for method in ("penalized", "augmented"):
            effects = [tables.difference(runs, f"test_{metric}", method) for metric in metrics]
            if None not in effects:
                found[tables.METHOD_NAMES[method]] = effects
        for name, effects in found.items():
            row = {
                "Data": source,
                "Network": capital(tables.MODEL_NAMES[model]),
                "What is done": name,
                "Pairs": effects[0].n,
            }
            for metric, effect in zip(metrics, effects, strict=True):
                row[capital(tables.METRIC_NAMES[f"test_{metric}"])] = tables.interval_text(
                    effect.mean, effect.low, effect.high, signed=True
                )
            rows.append(row)
    return pd.DataFrame(rows)


def temperature_phrase(
    units: pd.DataFrame, details: pd.DataFrame, source: str, metric: str, model: str = "paper_cnn"
) -> str:
    """What a temperature does to one metric of the test images, in words that follow from it."""
    mine = units if units.empty else units[(units["source"] == source) & (units["model"] == model)]
    name = {"cross_entropy": "the test cross-entropy", "ece": "the calibration error"}[metric]
    return verdicts.phrase(temperature_effect(mine, details, metric), name)
