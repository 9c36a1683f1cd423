"""The rivals of the variance penalty: other losses on the features of a batch.

Each is a pure function that takes the features as :func:`varreg.variance.feature_variance` does and
returns a scalar to be weighted and added to the cross-entropy. All gradients are those of
autograd, to any order. The first is the variance penalty itself, as it was released.
"""

from __future__ import annotations

import torch
from torch import Tensor

from varreg.checks import (
    HALF,
    check_features,
    check_finite,
    check_integer,
    check_number,
    check_tensors,
    shows_values,
)

__all__ = ["center_loss", "decov", "released_variance", "variance_constancy", "vicreg_variance"]

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def released_variance(
    features: Tensor, sampling_ratio: float, generator: torch.Generator | None = None
) -> Tensor:
    """The penalty as the released notebooks compute it, step for step in PyTorch.

    To compare with, not to train with: :func:`varreg.variance.feature_variance` is the same
    expectation at a fraction of the cost. Like the original, this one shuffles and gathers even
    where all features are drawn, centres and squares in tensors of their own, and checks nothing.

    Args:
        features: Floating-point tensor ``(N, ...)``.
        sampling_ratio: Share of the features drawn, in (0, 1]; rounded down, as by ``tf.cast``.
        generator: Source of the draw; the global one of PyTorch by default.

    Returns:
        Scalar tensor of the type of the features.

    Source:
        The notebooks released with Athukorala (2025), "Addressing Overfitting in Medical Image
        Classification through Variance Penalization".

    Example:
        >>> released_variance(torch.tensor([[0.0, 5.0], [2.0, 5.0]]), 1.0)  # variances 1 and 0
        tensor(0.5000)
    """
    flat = features.flatten(1)
    count = flat.shape[1]
    device = flat.device if generator is None else generator.device
    indices = torch.randperm(count, generator=generator, device=device)
    chosen = indices[: int(sampling_ratio * count)].to(flat.device)
    sampled = flat.index_select(1, chosen)
    mean = sampled.mean(dim=0)
    difference = sampled - mean
    variance = difference.square().mean(dim=0)
    return variance.mean()


def vicreg_variance(
    features: Tensor,
    target_deviation: float = 1.0,
    epsilon: float = 1e-4,
    *,
    validate: bool = True,
) -> Tensor:
    r"""How far the standard deviations of the features fall short of a target.

    The variance term of VICReg: for feature :math:`j = 1 \dots F` with the unbiased variance
    :math:`\operatorname{Var}_j` over the batch (divided by :math:`N - 1`),

    .. math::

        \frac{1}{F} \sum_{j=1}^{F}
            \max\left(0, \gamma - \sqrt{\operatorname{Var}_j + \epsilon}\right) .

    It pushes variances *up* to :math:`\gamma^2`, against the collapse of features that are
    learned without labels: the opposite of :func:`varreg.variance.feature_variance`.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of features.
        target_deviation: :math:`\gamma > 0`, in the units of the features.
        epsilon: :math:`\epsilon > 0`. It keeps the gradient of the root finite.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite.
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes, fewer than
            two samples or no feature, or if a parameter is not positive and finite.

    Source:
        Bardes, Ponce and LeCun (ICLR 2022), "VICReg: Variance-Invariance-Covariance
        Regularization for Self-Supervised Learning".

    Example:
        >>> features = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
        >>> vicreg_variance(features)  # deviations of 1.41, above 1, and of 0: sqrt(1e-4)
        tensor(0.4950)
    """
    flat = _flat(features)
    _check_positive(target_deviation=target_deviation, epsilon=epsilon)
    deviation = (flat.var(dim=0, correction=1) + epsilon).sqrt()
    value = (target_deviation - deviation).relu().mean()
    if validate:
        check_finite(value, features=features)
    return value


