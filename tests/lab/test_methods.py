from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from varreg.lab import runs
from varreg.lab.augment import mixup, two_views
from varreg.lab.datasets import load
from varreg.lab.methods import METHODS, Method
from varreg.lab.runs import RunSpec, execute, run_all
from varreg.lab.steps import Averaging, sharpness_aware
from varreg.loss import LossParts, PenalizedLoss, smoothed_cross_entropy

STRENGTHS = {"dropout": 0.5, "averaged_weights": 0.5, "label_smoothing": 0.1}


def spec(method: str, dataset: str = "phantom", **given: object) -> RunSpec:
    entry = METHODS[method]
    usual = {"study": "try", "size": 16, "epochs": 2, "seed": 0, "batch_size": 16}
    if entry.strength:
        usual["strength"] = STRENGTHS.get(method, 0.05)
    if entry.weighted:
        usual["variance_weight"] = 0.1
    return RunSpec(dataset=dataset, method=method, **(usual | given))


@cache
def outcome(method: str, dataset: str = "phantom") -> tuple[list[float], list[float]]:
    row, curve = execute(spec(method, dataset, epochs=1 if dataset == "phantom7" else 2))
    metrics = [row[name] for name in row if name.endswith(("cross_entropy", "auroc"))]
    return metrics, [value for epoch in curve for value in epoch.values()]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_changes_something_and_repeats(method):
    found = outcome(method)
    assert found == outcome.__wrapped__(method)
    assert all(math.isfinite(value) for part in found for value in part)
    assert method == "baseline" or found[0] != outcome("baseline")[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_several_classes(method):
    assert all(math.isfinite(value) for part in outcome(method, "phantom7") for value in part)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].reference != name])
def test_what_a_method_is_compared_with_is_a_method(method):
    assert METHODS[method].reference in METHODS
    assert METHODS[method].title


@pytest.mark.parametrize("method", ["feature_l2", "head_weighted_self", "dropout"])
def test_methods_go_with_augmentation(method):
    plain, augmented = (execute(spec(method, augment=augment))[0] for augment in (False, True))
    assert plain["train_cross_entropy"] != augmented["train_cross_entropy"]
    assert plain["key"] != augmented["key"]


def test_a_method_is_one_entry(tmp_path, monkeypatch):
    shown = Method(title="logits shrunk", strength="weight", changes=METHODS["logit_l2"].changes)
    monkeypatch.setitem(METHODS, "shrunk", shown)
    own, known = (run_all([spec(m)], results=tmp_path).iloc[0] for m in ("shrunk", "logit_l2"))
    assert own["test_cross_entropy"] == known["test_cross_entropy"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_smoothed_labels_are_the_mean_with_equal_probabilities(task):
    torch.manual_seed(0)
    logits = torch.randn(6, 1 if task == "binary" else 4, dtype=torch.float64)
    target = torch.randint(0, 2, (6, 4) if task == "multilabel" else (6,))
    found = smoothed_cross_entropy(logits, target, task, 0.3).item()
    x, y = logits.numpy(), target.numpy()
    if task == "multiclass":
        log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
        q = 0.7 * np.eye(4)[y] + 0.3 / 4
        expected = -(q * log_p).sum(1).mean()
    else:
        q = 0.7 * y.reshape(x.shape) + 0.15
        expected = (np.log1p(np.exp(x)) - q * x).mean()
    assert found == pytest.approx(expected, rel=1e-6)


def test_mixup_mixes_images_and_labels_by_one_share():
    random = torch.Generator().manual_seed(3)
    images = torch.arange(5.0).view(5, 1)
    labels = torch.arange(5)
    mixed, counted, target = mixup(images, labels, random, alpha=0.7, n_classes=5)
    assert torch.equal(counted, labels)
    torch.testing.assert_close(target @ images, mixed)
    assert (target.argmax(1) == labels).all()
    with pytest.raises(ValueError, match="alpha is 0; it must be finite and greater than 0"):
        mixup(images, labels, random, alpha=0)


def test_shares_of_mixup_are_those_of_a_beta_distribution():
    random = torch.Generator().manual_seed(0)
    images, labels = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
    shares = []
    for _ in range(4000):
        mixed, _, _ = mixup(images, labels, random, alpha=0.4)
        if mixed[0] != images[0]:
            shares.append(1 - mixed[0].item())
    drawn = np.random.default_rng(0).beta(0.4, 0.4, 40_000)
    assert np.mean(shares) == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.015)


def test_two_views_are_half_of_the_batch_twice():
    images, labels = torch.rand(9, 1, 8, 8), torch.arange(9)
    views, counted, target = two_views(images, labels, torch.Generator().manual_seed(0))
    assert len(views) == 8
    assert counted.tolist() == target.tolist() == [0, 1, 2, 3] * 2
    first, second = views[:4], views[4:]
    assert (first - second).abs().max() > 0


def test_a_sharpness_aware_step_takes_the_gradient_at_the_worst_place_nearby():
    weight = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))

    def passed() -> tuple[LossParts, torch.Tensor]:
        loss = (weight**2).sum() / 2  # its gradient is the weight itself
        return LossParts(loss, loss, loss), weight

    sharpness_aware(passed, torch.optim.SGD([weight], lr=0.1), radius=1.0)
    expected = torch.tensor([3.0, 4.0]) * (1 - 0.1 * (1 + 1 / 5))
    torch.testing.assert_close(weight.data, expected.double())


def test_averaged_weights_are_what_is_kept():
    model = nn.Linear(1, 1)
    average, expected = Averaging(model, 0.9), None
    for value in (1.0, 5.0, -2.0):
        nn.init.constant_(model.weight, value)
        average.update()
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    with average.shown():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == -2.0
    with pytest.raises(ValueError, match=r"averaging is 1; it must lie in \(0, 1\)"):
        Averaging(model, 1)


def test_soft_labels_are_the_mean_over_the_classes():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 3), torch.rand(4, 3).softmax(1)
    criterion = PenalizedLoss("multiclass", lambda features: features.var(), 0.0)
    found = criterion(logits, target, torch.rand(4, 2)).cross_entropy
    by_class = torch.stack(
        [F.cross_entropy(logits, torch.full((4,), k), reduction="none") for k in range(3)], 1
    )
    torch.testing.assert_close(found, (target * by_class).sum(1).mean())
    with pytest.raises(ValueError, match="its rows add up to"):
        criterion(logits, 2 * target, torch.rand(4, 2))


def test_plain_methods_alone_train_side_by_side():
    data = load("phantom", size=16)
    for name, method in METHODS.items():
        changes = method.changes(STRENGTHS.get(name, 0.05), data)
        nothing = (changes.model, changes.transform, changes.penalty, changes.classification)
        is_plain = nothing == (None,) * 4 and not changes.averaging and not changes.settings
        assert method.is_plain == (is_plain and name != "sharpness_aware")
        assert runs._can_stack(spec(name)) == method.is_plain
