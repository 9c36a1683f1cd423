"""Measures of features, against formulas written out, and truths that must hold."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from varreg import feature_variance
from varreg.lab.representations import (
    dead_share,
    effective_rank,
    linear_cka,
    spectrum,
    variance_parts,
)
from varreg.penalties import within_class_variance


def some(n=40, d=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) @ np.diag(np.arange(1, d + 1)) + 3


@pytest.mark.parametrize(("n", "d"), [(40, 7), (5, 30)])
def test_the_spectrum_is_that_of_the_covariance(n, d):
    features = some(n, d)
    expected = np.linalg.eigvalsh(np.cov(features.T, bias=True))[::-1][: min(n, d)]
    np.testing.assert_allclose(spectrum(features), expected, atol=1e-9)
    assert spectrum(features).sum() == pytest.approx(features.var(0).sum())


@given(st.integers(1, 9), st.floats(0.1, 9))
def test_the_effective_rank_counts_equal_directions(directions, size):
    eigenvalues = np.r_[np.full(directions, size), np.zeros(3)]
    assert effective_rank(eigenvalues) == pytest.approx(directions)


def test_the_effective_rank_of_what_is_uneven_or_nothing():
    shares = np.array([0.7, 0.2, 0.1])
    assert effective_rank(5 * shares) == pytest.approx(np.prod(shares**-shares))
    assert effective_rank(np.zeros(3)) == 0
    assert effective_rank(spectrum(np.ones((4, 3)))) == 0


@given(
    arrays(np.float64, (12, 3), elements=st.floats(-100, 100)),
    arrays(np.int64, 12, elements=st.integers(0, 4)),
)
def test_the_law_of_total_variance(features, labels):
    within, between = variance_parts(features, labels)
    assert within + between == pytest.approx(features.var(0).mean(), rel=1e-9, abs=1e-9)
    assert within >= 0
    assert between >= 0


def test_the_parts_are_those_of_the_penalties():
    features, labels = some(), np.arange(40) % 3
    within, between = variance_parts(features, labels)
    ours = torch.from_numpy(features), torch.from_numpy(labels)
    assert within + between == pytest.approx(feature_variance(ours[0]).item())
    assert within == pytest.approx(within_class_variance(*ours).item())
    centred = features - np.array([features[labels == label].mean(0) for label in range(3)])[labels]
    assert variance_parts(centred, labels)[1] == pytest.approx(0, abs=1e-20)


def test_dead_features_are_zero_for_every_sample():
    features = np.maximum(some(), 0)
    features[:, 2] = 0
    features[1:, 4] = 0
    assert dead_share(features) == pytest.approx(1 / 7)


def test_cka_is_the_u_statistic_over_all_different_samples():
    first, second = some(7, 3), some(7, 5, seed=1) + some(7, 3)[:, :1]

    def hsic(one, other):
        k, l = one @ one.T, other @ other.T  # noqa: E741 - as in the formula
        kernel = (
            k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in permutations(range(7), 4)
        )
        return np.mean(list(kernel))

    expected = hsic(first, second) / np.sqrt(hsic(first, first) * hsic(second, second))
    assert linear_cka(first, second) == pytest.approx(expected, rel=1e-8)


def test_cka_with_many_samples_is_that_of_kornblith():
    random = np.random.default_rng(0)
    shared = random.normal(size=(3000, 2))
    first = np.c_[shared, random.normal(size=(3000, 2))]
    second = shared @ random.normal(size=(2, 3)) + random.normal(size=(3000, 3))
    x, y = first - first.mean(0), second - second.mean(0)
    plain = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(first, second) == pytest.approx(plain, abs=0.005)


@given(st.integers(0, 50), st.floats(1e-3, 1e3), st.floats(-1e2, 1e2))
def test_cka_does_not_see_rotations_factors_and_shifts(seed, factor, shift):
    first, second = some(20, 4, seed), some(20, 6, seed + 1)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    expected = linear_cka(first, second)
    assert linear_cka(first, factor * second @ turn + shift) == pytest.approx(expected, abs=1e-7)
    assert linear_cka(second, first) == pytest.approx(expected, abs=1e-9)
    assert linear_cka(second, factor * second @ turn + shift) == pytest.approx(1, abs=1e-7)


def test_features_that_have_nothing_in_common_have_a_cka_of_zero():
    # Fewer samples than features, as in the studies: the plain one is above 0.7 here.
    random = np.random.default_rng(0)
    found = [linear_cka(*random.normal(size=(2, 30, 100))) for _ in range(40)]
    assert abs(np.mean(found)) < 0.02


def test_samples_that_are_all_alike_have_no_cka():
    assert np.isnan(linear_cka(np.ones((5, 2)), some(5, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum(np.ones(3)), r"features have shape \(3,\); give \(N, D\)"),
        (lambda: dead_share(np.ones((1, 3))), "2 samples or more"),
        (lambda: linear_cka(some(5), some(6)), "features of 5 and 6 samples"),
        (lambda: linear_cka(some(3), some(3)), "give the same 4 or more"),
        (lambda: variance_parts(some(), np.zeros(39)), r"labels have shape \(39,\) for 40 samples"),
        (lambda: variance_parts(some() * np.nan, np.zeros(40)), "NaN or infinite"),
        (lambda: effective_rank(np.array([1.0, -1.0])), "eigenvalues are negative"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
