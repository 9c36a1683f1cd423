from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from medmnist import INFO, Evaluator
from scipy import integrate
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    recall_score,
    roc_auc_score,
)

from varreg.lab.metrics import (
    METRICS,
    RELIABILITY_METRICS,
    auroc,
    auroc_pseudovalues,
    classification_metrics,
    expected_calibration_error,
    keras_auc,
    reliability_metrics,
    risk_coverage,
)

# Every task type that MedMNIST has, with a flag that has it.
FLAGS = {
    "pneumoniamnist": "binary",
    "dermamnist": "multiclass",
    "retinamnist": "multiclass",  # ordinal regression there
    "chestmnist": "multilabel",
}


def split(task: str, classes: int, n: int = 150):
    generator = torch.Generator().manual_seed(classes)
    if task == "binary":
        logits = torch.randn(n, 1, generator=generator)
        labels = (logits[:, 0] + torch.randn(n, generator=generator) > 0.3).long()
    elif task == "multiclass":
        logits = torch.randn(n, classes, generator=generator)
        labels = (logits + 2 * torch.randn(n, classes, generator=generator)).argmax(1)
    else:
        logits = torch.randn(n, classes, generator=generator)
        labels = (logits + torch.randn(n, classes, generator=generator) > 0.5).float()
    return logits, labels


def probabilities(logits: torch.Tensor, task: str) -> np.ndarray:
    logits = logits.double()
    return (logits.softmax(1) if task == "multiclass" else logits.sigmoid()).numpy()


@pytest.mark.parametrize(("flag", "task"), FLAGS.items())
def test_accuracy_and_auroc_equal_medmnists_evaluator(flag, task):
    classes = len(INFO[flag]["label"])
    logits, labels = split(task, classes)
    evaluator = object.__new__(Evaluator)  # its constructor reads a file of the real data
    evaluator.info, evaluator.labels = INFO[flag], labels.reshape(len(labels), -1).numpy()
    expected = evaluator.evaluate(probabilities(logits, task))
    ours = classification_metrics(logits, labels, task)
    assert ours["accuracy"] == pytest.approx(expected.ACC, abs=1e-12)
    assert ours["auroc"] == pytest.approx(expected.AUC, abs=1e-12)


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 7)])
def test_recall_and_cross_entropy_equal_scikit_learns(task, classes):
    logits, labels = split(task, classes)
    ours = classification_metrics(logits, labels, task)
    scores = probabilities(logits, task)
    predicted = (scores[:, 0] > 0.5).astype(int) if task == "binary" else scores.argmax(1)
    assert ours["recall"] == pytest.approx(recall_score(labels, predicted, average=None))
    assert ours["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert ours["cross_entropy"] == pytest.approx(log_loss(labels, scores), rel=1e-9)


def test_multilabel_recall_and_cross_entropy_label_by_label():
    logits, labels = split("multilabel", 5)
    ours = classification_metrics(logits, labels, "multilabel")
    scores = probabilities(logits, "multilabel")
    truth = labels.int().numpy()
    recall = [recall_score(truth[:, k], scores[:, k] > 0.5) for k in range(5)]
    losses = [log_loss(truth[:, k], scores[:, k]) for k in range(5)]
    assert ours["recall"] == pytest.approx(recall)
    balanced = [balanced_accuracy_score(truth[:, k], scores[:, k] > 0.5) for k in range(5)]
    assert ours["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    assert ours["cross_entropy"] == pytest.approx(np.mean(losses), rel=1e-9)


def test_balanced_accuracy_of_labels_that_are_all_called_positive():
    labels = (torch.rand(500, 14) < 0.1).float()
    labels[:, 3] = 1  # there is nothing else: right everywhere
    metrics = classification_metrics(torch.full((500, 14), 5.0), labels, "multilabel")
    assert metrics["recall"] == [1.0] * 14
    assert metrics["balanced_accuracy"] == pytest.approx((13 * 0.5 + 1) / 14)


# ---------------------------------------------------------------- the order is that of the logits


@pytest.mark.parametrize("scale", [1.0, 20.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("task", "classes"), [("binary", 1), ("multiclass", 5), ("multilabel", 4)])
def test_auroc_does_not_saturate(task, classes, dtype, scale):
    logits, labels = split(task, classes)
    logits = (logits * scale + (scale if task != "multiclass" else 0)).to(dtype)
    truth = F.one_hot(labels) if task == "multiclass" else labels.reshape(len(labels), -1)
    areas = []
    for k in range(logits.shape[1]):
        scores = []
        for row in logits.tolist():  # with as many digits as it takes
            exact = [Decimal(z) for z in row]
            own = exact.pop(k)
            if task == "multiclass":
                own -= max(exact) + sum((z - max(exact)).exp() for z in exact).ln()
            scores.append(own)
        ranks = [sorted(scores).index(score) for score in scores]
        areas.append(roc_auc_score(truth[:, k], ranks))
    assert auroc(logits, labels, task) == pytest.approx(np.mean(areas), abs=1e-12)
    assert classification_metrics(logits, labels, task)["auroc"] == auroc(logits, labels, task)


def test_auroc_of_two_classes_is_that_of_the_difference():
    logits = torch.tensor([[0, 40.0], [0, 41], [0, 42], [0, 43]])
    labels = torch.tensor([0, 0, 1, 1])
    assert auroc(logits, labels, "multiclass") == 1.0
    assert auroc(torch.tensor([18.0, 19, 20, 21]), labels, "binary") == 1.0


def loop_calibration_error(confidences, rights, bins: int = 15) -> float:
    gap = 0.0
    for b in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidences, rights, strict=True)
            if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            gap += len(inside) / len(confidences) * abs(confidence - right)
    return gap


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 7), ("multilabel", 4)])
@pytest.mark.parametrize("scale", [0.3, 3.0, 60.0])
def test_calibration_error_equals_a_loop_over_the_bins(task, classes, scale):
    logits, labels = split(task, classes)
    logits = logits * scale
    scores = probabilities(logits, task)
    if task == "multiclass":
        confidences, rights = scores.max(1), scores.argmax(1) == labels.numpy()
    else:
        confidences = np.maximum(scores, 1 - scores).ravel()
        rights = ((scores > 0.5).ravel() == (labels.numpy() > 0.5).ravel()).astype(float)
    ece = classification_metrics(logits, labels, task)["ece"]
    assert ece == pytest.approx(loop_calibration_error(confidences, rights), abs=1e-12)


