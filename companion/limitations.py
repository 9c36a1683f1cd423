"""How far the evidence reaches: what the page of limitations counts.

Every function takes rows of ledgers, by study, or tables made from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from companion import published, tables, verdicts, words
from varreg.lab.statistics import wilson

#: Margins to try beside the one in use, as multiples of it.
FACTORS = (0.5, 1.0, 2.0)


def facts(
    protocol: pd.DataFrame, paired: pd.DataFrame, differences: pd.DataFrame
) -> dict[str, float]:
    """Numbers that the limitations quote.

    Args:
        protocol: Rows of the study ``chest_paper``.
        paired: Rows of the paper's network in the study ``chest``.
        differences: Every comparison that is tested, as from :func:`companion.tables.differences`.

    Returns:
        By name; what needs runs that are not there is NaN:

        - ``test_images``, ``val_images``: of the chest data;
        - ``train_share``, ``test_share``: of pneumonia among the images, in percent;
        - ``accuracy``, ``accuracy_low``, ``accuracy_high``: the baseline's mean in the paired
          study, with Wilson's interval for a test set of that size;
        - ``times_features``: how many times more features the protocol's images give;
        - ``comparisons``, ``by_chance``: how many, and how many of them would exclude zero by
          chance if nothing had an effect;
        - ``margin``: :data:`companion.verdicts.MARGIN`.

    Example:
        >>> found = facts(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(columns=["n"]))
        >>> found["test_images"], round(found["test_share"], 1), found["comparisons"]
        (624, 62.5, 0)
    """
    images = {split: sum(counts) for split, counts in published.CHEST_IMAGES.items()}
    share = {name: 100 * published.CHEST_IMAGES[name][1] / images[name] for name in images}
    tested = int((differences["n"] > 1).sum())
    unknown = ("accuracy", "accuracy_low", "accuracy_high", "times_features")
    found = dict.fromkeys(unknown, math.nan)
    if len(paired):
        mean = float(paired.loc[paired["method"] == "baseline", "test_accuracy"].mean())
        ends = wilson(round(mean * images["test"]), images["test"])
        found |= dict(zip(unknown, (mean, *ends), strict=False))
    if len(protocol) and len(paired):
        found["times_features"] = float((protocol["size"].max() / paired["size"].max()) ** 2)
    return found | {
        "test_images": images["test"],
        "val_images": images["val"],
        "train_share": share["train"],
        "test_share": share["test"],
        "comparisons": tested,
        "by_chance": 0.05 * tested,
        "margin": verdicts.MARGIN,
    }


def resolution_table(studies: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How wide the interval around the penalty's effect is: what is smaller cannot be seen.

    Args:
        studies: Name -> rows of a study with the methods baseline and penalized.

    Returns:
        A row a study, data set and network, with half the width of the 95 % interval.
    """
    metrics = ["test_accuracy", "test_cross_entropy"]
    every = [
        tables.differences(runs, metrics, [("penalized", "baseline")]).assign(study=study)
        for study, runs in studies.items()
    ]
    columns = {
        "Study": "study",
        **tables.HEAD,
        "Pairs": "n",
        "Metric": ("metric", lambda name: f"Half-width, {tables.METRIC_NAMES[name]}"),
        "text": (["low", "high"], lambda low, high: words.number((high - low) / 2)),
    }
    return tables.spread(pd.concat(every, ignore_index=True), columns, metrics)


def margins_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Verdicts on the same comparisons with a smaller and a larger margin.

    Args:
        differences: As from :func:`companion.tables.differences`.

    Returns:
        A row a margin, and how often each verdict follows from it.
    """
    rows = []
    for factor in FACTORS if len(differences) else ():
        margin = factor * verdicts.MARGIN
        said = [
            verdicts.of_difference(row, tables.better(row.metric), margin)
            for row in differences.itertuples()
        ]
        counts = {word: said.count(word) for word in verdicts.VERDICTS if word != "partly"}
        rows.append({"Margin": f"{margin:g}", "Comparisons": len(said)} | counts)
    return pd.DataFrame(rows)


def provenance_table(studies: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Where the rows of every study come from, as they say it themselves.

    Args:
        studies: Name -> rows of a ledger.
    """
    columns = {
        "Package": "version",
        "Commit": "commit",
        "PyTorch": "torch_version",
        "Device": "device",
        "Recorded": "recorded_at",
    }
    rows = []
    for study, runs in studies.items():
        if len(runs):
            days = runs.assign(recorded_at=runs["recorded_at"].str[:10])
            said = {heading: _all(days[name]) for heading, name in columns.items()}
            rows.append({"Study": study, "Rows": len(runs)} | said)
    return pd.DataFrame(rows)


def _all(values: pd.Series) -> str:
    return ", ".join(sorted(values.dropna().astype(str).unique()))
