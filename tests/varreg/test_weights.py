from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from varreg import feature_variance
from varreg.penalties import (
    excess_variance,
    feature_l2,
    head_weighted_variance,
    relative_within_class_variance,
)
from varreg.weights import GradientRatio, RunningQuantile, TargetWeight, WarmUp, gradient_ratio

seeds = st.integers(0, 2**32 - 1)
TARGET = torch.arange(8) % 2


def network(seed: int, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of eight images, and the weights of a head."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(8, 5, generator=generator, dtype=torch.float64) + 1
    head = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    return features.to(dtype).requires_grad_(), head.to(dtype).requires_grad_()


def cross_entropy(features, head, target=TARGET) -> torch.Tensor:
    logits = (features @ head.T)[:, 0]
    return F.binary_cross_entropy_with_logits(logits.double(), target.double())


def reference_ratio(features, head, target=TARGET) -> float:
    """The ratio for the penalty itself, from gradients by hand."""
    features, head, target = (given.detach().double().numpy() for given in (features, head, target))
    count, width = features.shape
    surprise = 1 / (1 + np.exp(-features @ head[0])) - target
    of_loss = np.outer(surprise, head[0]) / count
    of_penalty = 2 * (features - features.mean(0)) / (count * width)
    return float(np.linalg.norm(of_loss) / np.linalg.norm(of_penalty))


def step(weight, seed: int, penalty=feature_variance) -> float:
    features, head = network(seed)
    return weight(cross_entropy(features, head), penalty(features), features).item()


# ---------------------------------------------------------------- the ratio


@given(seeds)
def test_ratio_is_that_of_the_gradients(seed):
    features, head = network(seed)
    ratio = gradient_ratio(cross_entropy(features, head), feature_variance(features), features)
    assert ratio.item() == pytest.approx(reference_ratio(features, head), rel=1e-10)
    assert not ratio.requires_grad
    assert features.grad is None
    assert head.grad is None


@given(seed=seeds, factor=st.floats(1e-3, 1e3), copies=st.integers(2, 5))
def test_weighted_penalty_depends_on_no_scale_and_no_size(seed, factor, copies):
    features, head = network(seed)

    def weighted(features, head, target=TARGET, factor=1.0):
        penalty = factor * feature_variance(features)
        ratio = gradient_ratio(cross_entropy(features, head, target), penalty, features)
        return (ratio * penalty).item()

    expected = pytest.approx(weighted(features, head), rel=1e-8)
    assert weighted(features, head, factor=factor) == expected
    assert weighted(features * factor, head / factor) == expected
    assert weighted(features.repeat(1, copies), head.repeat(1, copies) / copies) == expected
    assert weighted(features.repeat(copies, 1), head, TARGET.repeat(copies)) == expected


@pytest.mark.parametrize("penalty", [feature_l2, head_weighted_variance])
def test_penalty_pulls_with_the_share_that_was_asked_for(penalty):
    features, head = network(3)
    term = penalty(features) if penalty is feature_l2 else penalty(features, head)
    loss = cross_entropy(features, head)
    weight = GradientRatio(rho=0.03)(loss, term, features)
    (pull,) = torch.autograd.grad(weight * term, features, retain_graph=True)
    (force,) = torch.autograd.grad(loss, features, retain_graph=True)
    assert (pull.norm() / force.norm()).item() == pytest.approx(0.03, rel=1e-5)
    (loss + weight * term).backward()  # the graph is still there
    assert head.grad is not None


@given(seeds)
def test_ratio_for_one_logit_has_the_explicit_form_of_the_method_page(seed):
    features, head = network(seed)
    ratio = gradient_ratio(cross_entropy(features, head), feature_variance(features), features)
    values, theta = features.detach().numpy(), head.detach().numpy()[0]
    errors = 1 / (1 + np.exp(-values @ theta)) - TARGET.numpy()
    variance, width = values.var(0).mean(), values.shape[1]
    explicit = np.linalg.norm(theta) / 2 * np.sqrt(width * (errors**2).mean() / variance)
    assert ratio.item() == pytest.approx(explicit, rel=1e-9)


@given(seeds, st.floats(0.1, 10))
def test_variance_within_over_between_pulls_with_the_same_share_at_any_scale(seed, factor):
    features, head = network(seed)
    ratios = []
    for scale in (1.0, factor):
        scaled = (features.detach() * scale).requires_grad_()
        loss = cross_entropy(scaled, head.detach() / scale)
        penalty = relative_within_class_variance(scaled, TARGET)
        ratios.append(gradient_ratio(loss, penalty, scaled).item())
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_ratio_of_features_in_half_precision(dtype):
    features, head = network(1, dtype)
    wide = features.detach().repeat(1, 4000).requires_grad_()  # gradients of 1e-7
    loss = cross_entropy(wide.float(), head.detach().float().repeat(1, 4000) / 4000)
    ratio = gradient_ratio(loss, feature_variance(wide), wide)
    assert ratio.dtype == torch.float32
    assert ratio.item() == pytest.approx(reference_ratio(features, head), rel=1e-2)


def test_ratio_where_there_is_none():
    features, _ = network(0)
    nothing = (features * 0).sum()
    assert gradient_ratio(nothing, features.sum(), features) == 0
    assert gradient_ratio(features.sum(), nothing, features).isnan()
    assert gradient_ratio(features.sum() * torch.nan, features.sum(), features).isnan()
    assert gradient_ratio(features.sum() * torch.inf, features.sum(), features).isnan()


def test_ratio_refuses_what_has_no_gradient_at_the_features():
    features, head = network(0)
    loss, penalty = cross_entropy(features, head), feature_variance(features)
    for given_features in (features.detach(), features.clone()):
        with pytest.raises(ValueError, match=r"cross_entropy does not depend on the features: .*"):
            gradient_ratio(loss, penalty, given_features)
    with pytest.raises(ValueError, match=r"penalty does not depend on the features"):
        gradient_ratio(loss, penalty.detach(), features)
    with pytest.raises(ValueError, match=r"penalty has shape \(5,\); it must be a scalar"):
        gradient_ratio(loss, features.var(0), features)
    with pytest.raises(TypeError, match=r"cross_entropy is a float; it must be a torch\.Tensor"):
        gradient_ratio(loss.item(), penalty, features)
    with pytest.raises(ValueError, match=r"features have shape \(5,\)"):
        gradient_ratio(loss, penalty, features[0])


# ---------------------------------------------------------------- over steps


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
def test_gradient_ratio_is_smoothed(smoothing):
    weight, average = GradientRatio(rho=0.1, smoothing=smoothing), 0.0
    for t in range(1, 9):
        average = smoothing * average + (1 - smoothing) * reference_ratio(*network(t))
        expected = 0.1 * average / (1 - smoothing**t)
        assert step(weight, t) == pytest.approx(expected, rel=1e-5)


def test_a_step_without_a_ratio_is_left_out():
    weight, other = GradientRatio(), GradientRatio()

    def constant(features):
        return feature_variance(features * 0 + 1)

    assert step(weight, 0, constant) == 0
    assert step(weight, 1) == step(other, 1)
    assert step(weight, 2, constant) == step(other.eval(), 2)
    assert step(weight, 3) == step(other.train(), 3)


@given(st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.9, 2.0, 2.1, 7.0]), min_size=1))
def test_target_weight_is_on_above_its_target(penalties):
    weight, start = TargetWeight(weight=3.0, target=0.5), 0.0
    for penalty in penalties:
        start = start or penalty
        above = penalty > 0.5 * start and start > 0
        given_weight = weight(torch.tensor(1.0), torch.tensor(penalty), torch.zeros(2, 1))
        assert given_weight.item() == pytest.approx(3.0 / start if above else 0.0)


