"""Differences between methods over seeds and images, from what each run said about each image.

The paired tables of the studies ask what another seed would give on the same test images. Here
other images of the same kind are asked for as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from companion import tables
from varreg.checks import Task
from varreg.lab.ledger import Ledger
from varreg.lab.metrics import auroc_pseudovalues
from varreg.lab.statistics import PairedDifference, crossed_difference

#: By column of a ledger, what is averaged over the images; their mean is the metric.
METRICS = ("test_accuracy", "test_auroc", "test_cross_entropy")
PAIRS = (("penalized", "baseline"), ("tuned", "baseline"), ("augmented", "baseline"))


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
    units = ledger.runs()
    if len(units):
        units = units[(units["dataset"] == dataset) & (units["split"] == split)]
    if units.empty:
        raise LookupError(
            f"labels of {dataset}, split {split}, are not recorded; run: "
            "python -m companion run labels"
        )
    rows = ledger.curves()
    rows = rows[(rows["key"] == units.iloc[0]["key"]) & (rows["part"] == part)]
    return rows.sort_values("position")["label"].to_numpy(dtype=int)


def by_image(logits: np.ndarray, truth: np.ndarray, metric: str, task: Task) -> np.ndarray:
    """What each image adds to a metric: the metric is their mean.

    Args:
        logits: ``(N, n_outputs)``.
        truth: ``(N,)``.
        metric: One of :data:`METRICS`.
        task: ``"binary"`` or ``"multiclass"``.

    Returns:
        ``(N,)``; for the AUROC the jackknife's pseudo-values.

    Example:
        >>> by_image(np.array([[2.0], [-1.0]]), np.array([1, 1]), "test_accuracy", "binary")
        array([1., 0.])
    """
    values, target = torch.tensor(logits, dtype=torch.float64), torch.tensor(truth)
    if metric == "test_auroc":
        return auroc_pseudovalues(values, target, task)
    if task == "multiclass":
        if metric == "test_accuracy":
            return (values.argmax(1) == target).double().numpy()
        return F.cross_entropy(values, target, reduction="none").numpy()
    values = values.flatten()
    if metric == "test_accuracy":
        return ((values > 0) == (target > 0.5)).double().numpy()
    return F.binary_cross_entropy_with_logits(values, target.double(), reduction="none").numpy()


def differences(
    runs: pd.DataFrame,
    results: Path | None = None,
    metrics: Sequence[str] = METRICS,
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> pd.DataFrame:
    """All paired differences over seeds and images.

    Args:
        runs: Rows of a study whose predictions are recorded.
        results: Folder of the ledgers; default: the recorded results.
        metrics: Some of :data:`METRICS`.
        pairs: ``(method, reference)``; those without two common seeds are left out.

    Returns:
        Columns ``dataset, split, size, model, method, reference, metric, mean, low, high, n, p``.
    """
    rows = []
    columns = [*tables.GROUP, "method", "reference", "metric", "mean", "low", "high", "n", "p"]
    for names, group in [] if runs.empty else runs.groupby(tables.GROUP, sort=False, dropna=False):
        head = dict(zip(tables.GROUP, names, strict=True))
        said = Ledger(group["study"].iloc[0], results).all_predictions(group["key"], ("test",))
        if not said:
            continue
        split = None if pd.isna(head["split"]) else head["split"]
        truth = labels(head["dataset"], split, "test", results)
        logits = {
            (row.method, row.seed): said[row.key]["test"].logits
            for row in group.itertuples()
            if row.key in said
        }
        task: Task = "binary" if next(iter(logits.values())).shape[1] == 1 else "multiclass"
        for metric in metrics:
            added = {at: by_image(values, truth, metric, task) for at, values in logits.items()}
            for method, reference in pairs:
                found = _crossed(added, method, reference)
                if found is None:
                    continue
                # The ledger has more digits than the recorded logits: its mean is the mean.
                exact = tables.difference(group, metric, method, reference).mean
                off = exact - found.mean
                rows.append(
                    head
                    | {"method": method, "reference": reference, "metric": metric, "mean": exact}
                    | {"low": found.low + off, "high": found.high + off, "n": found.n, "p": found.p}
                )
    return pd.DataFrame(rows, columns=columns)


def table(runs: pd.DataFrame, results: Path | None = None) -> pd.DataFrame:
    """:func:`differences` as printed: a row a comparison, a column a metric."""
    found = differences(runs, results)
    return tables.spread_differences(found, METRICS)


def _crossed(
    added: Mapping[tuple[str, int], np.ndarray], method: str, reference: str
) -> PairedDifference | None:
    seeds = sorted({seed for name, seed in added if name == method and (reference, seed) in added})
    if len(seeds) < 2:
        return None
    return crossed_difference([added[method, s] - added[reference, s] for s in seeds])
