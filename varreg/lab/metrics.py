"""Classification metrics of a whole split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from varreg import loss
from varreg.checks import Task, check_integer, check_target

METRICS = (
    "cross_entropy",
    "accuracy",
    "auroc",
    "keras_auc",
    "balanced_accuracy",
    "ece",
    "recall",
)
#: What :func:`reliability_metrics` gives; the columns of recorded runs are those of METRICS alone.
RELIABILITY_METRICS = ("brier", "aurc", "augrc")


def classification_metrics(
    logits: Tensor, labels: Tensor, task: Task
) -> dict[str, float | list[float]]:
    """All metrics of one split.

    Args:
        logits: Binary ``(N,)`` or ``(N, 1)``, multi-class ``(N, K)``, multi-label ``(N, L)``.
        labels: As for :class:`varreg.loss.VariancePenalizedLoss`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.

    Returns:
        ``cross_entropy`` (nats, unscaled), ``accuracy`` (binary and multi-label at a
        threshold of 0.5, multi-label over all labels), ``auroc`` (one class against the rest,
        macro mean), ``keras_auc`` (all outputs flattened, see :func:`keras_auc`),
        ``balanced_accuracy`` (mean recall of the classes; in multi-label tasks of the two classes
        of a label, then over the labels), ``ece`` (see :func:`expected_calibration_error`) and
        ``recall``, a list: a class for binary and multi-class tasks, a label for multi-label
        ones. What is undefined, such as the recall of a class without a sample, is NaN and left
        out of means over classes; only ``keras_auc`` is 0 then, as in Keras.

    Raises:
        ValueError: If the split is empty, a logit is not finite, or shapes and labels do not
            fit the task.

    Example:
        >>> logits, labels = torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([0, 1, 0, 1])
        >>> metrics = classification_metrics(logits, labels, "binary")
        >>> metrics["accuracy"], metrics["auroc"], metrics["recall"]
        (0.5, 0.75, [0.5, 0.5])
    """
    logits, labels = checked(logits, labels, task)
    recall = _recall(logits, labels, task)
    return {
        "cross_entropy": cross_entropy(logits, labels, task),
        "accuracy": accuracy(logits, labels, task),
        "auroc": auroc(logits, labels, task),
        "keras_auc": keras_auc(
            log_odds(logits, task).sigmoid().reshape(len(logits), -1).numpy(),
            _truth(logits, labels, task),
        ),
        "balanced_accuracy": _balanced_accuracy(logits, labels, task, recall),
        "ece": expected_calibration_error(logits, labels, task),
        "recall": recall,
    }


def reliability_metrics(logits: Tensor, labels: Tensor, task: Task) -> dict[str, float]:
    """How far the probabilities of one split can be trusted, and the order of its confidences.

    Args:
        logits: As for :func:`classification_metrics`.
        labels: As for :func:`classification_metrics`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.

    Returns:
        ``brier`` (see :func:`brier`); ``aurc``, the mean over all coverages of the selective
        risk, which is the share of errors among what is kept; and ``augrc``, the area under the
        generalized risk, which is the share of all samples that are kept *and* wrong: the mean
        risk of an error that nobody looks at, 0 to 0.5. Both from :func:`risk_coverage`; lower is
        better for all three.

    Raises:
        ValueError: As :func:`classification_metrics`.

    Source:
        AURC: Y. Geifman, G. Uziel, R. El-Yaniv, Bias-reduced uncertainty estimation for deep
        neural classifiers, ICLR 2019. AUGRC: J. Traub et al., Overcoming common flaws in the
        evaluation of selective classification systems, NeurIPS 2024; AURC weighs the few most
        confident samples far more than the rest, AUGRC does not.

    Example:
        >>> logits, labels = torch.tensor([3.0, 2.0, 1.0, -4.0]), torch.tensor([1, 1, 0, 0])
        >>> found = reliability_metrics(logits, labels, "binary")
        >>> found["aurc"], found["augrc"]  # wrong once, where it was least sure
        (0.0625, 0.03125)
    """
    coverage, risk = risk_coverage(logits, labels, task)
    missed = np.append(0.0, coverage * risk)
    return {
        "brier": brier(*checked(logits, labels, task), task),
        "aurc": float(risk.mean()),
        "augrc": float((missed[1:] + missed[:-1]).mean() / 2),
    }


def brier(logits: Tensor, labels: Tensor, task: Task) -> float:
    """Brier score: mean squared distance of the probabilities from what is true.

    Multi-class: summed over the classes, as Brier has it (0 to 2). Binary, and multi-label over
    all labels: that of the positive class alone (0 to 1), half of what two classes would give.

    Source:
        G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather
        Review 78, 1-3, 1950.

    Example:
        >>> brier(torch.zeros(2), torch.tensor([0, 1]), "binary")
        0.25
        >>> brier(torch.zeros(2, 2), torch.tensor([0, 1]), "multiclass")
        0.5
    """
    logits = logits.double()
    if task == "multiclass":
        truth = F.one_hot(labels.flatten().long(), logits.shape[1])
        return (logits.softmax(1) - truth).square().sum(1).mean().item()
    return (logits.sigmoid() - labels.to(logits).view_as(logits)).square().mean().item()


def risk_coverage(logits: Tensor, labels: Tensor, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Share of errors among the most confident predictions, for every share that is kept.

    The confidence is the largest softmax probability (binary and multi-label: the probability of
    what is predicted; multi-label predictions count one by one). It is compared as log-odds,
    which have the same order and do not round to 1. The order within a tie is a matter of chance:
    the expectation over all orders is taken.

    Args:
        logits: As for :func:`classification_metrics`.
        labels: As for :func:`classification_metrics`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.

    Returns:
        Coverage, ``1/n, 2/n, ..., 1``, and the selective risk at each.

    Raises:
        ValueError: As :func:`classification_metrics`.

    Example:
        >>> logits, labels = torch.tensor([3.0, 3.0, 1.0, -4.0]), torch.tensor([1, 0, 1, 0])
        >>> risk_coverage(logits, labels, "binary")[1].tolist()
        [0.0, 0.25, 0.3333333333333333, 0.25]
    """
    logits, labels = checked(logits, labels, task)
    if task == "multiclass":
        # Sorted and relative to the largest, so that the same gaps tie whatever their place.
        ordered = logits.sort(1, descending=True).values
        confidence = -(ordered[:, 1:] - ordered[:, :1]).logsumexp(1)
        right = logits.argmax(1) == labels
    else:
        confidence, right = logits.abs().flatten(), ((logits > 0) == (labels > 0.5)).flatten()
    _, level = np.unique(-confidence.numpy(), return_inverse=True)
    n_in, wrong_in = np.bincount(level), np.bincount(level, ~right.numpy())
    kept = np.arange(1, len(level) + 1)
    return kept / len(level), np.repeat(wrong_in / n_in, n_in).cumsum() / kept