def test_target_weight_has_the_gradient_of_a_hinge():
    weight, (features, _) = TargetWeight(weight=3.0, target=0.5), network(0)
    start = feature_variance(features)
    weight(start, start, features)
    for scale in (2.0, 0.8, 0.6):  # variances of 4, 0.64 and 0.36 times that at the start
        penalty = feature_variance(scale * features)
        hinge = 3 * (penalty / start.detach() - 0.5).relu()
        ours = weight(start, penalty, features) * penalty
        torch.testing.assert_close(
            torch.autograd.grad(ours, features, retain_graph=True),
            torch.autograd.grad(hinge, features, retain_graph=True),
            rtol=1e-5,
            atol=0,
        )


def test_target_weight_starts_at_a_penalty_that_is_finite():
    weight, features = TargetWeight(), torch.zeros(2, 1)
    for penalty, expected in ((torch.inf, 0), (torch.nan, 0), (4.0, 0.25), (torch.nan, 0)):
        assert weight(torch.tensor(1.0), torch.tensor(penalty), features) == expected


@given(off=st.integers(0, 4), ramp=st.integers(0, 4))
def test_warm_up(off, ramp):
    weight = WarmUp(8.0, off=off, ramp=ramp)
    found = [step(weight, 0) for _ in range(10)]
    fade = [8.0 * share / max(1, ramp) for share in range(1, ramp)]
    assert found == pytest.approx(([0.0] * off + fade + [8.0] * 10)[:10])
    assert step(weight.eval(), 0) == found[-1]


