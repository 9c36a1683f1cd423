from __future__ import annotations

import doctest
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from varreg import feature_variance
from varreg.checks import NonFiniteFeaturesError
from varreg.penalties import (
    center_loss,
    decov,
    released_variance,
    variance_constancy,
    vicreg_variance,
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


TARGET = torch.arange(12) % 3


def centers_of(count: int, dtype=torch.float32) -> torch.Tensor:
    return torch.arange(3 * count, dtype=dtype).sin().reshape(3, count)


# Every penalty as a function of the features of twelve samples alone.
PENALTIES = {
    "vicreg_variance": vicreg_variance,
    "decov": decov,
    "variance_constancy": variance_constancy,
    "center_loss": lambda features, **keywords: center_loss(
        features,
        TARGET,
        centers_of(features[0].numel()).to(features),
        **keywords,
    ),
}
REFERENCES = {
    "vicreg_variance": reference_vicreg,
    "decov": reference_decov,
    "variance_constancy": reference_constancy,
    "center_loss": lambda features: reference_center(features, TARGET, centers_of(len(features.T))),
}
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
    assert value.item() == pytest.approx(REFERENCES[name](features.flatten(1).numpy()), rel=1e-5)


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
    between = feature_variance(means)  # the classes are equally frequent
    within = feature_variance(features) - between
    assert center_loss(features, TARGET, means).item() == pytest.approx(6 / 2 * within.item())


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
    features = batch(*shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(PENALTIES[name], features)
    assert torch.autograd.gradgradcheck(PENALTIES[name], features)


def test_gradient_of_the_centers():
    features = batch(4, dtype=torch.float64)
    centers = centers_of(4, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda centers: center_loss(features, TARGET, centers), centers)


@pytest.mark.parametrize("name", ["vicreg_variance", "decov", "variance_constancy"])
def test_gradient_is_finite_where_the_variance_is_zero(name):
    features = torch.ones(12, 3, requires_grad=True)
    PENALTIES[name](features).backward()
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


@pytest.mark.parametrize("name", ["vicreg_variance", "decov", "variance_constancy"])
@given(features=matrices(), seed=st.integers(0, 2**32 - 1))
def test_shift_changes_nothing(name, features, seed):
    shift = np.random.default_rng(seed).uniform(-50, 50, features.shape[1])
    moved = PENALTIES[name](torch.tensor(features + shift))
    assert close(moved, PENALTIES[name](torch.tensor(features)))


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


@every_penalty
@given(features=matrices())
def test_is_never_negative(name, features):
    rounding = 1e-12 * np.sum(features**2) ** 2  # decov is a difference
    assert PENALTIES[name](torch.tensor(features)).item() >= -rounding


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
    assert value.item() == pytest.approx(PENALTIES[name](features.double()).item(), rel=1e-4)
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
    exact = PENALTIES[name](features.double()).item()
    assert value == pytest.approx(exact, rel=1e-5)


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


@every_penalty
@pytest.mark.parametrize("shape", [(1, 5), (0, 5), (5,), (), (4, 0)])
def test_features_of_a_wrong_shape(name, shape):
    with pytest.raises(ValueError, match=r"two samples or more and one feature or more") as error:
        PENALTIES[name](torch.zeros(shape)) if name != "center_loss" else center_loss(
            torch.zeros(shape), TARGET, centers_of(5)
        )
    assert str(tuple(shape)) in str(error.value)


@every_penalty
def test_features_that_are_not_floating_point(name):
    with pytest.raises(ValueError, match=r"features are torch.int64; they must be floating point"):
        PENALTIES[name](torch.zeros(12, 2, dtype=torch.int64))


@pytest.mark.parametrize("penalty", [vicreg_variance, decov, variance_constancy])
def test_features_that_are_no_tensor(penalty):
    with pytest.raises(TypeError, match=r"features is a list; it must be a torch\.Tensor"):
        penalty([[1.0], [2.0]])


@every_penalty
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite(name, bad):
    features = batch(5)
    features[2, 1] = features[3, 1] = bad
    with pytest.raises(NonFiniteFeaturesError, match=r"features hold 2 values .* infinite of 60"):
        PENALTIES[name](features)
    assert not PENALTIES[name](features, validate=False).isfinite()


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