@given(st.integers(2, 40), st.integers(0, 1000), st.floats(0, 50))
def test_everything_lies_in_its_range(n, seed, scale):
    random = np.random.default_rng(seed)
    logits = torch.tensor(random.normal(size=(n, 3)) * scale)
    labels = torch.tensor(random.integers(0, 3, n))
    metrics = classification_metrics(logits, labels, "multiclass")
    assert tuple(metrics) == METRICS
    assert metrics.pop("cross_entropy") >= 0
    for value in (*metrics.pop("recall"), *metrics.values()):
        assert 0 <= value <= 1 or math.isnan(value)


def test_a_class_without_a_sample_is_left_out():
    logits = torch.tensor([[3.0, 0, 0], [0, 3, 0], [3, 0, 0], [0, 3, 1]])
    labels = torch.tensor([0, 1, 1, 0])
    metrics = classification_metrics(logits, labels, "multiclass")
    assert metrics["recall"][:2] == [0.5, 0.5]
    assert math.isnan(metrics["recall"][2])
    assert metrics["balanced_accuracy"] == 0.5
    assert 0 <= metrics["auroc"] <= 1


def test_a_label_that_is_everywhere_has_no_auroc():
    logits = torch.tensor([[1.0, 1.0], [2.0, -1.0], [0.5, 2.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    metrics = classification_metrics(logits, labels, "multilabel")
    assert metrics["auroc"] == 0.5  # that of the second label
    assert metrics["recall"] == [1.0, 0.5]


def test_only_one_class():
    metrics = classification_metrics(torch.tensor([1.0, 2.0]), torch.tensor([1, 1]), "binary")
    assert math.isnan(metrics["auroc"])
    assert math.isnan(metrics["recall"][0])
    assert (metrics["recall"][1], metrics["balanced_accuracy"], metrics["accuracy"]) == (1, 1, 1)


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 7), ("multilabel", 4)])
def test_kerass_area_equals_counting_at_its_thresholds(task, classes):
    logits, labels = split(task, classes)
    scores = probabilities(logits, task)
    truth = np.eye(classes)[labels] if task == "multiclass" else labels.numpy()
    p, y = scores.ravel(), truth.reshape(scores.shape).ravel() == 1
    ends = [-1e-7, *(k / 199 for k in range(1, 199)), 1 + 1e-7]
    x, height = (np.array([(p[group] > t).mean() for t in ends]) for group in (~y, y))
    by_hand = sum((x[k] - x[k + 1]) * (height[k] + height[k + 1]) / 2 for k in range(199))
    found = classification_metrics(logits, labels, task)["keras_auc"]
    assert found == pytest.approx(by_hand, abs=1e-12)
    # Two hundred thresholds move the area by less than a thousandth where scores are spread.
    micro = roc_auc_score(truth.reshape(scores.shape), scores, average="micro")
    assert found == pytest.approx(micro, abs=1e-3)


