"""What a threshold of 0.5 costs where test images have another share of pneumonia than training.

The threshold on the probability is set by four rules; only the first two could be used in earnest.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from companion import studies
from companion.probes import Measured, answers
from companion.studies import every
from companion.studies.grid import MODELS
from varreg.lab.runs import train_run

#: One unit a run of the study ``chest``: both networks, three methods, five seeds.
SETTINGS = every(seed=range(5), model=MODELS, method=("baseline", "penalized", "augmented"))


def measure(model: str, method: str, seed: int, **where: str | Path | None) -> Measured:
    """Train one run of the study ``chest`` once more and move its threshold.

    Args:
        model: Name of the network.
        method: ``"baseline"``, ``"penalized"`` or ``"augmented"``.
        seed: Of the run.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        A row a rule: ``"0.5"``, ``"prior-corrected"`` (see :func:`prior_corrected`),
        ``"validation"`` (best accuracy on validation), ``"hindsight"`` (best on test).
    """
    (spec,) = studies.specs("chest", model=model, method=method, seed=seed)
    run = train_run(spec, **where)
    val, test = (
        (logits.view(-1).double().sigmoid(), labels.bool())
        for logits, labels in (answers(run, part) for part in ("val", "test"))
    )
    shares = [getattr(run.data, part).labels.double().mean().item() for part in ("train", "test")]
    rules = {
        "0.5": 0.5,
        "prior-corrected": prior_corrected(*shares),
        "validation": best_threshold(*val),
        "hindsight": best_threshold(*test),
    }
    details = []
    for rule, threshold in rules.items():
        called, truth = test[0] > threshold, test[1]
        recall = [(called == truth)[truth == value].double().mean().item() for value in (0, 1)]
        details.append(
            {
                "rule": rule,
                "threshold": threshold,
                "accuracy": (called == truth).double().mean().item(),
                "balanced_accuracy": sum(recall) / 2,
                "recall_normal": recall[0],
                "recall_pneumonia": recall[1],
            }
        )
    row = {"dataset": spec.dataset, "size": spec.size}
    row |= dict(zip(("train_share", "test_share"), shares, strict=True))
    return Measured(run.data, row, details)


def prior_corrected(train_share: float, test_share: float) -> float:
    """Threshold that suits another share of the positive class than that of training.

    A probability that is right for the training share is right for the test share once its
    log-odds are moved by the difference of the two shares' log-odds; 0.5 after the move is this
    value before it.

    Args:
        train_share: Share of the positive class in training, in (0, 1).
        test_share: The same in test.

    Source:
        M. Saerens, P. Latinne, C. Decaestecker, Adjusting the outputs of a classifier to new a
        priori probabilities, Neural Computation 14, 21-41, 2002, equation 2.4.

    Example:
        >>> round(prior_corrected(0.75, 0.5), 4), prior_corrected(0.6, 0.6)
        (0.75, 0.5)
    """
    shift = math.log(train_share / (1 - train_share)) - math.log(test_share / (1 - test_share))
    return 1 / (1 + math.exp(-shift))


def best_threshold(probabilities: Tensor, truth: Tensor) -> float:
    """Threshold with the highest accuracy; of several, the one next to 0.5.

    Args:
        probabilities: Of the positive class, ``(N,)``.
        truth: Boolean, ``(N,)``.

    Example:
        >>> best_threshold(torch.tensor([0.6, 0.8, 0.9]), torch.tensor([False, True, True]))
        0.7
    """
    values = torch.cat([torch.tensor([0.0, 1.0]), probabilities]).double().unique()
    between = torch.cat([(values[1:] + values[:-1]) / 2, torch.tensor([0.5]).double()])
    right = ((probabilities.double() > between[:, None]) == truth).double().mean(1)
    best = between[right >= right.max() - 1e-12]
    return round(float(best[(best - 0.5).abs().argmin()]), 6)
