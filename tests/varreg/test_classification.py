"""Any classification loss, any kind of labels, maps, and batches that are too small."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varreg import (
    NonFiniteFeaturesError,
    PenalizedLoss,
    SmallBatchError,
    VariancePenalizedLoss,
    feature_variance,
    penalties,
    per_channel,
)
from varreg.loss import cross_entropy, smoothed_cross_entropy
from varreg.weights import GradientRatio, RunningQuantile, TargetWeight, WarmUp


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def labels(*shape: int, classes: int = 3) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


def log_softmax(logits: Tensor) -> np.ndarray:
    return scipy.special.log_softmax(logits.detach().numpy(), axis=1)


def nll(logits: Tensor, target: Tensor) -> np.ndarray:
    """Minus the log-probability of each label, in NumPy; any axes for place."""
    chosen = np.expand_dims(target.numpy(), 1)
    return -np.take_along_axis(log_softmax(logits), chosen, axis=1)[:, 0]


def variance(features: Tensor) -> float:
    return features.detach().flatten(1).numpy().var(0).mean()


def focal(logits: Tensor, target: Tensor) -> Tensor:
    each = F.cross_entropy(logits, target, reduction="none")
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


# ---------------------------------------------------------------- the loss of one's choice


def expected_of(name: str, logits: Tensor, target: Tensor) -> float:
    each = nll(logits, target)
    if name == "class weights":
        weights = np.array([1.0, 2.0, 5.0])[target]
        return (weights * each).sum() / weights.sum()
    if name == "label smoothing":
        return (0.9 * each - 0.1 * log_softmax(logits).mean(1)).mean()
    return ((1 - np.exp(-each)) ** 2 * each).mean()


LOSSES = {
    "class weights": nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]).double()),
    "label smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "smoothed": partial(smoothed_cross_entropy, task="multiclass", smoothing=0.1),
    "focal": focal,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(8,), (4, 5, 6)])
def test_own_loss_is_minimized_and_the_cross_entropy_reported(name, shape):
    logits, target = noise(shape[0], 3, *shape[1:], seed=2), labels(*shape)
    features = noise(shape[0], 7)
    criterion = VariancePenalizedLoss("multiclass", 0.3, lambda_=0.5, classification=LOSSES[name])
    parts = criterion(logits, target, features)
    expected = expected_of("label smoothing" if name == "smoothed" else name, logits, target)
    assert parts.cross_entropy.item() == pytest.approx(nll(logits, target).mean())
    assert parts.total.item() == pytest.approx(0.5 * expected + 0.3 * variance(features))
    held = criterion.eval()(logits, target, features)
    assert held.total.item() == pytest.approx(
        0.5 * nll(logits, target).mean() + 0.3 * variance(features)
    )


def test_both_criteria_share_one_mechanism():
    logits, target, features = noise(8, 3), labels(8), noise(8, 7)
    one = VariancePenalizedLoss("multiclass", 0.3, classification=focal)
    other = PenalizedLoss("multiclass", feature_variance, 0.3, classification=focal)
    assert one(logits, target, features) == other(logits, target, features)
    assert isinstance(one, PenalizedLoss)
    assert "classification=focal" in repr(one)
    assert "(classification): CrossEntropyLoss()" in repr(
        VariancePenalizedLoss("multiclass", classification=nn.CrossEntropyLoss())
    )


def test_soft_labels():
    logits, features = noise(6, 3), noise(6, 4)
    target = torch.softmax(noise(6, 3, seed=5), 1)
    parts = VariancePenalizedLoss("multiclass")(logits, target, features)
    expected = -(target.numpy() * log_softmax(logits)).sum(1).mean()
    assert parts.cross_entropy.item() == pytest.approx(expected)


def test_ordinal_labels_are_several_questions():
    """Is the grade above 0, above 1, above 2?"""
    grades, logits, features = labels(9, classes=4), noise(9, 3), noise(9, 4)
    target = (grades[:, None] > torch.arange(3)).float()
    parts = VariancePenalizedLoss("multilabel")(logits, target, features)
    above = np.array([[grade > level for level in range(3)] for grade in grades.tolist()])
    each = np.logaddexp(0, np.where(above, -1, 1) * logits.numpy())
    assert parts.cross_entropy.item() == pytest.approx(each.mean())


@pytest.mark.parametrize("training", [True, False])
def test_without_a_task_the_own_loss_is_all_there_is(training):
    """Ages, whose loss is a squared error."""
    predicted, ages, features = noise(8, 1), noise(8, 1, seed=3), noise(8, 5)
    criterion = VariancePenalizedLoss(None, 0.3, classification=nn.MSELoss()).train(training)
    parts = criterion(predicted, ages, features)
    expected = np.mean((predicted.numpy() - ages.numpy()) ** 2)
    assert parts.cross_entropy.item() == pytest.approx(expected)
    assert criterion.cross_entropy(predicted, ages).item() == pytest.approx(expected)
    assert parts.total.item() == pytest.approx(expected + 0.3 * variance(features))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classification": "focal"}, r"classification is 'focal'; it must be a function of logit"),
        ({"task": None}, r"task is None; allowed are binary, multiclass, multilabel"),
        ({"task": 3, "classification": focal}, r"task is 3; allowed are"),
        ({"ignore_index": 1.0}, r"ignore_index is 1.0; it must be an integer"),
        ({"ignore_index": True}, r"ignore_index is True; it must be an integer"),
        ({"small_batch": "drop"}, r"small_batch is 'drop'; allowed are raise, skip"),
        ({"small_batch": None}, r"small_batch is None; allowed"),
        ({"sync": "yes"}, r"sync is 'yes'; it must be True or False"),
        ({"sync": 1}, r"sync is 1; it must be True or False"),
        ({"sync": None}, r"sync is None; it must be True or False"),
    ],
)
def test_settings_that_are_refused(settings, message):
    settings = {"task": "multiclass"} | settings
    with pytest.raises(ValueError, match=message):
        VariancePenalizedLoss(**settings)
    with pytest.raises(ValueError, match=message):
        PenalizedLoss(penalty=feature_variance, weight=1.0, **settings)


def test_a_weight_that_sets_itself_is_sent_where_it_belongs():
    with pytest.raises(ValueError, match=r"is GradientRatio\(.*must be a number.* PenalizedLoss"):
        VariancePenalizedLoss("multiclass", GradientRatio())


def test_the_usual_loss_of_binary_labels_takes_them_as_ever():
    logits, target, features = noise(8, 1), labels(8, 1, classes=2).double(), noise(8, 4)
    own = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0).double())
    parts = VariancePenalizedLoss("binary", 0.3, classification=own)(logits, target, features)
    z, y = logits.numpy(), target.numpy()
    each = np.logaddexp(0, -z) * y * 3 + np.logaddexp(0, z) * (1 - y)
    assert parts.total.item() == pytest.approx(each.mean() + 0.3 * variance(features))


def test_what_a_loss_returns_is_looked_at():
    given = noise(8, 3), labels(8), noise(8, 7)
    each = partial(F.cross_entropy, reduction="none")
    with pytest.raises(ValueError, match=r"shape \(8,\); it must return a scalar: take the mean"):
        VariancePenalizedLoss("multiclass", classification=each)(*given)
    with pytest.raises(TypeError, match="what classification returns is a float; it must be a t"):
        VariancePenalizedLoss("multiclass", classification=lambda z, y: 0.5)(*given)


def test_labels_that_are_none_of_the_task_say_what_to_do():
    criterion = VariancePenalizedLoss("multiclass", classification=focal)
    with pytest.raises(ValueError, match=r"0 to 3; with 3 logits.*ignore_index.* task=None"):
        criterion(noise(4, 3), torch.arange(4), noise(4, 7))
    with pytest.raises(ValueError, match=r"target \(4, 2\).*task=None, and classification alone"):
        criterion(noise(4, 3), torch.zeros(4, 2), noise(4, 7))


# ---------------------------------------------------------------- labels that are left out


@pytest.mark.parametrize("shape", [(8,), (8, 1), (2, 4, 5), (2, 1, 4, 5)])
@pytest.mark.parametrize("ignored", [255, -100, 1])
def test_ignored_labels_are_left_out(shape, ignored):
    target = labels(*shape)
    target.view(-1)[[0, 3, 5]] = ignored
    places = shape[1:] if len(shape) == 3 else shape[2:]
    logits, features = noise(shape[0], 3, *places), noise(shape[0], 6)
    flat = logits.movedim(1, -1).reshape(-1, 3)
    kept = target.flatten() != ignored
    expected = nll(flat[kept], target.flatten()[kept]).mean()
    own = nn.CrossEntropyLoss(ignore_index=ignored)
    for settings in ({"ignore_index": ignored}, {"classification": own}):
        if "classification" in settings and 1 in shape:
            continue  # it does not take such labels
        parts = VariancePenalizedLoss("multiclass", 0.3, **settings)(logits, target, features)
        assert parts.cross_entropy.item() == pytest.approx(expected)
        assert parts.total.item() == pytest.approx(expected + 0.3 * variance(features))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_labels_that_are_not_known(task):
    shape = (6,) if task == "binary" else (6, 2)
    logits, target, features = noise(*shape), labels(*shape, classes=2).double(), noise(6, 4)
    target[::2] = -1
    parts = VariancePenalizedLoss(task, ignore_index=-1)(logits, target, features)
    z, y = logits[1::2].numpy(), target[1::2].numpy()
    assert parts.cross_entropy.item() == pytest.approx(np.mean(np.logaddexp(0, z) - y * z))


def test_nothing_left_is_zero_with_a_gradient_of_zero():
    logits = noise(4, 3).requires_grad_()
    loss = cross_entropy(logits, torch.full((4,), 9), "multiclass", ignore_index=9)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_labels_to_leave_out_are_no_licence_for_others():
    with pytest.raises(ValueError, match=r"labels go from 0 to 7; with 3 logits"):
        cross_entropy(noise(3, 3), torch.tensor([0, 7, 9]), "multiclass", ignore_index=9)


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("places", [(4, 5), (6,), (2, 3, 4), (1, 1), (1, 6)])
def test_every_pixel_counts_alike(places):
    logits, target, features = noise(3, 4, *places), labels(3, *places), noise(3, 5, *places)
    parts = VariancePenalizedLoss("multiclass", 0.3)(logits, target, features)
    assert parts.cross_entropy.item() == pytest.approx(nll(logits, target).mean())
    assert parts.feature_variance.item() == pytest.approx(features.numpy().var(0).mean())
    with_channel = cross_entropy(logits, target.unsqueeze(1), "multiclass")
    assert with_channel == parts.cross_entropy
    soft = F.one_hot(target, 4).movedim(-1, 1).double()
    torch.testing.assert_close(cross_entropy(logits, soft, "multiclass"), parts.cross_entropy)
    smooth = smoothed_cross_entropy(logits, target, "multiclass", 0.0)
    torch.testing.assert_close(smooth, parts.cross_entropy)


@pytest.mark.parametrize("places", [(4, 5), (2, 3, 4)])
def test_binary_and_multilabel_maps(places):
    z, y = noise(3, 1, *places), labels(3, 1, *places, classes=2).double()
    expected = pytest.approx(np.mean(np.logaddexp(0, z.numpy()) - y.numpy() * z.numpy()))
    for logits in (z, z[:, 0]):
        for target in (y, y[:, 0], y.bool()):
            assert cross_entropy(logits, target, "binary").item() == expected
            value = smoothed_cross_entropy(logits, target.double(), "binary", 0.0)
            assert value.item() == expected
    z, y = noise(3, 4, *places), labels(3, 4, *places, classes=2)
    expected = pytest.approx(np.mean(np.logaddexp(0, z.numpy()) - y.numpy() * z.numpy()))
    assert cross_entropy(z, y, "multilabel").item() == expected


@pytest.mark.parametrize(
    ("task", "logits", "target"),
    [
        ("multiclass", (2, 3, 4, 5), (2, 5, 4)),
        ("multiclass", (2, 3, 4, 5), (2,)),
        ("multiclass", (2, 3, 4, 5), (40,)),
        ("multiclass", (2, 3, 4, 5), (2, 2, 4, 5)),
        ("binary", (2, 2, 4, 5), (2, 4, 5)),
        ("binary", (2, 4, 5), (2, 4, 6)),
        ("binary", (2, 1, 4, 5), (1, 2, 4, 5)),
        ("multilabel", (2, 3, 4, 5), (2, 4, 5)),
        ("multilabel", (2, 1, 4, 5), (2, 4, 5)),
    ],
)
def test_maps_that_do_not_fit(task, logits, target):
    with pytest.raises(ValueError, match=rf"{task} task with dense logits .* with the same places"):
        cross_entropy(torch.zeros(logits), torch.zeros(target, dtype=torch.int64), task)


@pytest.mark.parametrize("places", [(), (6,), (4, 5), (2, 3, 4)])
@pytest.mark.parametrize("layout", ["contiguous", "turned"])
def test_a_channel_as_a_feature(places, layout):
    features = noise(3, 5, *places)
    if layout == "turned":
        features = features.movedim(1, -1).contiguous().movedim(-1, 1)
    features.requires_grad_()
    array = features.detach().numpy()
    axes = (0, *range(2, array.ndim))
    rows = per_channel(features)
    assert rows.shape == (3 * int(np.prod(places)), 5)
    np.testing.assert_array_equal(rows.detach(), np.moveaxis(array, 1, -1).reshape(-1, 5))
    value = feature_variance(rows)
    assert value.item() == pytest.approx(array.var(axes).mean())
    (gradient,) = torch.autograd.grad(value, features)
    expected = 2 * (array - array.mean(axes, keepdims=True)) / array.size
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-14)


def test_criteria_of_channels():
    logits, target, features = noise(2, 3, 4, 5), labels(2, 4, 5), noise(2, 6, 4, 5)
    expected = features.numpy().var((0, 2, 3)).mean()
    rows = VariancePenalizedLoss("multiclass", 0.3)(
        per_channel(logits), target.flatten(), per_channel(features)
    )
    own = PenalizedLoss("multiclass", lambda features: feature_variance(per_channel(features)), 0.3)
    maps = own(logits, target, features)
    for parts in (rows, maps):
        assert parts[1].item() == pytest.approx(nll(logits, target).mean())
        assert parts[2].item() == pytest.approx(expected)
    head = nn.Conv2d(6, 3, 1).double()  # its weight is that of a linear layer of channels
    found = penalties.head_weighted_variance(per_channel(features), head.weight.flatten(1))
    array, kernel = features.numpy(), head.weight.detach().numpy()[:, :, 0, 0]
    contributions = array[:, None] * kernel[None, :, :, None, None]
    assert found.item() == pytest.approx(contributions.var((0, 3, 4)).sum(1).mean())


def test_channels_that_are_none():
    with pytest.raises(ValueError, match=r"features have shape \(3,\); expected \(N, C, ...\)"):
        per_channel(torch.zeros(3))
    with pytest.raises(TypeError, match=r"features is a list"):
        per_channel([[1.0]])


def test_an_ignored_label_is_not_taken_for_another_in_a_small_type():
    target = torch.tensor([0, 1, 255], dtype=torch.uint8)
    with pytest.raises(ValueError, match="labels go from 0 to 255"):
        cross_entropy(noise(3, 3), target, "multiclass", ignore_index=-1)
    logits = noise(3, 3)
    found = cross_entropy(logits, target, "multiclass", ignore_index=255)
    torch.testing.assert_close(found, cross_entropy(logits[:2], target[:2], "multiclass"))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
@pytest.mark.parametrize("dense", [False, True])
def test_soft_labels_of_two_classes(task, dense):
    shape = ((6,) if task == "binary" else (6, 3)) + (2, 2) * dense
    logits, target = noise(*shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)
    z, y = logits.numpy(), target.numpy()
    expected = np.mean(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))
    assert cross_entropy(logits, target, task).item() == pytest.approx(expected)
    parts = VariancePenalizedLoss(task, 0.0)(logits, target, noise(6, 4))
    assert parts.total.item() == pytest.approx(expected)
    y = 0.8 * y + 0.1
    smooth = np.mean(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))
    assert smoothed_cross_entropy(logits, target, task, 0.2).item() == pytest.approx(smooth)
    with pytest.raises(ValueError, match=r"every label must be 0 or 1, or as a probability"):
        cross_entropy(logits, 3 * target, task)


@pytest.mark.parametrize("loss", [cross_entropy, partial(smoothed_cross_entropy, smoothing=0.1)])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.zeros(2, 3), torch.tensor([0, 1]), "softmax"), "task is 'softmax'; allowed"),
        ((torch.zeros(2, 3), torch.tensor([0, 7]), "multiclass"), "labels go from 0 to 7"),
        ((torch.zeros(2), torch.tensor([0, 1, 1]), "binary"), r"both must be \(N,\)"),
        ((torch.zeros(2), [0, 1], "binary"), "target is a list"),
        ((torch.zeros(2, 2), torch.full((2, 2), 0.7), "multiclass"), "add up to"),
    ],
)
def test_what_a_cross_entropy_refuses(loss, given, message):
    with pytest.raises(ValueError, match=message):
        loss(*given)


def test_an_ignored_label_is_an_integer():
    with pytest.raises(ValueError, match=r"ignore_index is 1.5; it must be an integer"):
        cross_entropy(torch.zeros(2), torch.tensor([0, 1]), "binary", ignore_index=1.5)


# ---------------------------------------------------------------- what a penalty can change


@pytest.mark.parametrize("weight", [0.5, lambda: TargetWeight(0.5, 0.0)])
def test_a_penalty_that_reaches_the_head_is_no_matter_of_the_features(weight):
    """Frozen features: what reads the head or the logits still has something to change."""
    head, target = nn.Linear(4, 2, dtype=torch.float64), labels(8) % 2
    features = noise(8, 4)
    weight = weight() if callable(weight) else weight
    for penalty in (penalties.head_weighted_variance, penalties.logit_variance):
        criterion = PenalizedLoss("multiclass", penalty, weight)
        parts = criterion(head(features), target, features, head.weight)
        (found,) = torch.autograd.grad(parts.total - parts.cross_entropy, head.weight)
        assert found.abs().max() > 0
    with pytest.raises(ValueError, match=r"features need no gradient.*change nothing"):
        PenalizedLoss("multiclass", feature_variance, 0.5)(head(features), target, features)
    with pytest.raises(ValueError, match=r"where the layers before them are frozen use a fixed"):
        PenalizedLoss("multiclass", penalties.logit_variance, GradientRatio())(
            head(features), target, features
        )


# ---------------------------------------------------------------- small batches


@pytest.mark.filterwarnings("ignore:var.*degrees of freedom")
def test_a_penalty_of_your_own_that_one_sample_does_not_have():
    def own(features: Tensor) -> Tensor:
        return features.var(0).mean()

    features = noise(1, 4).requires_grad_()
    given = features[:, :3] * 2, labels(1), features
    with pytest.raises(SmallBatchError, match=r"penalty of one sample is NaN \(a batch of one"):
        PenalizedLoss("multiclass", own, 1.0)(*given)
    parts = PenalizedLoss("multiclass", own, 1.0, small_batch="skip")(*given)
    assert (parts.penalty, parts.total) == (0, parts.cross_entropy)


def test_a_penalty_of_your_own_that_is_not_a_number():
    features = noise(6, 4).requires_grad_()
    criterion = PenalizedLoss("multiclass", lambda features: (features - 9).log().mean(), 1.0)
    with pytest.raises(NonFiniteFeaturesError, match=r"penalty of features is NaN though they"):
        criterion(features[:, :3], labels(6), features)


@pytest.mark.parametrize("options", [{}, {"small_batch": "skip"}, {"ignore_index": 9}])
def test_a_batch_of_none_is_refused(options):
    criterion = VariancePenalizedLoss("multiclass", **options)
    with pytest.raises(ValueError, match="the batch holds no sample"):
        criterion(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))


@pytest.mark.parametrize("penalty", [feature_variance, penalties.logit_l2, penalties.decov])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_batch_of_one_is_refused_or_trains_without_the_penalty(penalty, dtype):
    features = noise(1, 4, dtype=torch.float64).to(dtype).requires_grad_()
    logits, target = features[:, :3] * 2, labels(1)
    refusing = PenalizedLoss("multiclass", penalty, 5.0)
    with pytest.raises(SmallBatchError, match=r"batch of one.*small_batch='skip'"):
        refusing(logits, target, features)
    parts = PenalizedLoss("multiclass", penalty, 5.0, small_batch="skip")(logits, target, features)
    assert parts.penalty == 0
    assert parts.penalty.dtype == torch.promote_types(dtype, torch.float32)
    assert parts.total == parts.cross_entropy
    (zero,) = torch.autograd.grad(parts.penalty, features, retain_graph=True)
    assert torch.equal(zero, torch.zeros_like(features))
    found = torch.autograd.grad(parts.total, features, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(parts.cross_entropy, features))


def test_larger_batches_are_penalized_all_the_same():
    given = noise(5, 3), labels(5), noise(5, 4)
    skipping = VariancePenalizedLoss("multiclass", small_batch="skip")
    assert skipping(*given) == VariancePenalizedLoss("multiclass")(*given)
    few = PenalizedLoss("multiclass", penalties.variance_constancy, 1.0, small_batch="skip")
    assert few(*given).penalty > 0
    assert few(*(part[:3] for part in given)).penalty == 0  # it needs four
    own = partial(penalties.variance_constancy, sample_size=3)
    assert PenalizedLoss("multiclass", own, 1.0, small_batch="skip")(*given).penalty == 0


@pytest.mark.parametrize("features", [torch.zeros(0, 4), torch.zeros(1, 0), torch.zeros(1)])
def test_only_what_is_small_is_skipped(features):
    criterion = VariancePenalizedLoss("binary", small_batch="skip")
    count = len(features)
    with pytest.raises(ValueError, match=r"features have shape"):
        criterion(torch.zeros(count), torch.zeros(count), features)


def test_what_is_not_finite_is_zero_times_nothing():
    """A skipped penalty is 0 whatever the features are; so is its gradient."""
    features = torch.tensor([[torch.inf, torch.nan]], requires_grad=True)
    criterion = VariancePenalizedLoss("binary", small_batch="skip")
    parts = criterion(torch.zeros(1), torch.zeros(1), features)
    parts.total.backward()
    assert parts.feature_variance == 0
    assert torch.equal(features.grad, torch.zeros(1, 2))


class Above(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.threshold = RunningQuantile(0.5)

    def forward(self, features: Tensor) -> Tensor:
        return penalties.excess_variance(features, self.threshold(features))


@pytest.mark.parametrize("weight", [GradientRatio, TargetWeight, lambda: WarmUp(GradientRatio())])
def test_weights_go_on_after_a_skipped_batch(weight):
    criterion = PenalizedLoss("multiclass", Above(), weight(), small_batch="skip")
    for count in (8, 1, 8):
        before = {name: value.clone() for name, value in criterion.state_dict().items()}
        features = noise(count, 4).requires_grad_()
        criterion(features[:, :3] * 2, labels(count), features).total.backward()
        assert features.grad.isfinite().all()
        if count == 1:
            after = criterion.state_dict()
            learned = {
                name for name, value in before.items() if not torch.equal(after[name], value)
            }
            assert learned <= {"weight.step"}


def test_a_class_of_one_is_no_small_batch():
    """It has no variance, and counts nothing."""
    features, target = noise(5, 4), torch.tensor([0, 0, 0, 0, 1])
    for penalty in (penalties.within_class_variance, penalties.center_loss):
        criterion = PenalizedLoss("binary", penalty, 1.0)
        found = criterion(noise(5), target, features).penalty
        factor = 4 / 5 * (1 if penalty is penalties.within_class_variance else 4 / 2)
        assert found.item() == pytest.approx(factor * features[:4].numpy().var(0).mean())
