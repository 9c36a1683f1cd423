"""Calibration: one temperature fitted on validation data, and the reliability diagram."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import optimize
from torch import Tensor

from varreg.checks import Task
from varreg.lab.metrics import checked, confidence_bins, cross_entropy

#: Temperatures between one over this and this are tried.
LARGEST = 100.0


def fit_temperature(logits: Tensor, labels: Tensor, task: Task) -> float:
    """The temperature with the lowest cross-entropy once the logits are divided by it.

    Args:
        logits: As for :func:`varreg.lab.metrics.classification_metrics`, of validation images.
        labels: Their labels.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.

    Returns:
        Above 1 for a model that is too sure, below 1 for one that is not sure enough, within 1 /
        :data:`LARGEST` and :data:`LARGEST`: where every label is predicted right, no temperature is
        the best, and where the logits say less than nothing, neither. 1 where none is better, as
        for logits that are all equal.

    Raises:
        ValueError: As :func:`varreg.lab.metrics.classification_metrics`.

    Source:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks,
        ICML 2017, section 4.2.

    Example:
        Three of four right, and sure as if 95 of 100 were:

        >>> import torch
        >>> logits = torch.tensor([3.0, 3.0, 3.0, 3.0])
        >>> temperature = fit_temperature(logits, torch.tensor([1, 1, 1, 0]), "binary")
        >>> f"{torch.sigmoid(logits[0] / temperature):.3f}"
        '0.750'
    """
    logits, labels = checked(logits, labels, task)

    def loss(log_t: float) -> float:
        return cross_entropy(logits / math.exp(log_t), labels, task)

    # Convex in 1 / T, so it has one valley in log T too, where small and large temperatures are
    # equally exact.
    found = optimize.minimize_scalar(
        loss,
        bounds=(-math.log(LARGEST), math.log(LARGEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return math.exp(found.x) if found.fun < loss(0.0) else 1.0


def reliability_curve(
    logits: Tensor, labels: Tensor, task: Task, *, bins: int = 15
) -> pd.DataFrame:
    """How often predictions are right, beside how sure they are: the bins of the diagram.

    Args:
        logits: As for :func:`varreg.lab.metrics.classification_metrics`.
        labels: Their labels.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        bins: Number of bins of equal width; those of
            :func:`varreg.lab.metrics.expected_calibration_error`, which is the mean over
            predictions of the gap between the last two columns.

    Returns:
        A row a bin: ``low``, ``high`` (a bin holds what lies above ``low`` and not above
        ``high``), ``n`` predictions, their mean ``confidence`` and ``accuracy``, NaN in an empty
        bin.

    Raises:
        ValueError: As :func:`varreg.lab.metrics.classification_metrics`, or no bin.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([0.5, 3.0, 3.0]), torch.tensor([1, 1, 0])
        >>> reliability_curve(logits, labels, "binary", bins=4).round(2).tail(2)
            low  high  n  confidence  accuracy
        2  0.50  0.75  1        0.62       1.0
        3  0.75  1.00  2        0.95       0.5
    """
    logits, labels = checked(logits, labels, task)
    confidence, right, bin_of = confidence_bins(logits, labels, task, bins)
    edges = np.arange(bins + 1) / bins
    table = pd.DataFrame({"bin": bin_of, "confidence": confidence, "accuracy": right * 1.0})
    means = table.groupby("bin").mean().reindex(range(bins)).rename_axis(None)
    means.insert(0, "n", np.bincount(bin_of, minlength=bins))
    means.insert(0, "high", edges[1:])
    means.insert(0, "low", edges[:-1])
    return means
