from __future__ import annotations

import doctest
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from varreg import feature_variance, penalties
from varreg.checks import NonFiniteFeaturesError
from varreg.penalties import (
    center_loss,
    decov,
    excess_variance,
    feature_l2,
    head_weighted_variance,
    logit_variance,
    logit_view_variance,
    relative_within_class_variance,
    released_variance,
    variance_constancy,
    vicreg_variance,
    view_variance,
    within_class_variance,
)

# ---------------------------------------------------------------- an independent reference


def reference_vicreg(features, target_deviation=1.0, epsilon=1e-4) -> float:
    features = np.asarray(features, dtype=np.float64)
    deviation = np.sqrt(features.var(0, ddof=1) + epsilon)
    return float(np.maximum(0, target_deviation - deviation).mean())


def reference_decov(features) -> float:
    covariance = np.atleast_2d(np.cov(np.asarray(features, np.float64), rowvar=False, ddof=0))
    different = ~np.eye(len(covariance), dtype=bool)
    return float((covariance[different] ** 2).sum() / 2)


def reference_constancy(features, beta=1.0, size=None) -> float:
    features = np.asarray(features, dtype=np.float64)
    size = size or len(features) // 2
    first, second = features[:size].var(0, ddof=1), features[size : 2 * size].var(0, ddof=1)
    return float(np.mean((1 - first / (second + beta)) ** 2))


def reference_center(features, target, centers) -> float:
    distances = [
        np.linalg.norm(np.float64(sample) - np.float64(centers[label])) ** 2
        for sample, label in zip(features, target, strict=True)
    ]
    return float(np.mean(distances) / 2)


def reference_within(features, target) -> np.ndarray:
    """Variance of each feature within the classes, all images alike."""
    return sum(
        np.mean(target == label) * features[target == label].var(0) for label in np.unique(target)
    )


def reference_relative(features, target) -> float:
    within = reference_within(features, target)
    return float(within.sum() / (features.var(0) - within).sum())