def test_warm_up_lets_a_weight_look_while_it_is_off():
    weight, inner = WarmUp(GradientRatio(), off=3, ramp=2), GradientRatio()
    shares = (0, 0, 0, 0.5, 1, 1)
    for t, share in enumerate(shares):
        assert step(weight, t) == pytest.approx(share * step(inner, t))


def test_running_quantile_is_smoothed():
    threshold, average = RunningQuantile(0.3, smoothing=0.8), 0.0
    for t in range(1, 6):
        features, _ = network(t)
        now = np.quantile(features.detach().numpy().var(0), 0.3)
        average = 0.8 * average + 0.2 * now
        value = threshold(features)
        assert value.item() == pytest.approx(average / (1 - 0.8**t), rel=1e-5)
        assert not value.requires_grad
    threshold(torch.full((2, 5), torch.nan))  # left out
    assert threshold.eval()(features) == value
    assert excess_variance(features, threshold(features)) == excess_variance(features, value)


def test_running_quantile_before_its_first_step_is_that_of_the_batch():
    features = torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]], dtype=torch.float16)
    threshold = RunningQuantile(0.5).eval()
    assert threshold(features) == 4
    assert threshold(2 * features) == 16
    with pytest.raises(ValueError, match=r"features have shape \(3,\)"):
        threshold(features[0])
    with pytest.raises(TypeError, match=r"features is a list"):
        threshold([[1.0], [2.0]])


# ---------------------------------------------------------------- what they keep


def every_weight():
    quantile = RunningQuantile()
    quantile.forward = lambda loss, penalty, features, ask=quantile.forward: ask(features)
    return {
        "ratio": GradientRatio(),
        "target": TargetWeight(target=0.0),
        "warm up": WarmUp(GradientRatio(), off=1, ramp=7),
        "quantile": quantile,
    }


every = pytest.mark.parametrize("name", every_weight())


@every
def test_resumes_from_its_state(name):
    weight, resumed, fresh = (every_weight()[name] for _ in range(3))
    for t in range(4):
        step(weight, t)
    resumed.load_state_dict(copy.deepcopy(weight.state_dict()))
    assert not list(weight.parameters())
    after = [step(weight, t) for t in range(4, 8)]
    assert [step(resumed, t) for t in range(4, 8)] == after
    assert [step(fresh, t) for t in range(4, 8)] != after


@every
def test_learns_in_training_only(name):
    weight = every_weight()[name]
    last = [step(weight, t) for t in range(3)][-1]
    before = copy.deepcopy(weight.state_dict())
    with torch.no_grad():
        assert step(weight, 3) == last
    weight.eval()
    assert step(weight, 4) == last
    assert weight.state_dict() == before
    weight.train()
    step(weight, 5)
    if name != "target":  # which has its start
        assert weight.state_dict() != before


def test_shows_its_parameters():
    assert repr(GradientRatio(0.5)) == "GradientRatio(rho=0.5, smoothing=0.9)"
    assert repr(TargetWeight()) == "TargetWeight(weight=1.0, target=0.5)"
    assert repr(WarmUp(2, off=3)) == "WarmUp(weight=2.0, off=3, ramp=0)"
    assert "(weight): GradientRatio(rho=0.01" in repr(WarmUp(GradientRatio(0.01), ramp=4))
    assert repr(RunningQuantile()) == "RunningQuantile(quantile=0.5, smoothing=0.9)"


@pytest.mark.parametrize(
    ("make", "name", "allowed"),
    [
        (lambda value: GradientRatio(rho=value), "rho", "finite and at least 0"),
        (lambda value: TargetWeight(weight=value), "weight", "finite and at least 0"),
        (lambda value: TargetWeight(target=value), "target", "finite and at least 0"),
        (lambda value: WarmUp(value), "weight", "finite and at least 0"),
        (lambda value: GradientRatio(smoothing=value), "smoothing", r"lie in \[0, 1\)"),
        (lambda value: RunningQuantile(smoothing=value), "smoothing", r"lie in \[0, 1\)"),
        (lambda value: RunningQuantile(quantile=value), "quantile", r"lie in \[0, 1\]"),
    ],
)
def test_parameters_outside_their_range(make, name, allowed):
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"{name} is {value}; it must.*{allowed}"):
            make(value)
    for value in ("1", True, None):
        with pytest.raises(ValueError, match=rf"{name} is {value!r}; it must be a number"):
            make(value)


@pytest.mark.parametrize("name", ["off", "ramp"])
def test_steps_that_are_no_count(name):
    with pytest.raises(ValueError, match=rf"{name} is -1; it must be 0 or more"):
        WarmUp(1.0, **{name: -1})
    with pytest.raises(ValueError, match=rf"{name} is 1.5; it must be an integer"):
        WarmUp(1.0, **{name: 1.5})
