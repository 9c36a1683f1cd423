from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from varreg.lab import runs
from varreg.lab.augment import mixup, two_views
from varreg.lab.datasets import load
from varreg.lab.methods import METHODS, Method
from varreg.lab.models import SmallCNN
from varreg.lab.runs import execute, run_all
from varreg.lab.specs import RunSpec
from varreg.lab.steps import Averaging, sharpness_aware
from varreg.loss import (
    LossParts,
    PenalizedLoss,
    VariancePenalizedLoss,
    smoothed_cross_entropy,
)

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


TARGET = torch.tensor([0, 1, 0, 2, 0, 1]).repeat(2)
DATA = SimpleNamespace(task="multiclass", n_outputs=3)


def batch(seed: int, change: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, logits and weights of a head, rewritten; six images and a second view of each."""
    random = np.random.default_rng(seed)
    features = random.normal(0.5, np.linspace(0.5, 2, 5), (12, 5))
    head, bias = np.random.default_rng(9).normal(size=(3, 5)), np.ones(3)
    changes = np.random.default_rng(11)
    if change == "scale":
        features, head = features * 1.7, head / 1.7
    elif change == "shift":
        shift = changes.uniform(1, 3, 5)
        features, bias = features + shift, bias - head @ shift
    elif change == "rotation":
        turn = np.linalg.qr(changes.normal(size=(5, 5))).Q
        features, head = features @ turn.T, head @ turn.T
    elif change == "class":
        features = features + changes.uniform(1, 3, (3, 5))[TARGET]
    features, head, bias = map(torch.tensor, (features, head, bias))
    return features.requires_grad_(), features @ head.T + bias, head


def added(method: str, change: str) -> float:
    """What a method adds to the cross-entropy of a batch, after steps on another."""
    if METHODS[method].weighted:
        share = 0.6 if method == "penalized" else 1.0
        criterion = VariancePenalizedLoss("multiclass", METHODS[method].default, share)
    else:
        criterion = METHODS[method].changes(METHODS[method].default, DATA).criterion("multiclass")
    for seed in [1] * 80 + [2]:
        torch.manual_seed(0)
        features, logits, head = batch(seed, change)
        given = {} if METHODS[method].weighted else {"head_weight": head}
        parts = criterion(logits, TARGET, features, **given)
    return (parts.total - F.cross_entropy(logits, TARGET)).item()


ADDING = [name for name in METHODS if METHODS[name].unchanged]


@pytest.mark.parametrize("change", ["scale", "shift", "rotation", "class"])
@pytest.mark.parametrize("method", ADDING)
def test_what_is_added_is_unchanged_by_what_the_entry_says_and_by_nothing_else(method, change):
    before, after = added(method, "none"), added(method, change)
    assert abs(before) > 1e-9
    same = after == pytest.approx(before, rel=1e-6)
    assert same == (change in METHODS[method].unchanged.split())


def test_every_entry_says_what_it_does_and_where_to_start():
    for name, method in METHODS.items():
        assert bool(method.formula) == (name != "baseline")
        assert (method.default > 0) == bool(method.strength or method.weighted)
        adds = method.weighted or (method.strength and method.changes(0.5, DATA).own_loss)
        assert (name in ADDING) == bool(adds)


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


def test_center_loss_with_running_centers_equals_a_reference_in_numpy():
    """The rule of Wen et al.: a center moves by half of its summed distances over 1 + n."""
    penalty = METHODS["center_loss"].changes(1.0, DATA).penalty
    random, centers = np.random.default_rng(0), np.zeros((3, 4))
    for _ in range(6):
        features, labels = random.normal(size=(9, 4)), random.integers(0, 3, 9)
        expected = ((features - centers[labels]) ** 2).sum(1).mean() / 2
        for training in (False, False, True):  # validation moves no center
            penalty.train(training)
            found = penalty(torch.tensor(features), torch.tensor(labels))
            assert found.item() == pytest.approx(expected, rel=1e-12)
        for label in range(3):
            mine = features[labels == label]
            centers[label] -= 0.5 * (centers[label] - mine).sum(0) / (1 + len(mine))


def test_l2_of_the_head_equals_a_reference_in_numpy():
    head = np.random.default_rng(0).normal(size=(3, 5))
    found = METHODS["head_decay"].changes(1.0, DATA).penalty(torch.tensor(head))
    assert found.item() == pytest.approx((head**2).sum() / 2, rel=1e-12)


@pytest.mark.parametrize("method", ["view_variance", "logit_view_variance"])
def test_variances_over_two_views_equal_a_reference_in_numpy_and_validation_has_none(method):
    random = np.random.default_rng(0)
    features, logits = random.normal(size=(8, 5)), random.normal(size=(8, 3))
    penalty = METHODS[method].changes(1.0, DATA).penalty
    values = logits if "logit" in method else features
    expected = values.reshape(2, 4, -1).var(0).mean()  # the second views stand behind the first
    given = torch.tensor(features), torch.tensor(logits)
    assert penalty(*given).item() == pytest.approx(expected, rel=1e-12)
    assert penalty.eval()(*given).item() == 0


def test_dropout_drops_a_share_of_the_features_and_enlarges_the_rest():
    network = METHODS["dropout"].changes(0.35, DATA).model(SmallCNN(1, 8, 3))
    features = np.random.default_rng(0).normal(size=(400, 60))
    dropped = network.head[0](torch.tensor(features)).numpy()
    kept = dropped != 0
    np.testing.assert_allclose(dropped, np.where(kept, features / 0.65, 0), rtol=1e-12)
    assert kept.mean() == pytest.approx(0.65, abs=0.015)
    assert np.ptp(kept.mean(0)) < 0.2  # each feature alike
    np.testing.assert_array_equal(network.eval().head[0](torch.tensor(features)), features)


@pytest.mark.parametrize("n_classes", [None, 3])
def test_mixup_equals_a_reference_in_numpy(n_classes):
    images, labels = torch.rand(7, 1, 4, 4, dtype=torch.float64), torch.arange(7) % (n_classes or 2)
    drawn = torch.Generator().manual_seed(3)
    first, second = torch._standard_gamma(torch.full((2,), 0.7), generator=drawn).double().tolist()
    partner = torch.randperm(7, generator=drawn).numpy()
    share = max(first, second) / (first + second)
    x = images.numpy()
    y = labels.numpy() if n_classes is None else np.eye(n_classes)[labels.numpy()]
    mixed, counted, target = mixup(
        images, labels, torch.Generator().manual_seed(3), alpha=0.7, n_classes=n_classes
    )
    np.testing.assert_allclose(mixed, share * x + (1 - share) * x[partner], rtol=1e-6)
    np.testing.assert_allclose(target, share * y + (1 - share) * y[partner], rtol=1e-5, atol=1e-7)
    assert torch.equal(counted, labels)
    with pytest.raises(ValueError, match="alpha is 0; it must be finite and greater than 0"):
        mixup(images, labels, drawn, alpha=0)


def test_mixup_of_numbered_images_keeps_each_above_all_itself():
    random = torch.Generator().manual_seed(3)
    images, labels = torch.arange(5.0).view(5, 1), torch.arange(5)
    mixed, _, target = mixup(images, labels, random, alpha=0.7, n_classes=5)
    torch.testing.assert_close(target @ images, mixed)
    assert (target.argmax(1) == labels).all()


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


def test_sharpness_aware_steps_equal_a_reference_in_numpy():
    """Five steps of logistic regression with a bias, whose gradient is written out."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(9, 4)), random.integers(0, 2, 9)
    model = nn.Linear(4, 1).double()
    w = np.append(model.weight.detach().numpy().ravel(), model.bias.item())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def passed() -> tuple[LossParts, torch.Tensor]:
        logits = model(torch.tensor(x)).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(logits, torch.tensor(y).double())
        return LossParts(loss, loss, loss), logits

    def gradient(at: np.ndarray) -> np.ndarray:
        ones = np.column_stack([x, np.ones(9)])
        return ones.T @ (1 / (1 + np.exp(-ones @ at)) - y) / 9

    for _ in range(5):
        parts, logits = sharpness_aware(passed, optimizer, radius=0.3)
        np.testing.assert_allclose(logits.detach(), x @ w[:4] + w[4], rtol=1e-9)
        assert parts.total.item() == pytest.approx(
            np.mean(np.log1p(np.exp(logits.detach().numpy())) - y * logits.detach().numpy())
        )
        here = gradient(w)
        w = w - 0.5 * gradient(w + 0.3 * here / np.linalg.norm(here))
    found = np.append(model.weight.detach().numpy().ravel(), model.bias.item())
    np.testing.assert_allclose(found, w, rtol=1e-9)


def test_averaged_weights_equal_a_reference_in_numpy():
    """Shares d^(n - 1) of the first step and (1 - d) d^(n - t) of each later one."""
    model, passed = nn.Linear(3, 2).double(), np.random.default_rng(0).normal(size=(12, 2, 3))
    average = Averaging(model, 0.9)
    for value in passed:
        model.weight.data = torch.tensor(value)
        average.update()
    shares = np.append(1.0, np.full(11, 0.1)) * 0.9 ** np.arange(11, -1, -1)
    assert shares.sum() == pytest.approx(1)
    with average.shown():
        np.testing.assert_allclose(
            model.weight.detach(), np.tensordot(shares, passed, 1), rtol=1e-12
        )
    np.testing.assert_array_equal(model.weight.detach(), passed[-1])
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