def reference_views(values, views=2) -> float:
    return float(np.mean([values[image :: len(values) // views].var(0) for image in range(6)]))


TARGET = torch.tensor([0, 1, 0, 2, 0, 1]).repeat(2)  # that of an image is that of its second view


def centers_of(count: int, dtype=torch.float32) -> torch.Tensor:
    return torch.arange(3 * count, dtype=dtype).sin().reshape(3, count)


class Case(NamedTuple):
    """A penalty as a function of the features of twelve samples alone."""

    name: str
    unchanged: str  # by which changes of the features that a head follows
    reference: Callable  # of arrays: features, logits, target, weights of the head
    settings: Callable = lambda count: {}

    def arguments(self, features, head=None, bias=0.0) -> dict[str, torch.Tensor]:
        flat = features.flatten(1)
        if head is None:
            head = torch.arange(3 * flat.shape[1]).cos().reshape(3, -1) / flat.shape[1] ** 0.5
        logits = flat.double() @ head.double().to(flat.device).T + bias
        return {
            "features": features,
            "logits": logits.to(features.dtype),
            "target": TARGET.to(flat.device),
            "head_weight": head.to(flat),
        }

    def __call__(self, features, head=None, bias=0.0, **keywords) -> torch.Tensor:
        penalty = getattr(penalties, self.name)
        wanted = penalty.__code__.co_varnames[: penalty.__code__.co_argcount]
        arguments = self.arguments(features, head, bias)
        given = {name: value for name, value in arguments.items() if name in wanted}
        return penalty(**given, **self.settings(features[0].numel()), **keywords)

    def exactly(self, features) -> float:
        arguments = self.arguments(features.flatten(1)).values()
        return float(self.reference(*[value.double().numpy() for value in arguments]))


PUBLIC = [
    name
    for name, each in vars(penalties).items()
    if getattr(each, "__module__", "") == penalties.__name__ and not name.startswith("_")
]
PENALTIES = {
    case.name + "".join(case.settings(1)): case
    for case in (
        Case(
            "within_class_variance",
            "shift rotation class",
            lambda f, z, y, h: reference_within(f, y).mean(),
        ),
        Case(
            "within_class_variance",
            "shift rotation class",
            lambda f, z, y, h: np.mean([f[y == label].var(0).mean() for label in range(3)]),
            lambda count: {"equal_classes": True},
        ),
        Case(
            "relative_within_class_variance",
            "scale shift rotation",
            lambda f, z, y, h: reference_relative(f, y),
        ),
        Case(
            "head_weighted_variance",
            "scale shift",
            lambda f, z, y, h: np.mean([(f * row).var(0).sum() for row in h]),
        ),
        Case(
            "head_weighted_within_class_variance",
            "scale shift class",
            lambda f, z, y, h: np.mean([reference_within(f * row, y).sum() for row in h]),
        ),
        Case(
            "excess_variance",
            "shift",
            lambda f, z, y, h: np.maximum(0, f.var(0) - 0.15).mean(),
            lambda count: {"threshold": 0.15},
        ),
        Case("feature_l2", "rotation", lambda f, z, y, h: np.mean(f**2)),
        Case("logit_l2", "scale shift rotation", lambda f, z, y, h: np.mean(z**2)),
        Case("logit_variance", "scale shift rotation", lambda f, z, y, h: z.var(0).mean()),
        Case("view_variance", "shift rotation class", lambda f, z, y, h: reference_views(f)),
        Case(
            "logit_view_variance",
            "scale shift rotation class",
            lambda f, z, y, h: reference_views(z),
        ),
        Case("vicreg_variance", "shift", lambda f, z, y, h: reference_vicreg(f)),
        Case("decov", "shift", lambda f, z, y, h: reference_decov(f)),
        Case("variance_constancy", "shift", lambda f, z, y, h: reference_constancy(f)),
        Case(
            "center_loss",
            "shift rotation class",
            lambda f, z, y, h: reference_within(f, y).sum() / 2,
        ),
        Case(
            "center_loss",
            "",
            lambda f, z, y, h: reference_center(f, y.astype(int), centers_of(f.shape[1])),
            lambda count: {"centers": centers_of(count)},
        ),
    )
}
OF_LOGITS = {name for name in PENALTIES if name.startswith("logit")}
every_penalty = pytest.mark.parametrize("name", PENALTIES)


def batch(*shape: int, dtype=torch.float32) -> torch.Tensor:
    """Features of twelve samples; deviations from 0.3 to 1.5, on both sides of VICReg's target."""
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(12, *shape, generator=generator, dtype=dtype) + 0.5
    scale = torch.linspace(0.3, 1.5, features[0].numel(), dtype=dtype).reshape(shape)
    return features * scale


@every_penalty
@pytest.mark.parametrize("shape", [(5,), (12,), (40,), (4, 3, 2)])
def test_equals_the_reference(name, shape):
    features = batch(*shape)
    value = PENALTIES[name](features)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(PENALTIES[name].exactly(features), rel=1e-5)


def test_all_penalties_are_here_and_say_by_name_what_they_need():
    assert {case.name for case in PENALTIES.values()} == set(PUBLIC) - {"released_variance"}
    needs = {"features", "logits", "target", "head_weight"}
    for case in PENALTIES.values():
        parameters = inspect.signature(getattr(penalties, case.name)).parameters
        without_default = {n for n, p in parameters.items() if p.default is p.empty}
        assert without_default == needs & set(parameters)
        assert parameters["validate"].default is True
        assert parameters["validate"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(("target_deviation", "epsilon"), [(0.7, 1e-4), (2.0, 0.1), (0.01, 1e-6)])
def test_vicreg_equals_the_reference_at_other_settings(target_deviation, epsilon):
    features = batch(6)
    value = vicreg_variance(features, target_deviation, epsilon).item()
    assert value == pytest.approx(reference_vicreg(features, target_deviation, epsilon), rel=1e-5)
    assert (value == 0) == (target_deviation == 0.01)  # all features deviate by more


@pytest.mark.parametrize(("beta", "size"), [(0.1, None), (1.0, 3), (5.0, 2), (1.0, 6)])
def test_constancy_equals_the_reference_at_other_settings(beta, size):
    features = batch(6)
    value = variance_constancy(features, beta, sample_size=size).item()
    assert value == pytest.approx(reference_constancy(features, beta, size), rel=1e-5)


def test_constancy_leaves_out_what_is_in_neither_subset():
    features = batch(6)[:11]
    expected = variance_constancy(features)
    features[10] = 1e6
    assert variance_constancy(features) == expected
    features[6:] = torch.nan
    assert variance_constancy(features, sample_size=3) != expected


def test_constancy_takes_a_learned_beta_for_each_feature():
    features = batch(4, 3, dtype=torch.float64)
    beta = torch.rand(4, 3, dtype=torch.float64) + 0.1
    beta.requires_grad_()
    expected = reference_constancy(features.flatten(1), beta.detach().numpy().ravel())
    assert variance_constancy(features, beta).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda beta: variance_constancy(features, beta), beta)
    one = torch.tensor(0.3, requires_grad=True)
    assert variance_constancy(features, one).item() == pytest.approx(
        reference_constancy(features.flatten(1), 0.3)
    )


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_center_loss_takes_labels_of_every_usual_type(shape, dtype):
    features, centers = batch(5), centers_of(5)
    value = center_loss(features, TARGET.reshape(shape).to(dtype), centers)
    assert value.item() == pytest.approx(reference_center(features, TARGET, centers), rel=1e-6)


# ---------------------------------------------------------------- what they have to do with ours


def test_center_loss_at_the_class_means_is_the_variance_within_the_classes():
    features = batch(6, dtype=torch.float64)
    means = torch.stack([features[target == TARGET].mean(0) for target in range(3)])
    expected = 6 / 2 * within_class_variance(features, TARGET)
    torch.testing.assert_close(center_loss(features, TARGET), expected)
    torch.testing.assert_close(center_loss(features, TARGET, means), expected)


def test_the_variance_is_a_part_or_a_case_of_others():
    features = batch(6, dtype=torch.float64)
    variance, first, second = feature_variance(features), features[:6], features[6:]
    torch.testing.assert_close(excess_variance(features, 0), variance)
    torch.testing.assert_close(logit_variance(features), variance)
    torch.testing.assert_close(feature_l2(features), variance + features.mean(0).square().mean())
    views = view_variance(features)
    torch.testing.assert_close(views, (first - second).square().mean() / 4)
    torch.testing.assert_close(views + feature_variance((first + second) / 2), variance)
    one_logit = torch.ones(1, 6, dtype=torch.float64)
    torch.testing.assert_close(head_weighted_variance(features, one_logit), 6 * variance)
    torch.testing.assert_close(within_class_variance(features, torch.zeros(12)), variance)


def test_weighted_by_the_head_is_the_variance_of_the_logits_without_covariances():
    features, head = batch(6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    logits, covariance = (features @ head.T).numpy(), np.cov(features.T.numpy(), bias=True)
    off = covariance - np.diag(np.diag(covariance))
    crossed = np.einsum("kj,kl,jl->k", head.numpy(), head.numpy(), off)
    expected = (logits.var(0) - crossed).mean()
    assert head_weighted_variance(features, head).item() == pytest.approx(expected)
    # Copies of a feature with a part of its weight each: the same logits at a part of the price.
    copies, shared = features.repeat(1, 4), head.repeat(1, 4) / 4
    torch.testing.assert_close(copies @ shared.T, features @ head.T)
    assert head_weighted_variance(copies, shared).item() == pytest.approx(expected / 4)


def test_small_changes_of_an_image_cost_their_size_in_the_directions_of_the_jacobian():
    # For two views of a linear map, in expectation: half of tr(J S J^T) over the features.
    jacobian = torch.randn(5, 3, dtype=torch.float64)
    spread = torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64)
    images = torch.randn(20_000, 3, dtype=torch.float64)
    views = torch.cat([images + spread * torch.randn_like(images) for _ in range(2)])
    expected = (jacobian * spread).square().sum() / 5 / 2
    found = view_variance(views @ jacobian.T)
    assert found.item() == pytest.approx(expected.item(), rel=0.05)


def test_logits_may_come_without_an_axis_for_them():
    logits = batch(1)
    for penalty in (penalties.logit_l2, logit_variance, logit_view_variance):
        assert penalty(logits[:, 0]) == penalty(logits)


@pytest.mark.parametrize(
    "labels", [TARGET[:, None], TARGET == 1, TARGET.float() / 3 - 5, TARGET.to(torch.uint8)]
)
def test_labels_are_compared_and_nothing_else(labels):
    features = batch(5, dtype=torch.float64)
    expected = reference_within(features.numpy(), labels.flatten().numpy()).mean()
    assert within_class_variance(features, labels).item() == pytest.approx(expected)


def test_ratio_of_classes_that_are_alike():
    features, target = torch.randn(30, 5000, generator=torch.Generator().manual_seed(1)), TARGET
    target = target.repeat(3)[:30]  # 3 classes
    value = relative_within_class_variance(features, target).item()
    assert value == pytest.approx((30 - 3) / (3 - 1), rel=0.05)


def test_three_views_and_a_threshold_without_a_gradient():
    features = batch(4, dtype=torch.float64)
    images = features.numpy().reshape(3, 4, 4)  # view, image, feature
    expected = pytest.approx(images.var(0).mean())
    assert view_variance(features, 3).item() == expected
    assert logit_view_variance(features, 3).item() == expected
    median = features.var(0, correction=0).median().requires_grad_()
    value = excess_variance(features, median)
    assert value == excess_variance(features, median.item()) > 0
    assert not value.requires_grad


def test_decov_and_the_variances_make_up_the_whole_covariance():
    features = batch(6, dtype=torch.float64)
    squares = np.sum(np.cov(features.T, ddof=0) ** 2)
    variances = torch.stack([feature_variance(column[:, None]) for column in features.T])
    assert 2 * decov(features).item() + variances.square().sum().item() == pytest.approx(squares)


def test_vicreg_pushes_variances_up_where_ours_pushes_them_down():
    features = 0.1 * batch(6)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    feature_variance(ours).backward()
    vicreg_variance(theirs).backward()
    assert feature_variance(features - 0.1 * ours.grad) < feature_variance(features)
    assert feature_variance(features - 0.1 * theirs.grad) > feature_variance(features)


def test_decov_by_either_matrix_is_the_same():
    # Constant features add nothing, but make the batch one of more features than samples.
    features = batch(6, dtype=torch.float64).requires_grad_()
    wide = torch.cat([features, torch.ones(12, 20, dtype=torch.float64)], dim=1)
    by_covariance, by_gram = decov(features), decov(wide)
    assert by_gram.item() == pytest.approx(by_covariance.item(), rel=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(by_covariance, features), torch.autograd.grad(by_gram, features)
    )


@pytest.mark.parametrize("shape", [(4, 300_000), (300_000, 4)])
def test_decov_makes_the_smaller_matrix(shape):
    features = torch.randn(shape, requires_grad=True)  # the larger one takes 360 GB
    decov(features).backward()
    assert features.grad.isfinite().all()


# ---------------------------------------------------------------- gradients


@every_penalty
@pytest.mark.parametrize("shape", [(4,), (5, 3)])  # fewer and more features than samples
def test_gradients(name, shape):
    features = batch(*shape, dtype=torch.float64)
    penalty = PENALTIES[name]
    head = penalty.arguments(features)["head_weight"].requires_grad_()
    if name == "relative_within_class_variance":  # the denominator is held fixed
        denominator = float(within_class_variance(features, TARGET) / penalty(features))
        changed = features.clone().requires_grad_()
        torch.testing.assert_close(
            torch.autograd.grad(penalty(changed), changed),
            torch.autograd.grad(within_class_variance(changed, TARGET) / denominator, changed),
        )
        return
    inputs = (features.requires_grad_(), head)
    assert torch.autograd.gradcheck(penalty, inputs)
    assert torch.autograd.gradgradcheck(penalty, inputs, fast_mode=True)


def test_gradient_of_the_centers():
    features = batch(4, dtype=torch.float64)
    centers = centers_of(4, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda centers: center_loss(features, TARGET, centers), centers)


@every_penalty
def test_gradient_is_finite_where_the_variance_is_zero(name):
    features = torch.ones(12, 3, requires_grad=True)
    PENALTIES[name](features).backward()
    assert features.grad.isfinite().all()
    if name not in ("feature_l2", "logit_l2", "center_losscenters"):
        assert torch.equal(features.grad, torch.zeros(12, 3))


# ---------------------------------------------------------------- properties


def matrices():
    return hnp.arrays(
        np.float64,
        st.tuples(st.just(12), st.integers(1, 16)),
        elements=st.floats(-10, 10, allow_subnormal=False),
    )


def close(value: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> bool:
    return value.item() == pytest.approx(expected.item(), rel=1e-7, abs=1e-7 * scale)


@pytest.mark.parametrize("name", sorted(PENALTIES.keys() - {"relative_within_class_variance"}))
@settings(max_examples=25)
@given(features=matrices())
def test_equals_the_reference_for_any_features(name, features):
    features = torch.tensor(features)
    assert close(PENALTIES[name](features), torch.tensor(PENALTIES[name].exactly(features)))


@every_penalty
@pytest.mark.parametrize("change", ["scale", "shift", "rotation", "class"])
def test_is_unchanged_by_what_it_says_and_by_nothing_else(name, change):
    random = np.random.default_rng(11)
    penalty, features = PENALTIES[name], batch(5, dtype=torch.float64)
    head, bias = penalty.arguments(features)["head_weight"], torch.ones(3)
    before = penalty(features, head, bias)
    if change == "scale":
        after = penalty(features * 1.7, head / 1.7, bias)
    elif change == "shift":
        shift = torch.tensor(random.uniform(1, 3, 5))
        after = penalty(features + shift, head, bias - head @ shift)
    elif change == "rotation":
        turn = torch.linalg.qr(torch.tensor(random.normal(size=(5, 5)))).Q
        after = penalty(features @ turn.T, head @ turn.T, bias)
    else:
        after = penalty(features + torch.tensor(random.uniform(1, 3, (3, 5)))[TARGET], head, bias)
    assert (after.item() == pytest.approx(before.item(), rel=1e-9)) == (
        change in penalty.unchanged.split()
    )


@pytest.mark.parametrize(
    ("where", "names"),
    {
        "constant": "excess head_weighted logit_variance view logit_view within center decov",
        "constant in a class": "within center_loss relative head_weighted_within",
        "constant in an image": "view logit_view",
        "zero": "feature_l2",
        "not seen by the head": "head_weighted logit_variance logit_view",
        "in one class of one image each": "within relative head_weighted_within",
        "below the threshold": "excess",
    }.items(),
)
def test_is_zero_where_it_says(where, names):
    features, target = batch(4, dtype=torch.float64), torch.arange(12)
    head = torch.ones(3, 4, dtype=torch.float64)
    if where == "constant":
        features = features[:1].repeat(12, 1)
    elif where == "constant in a class":
        features, target = features[TARGET], TARGET
    elif where == "constant in an image":
        features = features[:6].repeat(2, 1)
    elif where == "zero":
        features = torch.zeros_like(features)
    elif where == "not seen by the head":
        head = torch.zeros_like(head)
    elif where == "below the threshold":
        features = 0.05 * features
    given = {"features": features, "logits": features @ head.T}
    given |= {"target": target, "head_weight": head}
    found = 0
    for name in PUBLIC:
        if any(name.startswith(start) for start in names.split()):
            penalty = getattr(penalties, name)
            wanted = inspect.signature(penalty).parameters
            value = penalty(**{key: given[key] for key in given if key in wanted})
            assert value.item() == pytest.approx(0, abs=1e-25), name
            found += 1
    assert found >= len(names.split())


def test_ratio_in_a_batch_of_one_class_is_zero_without_a_gradient():
    features = (batch(5) + 1e4).requires_grad_()
    value = relative_within_class_variance(features, torch.zeros(12))
    value.backward()
    assert value == 0
    assert torch.equal(features.grad, torch.zeros(12, 5))


def test_a_class_of_one_image_is_no_division_by_zero():
    features = batch(5).requires_grad_()
    target = torch.tensor([0] * 11 + [7])
    for penalty in (within_class_variance, relative_within_class_variance):
        (gradient,) = torch.autograd.grad(penalty(features, target), features)
        assert gradient.isfinite().all()
        assert gradient[-1].abs().max() < 1e-6 * gradient.abs().max()
    equal = within_class_variance(features, target, equal_classes=True)
    torch.testing.assert_close(equal, feature_variance(features[:11]) / 2)


@given(features=matrices(), seed=st.integers(0, 2**32 - 1))
def test_center_loss_moves_with_its_centers(features, seed):
    shift = np.random.default_rng(seed).uniform(-50, 50, features.shape[1])
    centers = centers_of(features.shape[1], torch.float64)
    moved = center_loss(torch.tensor(features + shift), TARGET, centers + torch.tensor(shift))
    assert close(moved, center_loss(torch.tensor(features), TARGET, centers))


@pytest.mark.parametrize("name", ["vicreg_variance", "decov", "variance_constancy"])
@given(features=matrices(), seed=st.integers(0, 2**32 - 1))
def test_order_is_irrelevant_where_it_should_be(name, features, seed):
    random = np.random.default_rng(seed)
    samples = random.permutation(12)
    if name == "variance_constancy":  # within a half
        samples = np.concatenate([random.permutation(6), 6 + random.permutation(6)])
    shuffled = torch.tensor(features[samples][:, random.permutation(features.shape[1])])
    assert close(PENALTIES[name](shuffled), PENALTIES[name](torch.tensor(features)))


def test_constancy_depends_on_who_is_in_which_half():
    features = batch(4)
    assert variance_constancy(features.flip(0)) != variance_constancy(features)


@given(features=matrices(), seed=st.integers(0, 2**32 - 1))
def test_center_loss_is_shuffled_with_its_labels_and_features(features, seed):
    random = np.random.default_rng(seed)
    samples, columns = random.permutation(12), random.permutation(features.shape[1])
    centers = centers_of(features.shape[1], torch.float64)
    shuffled = torch.tensor(features[samples][:, columns])
    value = center_loss(shuffled, TARGET[samples], centers[:, columns])
    assert close(value, center_loss(torch.tensor(features), TARGET, centers))


@given(matrices(), st.floats(0.1, 10))
def test_scale(features, scale):
    features = torch.tensor(features)
    large = scale * features
    centers = centers_of(features.shape[1], torch.float64)
    assert close(
        vicreg_variance(large, scale, scale**2 * 1e-4), scale * vicreg_variance(features), scale
    )
    assert close(decov(large), scale**4 * decov(features), scale**4)
    assert close(variance_constancy(large, scale**2), variance_constancy(features))
    assert close(
        center_loss(large, TARGET, scale * centers),
        scale**2 * center_loss(features, TARGET, centers),
    )


@given(hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(-100, 100)))
def test_of_identical_samples(sample):
    features = torch.tensor(np.tile(sample, (12, 1)))
    assert vicreg_variance(features).item() == pytest.approx(1 - 0.01)  # the most there is
    assert decov(features).item() == pytest.approx(0, abs=1e-20)
    assert variance_constancy(features).item() == pytest.approx(1)
    assert center_loss(features, TARGET, features[:3]).item() == 0


def test_equal_halves_have_constant_variance_up_to_beta():
    features = torch.cat([batch(5)[:6]] * 2)
    assert variance_constancy(features, 1e-9).item() == pytest.approx(0, abs=1e-12)


# ---------------------------------------------------------------- precision and compilation


@every_penalty
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(name, dtype):
    features = (batch(2000) * 0.3 + 8).to(dtype)  # the sum of their squares overflows float16
    value = PENALTIES[name](features)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(PENALTIES[name].exactly(features), rel=1e-4)
    features.requires_grad_()
    PENALTIES[name](features).backward()
    assert features.grad.dtype == dtype


@every_penalty
@pytest.mark.parametrize("shape", [(5,), (40,)])
def test_autocast_changes_nothing(name, shape):
    features = batch(*shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = PENALTIES[name](features)
    assert torch.equal(value, PENALTIES[name](features))


@every_penalty
@pytest.mark.parametrize("mean", [1e3, 1e6])
def test_a_large_mean_costs_no_digits(name, mean):
    features = batch(6) + mean
    value = PENALTIES[name](features).item()
    assert value == pytest.approx(PENALTIES[name].exactly(features), rel=1e-5)


@every_penalty
def test_under_the_transforms_of_torch_func(name):
    stack = torch.stack([batch(5), batch(5).flip(0)]).requires_grad_()
    values = torch.stack([PENALTIES[name](features) for features in stack])
    (slopes,) = torch.autograd.grad(values.sum(), stack)
    stack = stack.detach()
    torch.testing.assert_close(torch.vmap(PENALTIES[name])(stack), values.detach())
    torch.testing.assert_close(torch.vmap(torch.func.grad(PENALTIES[name]))(stack), slopes)


@every_penalty
def test_compiles_without_a_break(name):
    features = batch(20)
    torch.compiler.reset()
    compiled = torch.compile(PENALTIES[name], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(features), PENALTIES[name](features))


@every_penalty
def test_float64_stays_float64(name):
    assert PENALTIES[name](batch(3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_penalty
def test_on_a_cuda_device(name):
    value = PENALTIES[name](batch(40).cuda())
    assert value.device.type == "cuda"
    assert value.item() == pytest.approx(PENALTIES[name](batch(40)).item(), rel=1e-5)


# ---------------------------------------------------------------- what is refused


def with_both(case: Case, given: torch.Tensor) -> torch.Tensor:
    """A penalty of what is given for features and for logits."""
    needs = inspect.signature(getattr(penalties, case.name)).parameters
    arguments = {"features": given, "logits": given}
    arguments |= {"target": TARGET, "head_weight": torch.ones(3, 5)}
    wanted = {name: value for name, value in arguments.items() if name in needs}
    return getattr(penalties, case.name)(**wanted, **case.settings(5))


@every_penalty
@pytest.mark.parametrize("shape", [(1, 5), (0, 5), (1,), (), (4, 0)])
def test_features_or_logits_of_a_wrong_shape(name, shape):
    with pytest.raises(ValueError, match=r"two samples or more") as error:
        with_both(PENALTIES[name], torch.zeros(shape))
    assert str(tuple(shape)) in str(error.value)
    wrong = torch.zeros((4, 3, 2) if name in OF_LOGITS else 12)
    with pytest.raises(
        ValueError, match=r"\(4, 3, 2\) of torch.float32; .*|shape \(12,\); expected"
    ):
        with_both(PENALTIES[name], wrong)


@every_penalty
def test_features_or_logits_that_are_not_floating_point(name):
    with pytest.raises(ValueError, match=r"torch.int64; they must be floating point"):
        with_both(PENALTIES[name], torch.zeros(12, 2, dtype=torch.int64))


@every_penalty
def test_features_or_logits_that_are_no_tensor(name):
    with pytest.raises(TypeError, match=r"(features|logits) is a list; it must be a torch\.Tensor"):
        with_both(PENALTIES[name], [[1.0], [2.0]])


@every_penalty
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_or_logits_that_are_not_finite(name, bad):
    given = batch(5)
    given[2, 1] = given[3, 1] = bad
    with pytest.raises(NonFiniteFeaturesError, match=r"s hold 2 values .* infinite of 60"):
        with_both(PENALTIES[name], given)
    assert not PENALTIES[name](given, validate=False).isfinite()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (TARGET[:-1], r"target has shape \(11,\) .* 12 samples .* \(12,\) or \(12, 1\)"),
        (TARGET.reshape(4, 3), r"target has shape \(4, 3\)"),
        (TARGET * 1j, r"of torch.complex64; .* one real label each"),
        (TARGET.float().where(TARGET > 0, torch.nan), r"labels that are NaN; leave out"),
        ([0] * 12, r"target is a list; it must be a torch\.Tensor"),
    ],
)
@pytest.mark.parametrize(
    "penalty",
    [
        within_class_variance,
        relative_within_class_variance,
        center_loss,
        lambda f, y: penalties.head_weighted_within_class_variance(f, y, torch.ones(2, 5)),
    ],
)
def test_classes_that_do_not_fit(penalty, target, message):
    with pytest.raises(ValueError, match=message):
        penalty(batch(5), target)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (torch.ones(5, 3), r"shape \(5, 3\) .* 5 features .* \(C, 5\)"),
        (torch.ones(5), r"head_weight has shape \(5,\)"),
        (torch.ones(0, 5), r"head_weight has shape \(0, 5\)"),
        (torch.ones(3, 5, dtype=torch.int64), r"torch.int64; .* floating point"),
        ([[1.0] * 5], r"head_weight is a list"),
        (torch.full((3, 5), torch.nan), r"head_weight hold 15 values that are NaN"),
    ],
)
def test_heads_that_do_not_fit(head, message):
    with pytest.raises(ValueError, match=message):
        head_weighted_variance(batch(5), head)
    with pytest.raises(ValueError, match=message):
        penalties.head_weighted_within_class_variance(batch(5), TARGET, head)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (-0.1, r"threshold is -0.1; it must be finite and at least 0"),
        (torch.tensor(torch.nan), r"threshold is nan; it must be finite"),
        (torch.ones(5), r"threshold has shape \(5,\); it must hold one value"),
        ("1", r"threshold is '1'; it must be a number"),
        (lambda features: features.mean(0), r"threshold is <function .*; it must be a number"),
    ],
)
def test_thresholds_that_do_not_fit(threshold, message):
    with pytest.raises(ValueError, match=message):
        excess_variance(batch(5), threshold)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (5, r"s hold 12 samples, which is not a multiple of views=5"),
        (1, r"views is 1; it must be 2 or more"),
        (2.0, r"views is 2.0; it must be an integer"),
    ],
)
def test_views_that_do_not_fit(views, message):
    for penalty in (view_variance, logit_view_variance):
        with pytest.raises(ValueError, match=message):
            penalty(batch(5), views)


