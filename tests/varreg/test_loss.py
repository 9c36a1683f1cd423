from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from varreg import PUBLISHED, LossParts, VariancePenalizedLoss, feature_variance, split_features
from varreg.checks import NonFiniteFeaturesError, NotATensorError
from varreg.variance import draw_features

# ---------------------------------------------------------------- an independent reference


def reference_variance(features) -> float:
    flat = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    centred = flat - flat.sum(0) / len(flat)
    return float((centred**2).sum(0).mean() / len(flat))


def reference_cross_entropy(logits, target, task: str) -> float:
    logits, target = np.asarray(logits, dtype=np.float64), np.asarray(target)
    if task == "multiclass":
        highest = logits.max(1, keepdims=True)
        log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(1))
        return float(
            np.mean([s - z[int(t)] for s, z, t in zip(log_sum, logits, target, strict=True)])
        )
    target = target.reshape(logits.shape)
    return float(np.mean(np.logaddexp(0, logits) - target * logits))


def batch(task: str, n: int = 16, classes: int = 5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(n, 4, 3, generator=generator, dtype=dtype) * 3
    if task == "binary":
        logits = torch.randn(n, 1, generator=generator, dtype=dtype) * 4
        target = torch.randint(2, (n,), generator=generator)
    elif task == "multiclass":
        logits = torch.randn(n, classes, generator=generator, dtype=dtype) * 4
        target = torch.randint(classes, (n,), generator=generator)
    else:
        logits = torch.randn(n, classes, generator=generator, dtype=dtype) * 4
        target = torch.randint(2, (n, classes), generator=generator).float()
    return logits, target, features


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize(("weight", "lambda_"), [(0.01, 0.5), (100.0, 1.0), (0.0, 2.0)])
def test_equals_the_reference(task, weight, lambda_):
    logits, target, features = batch(task)
    parts = VariancePenalizedLoss(task, weight, 1.0, lambda_)(logits, target, features)
    cross_entropy = reference_cross_entropy(logits, target, task)
    variance = reference_variance(features)
    assert parts._fields == ("total", "cross_entropy", "feature_variance")
    assert parts.cross_entropy.item() == pytest.approx(cross_entropy, rel=1e-6)
    assert parts.feature_variance.item() == pytest.approx(variance, rel=1e-6)
    assert parts.total.item() == pytest.approx(
        lambda_ * cross_entropy + weight * variance, rel=1e-6
    )


@pytest.mark.parametrize("logits_shape", [(16,), (16, 1)])
@pytest.mark.parametrize("target_shape", [(16,), (16, 1)])
@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.uint8, torch.bool, torch.float32, torch.float64]
)
def test_binary_takes_every_usual_shape_and_type(logits_shape, target_shape, dtype):
    logits, target, features = batch("binary")
    parts = VariancePenalizedLoss("binary")(
        logits.reshape(logits_shape), target.reshape(target_shape).to(dtype), features
    )
    expected = reference_cross_entropy(logits, target, "binary")
    assert parts.cross_entropy.item() == pytest.approx(expected, rel=1e-6)


def test_multiclass_takes_a_column_of_labels():
    logits, target, features = batch("multiclass")
    criterion = VariancePenalizedLoss("multiclass", feature_sampling_ratio=1.0)
    column = criterion(logits, target[:, None].to(torch.int32), features)
    torch.testing.assert_close(column, criterion(logits, target, features), rtol=0, atol=0)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_gradients(task, ratio):
    logits, target, features = batch(task, n=5, classes=3, dtype=torch.float64)
    logits.requires_grad_()
    features.requires_grad_()

    def loss(logits, features):
        generator = torch.Generator().manual_seed(3)  # the same draw for every evaluation
        criterion = VariancePenalizedLoss(task, 0.7, ratio, 0.5, generator=generator)
        return criterion(logits, target, features).total

    assert torch.autograd.gradcheck(loss, (logits, features))
    assert torch.autograd.gradgradcheck(loss, (logits, features))


# ---------------------------------------------------------------- properties


def matrices(min_samples=2):
    return hnp.arrays(
        np.float64,
        st.tuples(st.integers(min_samples, 8), st.integers(1, 6)),
        elements=st.floats(-100, 100, allow_subnormal=False),
    )


@given(matrices(), st.integers(0, 2**32 - 1))
def test_shift_changes_nothing(features, seed):
    shift = np.random.default_rng(seed).uniform(-50, 50, features.shape[1])
    moved = feature_variance(torch.tensor(features + shift)).item()
    assert moved == pytest.approx(feature_variance(torch.tensor(features)).item(), abs=1e-8)


@given(matrices(), st.floats(-10, 10))
def test_scale_counts_squared(features, scale):
    features = torch.tensor(features)
    expected = scale**2 * feature_variance(features).item()
    assert feature_variance(scale * features).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(matrices(), st.integers(0, 2**32 - 1))
def test_order_of_samples_and_features_is_irrelevant(features, seed):
    random = np.random.default_rng(seed)
    shuffled = random.permutation(random.permutation(features, axis=0), axis=1)
    value = feature_variance(torch.tensor(shuffled)).item()
    assert value == pytest.approx(feature_variance(torch.tensor(features)).item(), abs=1e-9)


@given(matrices(), st.floats(0.01, 1.0))
def test_is_never_negative_whatever_is_drawn(features, ratio):
    assert feature_variance(torch.tensor(features), ratio).item() >= 0