def cross_entropy(logits: Tensor, labels: Tensor, task: Task) -> float:
    """Mean cross-entropy in nats, not scaled; multi-label: over all labels."""
    return loss.cross_entropy(logits, labels, task, validate=False).item()


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
    truth = _truth(logits, labels, task)
    defined = [k for k in range(truth.shape[1]) if 0 < truth[:, k].sum() < len(truth)]
    return _mean([float(roc_auc_score(truth[:, k], scores[:, k])) for k in defined])


def auroc_pseudovalues(logits: Tensor, labels: Tensor, task: Task) -> np.ndarray:
    """What each sample adds to the AUROC: its jackknife pseudo-value.

    ``n A - (n - 1) A_i``, where ``A_i`` is the area without sample ``i``. Their mean is
    :func:`auroc` itself, so that areas can be compared over seeds and images as means are.

    Args:
        logits: As for :func:`classification_metrics`.
        labels: As for :func:`classification_metrics`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``; of classes (or labels) the mean,
            those that are everywhere or nowhere left out, as in :func:`auroc`.

    Returns:
        ``(N,)``.

    Raises:
        ValueError: As :func:`classification_metrics`, or if no class has an area or one has a
            single sample on one side, without which there is none.

    Source:
        D. D. Dorfman, K. S. Berbaum, C. E. Metz, Receiver operating characteristic rating
        analysis, Investigative Radiology 27, 723-731, 1992.

    Example:
        >>> logits, labels = torch.tensor([1.0, 3.0, 2.0, 4.0]), torch.tensor([0, 0, 1, 1])
        >>> auroc_pseudovalues(logits, labels, "binary").tolist()
        [1.5, 0.0, 0.0, 1.5]
    """
    logits, labels = checked(logits, labels, task)
    scores = log_odds(logits, task).reshape(len(logits), -1).numpy()
    truth = _truth(logits, labels, task) > 0.5
    values = []
    for score, positive in zip(scores.T, truth.T, strict=True):
        sides = {True: int(positive.sum()), False: int((~positive).sum())}
        if not all(sides.values()):
            continue
        if min(sides.values()) == 1:
            raise ValueError(
                f"a class has {sides[True]} samples and the rest {sides[False]}; without one of "
                "them there is no area: leave out classes with a single sample"
            )
        # Share of the other side that a sample is on the right side of; ties count one half.
        beats = stats.rankdata(score)
        for side in sides:
            own = positive == side
            beats[own] = (beats[own] - stats.rankdata(score[own])) / sides[not side]
        beats[~positive] = 1 - beats[~positive]
        own_side = np.where(positive, sides[True], sides[False])
        area, n = beats[positive].mean(), len(score)
        without = (own_side * area - beats) / (own_side - 1)
        values.append(n * area - (n - 1) * without)
    if not values:
        raise ValueError("no class has samples inside and outside it; there is no AUROC")
    mean: np.ndarray = np.mean(values, axis=0)
    return mean


