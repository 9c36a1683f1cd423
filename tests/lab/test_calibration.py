from __future__ import annotations

import numpy as np
import pytest
import torch

from varreg.lab.calibration import LARGEST, fit_temperature, reliability_curve
from varreg.lab.metrics import cross_entropy, expected_calibration_error


def calibrated(task, n=20_000, classes=5):
    """Logits and labels that are drawn from just these logits."""
    random = torch.Generator().manual_seed(0)
    if task == "multiclass":
        logits = 1.5 * torch.randn(n, classes, generator=random, dtype=torch.float64)
        return logits, torch.multinomial(logits.softmax(1), 1, generator=random).view(-1)
    logits = 1.5 * torch.randn(n, generator=random, dtype=torch.float64)
    return logits, torch.bernoulli(logits.sigmoid(), generator=random).long()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_a_temperature_undoes_a_factor_on_calibrated_logits(task, factor):
    logits, labels = calibrated(task)
    found = fit_temperature(factor * logits, labels, task)
    assert found == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_temperature_is_where_a_grid_in_numpy_has_its_minimum(task):
    logits, labels = (part[:300] for part in calibrated(task))
    x, y = 2.0 * logits.numpy(), labels.numpy()
    grid = np.geomspace(1.2, 3.5, 20_001)
    if task == "binary":
        signed = np.where(y == 1, -x, x)
        losses = [np.logaddexp(0, signed / t).mean() for t in grid]
    else:
        own = x[np.arange(len(y)), y]
        losses = [(np.log(np.exp(x / t).sum(1)) - own / t).mean() for t in grid]
    found = fit_temperature(torch.from_numpy(x), labels, task)
    assert found == pytest.approx(grid[np.argmin(losses)], rel=1e-4)
    loss = cross_entropy(torch.from_numpy(x) / found, labels, task)
    assert loss == pytest.approx(min(losses), abs=1e-9)


def test_a_temperature_has_bounds_where_none_is_the_best():
    logits = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    right = fit_temperature(logits, (logits > 0).long(), "binary")
    wrong = fit_temperature(logits, (logits < 0).long(), "binary")
    # Far down the loss of perfect predictions is flat to the last bit.
    assert 1 / LARGEST <= right < 0.1
    assert wrong == pytest.approx(LARGEST, rel=1e-4)
    with pytest.raises(ValueError, match="the split is empty"):
        fit_temperature(torch.zeros(0), torch.zeros(0).long(), "binary")


def test_a_temperature_of_many_labels_is_where_a_grid_has_its_minimum():
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(200, 3, generator=random, dtype=torch.float64)
    labels = torch.bernoulli((logits / 2).sigmoid(), generator=random)
    grid = np.geomspace(1.2, 3.5, 5001)
    x = np.where(labels.numpy() == 1, -logits.numpy(), logits.numpy())
    losses = [np.logaddexp(0, x / t).mean() for t in grid]
    found = fit_temperature(logits.requires_grad_(), labels, "multilabel")
    assert found == pytest.approx(grid[np.argmin(losses)], rel=1e-3)


def test_a_temperature_is_one_where_none_is_better():
    assert fit_temperature(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), "multiclass") == 1.0
    sure = torch.tensor([-1e4, 1e4])  # no loss left to lower
    assert fit_temperature(sure, torch.tensor([0, 1]), "binary") == 1.0


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_curve_is_a_loop_over_the_bins(task, bins):
    logits, labels = (part[:500] for part in calibrated(task))
    curve = reliability_curve(logits, labels, task, bins=bins)
    p = logits.softmax(1) if task == "multiclass" else torch.stack([-logits, logits], 1).sigmoid()
    confidence, predicted = (part.numpy() for part in p.max(1))
    right = predicted == labels.numpy()
    assert curve["n"].sum() == 500
    for b, row in enumerate(curve.itertuples()):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        assert (row.low, row.high, row.n) == (b / bins, (b + 1) / bins, inside.sum())
        expected = [part[inside].mean() if inside.any() else np.nan for part in (confidence, right)]
        np.testing.assert_allclose([row.confidence, row.accuracy], expected)
    gap = (curve["n"] * (curve["confidence"] - curve["accuracy"]).abs()).sum() / 500
    assert gap == pytest.approx(expected_calibration_error(logits, labels, task, bins=bins))


def test_predictions_that_are_all_sure_lie_in_the_last_bin():
    curve = reliability_curve(torch.full((3,), 1e3), torch.tensor([1, 1, 0]), "binary")
    assert curve["n"].tolist() == [0] * 14 + [3]
    assert curve["confidence"].iloc[-1] == 1


@pytest.mark.parametrize("bins", [0, -3, 2.5, None])
def test_bins_are_counted(bins):
    for call in (reliability_curve, expected_calibration_error):
        with pytest.raises(ValueError, match=r"bins is .*it must be (an integer|1 or more)"):
            call(torch.zeros(2), torch.tensor([0, 1]), "binary", bins=bins)