@pytest.mark.parametrize("name", ["decov", "center_loss"])
def test_a_penalty_that_overflows(name):
    with pytest.raises(
        NonFiniteFeaturesError, match=r"of features.* up to 3e\+38 overflows torch.float32"
    ):
        PENALTIES[name](torch.tensor([[3e38, 3e38], [-3e38, 3e38]]).repeat(6, 1))


def test_centers_that_are_not_finite():
    centers = centers_of(5)
    centers[1, 3] = torch.nan
    with pytest.raises(NonFiniteFeaturesError, match=r"centers hold 1 values .* infinite of 15"):
        center_loss(batch(5), TARGET, centers)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_parameters_outside_their_range(value):
    message = rf"is {value}; it must be finite and greater than 0"
    with pytest.raises(ValueError, match=f"target_deviation {message}"):
        vicreg_variance(batch(3), value)
    with pytest.raises(ValueError, match=f"epsilon {message}"):
        vicreg_variance(batch(3), epsilon=value)
    with pytest.raises(ValueError, match=f"beta {message}"):
        variance_constancy(batch(3), value)


@pytest.mark.parametrize("wrong", [None, "1", True, [1.0]], ids=repr)
def test_parameters_that_are_no_numbers(wrong):
    with pytest.raises(ValueError, match=r"target_deviation is .*; it must be a number"):
        vicreg_variance(batch(3), wrong)
    with pytest.raises(ValueError, match=r"epsilon is .*; it must be a number"):
        vicreg_variance(batch(3), epsilon=wrong)
    with pytest.raises(ValueError, match=r"beta is .*; it must be a number"):
        variance_constancy(batch(3), wrong)
    with pytest.raises(ValueError, match=r"(centers|target) is a .*; it must be a torch\.Tensor"):
        center_loss(batch(3), wrong, centers_of(3))
    if wrong is not None:  # the class means of the batch
        with pytest.raises(ValueError, match=r"centers is a .*; it must be a torch\.Tensor"):
            center_loss(batch(3), TARGET, wrong)


