"""Classification metrics of a whole split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from varreg.loss import Task, check_target

__all__ = ["METRICS", "accuracy", "auroc", "classification_metrics", "expected_calibration_error"]

METRICS = ("cross_entropy", "accuracy", "auroc", "balanced_accuracy", "ece", "recall")


def classification_metrics(logits: Tensor, labels: Tensor, task: Task) -> dict[str, float | list]:
    """All metrics of one split.

    Args:
        logits: Binary ``(N,)`` or ``(N, 1)``, multi-class ``(N, K)``, multi-label ``(N, L)``.
        labels: As for :class:`varreg.loss.VariancePenalizedLoss`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.

    Returns:
        ``cross_entropy`` (nats, unscaled), ``accuracy`` (binary and multi-label at a
        threshold of 0.5, multi-label over all labels), ``auroc`` (one class against the rest,
        macro mean), ``balanced_accuracy`` (mean recall of the classes; in multi-label
        tasks of the two classes of a label, then over the labels), ``ece``
        (see :func:`expected_calibration_error`) and ``recall``, a list: a class for binary
        and multi-class tasks, a label for multi-label ones. What is undefined, such as the
        recall of a class without a sample, is NaN and left out of means over classes.

    Raises:
        ValueError: If the split is empty, a logit is not finite, or shapes and labels do not
            fit the task.

    Example:
        >>> logits, labels = torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([0, 1, 0, 1])
        >>> metrics = classification_metrics(logits, labels, "binary")
        >>> metrics["accuracy"], metrics["auroc"], metrics["recall"]
        (0.5, 0.75, [0.5, 0.5])
    """
    if len(logits) == 0:
        raise ValueError("there is no sample to evaluate: the split is empty")
    check_target(logits, labels, task)
    logits, labels = logits.detach().double().cpu(), labels.cpu()
    if not torch.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinite values; the model has diverged")
    if task == "multiclass":
        labels = labels.flatten().long()
        cross_entropy = F.cross_entropy(logits, labels)
    else:
        labels = labels.double().view_as(logits)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, labels)
    recall = _recall(logits, labels, task)
    return {
        "cross_entropy": cross_entropy.item(),
        "accuracy": accuracy(logits, labels, task),
        "auroc": auroc(logits, labels, task),
        "balanced_accuracy": _balanced_accuracy(logits, labels, task, recall),
        "ece": expected_calibration_error(logits, labels, task),
        "recall": recall,
    }


def accuracy(logits: Tensor, labels: Tensor, task: Task) -> float:
    """Share of right predictions; the threshold is 0.5 for binary and multi-label tasks."""
    if task == "multiclass":
        return (logits.argmax(1) == labels.flatten()).double().mean().item()
    return ((logits > 0) == (labels.view_as(logits) > 0.5)).double().mean().item()


def auroc(logits: Tensor, labels: Tensor, task: Task) -> float:
    """Area under the ROC curve, one class (or label) against the rest, macro mean.

    Classes that are everywhere or nowhere have none and are left out; NaN if none is left. The
    order is that of the logits, or of the log-odds of a class against the rest: probabilities
    close to 1 would all round to 1.
    """
    scores = log_odds(logits.detach(), task).reshape(len(logits), -1).cpu().numpy()
    if task == "multiclass":
        truth = F.one_hot(labels.flatten().long(), logits.shape[1]).cpu().numpy()
    else:
        truth = labels.reshape(len(logits), -1).cpu().numpy()
    defined = [k for k in range(truth.shape[1]) if 0 < truth[:, k].sum() < len(truth)]
    return _mean([float(roc_auc_score(truth[:, k], scores[:, k])) for k in defined])


def log_odds(logits: Tensor, task: Task) -> Tensor:
    """Logarithm of the odds of each class against the rest, in float64.

    Args:
        logits: ``(..., n_outputs)``.
        task: Logits of binary and multi-label tasks are log-odds already.

    Example:
        >>> log_odds(torch.tensor([[0.0, 40.0], [0.0, 41.0]]), "multiclass").tolist()
        [[-40.0, 40.0], [-41.0, 41.0]]
    """
    logits = logits.double()
    if task != "multiclass":
        return logits
    classes = range(logits.shape[-1])
    rest = [logits[..., [i for i in classes if i != k]].logsumexp(-1) for k in classes]
    return logits - torch.stack(rest, -1)


def expected_calibration_error(
    logits: Tensor, labels: Tensor, task: Task, *, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy, over bins of equal width.

    The confidence is the probability of the predicted class; multi-label predictions count
    one by one.

    Source:
        Naeini et al. (2015); the 15 bins are those of Guo et al. (2017), "On Calibration of
        Modern Neural Networks".

    Example:
        >>> sure = torch.tensor([[0.0, 20.0], [0.0, 20.0]])
        >>> round(expected_calibration_error(sure, torch.tensor([1, 0]), "multiclass"), 3)
        0.5
    """
    if task == "multiclass":
        confidence, predicted = logits.double().softmax(1).max(1)
        right = predicted == labels.flatten()
    else:
        probability = logits.double().sigmoid().flatten()
        confidence = torch.maximum(probability, 1 - probability)
        right = (logits.flatten() > 0) == (labels.flatten() > 0.5)
    confidence, right = confidence.cpu().numpy(), right.cpu().numpy()
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def _recall(logits: Tensor, labels: Tensor, task: Task) -> list[float]:
    if task == "multilabel":
        hit, positive = (logits > 0) & (labels > 0.5), labels > 0.5
        return [_mean(hit[positive[:, k], k].tolist()) for k in range(labels.shape[1])]
    if task == "binary":
        predicted, truth, classes = (logits > 0).flatten().long(), labels.flatten().long(), 2
    else:
        predicted, truth, classes = logits.argmax(1), labels, logits.shape[1]
    return [_mean((predicted[truth == k] == k).tolist()) for k in range(classes)]


def _balanced_accuracy(logits: Tensor, labels: Tensor, task: Task, recall: list[float]) -> float:
    if task != "multilabel":
        return _mean(recall)
    negative = labels < 0.5
    specificity = [_mean((logits[negative[:, k], k] <= 0).tolist()) for k in range(len(recall))]
    return _mean([_mean(both) for both in zip(recall, specificity, strict=True)])


def _mean(values: Iterable[float]) -> float:
    """Mean of what is defined; NaN of nothing."""
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")