def keras_auc(scores: np.ndarray, truth: np.ndarray, thresholds: int = 200) -> float:
    """What ``keras.metrics.AUC()`` gives with all its defaults.

    Scores and labels are flattened. For one output that is the area under the ROC curve; for
    one-hot labels of several classes it is the *micro* average, which a common class rules, and
    not the mean over classes that :func:`auroc` is. The curve is sampled at evenly spaced
    thresholds and joined by straight lines: what lies between two of them is a tie.

    Args:
        scores: Probabilities in [0, 1], ``(N,)`` or ``(N, K)``.
        truth: 0 or 1, of the same shape; one-hot for classes.
        thresholds: How many, from 0 to 1; Keras's default.

    Returns:
        The area; 0, as Keras has it, where all labels are equal and there is no curve.

    Raises:
        ValueError: Shapes that differ, nothing to evaluate, a score outside [0, 1], a label that
            is neither 0 nor 1, or fewer than two thresholds.

    Source:
        ``keras/src/metrics/confusion_metrics.py`` and ``metrics_utils.py``, Keras 3.10.

    Example:
        >>> keras_auc(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[1, 0], [0, 1]]))
        0.75
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    if scores.shape != truth.shape or not scores.size:
        raise ValueError(
            f"scores have shape {scores.shape} and truth {truth.shape}; give the same shape, with "
            "a sample or more, and one-hot labels for classes"
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be probabilities in [0, 1]; apply a sigmoid or softmax")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("truth must hold nothing but 0 and 1; give classes as one-hot labels")
    check_integer("thresholds", thresholds, 2)
    # Positive is what lies above a threshold, in single precision as in Keras; 0 lies above the
    # first one, which Keras moves below 0.
    above = np.ceil(scores.astype(np.float32).ravel() * np.float32(thresholds - 1)).astype(int)
    last = np.maximum(above - 1, 0)
    positive = truth.ravel().astype(bool)
    x, y = (
        np.bincount(group, minlength=thresholds)[::-1].cumsum() / max(len(group), 1)
        for group in (last[~positive], last[positive])
    )
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


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
    confidence, right, bin_of = confidence_bins(logits, labels, task, bins)
    gap = np.bincount(bin_of, confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def confidence_bins(
    logits: Tensor, labels: Tensor, task: Task, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each prediction: its confidence, whether it is right, and its bin (equal width, 0 first).

    Raises:
        ValueError: If ``bins`` is not an integer of 1 or more.
    """
    check_integer("bins", bins, 1)
    if task == "multiclass":
        confidence, predicted = logits.double().softmax(1).max(1)
        right = predicted == labels.flatten()
    else:
        probability = logits.double().sigmoid().flatten()
        confidence = torch.maximum(probability, 1 - probability)
        right = (logits.flatten() > 0) == (labels.flatten() > 0.5)
    sure, hit = confidence.detach().cpu().numpy(), right.cpu().numpy()
    return sure, hit, np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)


def checked(logits: Tensor, labels: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Both on the CPU, logits in float64, labels of the shape that the task has."""
    if len(logits) == 0:
        raise ValueError("there is no sample to evaluate: the split is empty")
    check_target(logits, labels, task)
    logits, labels = logits.detach().double().cpu(), labels.cpu()
    if not torch.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinite values; the model has diverged")
    return logits, labels.flatten() if task == "multiclass" else labels.view_as(logits)


def _truth(logits: Tensor, labels: Tensor, task: Task) -> np.ndarray:
    """0 or 1, an output (class, label) a column."""
    if task == "multiclass":
        return F.one_hot(labels.flatten().long(), logits.shape[1]).cpu().numpy()
    return labels.reshape(len(logits), -1).cpu().numpy()


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