@pytest.mark.parametrize("wrong", [2.0, "2", True], ids=repr)
def test_sample_sizes_that_are_no_integers(wrong):
    with pytest.raises(ValueError, match=r"sample_size is .*; it must be an integer"):
        variance_constancy(batch(3), sample_size=wrong)
    assert variance_constancy(batch(3), sample_size=np.int64(3)) == variance_constancy(
        batch(3), sample_size=3
    )


@pytest.mark.parametrize(("samples", "size"), [(3, None), (12, 7), (12, 1), (12, 0), (12, -2)])
def test_subsets_that_do_not_fit(samples, size):
    message = rf"hold {samples} samples and sample_size is {size}; .* must fit into the batch"
    with pytest.raises(ValueError, match=message):
        variance_constancy(batch(3)[:samples], sample_size=size)


@pytest.mark.parametrize(
    ("beta", "message"),
    [
        (torch.ones(12), r"beta has shape \(12,\); .* one for each feature: \(4, 3\)"),
        (torch.ones(3), r"beta has shape \(3,\)"),
        (torch.linspace(-0.5, 1, 12).reshape(4, 3), r"beta goes down to -0.5; .* clamp it"),
        (torch.tensor(torch.nan), r"beta goes down to nan; it must be greater than 0"),
    ],
)
def test_learned_beta_that_does_not_fit(beta, message):
    with pytest.raises(ValueError, match=message):
        variance_constancy(batch(4, 3), beta)


