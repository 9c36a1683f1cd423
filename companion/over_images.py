"""Differences between methods over seeds and images, from what each run said about each image.

The paired tables of the studies ask what another seed would give on the same test images. Here
other images of the same kind are asked for as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from companion import tables
from companion.records import details
from varreg.lab.ledger import Ledger
from varreg.lab.metrics import auroc_pseudovalues
from varreg.lab.statistics import PairedDifference, crossed_difference

#: By column of a ledger, what is averaged over the images; their mean is the metric.
METRICS = ("test_accuracy", "test_auroc", "test_cross_entropy")


@lru_cache
def labels(dataset: str, split: str | None, part: str, results: Path | None = None) -> np.ndarray:
    """The labels of a validation or test set, in the order of recorded predictions.

    Args:
        dataset: Name of the data set.
        split: Which split of it; ``None`` for the official one.
        part: ``"val"`` or ``"test"``.
        results: Folder of the ledgers; default: the recorded results.

    Raises:
        LookupError: If the probe ``labels`` does not hold them.
    """
    ledger, split = Ledger("labels", results), split or "official"
    rows = details(ledger.runs(), ledger.curves())
    if len(rows):
        rows = rows.query("dataset == @dataset and split == @split and part == @part")
    if rows.empty:
        raise LookupError(
            f"labels of {dataset}, split {split}, are not recorded; run: "
            "python -m companion run labels"
        )
    return rows.sort_values("position")["label"].to_numpy(dtype=int)


def by_image(logits: np.ndarray, truth: np.ndarray, metric: str) -> np.ndarray:
    """What each image adds to a metric: the metric is their mean.

    Args:
        logits: ``(N, n_outputs)``, one output for two classes.
        truth: ``(N,)``.
        metric: One of :data:`METRICS`.

    Returns:
        ``(N,)``; for the AUROC the jackknife's pseudo-values.

    Example:
        >>> by_image(np.array([[2.0], [-1.0]]), np.array([1, 1]), "test_accuracy")
        array([1., 0.])
    """
    values, target = torch.tensor(logits, dtype=torch.float64), torch.tensor(truth)
    binary = values.shape[1] == 1
    if metric == "test_auroc":
        return auroc_pseudovalues(values, target, "binary" if binary else "multiclass")
    if binary:  # the logit of the second of two classes
        values = torch.hstack([torch.zeros_like(values), values])
    if metric == "test_accuracy":
        return (values.argmax(1) == target).double().numpy()
    return F.cross_entropy(values, target, reduction="none").numpy()


def differences(runs: pd.DataFrame, results: Path | None = None) -> pd.DataFrame:
    """All paired differences to the baseline over seeds and images, of all of :data:`METRICS`.

    Args:
        runs: Rows of a study whose predictions are recorded.
        results: Folder of the ledgers; default: the recorded results.

    Returns:
        Columns ``dataset, split, size, model, method, reference, metric, mean, low, high, n, p``;
        methods without two seeds in common with the baseline are left out.
    """
    rows = []
    columns = [*tables.GROUP, "method", "reference", "metric", "mean", "low", "high", "n", "p"]
    for head, group in tables.groups(runs, tables.GROUP):
        said = Ledger(group["study"].iloc[0], results).all_predictions(group["key"], ("test",))
        if not said:
            continue
        split = None if pd.isna(head["split"]) else head["split"]
        truth = labels(head["dataset"], split, "test", results)
        keys = group[group["key"].isin(said)].pivot(index="seed", columns="method", values="key")
        logits = {key: each["test"].logits for key, each in said.items()}
        for metric in METRICS:
            added = {key: by_image(values, truth, metric) for key, values in logits.items()}
            for method, reference in tables.PAIRS:
                exact = tables.difference(group, metric, method, reference)
                found = crossed(keys.reindex(columns=[method, reference]), added, exact)
                if found is not None:
                    said_of_it = (found.mean, found.low, found.high, found.n, found.p)
                    rows.append((*head.values(), method, reference, metric, *said_of_it))
    return pd.DataFrame(rows, columns=columns)


def crossed(
    keys: pd.DataFrame, added: Mapping[str, np.ndarray], exact: PairedDifference | None
) -> PairedDifference | None:
    """The difference of two methods over seeds and images.

    Args:
        keys: A row a seed, with the key of the run of the first method and that of the second.
        added: By key, as from :func:`by_image`.
        exact: That over the seeds, from the ledger: it has more digits than recorded logits, so
            its mean is the mean.

    Returns:
        ``None`` without two seeds that both methods have.
    """
    both = keys.dropna()
    if len(both) < 2 or exact is None:
        return None
    found = crossed_difference([added[first] - added[second] for first, second in both.to_numpy()])
    low, high = (exact.mean + end - found.mean for end in (found.low, found.high))
    return dataclasses.replace(found, mean=exact.mean, low=low, high=high)


def table(runs: pd.DataFrame, results: Path | None = None) -> pd.DataFrame:
    """:func:`differences` as printed: a row a comparison, a column a metric."""
    return tables.spread_differences(differences(runs, results), METRICS)
