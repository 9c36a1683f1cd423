"""What features look like: how their variance is spread, and how alike two networks' are.

All of it is in float64, of features ``(N, D)`` with a row a sample.
"""

from __future__ import annotations

import numpy as np


def spectrum(features: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance of the features, the largest first.

    Args:
        features: ``(N, D)``.

    Returns:
        ``(min(N, D),)``, 0 or more, of the covariance with a division by N: they add up to the
        sum of the variances. The others are 0.

    Raises:
        ValueError: If the features are not of two axes, not finite, or of fewer than 2 samples.

    Example:
        >>> spectrum(np.array([[0.0, 0], [2, 0]])).round(6).tolist()
        [1.0, 0.0]
    """
    features = _checked(features)
    centred = features - features.mean(0)
    return np.linalg.svd(centred, compute_uv=False) ** 2 / len(features)


def effective_rank(eigenvalues: np.ndarray) -> float:
    r"""Over how many directions the variance is spread: the exponential of its entropy.

    :math:`\exp(-\sum_i p_i \ln p_i)` with the shares :math:`p_i` of the eigenvalues: their number
    where they are equal, 1 where all variance is in one direction.

    Args:
        eigenvalues: 0 or more, as from :func:`spectrum`.

    Returns:
        1 or more; 0 where nothing varies.

    Raises:
        ValueError: If one is negative or not finite.

    References:
        O. Roy and M. Vetterli, The effective rank, EUSIPCO 2007; there of singular values.

    Example:
        >>> round(effective_rank(np.array([2.0, 2.0, 0.0])), 6)
        2.0
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("eigenvalues are negative or not finite; give those of a covariance")
    shares = values[values > 0] / (values.sum() or 1)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def variance_parts(features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Variance within the classes and between their means, each as the mean over the features.

    Args:
        features: ``(N, D)``.
        labels: Class of each sample, ``(N,)``.

    Returns:
        Within and between. By the law of total variance they add up to the mean variance of the
        features (with a division by N).

    Raises:
        ValueError: As :func:`spectrum`, or if there is not one label a sample.

    Example:
        >>> variance_parts(np.array([[0.0], [2], [4], [6]]), np.array([0, 0, 1, 1]))
        (1.0, 4.0)
    """
    features, labels = _checked(features), np.asarray(labels)
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels have shape {labels.shape} for {len(features)} samples; give one a sample"
        )
    mean, within, between = features.mean(0), 0.0, 0.0
    for label in np.unique(labels):
        mine = features[labels == label]
        share = len(mine) / len(features)
        within += share * mine.var(0).mean()
        between += share * ((mine.mean(0) - mean) ** 2).mean()
    return float(within), float(between)


def dead_share(features: np.ndarray) -> float:
    """Share of the features that are 0 for every sample.

    Args:
        features: ``(N, D)``.

    Raises:
        ValueError: As :func:`spectrum`.

    Example:
        >>> dead_share(np.array([[0.0, 1], [0, 0]]))
        0.5
    """
    return float((_checked(features) == 0).all(0).mean())


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    r"""How alike two networks arrange the same samples: linear CKA, without its bias.

    :math:`\mathrm{HSIC}(K, L) / \sqrt{\mathrm{HSIC}(K, K)\,\mathrm{HSIC}(L, L)}` with the Gram
    matrices :math:`K, L` of the features and the unbiased estimate of HSIC. The plain one is well
    above 0 for features that have nothing in common, the more so the more features there are a
    sample. Neither a rotation of the features nor a common factor changes it.

    Args:
        first: Features of one network, ``(N, D)``.
        second: Those of the other for the same samples, ``(N, E)``.

    Returns:
        1 for features that are equal up to a rotation and a factor, near 0 for unrelated ones;
        NaN where one of them does not vary.

    Raises:
        ValueError: As :func:`spectrum`, for other numbers of samples, or for fewer than 4.

    References:
        S. Kornblith et al., Similarity of neural network representations revisited, ICML 2019;
        L. Song et al., Feature selection via dependence maximization, JMLR 13, 1393-1434, 2012,
        for the unbiased estimate.

    Example:
        >>> features = np.random.default_rng(0).random((6, 3))
        >>> round(linear_cka(features, 2 * features[:, ::-1]), 6)
        1.0
    """
    grams = []
    for features in (_checked(first), _checked(second)):
        centred = features - features.mean(0)  # changes nothing but the rounding
        gram = centred @ centred.T
        np.fill_diagonal(gram, 0)
        grams.append(gram)
    one, other = grams
    if len(one) != len(other) or len(one) < 4:
        raise ValueError(
            f"features of {len(one)} and {len(other)} samples; give the same 4 or more to both"
        )
    own = _hsic(one, one), _hsic(other, other)
    # Samples that are all alike have no arrangement.
    return _hsic(one, other) / float(np.sqrt(own[0] * own[1])) if min(own) > 0 else float("nan")


def _hsic(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimate, of Gram matrices whose diagonals are 0 (Song et al., equation 5)."""
    n = len(one)
    of_sums = one.sum() * other.sum() / ((n - 1) * (n - 2))
    of_rows = 2 / (n - 2) * (one.sum(0) @ other.sum(0))
    return float(((one * other).sum() + of_sums - of_rows) / (n * (n - 3)))


def _checked(features: np.ndarray) -> np.ndarray:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2 or array.shape[1] < 1:
        raise ValueError(
            f"features have shape {array.shape}; give (N, D), a row a sample, 2 samples or more"
        )
    if not np.isfinite(array).all():
        raise ValueError("features hold NaN or infinite values; they tell nothing of a network")
    return array