def test_kerass_area_of_a_common_class_is_far_above_the_mean_over_classes():
    # Nothing is known but that the last class is common: no order within any class.
    logits = torch.tensor([0.0, 0.0, 3.0]).repeat(10, 1)
    labels = torch.tensor([0, 1, 2, 2, 2, 2, 2, 2, 2, 2])
    found = classification_metrics(logits, labels, "multiclass")
    assert found["auroc"] == 0.5
    # High scores: 8 of the 10 ones, 2 of the 20 zeros; the rest is low, and ties count one half.
    assert found["keras_auc"] == pytest.approx(0.8 * 0.9 + (0.8 * 0.1 + 0.2 * 0.9) / 2)


def test_what_lies_between_two_thresholds_is_a_tie():
    truth = np.array([0, 1, 0, 1])
    assert keras_auc(np.array([0.0010, 0.0011, 0.0012, 0.0013]), truth) == 0.5
    assert keras_auc(np.array([0.1, 0.7, 0.2, 0.9]), truth) == 1
    assert keras_auc(np.array([0.0, 1.0, 0.0, 1.0]), truth) == 1
    assert keras_auc(np.array([1.0, 0.0, 1.0, 0.0]), truth) == 0
    # On a threshold is not above it: 1 / 199 ties with all that is below.
    assert keras_auc(np.array([0.0, 1 / 199]), np.array([0, 1])) == 0.5


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_kerass_area_of_one_class_is_zero(labels):
    assert keras_auc(np.array([0.2, 0.8]), np.array(labels)) == 0


@given(st.integers(2, 60), st.integers(0, 1000), st.integers(2, 400))
def test_kerass_area_goes_to_the_area_with_more_thresholds(n, seed, thresholds):
    random = np.random.default_rng(seed)
    truth = np.append([0, 1], random.integers(0, 2, n - 2))
    scores = random.random(n)
    assert 0 <= keras_auc(scores, truth, thresholds) <= 1
    fine = keras_auc(scores, truth, 2_000_001)
    assert fine == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
    # Every pair that a threshold does not part counts one half.
    cells = np.maximum(np.ceil(scores.astype(np.float32) * np.float32(thresholds - 1)), 1)
    assert keras_auc(scores, truth, thresholds) == pytest.approx(roc_auc_score(truth, cells))


@pytest.mark.parametrize(
    ("scores", "truth", "thresholds", "message"),
    [
        ([0.5], [0, 1], 200, r"scores have shape \(1,\) and truth \(2,\)"),
        ([], [], 200, "with a sample or more"),
        ([0.5, 1.5], [0, 1], 200, "probabilities in"),
        ([0.5, np.nan], [0, 1], 200, "probabilities in"),
        ([0.5, 0.5], [0, 2], 200, "one-hot labels"),
        ([0.5, 0.5], [0, 1], 1, "thresholds is 1"),
    ],
)
def test_kerass_area_refuses(scores, truth, thresholds, message):
    with pytest.raises(ValueError, match=message):
        keras_auc(np.array(scores), np.array(truth), thresholds)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_binary_shapes(shape):
    logits, labels = torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([0, 1, 0, 1])
    expected = classification_metrics(logits, labels, "binary")
    for labels_shape in ((4,), (4, 1)):
        given = classification_metrics(logits.view(shape), labels.view(labels_shape), "binary")
        assert given == expected