@pytest.mark.parametrize(
    ("target", "centers", "message"),
    [
        (TARGET, torch.zeros(3, 4), r"\(3, 4\) of torch.float32; .* \(12, 5\) .* \(K, 5\)"),
        (TARGET, torch.zeros(5), r"centers have shape \(5,\)"),
        (TARGET, torch.zeros(3, 5, dtype=torch.int64), r"of torch.int64; .* floating point"),
        (TARGET[:-1], torch.zeros(3, 5), r"target has shape \(11,\) .* \(12,\) or \(12, 1\)"),
        (TARGET.reshape(4, 3), torch.zeros(3, 5), r"target has shape \(4, 3\)"),
        (TARGET.float(), torch.zeros(3, 5), r"of torch.float32; .* integer class codes"),
        (TARGET == 1, torch.zeros(3, 5), r"of torch.bool; .* integer class codes"),
        (TARGET, torch.zeros(2, 5), r"from 0 to 2; with 2 centers they must lie in 0 to 1"),
        (TARGET - 1, torch.zeros(3, 5), r"labels go from -1 to 1; with 3 centers"),
    ],
)
def test_center_loss_refuses(target, centers, message):
    with pytest.raises(ValueError, match=message):
        center_loss(batch(5), target, centers)


# ---------------------------------------------------------------- the peers of the benchmarks