@given(hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(-100, 100)), st.integers(2, 9))
def test_is_zero_for_identical_samples(sample, count):
    features = torch.tensor(np.tile(sample, (count, 1)))
    assert feature_variance(features).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("lambda_", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_weight_of_zero_is_cross_entropy_bit_for_bit(lambda_, ratio):
    logits, target, features = batch("multiclass")
    logits.requires_grad_()
    features.requires_grad_()
    parts = VariancePenalizedLoss("multiclass", 0.0, ratio, lambda_)(logits, target, features)
    assert torch.equal(parts.total, lambda_ * F.cross_entropy(logits, target))
    assert parts.feature_variance > 0  # reported all the same
    assert torch.autograd.grad(parts.total, features, allow_unused=True) == (None,)


def test_total_is_made_of_its_parts():
    parts = VariancePenalizedLoss("binary", 0.3, 0.5, 0.7)(*batch("binary"))
    assert isinstance(parts, LossParts)
    assert torch.equal(parts.total, 0.7 * parts.cross_entropy + 0.3 * parts.feature_variance)


# ---------------------------------------------------------------- the draw


def turn_to(monkeypatch, start: int) -> None:
    """The next draw starts there."""
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(start))


@pytest.mark.parametrize(
    ("ratio", "size"), [(0.5, 4), (0.3, 2), (0.2, 1), (0.01, 1), (0.8, 6), (1.0, 7)]
)
def test_mean_over_every_draw_is_the_value_over_all_features(monkeypatch, ratio, size):
    features = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    expected = feature_variance(features)
    (expected_gradient,) = torch.autograd.grad(expected, features)
    values, gradients, drawn = [], [], set()
    for start in range(7):
        turn_to(monkeypatch, start)
        value = feature_variance(features, ratio)
        (gradient,) = torch.autograd.grad(value, features)
        values.append(value)
        gradients.append(gradient)
        drawn.add(int(gradient.ne(0).any(0).sum()))
    assert drawn == {size}
    torch.testing.assert_close(torch.stack(values).mean(), expected)
    torch.testing.assert_close(torch.stack(gradients).mean(0), expected_gradient)