def decov(features: Tensor, *, validate: bool = True) -> Tensor:
    r"""Half the sum of the squared covariances between different features.

    With :math:`C`, the :math:`F \times F` covariance matrix over the batch (divided by
    :math:`N`),

    .. math::

        \frac{1}{2} \left(\lVert C \rVert_F^2 - \lVert \operatorname{diag} C \rVert_2^2\right) .

    The variances themselves, on the diagonal, are free. For centred features :math:`Z` the norm
    is that of a smaller matrix where there are more features than samples, by
    :math:`\lVert Z^\top Z \rVert_F = \lVert Z Z^\top \rVert_F`: the :math:`N \times N` Gram
    matrix is computed then, and :math:`C` never. As a difference the result is good to
    rounding of :math:`\lVert C \rVert_F^2`, below zero too.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of features.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type. A sum
        over pairs, it grows with the square of the number of features.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite, or the result overflows.
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes, fewer than
            two samples or no feature.

    Source:
        Cogswell, Ahmed, Girshick, Zitnick and Batra (ICLR 2016), "Reducing Overfitting in Deep
        Networks by Decorrelating Representations".

    Example:
        >>> decov(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))  # covariance 2, twice
        tensor(4.)
    """
    flat = _flat(features)
    samples, count = flat.shape
    centred = flat - flat.mean(dim=0)
    centred = centred - centred.mean(dim=0)  # a mean is rounded to digits of its own size
    variance = centred.square().mean(dim=0)
    # Autocast would multiply the matrices in half precision.
    with torch.autocast(flat.device.type, enabled=False):
        product = centred.T @ centred if count <= samples else centred @ centred.T
    value = ((product / samples).square().sum() - variance.square().sum()) / 2
    if validate:
        check_finite(value, features=features)
    return value


def variance_constancy(
    features: Tensor,
    beta: float | Tensor = 1.0,
    *,
    sample_size: int | None = None,
    validate: bool = True,
) -> Tensor:
    r"""How much the variance of a feature differs between two parts of the batch.

    The variance constancy loss (VCL). With the unbiased variances :math:`s_{1j}^2` and
    :math:`s_{2j}^2` of feature :math:`j = 1 \dots F` in two disjoint subsets of :math:`n`
    samples each,

    .. math::

        \frac{1}{F} \sum_{j=1}^{F}
            \left(1 - \frac{s_{1j}^2}{s_{2j}^2 + \beta_j}\right)^2 .

    Nothing is drawn: the subsets are samples 1 to :math:`n` and :math:`n + 1` to :math:`2 n` of
    the batch, as in the authors' code, so the batch must come shuffled. By default they are its
    halves, without the last sample of an odd batch; the authors take small ones
    (:math:`n = 5` in their code), whose variances differ more.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least four samples. Everything
            after the first axis is one flat list of features. The authors take them before
            the activation function.
        beta: :math:`\beta > 0`, in squared units of the features: a number, or a tensor that
            holds one or a value for each feature, ``features.shape[1:]``. The authors learn
            it, from 1: pass a parameter, and keep it positive.
        sample_size: :math:`n`, from 2 to ``N // 2``.
        validate: Check that ``beta`` is positive and the result finite, which waits for the
            device. A ``beta`` that is a number, shapes and types are always checked.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite, or the result overflows.
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes or no
            feature, if two subsets do not fit into it, or ``beta`` has another shape or is not
            positive.

    Source:
        Littwin and Wolf (NeurIPS 2018), "Regularizing by the Variance of the Activations'
        Sample-Variances".

    Example:
        >>> features = torch.tensor([[0.0], [2.0], [5.0], [7.0]])  # variances of 2 and 2
        >>> variance_constancy(features)  # (1 - 2 / 3) squared
        tensor(0.1111)
    """
    flat = _flat(features)
    if sample_size is not None:
        check_integer("sample_size", sample_size)
    size = len(flat) // 2 if sample_size is None else sample_size
    if not 2 <= size <= len(flat) // 2:
        raise ValueError(
            f"features hold {len(flat)} samples and sample_size is {sample_size}; two disjoint "
            "subsets of sample_size samples, two or more each, must fit into the batch"
        )
    if isinstance(beta, Tensor):
        if beta.shape not in ((), features.shape[1:]):
            raise ValueError(
                f"beta has shape {tuple(beta.shape)}; it must hold one value, or one for each "
                f"feature: {tuple(features.shape[1:])}"
            )
        if validate and shows_values() and not (beta > 0).all():
            raise ValueError(
                f"beta goes down to {beta.min().item():.3g}; it must be greater than 0: clamp it "
                "after each step"
            )
        beta = beta.flatten().to(flat.dtype)
    else:
        _check_positive(beta=beta)
    first = flat[:size].var(dim=0, correction=1)
    second = flat[size : 2 * size].var(dim=0, correction=1)
    value = (1 - first / (second + beta)).square().mean()
    if validate:
        check_finite(value, features=features)
    return value


