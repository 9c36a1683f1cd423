"""What the page *Who had it first* says that it checked in double precision."""

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp

SHARE = 0.3  # of the features that are dropped


def mean_gain(features: np.ndarray, head: np.ndarray, filled: np.ndarray) -> float:
    """E A(z after dropout) - A(z), exactly, over all masks; what is dropped becomes ``filled``."""

    def potential(values: np.ndarray) -> np.ndarray:
        logits = values @ head.T
        return np.logaddexp(0, logits[:, 0]) if len(head) == 1 else logsumexp(logits, axis=1)

    total = 0.0
    for mask in itertools.product((0, 1), repeat=features.shape[1]):
        kept = np.array(mask)
        chance = np.prod(np.where(kept, 1 - SHARE, SHARE))
        noisy = filled + kept * (features - filled) / (1 - SHARE)
        total += chance * (potential(noisy) - potential(features)).mean()
    return total


def second_order(features: np.ndarray, head: np.ndarray, filled: np.ndarray) -> float:
    logits, squares = features @ head.T, (features - filled) ** 2
    if len(head) == 1:
        chance = 1 / (1 + np.exp(-logits[:, 0]))
        curvature = (chance * (1 - chance))[:, None] * head[0] ** 2  # (N, K)
    else:
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        hessian = np.einsum("nc,cd->ncd", p, np.eye(len(head))) - np.einsum("nc,nd->ncd", p, p)
        curvature = np.einsum("ck,ncd,dk->nk", head, hessian, head)
    return SHARE / (2 * (1 - SHARE)) * (curvature * squares).mean(0).sum()


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("to_the_mean", [False, True])
def test_dropout_is_a_quadratic_penalty_to_second_order(outputs, to_the_mean):
    random = np.random.default_rng(outputs)
    features, head = random.normal(1, 1, size=(7, 6)), random.normal(size=(outputs, 6))
    filled = features.mean(0) if to_the_mean else np.zeros(6)
    away = []
    for scale in (1, 0.1, 0.01):
        exact = mean_gain(features, scale * head, filled)
        assert exact > 0
        away.append(abs(second_order(features, scale * head, filled) / exact - 1))
    assert away[0] > 0.02
    assert away[0] > 4 * away[1] > 16 * away[2]
    assert away[2] < 0.01


def test_with_equal_doubt_it_is_the_variance_and_something_for_the_means():
    random = np.random.default_rng(0)
    features = random.normal(1, 1, size=(3, 5))
    head = random.normal(size=(1, 5))
    head -= head @ np.linalg.pinv(features) @ features  # every logit is 0: each answer is a half
    assert np.abs(head).max() > 0.1
    moments = features.var(0) + features.mean(0) ** 2
    expected = SHARE * 0.25 / (2 * (1 - SHARE)) * (head[0] ** 2 * moments).sum()
    assert second_order(features, head, np.zeros(5)) == pytest.approx(expected, rel=1e-9)