def test_half_precision_and_gradients_are_taken_as_they_are():
    logits, labels = split("multiclass", 4)
    given = classification_metrics(logits.bfloat16().requires_grad_(), labels, "multiclass")
    exact = classification_metrics(logits.bfloat16().double(), labels, "multiclass")
    assert given == exact


@pytest.mark.parametrize(
    ("logits", "labels", "task", "message"),
    [
        (
            torch.zeros(0, 3),
            torch.zeros(0).long(),
            "multiclass",
            "no sample .*: the split is empty",
        ),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "multiclass", "labels go from 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 2]), "multiclass", r"logits \(2, 3\) and target"),
        (
            torch.tensor([0, torch.nan]),
            torch.tensor([0, 1]),
            "binary",
            "logits hold NaN or infinite",
        ),
        (torch.tensor([0, torch.inf]), torch.tensor([0, 1]), "binary", "the model has diverged"),
        (
            [0.0, 1.0],
            torch.tensor([0, 1]),
            "binary",
            "logits is a list; it must be",
        ),
        (torch.zeros(2), np.array([0, 1]), "binary", "target is a ndarray; it must be"),
        (torch.tensor([0, 1]), torch.tensor([0, 1]), "binary", "logits are torch.int64; they must"),
    ],
)
def test_refuses(logits, labels, task, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(logits, labels, task)


def test_number_of_bins():
    logits, labels = split("binary", 2)
    scores = probabilities(logits, "binary").ravel()
    right = (scores > 0.5) == labels.numpy()
    expected = abs((np.maximum(scores, 1 - scores) - right).mean())
    assert expected_calibration_error(logits, labels, "binary", bins=1) == pytest.approx(expected)


# ---------------------------------------------------------------- reliability

TASKS = [("binary", 2), ("multiclass", 7), ("multilabel", 4)]


def test_reliability_metrics_are_no_columns_of_the_ledger():
    logits, labels = split("binary", 2)
    assert tuple(reliability_metrics(logits, labels, "binary")) == RELIABILITY_METRICS
    assert not set(RELIABILITY_METRICS) & set(METRICS)


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_brier_equals_scikit_learns_label_by_label(task, classes):
    logits, labels = split(task, classes)
    scores = probabilities(logits, task)
    truth = np.eye(classes)[labels] if task == "multiclass" else labels.numpy()
    pairs = zip(scores.T, truth.reshape(scores.shape).T, strict=True)
    each = [brier_score_loss(y, p) for p, y in pairs]
    expected = sum(each) if task == "multiclass" else np.mean(each)
    assert reliability_metrics(logits, labels, task)["brier"] == pytest.approx(expected, abs=1e-12)


def confidence_and_error(logits, labels, task):
    scores = probabilities(logits, task)
    if task == "multiclass":
        return scores.max(1), (scores.argmax(1) != labels.numpy()).astype(float)
    scores, truth = scores.ravel(), labels.numpy().ravel() > 0.5
    return np.maximum(scores, 1 - scores), ((scores > 0.5) != truth).astype(float)


@pytest.mark.parametrize("levels", [None, 6])
@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_selective_risk_is_the_mean_over_all_orders_of_what_ties(task, classes, levels):
    logits, labels = split(task, classes)
    if levels:  # many ties
        logits = (logits * levels / 4).round()
    confidence, error = confidence_and_error(logits, labels, task)
    confidence, random = confidence.round(12), np.random.default_rng(0)
    n, orders = len(error), 1 if levels is None else 4000
    kept = np.arange(1, n + 1)
    errors = np.zeros(n)
    for _ in range(orders):
        errors += error[np.lexsort((random.random(n), -confidence))].cumsum() / orders
    found = reliability_metrics(logits, labels, task)
    near = {"abs": 1e-12 if levels is None else 2e-3}
    assert found["aurc"] == pytest.approx((errors / kept).mean(), **near)
    expected = integrate.trapezoid(np.append(0, errors) / n, dx=1 / n)
    assert found["augrc"] == pytest.approx(expected, **near)


@given(st.integers(2, 50), st.integers(0, 1000), st.sampled_from([0.5, 1.0, 2.0]))
def test_augrc_is_the_failure_auroc_in_other_words(n, seed, scale):
    # Traub et al. (2024): (1 - AUROC of the confidence for being right) acc (1 - acc) plus
    # (1 - acc)^2 / 2; ties count one half in both.
    random = np.random.default_rng(seed)
    logits = torch.tensor(random.normal(size=(n, 4)) * scale).round()
    labels = torch.tensor(random.integers(0, 4, n))
    wrong = logits.argmax(1) != labels
    error, order = wrong.double().mean().item(), None
    if 0 < error < 1:
        rest = logits.sort(1).values.numpy()
        confidence = rest[:, -1] - np.logaddexp.reduce(rest[:, :-1], axis=1)
        order = roc_auc_score(~wrong.numpy(), confidence.round(12))
    expected = error**2 / 2 + (0 if order is None else (1 - order) * error * (1 - error))
    found = reliability_metrics(logits, labels, "multiclass")
    assert found["augrc"] == pytest.approx(expected, abs=1e-9)
    assert 0 <= found["augrc"] <= 0.5


def test_selective_prediction_in_known_cases():
    logits = torch.tensor([4.0, 3.0, 2.0, 1.0])

    def areas(labels):
        found = reliability_metrics(logits, torch.tensor(labels), "binary")
        return found["aurc"], found["augrc"]

    assert areas([1, 1, 1, 1]) == (0, 0)
    assert areas([0, 0, 0, 0]) == (1, 0.5)
    # Wrong where it is least sure, and where it is most sure.
    assert areas([1, 1, 1, 0]) == pytest.approx((1 / 16, 1 / 32))
    assert areas([0, 1, 1, 1]) == pytest.approx(((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, 7 / 32))


def test_a_confidence_that_says_nothing_has_the_risk_of_all():
    logits, labels = torch.tensor([[0.0, 2, 1], [2, 1, 0], [1, 0, 2]]), torch.tensor([1, 0, 1])
    coverage, risk = risk_coverage(logits, labels, "multiclass")
    np.testing.assert_allclose(coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(risk, [1 / 3] * 3)


def test_confidences_near_one_keep_their_order():
    logits = torch.tensor([[0, 43.0], [0, 42], [0, 41], [0, 40]])
    labels = torch.tensor([1, 1, 1, 0])
    two = reliability_metrics(logits, labels, "multiclass")
    one = reliability_metrics(logits[:, 1], labels, "binary")
    assert two["augrc"] == one["augrc"] == 1 / 32
    assert two["aurc"] == one["aurc"] == 1 / 16
    assert two["brier"] == pytest.approx(2 * one["brier"])


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_pseudovalues_are_those_of_leaving_each_sample_out(task, classes, levels):
    logits, labels = split(task, classes, n=60)
    if task == "multiclass":
        labels = torch.arange(60) % classes
    if levels:
        logits = (logits * levels / 4).round()
    n, area = len(logits), auroc(logits, labels, task)
    kept = [torch.arange(n) != i for i in range(n)]
    expected = [n * area - (n - 1) * auroc(logits[own], labels[own], task) for own in kept]
    found = auroc_pseudovalues(logits, labels, task)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.mean() == pytest.approx(area, abs=1e-12)


def test_pseudovalues_leave_out_a_class_without_an_area():
    logits, labels = split("multiclass", 4)
    more = torch.cat([logits, torch.full((len(logits), 1), -50.0)], 1)
    np.testing.assert_allclose(
        auroc_pseudovalues(more, labels, "multiclass"),
        auroc_pseudovalues(logits, labels, "multiclass"),
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1, 1, 1], "there is no AUROC"), ([0, 1, 1], "leave out classes with a single sample")],
)
def test_pseudovalues_refuse(labels, message):
    with pytest.raises(ValueError, match=message):
        auroc_pseudovalues(torch.tensor([0.0, 1, 2]), torch.tensor(labels), "binary")


@pytest.mark.parametrize("call", [reliability_metrics, risk_coverage, auroc_pseudovalues])
def test_reliability_refuses_as_the_other_metrics_do(call):
    with pytest.raises(ValueError, match="the split is empty"):
        call(torch.zeros(0), torch.zeros(0).long(), "binary")
    with pytest.raises(ValueError, match="NaN or infinite"):
        call(torch.tensor([0, torch.nan]), torch.tensor([0, 1]), "binary")