@pytest.fixture(scope="module")
def peers():
    path = Path(__file__).parents[2] / "benchmarks" / "peers.py"
    specification = importlib.util.spec_from_file_location("peers", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["released", "torch.var"])
def test_peer_is_the_same_penalty(peers, name):
    peer = released_variance if name == "released" else peers.torch_variance
    ours = batch(4, 3, dtype=torch.float64).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    expected, value = feature_variance(ours), peer(theirs, 1.0)
    torch.testing.assert_close(value, expected)
    expected.backward()
    value.backward()
    torch.testing.assert_close(theirs.grad, ours.grad)


def test_peers_draw_the_share_they_are_asked_for(peers):
    features = batch(10).requires_grad_()
    values = []
    for peer in (released_variance, peers.torch_variance):
        value = peer(features, 0.25, torch.Generator().manual_seed(3))
        (gradient,) = torch.autograd.grad(value, features)
        drawn = gradient.ne(0).any(0)
        assert int(drawn.sum()) == 2
        torch.testing.assert_close(value, feature_variance(features[:, drawn]))
        values.append(value)
    torch.testing.assert_close(*values)  # the same seed, the same draw


def test_examples_of_the_peers_run(peers):
    results = doctest.testmod(peers)
    assert results.attempted == 2
    assert results.failed == 0