def center_loss(
    features: Tensor, target: Tensor, centers: Tensor, *, validate: bool = True
) -> Tensor:
    r"""Half the mean squared distance of the samples from the centres of their classes.

    For sample :math:`i = 1 \dots N` with features :math:`f_i` and class :math:`y_i`,

    .. math::

        \frac{1}{2 N} \sum_{i=1}^{N} \lVert f_i - c_{y_i} \rVert_2^2 .

    The paper sums over the batch: this is its value over :math:`N`, so that a weight does not
    depend on the batch size. Over the features it is a sum. With the class means of the batch
    for centres it is :math:`F / 2` times the within-class part of
    :func:`varreg.variance.feature_variance`.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of ``F`` features.
        target: Integer class codes 0 to K - 1, ``(N,)`` or ``(N, 1)``.
        centers: Floating-point tensor ``(K, F)``, the caller's. A parameter is learned with the
            network by the gradient of this loss; for the paper's rule, move a buffer towards
            the mean of each class after the step.
        validate: Check labels, and that the result is finite, which waits for the device. A
            label outside the classes is an error of the device otherwise.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature or centre is NaN or infinite, or the result
            overflows.
        NotATensorError: If one of them is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes, fewer than
            two samples or no feature, if ``target`` or ``centers`` does not fit it, or a label
            is outside the classes.

    Source:
        Wen, Zhang, Li and Qiao (ECCV 2016), "A Discriminative Feature Learning Approach for
        Deep Face Recognition".

    Example:
        >>> features, target = torch.tensor([[0.0, 5.0], [2.0, 5.0]]), torch.tensor([1, 0])
        >>> center_loss(features, target, torch.zeros(2, 2))  # (25 + 29) / 2 / 2
        tensor(13.5000)
    """
    flat = _flat(features)
    check_tensors(target=target, centers=centers)
    if not centers.is_floating_point() or centers.ndim != 2 or centers.shape[1] != flat.shape[1]:
        raise ValueError(
            f"centers have shape {tuple(centers.shape)} of {centers.dtype}; for features "
            f"{tuple(features.shape)} they must be floating point, (K, {flat.shape[1]})"
        )
    if tuple(target.shape) not in ((len(flat),), (len(flat), 1)) or target.dtype not in INTEGERS:
        raise ValueError(
            f"target has shape {tuple(target.shape)} of {target.dtype}; for features "
            f"{tuple(features.shape)} it must hold integer class codes, ({len(flat)},) or "
            f"({len(flat)}, 1)"
        )
    if validate and shows_values():
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= len(centers):
            raise ValueError(
                f"labels go from {low} to {high}; with {len(centers)} centers they must lie in "
                f"0 to {len(centers) - 1}"
            )
    own = centers.to(flat.dtype)[target.flatten().long()]
    value = (flat - own).square().sum(dim=1).mean() / 2
    if validate:
        check_finite(value, features=features, centers=centers)
    return value


def _flat(features: Tensor) -> Tensor:
    check_features(features)
    flat = features.flatten(1)
    # A sum of thousands of half-precision squares loses most of its digits.
    return flat.float() if flat.dtype in HALF else flat


def _check_positive(**parameters: float) -> None:
    for name, value in parameters.items():
        check_number(name, value)
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be finite and greater than 0")