@given(count=st.integers(1, 40), share=st.floats(0.01, 1))
def test_every_feature_is_drawn_equally_often(count, share):
    sampled = max(1, round(share * count))
    times = np.zeros(count)
    for start in range(count):
        with pytest.MonkeyPatch.context() as patch:
            turn_to(patch, start)
            weights = draw_features(count, sampled, dtype=torch.float64).numpy()
        # Turning a circle by hand.
        teeth = [(start + tooth * count // sampled) % count for tooth in range(sampled)]
        assert np.flatnonzero(weights).tolist() == sorted(teeth)
        assert set(weights[weights > 0]) == {1 / sampled}
        times += weights > 0
    assert set(times) == {sampled}


def test_the_start_of_the_draw_is_uniform():
    generator = torch.Generator().manual_seed(0)
    starts = [int(draw_features(10, 1, generator).argmax()) for _ in range(5000)]
    assert scipy.stats.chisquare(np.bincount(starts, minlength=10)).pvalue > 1e-3


def test_what_was_drawn_can_be_changed_without_changing_later_draws():
    features, generator = torch.randn(4, 1000), torch.Generator()
    expected = feature_variance(features, 0.03, generator=generator.manual_seed(1))
    draw_features(1000, 30).zero_()
    draw_features(1000, 30).numpy()[:] = 7
    assert feature_variance(features, 0.03, generator=generator.manual_seed(1)) == expected


def test_a_first_draw_in_inference_mode_does_not_spoil_later_ones():
    features = torch.randn(5, 77, requires_grad=True)
    with torch.inference_mode():
        feature_variance(features, 0.31)
    feature_variance(features, 0.31).backward()
    assert features.grad.any()


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_only_features_that_were_drawn_count(ratio):
    features = torch.randn(9, 25, dtype=torch.float64, requires_grad=True)
    weights = draw_features(25, round(25 * ratio), torch.Generator().manual_seed(2))
    drawn = weights.numpy() > 0
    value = feature_variance(features, ratio, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad(value, features)
    given = features.detach().numpy()
    assert value.item() == pytest.approx(given[:, drawn].var(0).mean(), rel=1e-12)
    expected = np.where(drawn, 2 * (given - given.mean(0)) / (9 * drawn.sum()), 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-14)


def test_mean_over_many_draws_is_the_value_over_all_features():
    features = torch.randn(8, 50) * torch.linspace(0.1, 3, 50)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([feature_variance(features, 0.2, generator=generator) for _ in range(2000)])
    error = draws.std() / len(draws) ** 0.5
    assert abs(draws.mean() - feature_variance(features)) < 4 * error


def test_draws_anew_at_every_step_and_repeats_with_the_seed():
    logits, target, features = batch("binary")

    def draw() -> list[float]:
        generator = torch.Generator().manual_seed(11)
        criterion = VariancePenalizedLoss("binary", 1.0, 0.25, generator=generator)
        return [criterion(logits, target, features).feature_variance.item() for _ in range(6)]

    first = draw()
    assert len(set(first)) > 1
    assert draw() == first


def test_draws_from_the_global_generator_by_default():
    features = torch.randn(5, 40)
    torch.manual_seed(5)
    first = [feature_variance(features, 0.1).item() for _ in range(4)]
    torch.manual_seed(5)
    assert [feature_variance(features, 0.1).item() for _ in range(4)] == first
    assert len(set(first)) > 1


def test_eval_mode_uses_all_features_and_draws_nothing():
    logits, target, features = batch("binary")
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    criterion = VariancePenalizedLoss("binary", 1.0, 0.1, generator=generator).eval()
    assert criterion(logits, target, features).feature_variance == feature_variance(features)
    assert torch.equal(generator.get_state(), state)
    criterion.train()(logits, target, features)
    assert not torch.equal(generator.get_state(), state)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(dtype):
    features = (torch.randn(8192, 6, generator=torch.Generator().manual_seed(0)) * 0.3 + 8).to(
        dtype
    )
    value = feature_variance(features)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(reference_variance(features.double()), rel=1e-5)
    features.requires_grad_()
    feature_variance(features).backward()
    assert features.grad.dtype == dtype


def test_a_large_mean_does_not_swallow_the_variance():
    features = torch.randn(4096, 3, generator=torch.Generator().manual_seed(0)) + 3000
    assert feature_variance(features).item() == pytest.approx(
        reference_variance(features), rel=1e-5
    )


def errors(features: torch.Tensor, ratio: float = 1.0) -> tuple[float, float]:
    """Relative errors of value and gradient against float64; the latter as a norm."""
    leaf = features.detach().requires_grad_()
    draw = torch.Generator().manual_seed(0)
    value = feature_variance(leaf, ratio, generator=draw)
    (gradient,) = torch.autograd.grad(value, leaf)
    flat = features.detach().double().flatten(1).numpy()
    count = flat.shape[1]
    sampled = max(1, round(ratio * count))
    weights = np.full(count, 1 / count)
    if sampled < count:
        draw.manual_seed(0)
        weights = draw_features(count, sampled, draw, dtype=torch.float64).numpy()
    centred = flat - flat.mean(0)
    exact, slope = centred.var(0) @ weights, 2 * weights * centred / len(flat)
    difference = np.linalg.norm(gradient.double().flatten(1).numpy() - slope)
    return abs(value.item() - exact) / exact, difference / np.linalg.norm(slope)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 10.0, 1e3, 1e6])
@pytest.mark.parametrize(
    "shape", [(2, 40), (32, 400), (128, 100), (257, 20), (1000, 30), (65_537, 8), (1_000_000, 1)]
)
def test_any_mean_and_any_batch_size(shape, ratio):
    features = (torch.randn(shape, dtype=torch.float64) + ratio).float()
    assert max(errors(features)) < 1e-5
    assert max(errors(features, 0.4)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mean", [0.0, 3.0, 200.0])
@pytest.mark.parametrize("count", [2, 100, 5000])
def test_any_mean_in_half_precision(dtype, mean, count):
    features = (torch.randn(count, 50) * 4 + mean).to(dtype)
    value, gradient = errors(features)
    assert value < 1e-5
    if count < 5000 or dtype == torch.bfloat16:  # smaller gradients are below float16's least
        assert gradient < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("count", [8, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_features_vary_by_nothing_however_large(count, dtype):
    features = torch.full((count, 5), 1e30, dtype=dtype, requires_grad=True)
    value = feature_variance(features)
    value.backward()
    assert value.item() == 0
    assert not features.grad.any()
    slope, value = torch.func.grad_and_value(feature_variance)(features.detach())
    assert value.item() == 0
    assert not slope.any()


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_shifting_changes_nothing_where_it_is_not_needed(monkeypatch, ratio):
    features = torch.randn(64, 30) + 0.5
    plain = errors(features, ratio)
    monkeypatch.setattr("varreg.variance._has_digits", lambda *_: False)  # as on a GPU
    assert errors(features, ratio) != plain
    assert max(errors(features, ratio)) < 1e-6


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_gradients_of_shifted_features(ratio):
    features = (torch.randn(5, 6, dtype=torch.float64) + 1e3).requires_grad_()

    def penalty(features: torch.Tensor) -> torch.Tensor:
        return feature_variance(features, ratio, generator=torch.Generator().manual_seed(3))

    assert torch.autograd.gradcheck(penalty, features)
    assert torch.autograd.gradgradcheck(penalty, features)


def test_constant_features_beside_others_cost_no_digits():
    features = torch.randn(64, 30) + 0.5
    features[:, :20] = 1e4
    assert max(errors(features)) < 1e-5


STRIDES = {
    "transposed": lambda f: f.T.contiguous().T,
    "every other": lambda f: f.repeat_interleave(2, 1)[:, ::2],
    "every other row": lambda f: f.repeat_interleave(2, 0)[::2],
    "channels last": lambda f: f.reshape(-1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    "five axes": lambda f: f.reshape(-1, 2, 3, 2, 2).permute(0, 3, 1, 4, 2),
    "expanded": lambda f: f[:, :1].expand(-1, 24),
}


@pytest.mark.parametrize("layout", STRIDES)
@pytest.mark.parametrize("count", [40, 700])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_any_stride(layout, count, mean):
    assert max(errors(STRIDES[layout](torch.randn(count, 24) + mean))) < 1e-5


def random_features(seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    count, width = int(2 ** random.uniform(1, 12)), int(2 ** random.uniform(0, 6))
    mean = 10 ** random.uniform(-3, 6) * random.choice([-1, 1], width)
    scale = 10 ** random.uniform(-10, 10)
    noise = random.standard_normal if random.random() < 0.5 else random.standard_exponential
    features = torch.tensor(scale * (noise((max(count, 2), width)) + mean)).float()
    return list(STRIDES.values())[seed % 2](features) if seed % 3 == 0 else features


@given(seed=st.integers(0, 2**32 - 1), ratio=st.sampled_from([1.0, 0.3]))
def test_value_and_gradient_of_random_features(seed, ratio):
    value, gradient = errors(random_features(seed), ratio)
    assert value < 1e-5
    assert gradient < 1e-5


@pytest.mark.slow
def test_value_and_gradient_of_ten_thousand_random_features():
    found = np.array(
        [errors(random_features(seed), (1.0, 0.3)[seed % 2]) for seed in range(10_000)]
    )
    value, gradient = found.max(0)
    print(f"largest relative error: value {value:.1e}, gradient {gradient:.1e}")
    assert value < 1e-5
    assert gradient < 1e-5


def test_half_precision_logits_lose_nothing():
    logits, target, features = batch("multiclass", n=200)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = logits.to(dtype)
        parts = VariancePenalizedLoss("multiclass")(rounded, target, features)
        assert parts.cross_entropy.item() == pytest.approx(
            reference_cross_entropy(rounded.double(), target, "multiclass"), rel=1e-6
        )


def test_float64_stays_float64():
    assert feature_variance(torch.randn(3, 2, dtype=torch.float64)).dtype == torch.float64


# ---------------------------------------------------------------- the paper's one tensor


def released_loss(y_true, y_pred, n_outputs, weight, lambda_):
    """The released loss on all features, line by line, in NumPy."""
    features, predictions = y_pred[:, :-n_outputs], y_pred[:, -n_outputs:]
    epsilon = 1e-7
    clipped = np.clip(predictions, epsilon, 1 - epsilon)
    if n_outputs == 1:
        losses = -(y_true * np.log(clipped) + (1 - y_true) * np.log(1 - clipped)).mean(-1)
    else:
        losses = -(y_true * np.log(clipped)).sum(-1)
    mean = features.mean(0)
    variance = np.square(features - mean).mean(0)
    return lambda_ * losses.mean() + weight * variance.mean()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("extreme", [False, True])
def test_concatenated_tensor_gives_the_released_loss(activation, extreme):
    random = np.random.default_rng(0)
    features = random.normal(size=(12, 9))
    n_outputs = 1 if activation == "sigmoid" else 7
    logits = random.normal(size=(12, n_outputs)) * (200 if extreme else 2)
    labels = np.arange(12) % (2 if activation == "sigmoid" else 7)
    if activation == "sigmoid":
        predictions, y_true = 1 / (1 + np.exp(-logits)), labels[:, None]
    else:
        exponential = np.exp(logits - logits.max(1, keepdims=True))
        predictions, y_true = exponential / exponential.sum(1, keepdims=True), np.eye(7)[labels]
    assert not extreme or predictions.min() < 1e-7  # so that the clipping is at work
    both = np.concatenate([features, predictions], 1)

    ours, taken = split_features(torch.tensor(both), n_outputs, activation=activation)
    task = "binary" if activation == "sigmoid" else "multiclass"
    parts = VariancePenalizedLoss(task, 0.01, 1.0, 0.5)(ours, torch.tensor(labels), taken)
    assert parts.total.item() == pytest.approx(
        released_loss(y_true, both, n_outputs, 0.01, 0.5), abs=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_split_of_probabilities_in_half_precision_clips_as_float32_does(dtype, activation):
    both = torch.tensor([[1.0, 2.0, 1.0, 0.0], [3.0, 4.0, 0.25, 0.75]]).to(dtype)
    logits, features = split_features(both, 2, activation=activation)
    expected, _ = split_features(both.float(), 2, activation=activation)
    assert torch.equal(logits, expected)
    assert logits.isfinite().all()
    assert torch.equal(features, both[:, :2])
    assert split_features(both, 2)[0].dtype == dtype


def test_split_of_logits_and_gradient_through_it():
    both = torch.randn(4, 5, requires_grad=True)
    logits, features = split_features(both, 2)
    assert torch.equal(logits, both[:, 3:])
    assert torch.equal(features, both[:, :3])
    (logits.sum() + features.sum()).backward()
    assert torch.equal(both.grad, torch.ones(4, 5))


@pytest.mark.parametrize(
    ("tensor", "n_outputs", "activation", "message"),
    [
        (torch.rand(4), 1, None, r"shape \(4,\) with n_outputs=1; expected \(N, F \+ n_outputs\)"),
        (torch.rand(4, 3), 3, None, r"shape \(4, 3\) with n_outputs=3.*at least one feature"),
        (torch.rand(4, 3), 0, None, r"n_outputs=0; expected .* one output"),
        (
            torch.rand(4, 3),
            1,
            "tanh",
            "activation is 'tanh'; allowed are None, 'sigmoid', 'softmax'",
        ),
        (torch.full((4, 3), 1.5), 1, "sigmoid", r"from 1.5 to 1.5; probabilities lie in \[0, 1\]"),
        (torch.full((4, 3), -0.5), 2, "softmax", r"last 2 columns go from -0.5 .*activation=None"),
        (torch.full((4, 3), torch.nan), 1, "sigmoid", "from nan to nan; probabilities lie in"),
        (torch.ones(4, 3).long(), 1, None, "concatenated is torch.int64; it must be floating"),
        ([[1.0, 2.0]], 1, None, r"concatenated is a list; it must be a torch\.Tensor"),
        (torch.rand(4, 3), 1.0, None, "n_outputs is 1.0; it must be an integer"),
        (torch.rand(4, 3), True, None, "n_outputs is True; it must be an integer"),
    ],
)
def test_split_refuses(tensor, n_outputs, activation, message):
    with pytest.raises(ValueError, match=message):
        split_features(tensor, n_outputs, activation=activation)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("ratio", [0, 1.5, -0.1, float("nan")])
def test_ratio_outside_its_range(ratio):
    with pytest.raises(ValueError, match=rf"sampling ratio is {ratio}; it must lie in \(0, 1\]"):
        feature_variance(torch.rand(3, 2), ratio)
    with pytest.raises(ValueError, match=rf"sampling ratio is {ratio}; it must lie in \(0, 1\]"):
        VariancePenalizedLoss("binary", feature_sampling_ratio=ratio)


@pytest.mark.parametrize("shape", [(1, 5), (0, 5), (5,), (), (4, 0), (3, 2, 0)])
def test_features_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"two samples or more and one feature or more") as error:
        feature_variance(torch.zeros(shape))
    assert str(tuple(shape)) in str(error.value)


def test_a_batch_of_one_is_told_what_to_do():
    with pytest.raises(
        ValueError, match=r"\(1, 5\).*batch of one has no variance: drop it or merge"
    ):
        VariancePenalizedLoss("binary")(torch.zeros(1), torch.zeros(1), torch.zeros(1, 5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_features_that_are_not_floating_point(dtype):
    with pytest.raises(ValueError, match=rf"features are {dtype}; they must be floating point"):
        feature_variance(torch.zeros(3, 2, dtype=dtype))


def test_features_of_eight_bits_or_sparse():
    with pytest.raises(ValueError, match=r"float8_e4m3fn; .* float16, bfloat16"):
        feature_variance(torch.zeros(3, 2).to(torch.float8_e4m3fn))
    with pytest.raises(ValueError, match=r"torch.sparse_coo; .* call to_dense\(\)"):
        feature_variance(torch.eye(3).to_sparse())


def test_features_that_are_no_tensor():
    for kind in (TypeError, ValueError):
        with pytest.raises(kind, match=r"features is a list; it must be a torch\.Tensor"):
            feature_variance([[1.0], [2.0]])


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("wrong", [None, [0.0, 1.0], np.zeros(2), (torch.zeros(2),), {"a": 1}])
def test_arguments_that_are_no_tensors(at, wrong):
    arguments = [torch.zeros(2), torch.zeros(2), torch.rand(2, 3)]
    arguments[at] = wrong
    name = ("logits", "target", "features")[at]
    with pytest.raises(NotATensorError, match=f"{name} is a {type(wrong).__name__}; it must be"):
        VariancePenalizedLoss("binary")(*arguments)


NO_NUMBERS = [None, "0.5", True, np.bool_(True), 1j, [0.5], torch.tensor(0.5)]


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["variance_weight", "feature_sampling_ratio", "lambda_"])
def test_parameters_that_are_no_numbers(name, wrong):
    word = "sampling ratio" if name == "feature_sampling_ratio" else name
    with pytest.raises(ValueError, match=rf"{word} is .*; it must be a number"):
        VariancePenalizedLoss("binary", **{name: wrong})
    criterion = VariancePenalizedLoss("binary")
    setattr(criterion, name, wrong)
    with pytest.raises(ValueError, match=rf"{word} is .*; it must be a number"):
        criterion(*batch("binary"))
    with pytest.raises(ValueError, match=r"sampling ratio is .*; it must be a number"):
        feature_variance(torch.rand(3, 2), wrong)


def test_numbers_of_numpy_are_numbers():
    logits, target, features = batch("binary")
    parts = [
        VariancePenalizedLoss("binary", kind(1), kind(1), kind(1))(logits, target, features)
        for kind in (float, int, np.float16, np.float32, np.float64, np.int64, np.uint8)
    ]
    assert all(torch.equal(torch.stack(p), torch.stack(parts[0])) for p in parts)
    # 0.2 of a hundred thousand overflows float16.
    features = torch.rand(2, 100_000)
    leaf = features.requires_grad_()
    feature_variance(leaf, np.float16(0.2)).backward()
    assert leaf.grad.ne(0).any(0).sum() == round(float(np.float16(0.2)) * 100_000)


@pytest.mark.parametrize("wrong", [3, "cpu", np.random.default_rng(0)], ids=repr)
def test_generators_that_are_none(wrong):
    message = r"generator is .*; it must be a torch\.Generator, such as"
    with pytest.raises(ValueError, match=message):
        feature_variance(torch.rand(3, 2), generator=wrong)
    with pytest.raises(ValueError, match=message):
        VariancePenalizedLoss("binary", generator=wrong)
    with pytest.raises(ValueError, match=message):
        draw_features(5, 2, wrong)


@pytest.mark.parametrize(("count", "sampled"), [(5, 6), (5, 0), (0, 1), (5.0, 2), (5, None)])
def test_draws_that_are_none(count, sampled):
    with pytest.raises(ValueError, match=r"(count|sampled) is .*; it must be"):
        draw_features(count, sampled)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_features_without_gradient_under_logits_with_one(weight):
    logits, target, features = batch("binary")
    logits.requires_grad_()
    criterion = VariancePenalizedLoss("binary", weight, 1.0)
    if weight:
        with pytest.raises(ValueError, match=r"features need no gradient and logits do.*use_reent"):
            criterion(logits, target, features)
    else:
        criterion(logits, target, features).total.backward()
    with torch.no_grad():  # only the numbers are wanted
        assert criterion(logits, target, features).feature_variance > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("weight", [0.0, 0.01])
def test_features_that_are_not_finite(bad, weight):
    logits, target, features = batch("binary")
    features[2, 1, 0] = features[3, 1, 0] = bad
    criterion = VariancePenalizedLoss("binary", weight, 1.0)
    with pytest.raises(NonFiniteFeaturesError, match=r"2 values that are NaN or infinite of 192"):
        criterion(logits, target, features)


def test_a_variance_that_overflows():
    features = torch.tensor([[3e38], [-3e38]])
    with pytest.raises(
        NonFiniteFeaturesError, match=r"features up to 3e\+38 overflows torch.float32"
    ):
        feature_variance(features)


def test_value_checks_can_be_switched_off():
    logits, target, features = batch("binary")
    features[0] = torch.nan
    criterion = VariancePenalizedLoss("binary", validate=False, feature_sampling_ratio=1.0)
    assert torch.isnan(criterion(logits, target, features).total)
    assert criterion(logits, target + 5, features[1:].new_zeros(16, 2)).total.isfinite()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"task": "regression"},
            "task is 'regression'; allowed are binary, multiclass, multilabel",
        ),
        ({"variance_weight": -1}, "variance_weight is -1; it must be finite and at least 0"),
        ({"variance_weight": float("nan")}, "variance_weight is nan"),
        ({"variance_weight": float("inf")}, "variance_weight is inf"),
        ({"lambda_": 0}, "lambda_ is 0; it must be finite and greater than 0"),
        ({"lambda_": -0.5}, "lambda_ is -0.5"),
        ({"lambda_": float("nan")}, "lambda_ is nan"),
    ],
)
def test_parameters_outside_their_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        VariancePenalizedLoss(**({"task": "binary"} | arguments))


@pytest.mark.parametrize(
    ("task", "logits", "target", "message"),
    [
        ("binary", (4, 2), (4,), r"logits \(4, 2\) .* both must be \(N,\) or \(N, 1\)"),
        ("binary", (4,), (4, 2), r"target \(4, 2\) .* both must be \(N,\) or \(N, 1\)"),
        ("binary", (4,), (3,), r"logits \(4,\) and target \(3,\)"),
        ("multiclass", (4,), (4,), r"logits must be \(N, K\) with K of 2 or more"),
        ("multiclass", (4, 1), (4,), r"logits \(4, 1\) .* K of 2 or more"),
        ("multiclass", (4, 3), (4, 3), r"target \(4, 3\) .* and target \(N,\) or \(N, 1\)"),
        ("multilabel", (4, 3), (4,), r"logits \(4, 3\) and target \(4,\) .* both must be \(N, L\)"),
        ("multilabel", (4,), (4,), r"both must be \(N, L\)"),
    ],
)
def test_shapes_that_do_not_fit(task, logits, target, message):
    with pytest.raises(ValueError, match=message):
        VariancePenalizedLoss(task)(
            torch.zeros(logits), torch.zeros(target, dtype=torch.int64), torch.rand(4, 6)
        )


def test_logits_and_features_of_different_batches():
    with pytest.raises(ValueError, match=r"logits hold \(4,\) and features \(5, 6\)"):
        VariancePenalizedLoss("binary")(torch.zeros(4), torch.zeros(4), torch.rand(5, 6))


@pytest.mark.parametrize(
    ("task", "shape", "target", "message"),
    [
        ("binary", (3,), [0, 1, 2], "binary labels go from 0 to 2; every label must be 0 or 1"),
        ("binary", (3,), [-1, 1, 1], "binary labels go from -1 to 1"),
        ("binary", (3,), [0.0, 1.5, 1.0], "every label must be 0 or 1, or as a probability"),
        ("binary", (3,), [0.0, float("nan"), 1.0], "labels go from nan to nan"),
        ("multiclass", (3, 7), [0, 6, 7], "labels go from 0 to 7; with 7 logits .* in 0 to 6"),
        ("multiclass", (3, 7), [-100, 0, 1], "labels go from -100 to 1"),
        (
            "multiclass",
            (3, 7),
            [0.0, 1.0, 2.0],
            "torch.float32; target must hold integer class codes",
        ),
        ("multiclass", (3, 7), [True, False, True], "torch.bool; target must hold integer"),
        ("multilabel", (2, 2), [[0, 1], [3, 1]], "multilabel labels go from 0 to 3"),
    ],
)
def test_labels_outside_the_classes(task, shape, target, message):
    with pytest.raises(ValueError, match=message):
        VariancePenalizedLoss(task)(
            torch.zeros(shape), torch.tensor(target), torch.rand(shape[0], 6)
        )


def test_prints_its_parameters():
    assert repr(VariancePenalizedLoss("binary")) == (
        "VariancePenalizedLoss('binary', variance_weight=2.5, feature_sampling_ratio=1.0, "
        "lambda_=1.0)"
    )
    published = VariancePenalizedLoss("binary", **PUBLISHED)
    assert repr(published) == (
        "VariancePenalizedLoss('binary', variance_weight=0.01, feature_sampling_ratio=0.2, "
        "lambda_=0.5)"
    )


# ---------------------------------------------------------------- what it costs, and where it runs


def saved_by(features: torch.Tensor, ratio: float) -> list[torch.Tensor]:
    """What the penalty keeps for its backward pass, as autograd packs it."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        feature_variance(features, ratio)
    return kept


@pytest.mark.parametrize("ratio", [1.0, 0.2])
@pytest.mark.parametrize("layout", ["flat", "channels_last", "contiguous"])
def test_keeps_nothing_of_the_features_size_but_the_features(ratio, layout):
    if layout == "flat":
        features = torch.randn(16, 300, requires_grad=True)
    else:
        format_ = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        features = torch.randn(16, 3, 10, 10).to(memory_format=format_).requires_grad_()
    kept = saved_by(features, ratio)
    large = [tensor for tensor in kept if tensor.numel() >= features.numel()]
    assert {tensor.data_ptr() for tensor in large} == {features.data_ptr()}, "the features, no copy"
    assert {tensor.numel() for tensor in kept if tensor.numel() < features.numel()} == {300}
    assert len(kept) <= 3


@pytest.mark.parametrize("ratio", [1.0, 0.2])
def test_allocates_less_than_a_copy_forward_and_one_gradient_backward(ratio):
    features = torch.randn(64, 5000, requires_grad=True)
    size = features.numel() * features.element_size()

    def allocated(call: Callable[[], object]) -> int:
        with torch.profiler.profile(profile_memory=True) as profiler:
            call()
        return sum(event.self_cpu_memory_usage for event in gained(profiler))

    def gained(profiler: torch.profiler.profile) -> list:
        return [event for event in profiler.events() if event.self_cpu_memory_usage > 0]

    value = feature_variance(features, ratio)
    vectors = 8 * features[0].numel() * features.element_size()
    assert allocated(lambda: feature_variance(features, ratio)) < vectors < size / 7
    assert size <= allocated(lambda: torch.autograd.grad(value, features)) < 1.1 * size


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_layout_of_the_features_changes_nothing_and_stays(layout):
    features = torch.randn(5, 4, 6, 3, dtype=torch.float64)
    given = features.clone(memory_format=layout).requires_grad_()
    value = feature_variance(given)
    value.backward()
    assert value.item() == pytest.approx(reference_variance(features), rel=1e-12)
    assert given.grad.stride() == given.stride()
    flat = features.detach().flatten(1).numpy()
    expected = 2 * (flat - flat.mean(0)) / flat.size
    np.testing.assert_allclose(given.grad.flatten(1), expected, rtol=1e-10)


def test_features_that_are_a_strided_view():
    features = torch.randn(7, 12, dtype=torch.float64)[:, ::3].requires_grad_()
    assert feature_variance(features).item() == pytest.approx(reference_variance(features.detach()))
    assert torch.autograd.gradcheck(feature_variance, (features,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_gradient_of_half_precision_features(dtype, ratio):
    features = (torch.randn(64, 8) + 5).to(dtype).requires_grad_()
    value = feature_variance(features, ratio, generator=torch.Generator().manual_seed(1))
    value.backward()
    wide = features.detach().double().requires_grad_()
    feature_variance(wide, ratio, generator=torch.Generator().manual_seed(1)).backward()
    assert features.grad.dtype == dtype
    torch.testing.assert_close(features.grad.double(), wide.grad, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 0.2])
def test_autocast_does_not_touch_the_precision_of_the_penalty(ratio):
    features = torch.randn(128, 50) + 20
    with torch.autocast("cpu", torch.bfloat16):
        value = feature_variance(features, ratio, generator=torch.Generator().manual_seed(0))
    expected = feature_variance(features, ratio, generator=torch.Generator().manual_seed(0))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


def test_penalty_of_a_model_under_autocast():
    model = nn.Linear(6, 5)
    images = torch.randn(32, 6)
    with torch.autocast("cpu", torch.bfloat16):
        features = model(images)
        assert features.dtype == torch.bfloat16
        value = feature_variance(features)
    value.backward()
    assert value.item() == pytest.approx(reference_variance(features.detach().double()), rel=1e-3)
    assert model.weight.grad.dtype == torch.float32


def compiled_losses(ratio: float) -> tuple[LossParts, torch.Tensor, LossParts, torch.Tensor]:
    """Parts and gradients of one batch, compiled without a graph break and eager."""
    logits, target, features = batch("multiclass", n=12)
    criterion = VariancePenalizedLoss("multiclass", 0.7, ratio)
    found = []
    for call in (torch.compile(criterion, fullgraph=True, backend="aot_eager"), criterion):
        leaf = features.clone().requires_grad_()
        parts = call(logits, target, leaf)
        (gradient,) = torch.autograd.grad(parts.total, leaf)
        found += [parts, gradient]
    return tuple(found)


def test_compiles_without_a_graph_break():
    compiled, gradient, eager, expected = compiled_losses(1.0)
    torch.testing.assert_close(tuple(compiled), tuple(eager))
    torch.testing.assert_close(gradient, expected)


def test_compiles_the_draw_without_a_graph_break():
    compiled, gradient, *_ = compiled_losses(0.25)
    assert int(gradient.ne(0).any(0).sum()) == 3  # of 12
    assert compiled.feature_variance > 0


SHAPES = [(4, 7), (5, 9), (3, 2, 3), (4, 2, 5), (3, 2, 3, 3), (4, 2, 5, 3), (2, 2, 3, 4, 5)]


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_compiles_for_changing_sizes_and_axes(dynamic, ratio):
    compiled = torch.compile(feature_variance, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in (*SHAPES, (3, 4, 6, 5), (5, 4, 7, 6)):
        features = torch.randn(shape)
        if shape in ((3, 4, 6, 5), (5, 4, 7, 6)):
            features = features.contiguous(memory_format=torch.channels_last)
        features.requires_grad_()
        value = compiled(features, ratio)
        (gradient,) = torch.autograd.grad(value, features)
        if ratio == 1:
            expected = feature_variance(features)
            torch.testing.assert_close(value, expected)
            torch.testing.assert_close(gradient, torch.autograd.grad(expected, features)[0])
        else:
            count = features[0].numel()
            assert gradient.ne(0).any(0).sum() == max(1, round(ratio * count))
    torch._dynamo.reset()


@pytest.mark.parametrize("mean", [1.0, 1e6])
def test_compiled_is_as_exact(mean):
    features = torch.randn(1000, 20) + mean
    compiled = torch.compile(feature_variance, fullgraph=True, backend="aot_eager")
    assert compiled(features).item() == pytest.approx(reference_variance(features), rel=1e-5)


def test_a_generator_is_respected_by_a_compiled_loss_or_refused():
    features = torch.arange(400.0).reshape(4, 100) ** 2
    draw = torch.Generator()

    def loss(features: torch.Tensor) -> torch.Tensor:
        return feature_variance(features, 0.1, generator=draw)

    draw.manual_seed(5)
    expected = [loss(features).item() for _ in range(3)]
    draw.manual_seed(5)
    compiled = torch.compile(loss, backend="eager")
    assert [compiled(features).item() for _ in range(3)] == pytest.approx(expected, rel=1e-6)
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"leave generator out, .* compile without fullgraph=True"):
        torch.compile(loss, backend="eager", fullgraph=True)(features)
    everything = torch.compile(feature_variance, backend="eager", fullgraph=True)
    torch.testing.assert_close(everything(features, generator=draw), feature_variance(features))


# ---------------------------------------------------------------- PyTorch's transforms


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # in torch.func itself
@pytest.mark.parametrize("ratio", [1.0, 0.4])
@pytest.mark.parametrize("validate", [True, False])
def test_transforms_of_torch_func_give_what_autograd_gives(ratio, validate):
    stack = torch.randn(3, 5, 4, 2, dtype=torch.float64, requires_grad=True)

    def penalty(features: torch.Tensor) -> torch.Tensor:
        draw = torch.Generator().manual_seed(3)  # the same draw for every evaluation
        return feature_variance(features, ratio, generator=draw, validate=validate)

    values = torch.stack([penalty(features) for features in stack])
    (slopes,) = torch.autograd.grad(values.sum(), stack)
    features, tangent = stack[0].detach(), torch.randn(5, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(torch.func.grad(penalty)(features), slopes[0])
    torch.testing.assert_close(torch.func.jacrev(penalty)(features), slopes[0])
    forward = torch.func.jacfwd(penalty, randomness="same")
    torch.testing.assert_close(forward(features), slopes[0])
    value, moved = torch.func.jvp(penalty, (features,), (tangent,))
    torch.testing.assert_close(value, values[0].detach())
    torch.testing.assert_close(moved, (slopes[0] * tangent).sum())
    hessian = torch.autograd.functional.hessian(penalty, features)
    twice = torch.func.jacfwd(torch.func.jacrev(penalty), randomness="same")
    torch.testing.assert_close(twice(features), hessian)
    with forward_ad.dual_level():
        dual = penalty(forward_ad.make_dual(features, tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, moved)
    if ratio == 1:
        torch.testing.assert_close(torch.vmap(penalty)(stack.detach()), values.detach())
        torch.testing.assert_close(torch.vmap(torch.func.grad(penalty))(stack.detach()), slopes)


def test_draws_of_vmap_are_those_of_its_randomness():
    stack = torch.randn(1, 5, 40).expand(6, 5, 40)
    for randomness, different in (("same", 1), ("different", 6)):
        found = torch.vmap(lambda f: feature_variance(f, 0.1), randomness=randomness)(stack)
        assert (len(set(found.tolist())) > 1) == (different > 1)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda f: feature_variance(f, 0.1))(stack)


def test_the_whole_loss_under_torch_func():
    logits, target, features = batch("multiclass", n=8)
    criterion = VariancePenalizedLoss("multiclass", 0.7, 1.0)
    leaves = logits.clone().requires_grad_(), features.clone().requires_grad_()
    expected = torch.autograd.grad(criterion(leaves[0], target, leaves[1]).total, leaves)

    def total(logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return criterion(logits, target, features).total

    torch.testing.assert_close(torch.func.grad(total, (0, 1))(logits, features), expected)
    stack = torch.stack([logits, 2 * logits]), torch.stack([features, features + 1])
    labels = torch.stack([target, target.flip(0)])
    found = torch.vmap(criterion)(stack[0], labels, stack[1])
    for at in range(2):
        alone = criterion(stack[0][at], labels[at], stack[1][at])
        torch.testing.assert_close(tuple(part[at] for part in found), tuple(alone))


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "save"])
def test_a_copy_of_the_loss_goes_on_as_the_loss(way):
    criterion = VariancePenalizedLoss(
        "binary", 0.3, 0.2, 1.0, generator=torch.Generator().manual_seed(4)
    )
    given = batch("binary")
    criterion(*given)  # the draw moves on
    if way == "deepcopy":
        twin = copy.deepcopy(criterion)
    elif way == "pickle":
        twin = pickle.loads(pickle.dumps(criterion))
    else:
        torch.save(criterion, file := io.BytesIO())
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert repr(twin) == repr(criterion)
    assert twin.generator is not criterion.generator
    for _ in range(3):
        assert criterion(*given).total == twin(*given).total


def test_mean_over_compiled_draws_is_the_value_over_all_features():
    features = torch.randn(8, 10) * torch.linspace(0.1, 3, 10)
    draw = torch.compile(feature_variance, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    draws = torch.stack([draw(features, 0.2) for _ in range(1000)])
    error = draws.std() / len(draws) ** 0.5
    assert abs(draws.mean() - feature_variance(features)) < 4 * error


def test_gradient_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(6, 20), nn.Tanh()), nn.Linear(20, 1)
    images, target = torch.randn(10, 6), torch.randint(2, (10,))

    def gradients(run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        features = run(images)
        generator = torch.Generator().manual_seed(3)
        criterion = VariancePenalizedLoss("binary", 0.5, 0.3, generator=generator)
        total = criterion(head(features), target, features).total
        return torch.autograd.grad(total, list(body.parameters()))

    checkpointed = gradients(lambda x: checkpoint(body, x, use_reentrant=False))
    torch.testing.assert_close(checkpointed, gradients(body))


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_a_checkpointed_step_has_the_gradient_of_its_draw_or_is_refused(use_reentrant, own, ratio):
    body, head = nn.Linear(6, 20), nn.Linear(20, 1)
    images, target = torch.randn(10, 6, requires_grad=True), torch.randint(2, (10,))
    draw = torch.Generator().manual_seed(3) if own else None
    criterion = VariancePenalizedLoss("binary", 5.0, ratio, generator=draw)

    def step(images: torch.Tensor) -> torch.Tensor:
        features = body(images).tanh()
        return criterion(head(features), target, features).total

    torch.manual_seed(8)
    expected = step(images)
    expected_gradient = torch.autograd.grad(expected, body.weight)[0]
    if own:
        draw.manual_seed(3)
    torch.manual_seed(8)
    total = checkpoint(step, images, use_reentrant=use_reentrant)
    assert torch.equal(total, expected)
    if own and ratio < 1:
        with pytest.raises(ValueError, match=r"checkpointing computes again.* leave generator out"):
            total.backward()
    else:
        total.backward()
        torch.testing.assert_close(body.weight.grad, expected_gradient)


def test_accumulation_adds_the_gradients_of_the_parts():
    logits, target, features = batch("binary", n=8)
    criterion = VariancePenalizedLoss("binary", 0.5, 1.0)
    leaf = features.clone().requires_grad_()
    for half in (slice(0, 4), slice(4, 8)):
        (criterion(logits[half], target[half], leaf[half]).total / 2).backward()
    expected = []
    for half in (slice(0, 4), slice(4, 8)):
        part = features[half].flatten(1).numpy()
        expected.append(0.5 * (part - part.mean(0)) / part.size)
    np.testing.assert_allclose(leaf.grad.flatten(1), np.concatenate(expected), atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("ratio", [1.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_gives_what_the_cpu_gives(ratio, dtype):
    features = (torch.randn(256, 1000) + 3).to(dtype)
    found = []
    for device in ("cpu", "cuda"):
        leaf = features.to(device).requires_grad_()
        value = feature_variance(leaf, ratio, generator=torch.Generator().manual_seed(0))
        value.backward()
        found.append((value.cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(*found, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-7)


@pytest.mark.cuda
def test_cuda_compiles_without_a_graph_break():
    features = torch.randn(64, 500, device="cuda")
    compiled = torch.compile(feature_variance, fullgraph=True)
    torch.testing.assert_close(compiled(features), feature_variance(features))
