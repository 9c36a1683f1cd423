"""Features of high and of low variance: what each tells of the class, and what goes without it.

The paper takes a high variance for the sign of a feature that does not carry over to other images.
Here the features that vary over the training images are put into tenths by their variance, by how
much of the variance of the logit is theirs, and at random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from companion.probes import OUTCOMES, Measured, outcomes
from companion.studies import every
from companion.studies.few_images import settings
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import train_run
from varreg.lab.training import in_blocks

ORDERS = ("variance", "head_weighted", "random")
TENTHS = 10
SETTINGS = every(
    dataset=("breastmnist", "pneumoniamnist"), seed=range(10), method=("none", "fixed")
)


def areas(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each feature by itself; ties count half.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``, 0 and 1, both of them there.

    Example:
        >>> areas(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([0, 1]))
        array([1. , 0.5])
    """
    ill = labels == 1
    count = ill.sum()
    ranks = rankdata(features, axis=0)[ill].sum(0)
    return (ranks - count * (count + 1) / 2) / (count * (len(labels) - count))


def measure(dataset: str, method: str, seed: int, **where: str | Path | None) -> Measured:
    """Train one network and take away a tenth of its features after the other.

    Args:
        dataset: ``"breastmnist"`` or ``"pneumoniamnist"``.
        method: A key of :data:`companion.studies.few_images.ARMS`.
        seed: Of the run, and of the random order.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        The outcomes of the whole network and how many of its features vary; and a row an order and
        tenth, the lowest first: ``variance`` (mean over its features, training images),
        ``train_area`` and ``test_area`` (mean area of a feature by itself, in the direction that
        it has in training), and the outcomes on the test images where its features are replaced by
        their training means.
    """
    run = train_run(settings("ablation", dataset, method, seed), **where)
    device = next(run.model.parameters()).device

    def features_of(block: Tensor) -> Tensor:
        return run.model.features(run.fit.scaling(block))

    train, test = (
        in_blocks(features_of, part.images, device).double()
        for part in (run.data.train, run.data.test)
    )
    labels = run.data.train.labels.numpy(), run.data.test.labels
    head = run.model.head.weight.detach().cpu().double().flatten()
    logits = test @ head + run.model.head.bias.item()
    variance, means = train.var(0, correction=0), train.mean(0)
    moves = variance.nonzero().flatten()

    train_area = areas(train.numpy(), labels[0])
    test_area = areas(test.numpy(), labels[1].numpy())
    test_area = np.where(train_area < 0.5, 1 - test_area, test_area)
    train_area = np.maximum(train_area, 1 - train_area)

    keys = {
        "variance": variance,
        "head_weighted": head.square() * variance,
        "random": torch.rand(len(variance), generator=torch.Generator().manual_seed(seed)),
    }
    details = []
    for order in ORDERS:
        ranked = moves[keys[order][moves].argsort(stable=True)]
        for tenth, chosen in enumerate(ranked.tensor_split(TENTHS), 1):
            left = logits - (test[:, chosen] - means[chosen]) @ head[chosen]
            found = classification_metrics(left, labels[1], run.data.task)
            details.append(
                {
                    "order": order,
                    "tenth": tenth,
                    "variance": variance[chosen].mean().item(),
                    "train_area": float(train_area[chosen].mean()),
                    "test_area": float(test_area[chosen].mean()),
                    **{f"test_{name}": found[name] for name in OUTCOMES},
                }
            )
    row = {"size": run.data.size, "features": len(variance), "vary": len(moves)}
    return Measured(run.data, row | outcomes(run), details)
