"""The variance penalty's variants and rivals: other losses on what a batch makes of a network.

Each is a pure function that returns a scalar, to be weighted and added to the cross-entropy. Its
leading arguments are named for what it needs: ``features`` as
:func:`varreg.variance.feature_variance` takes them, ``logits`` ``(N,)`` or ``(N, C)``, ``target``
and ``head_weight``, the matrix ``(C, F)`` of the linear layer between features and logits
(``weight`` of an ``nn.Linear``; one row for one logit). Everything else has a default. All
gradients are those of autograd, to any order, also under ``torch.func`` and ``torch.compile``,
where values are not checked. Half precision is computed in float32. "Unchanged by" in the
docstrings means rescaling (features times ``s > 0``, head over ``s``), shift and rotation, which
leave the logits as they are, and class shift, which moves the classes apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from varreg.checks import (
    ADVICE,
    HALF,
    SmallBatchError,
    check_features,
    check_finite,
    check_integer,
    check_range,
    check_tensors,
    shows_values,
)
from varreg.variance import centred, feature_variance

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def released_variance(
    features: Tensor, sampling_ratio: float = 1.0, generator: torch.Generator | None = None
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


def within_class_variance(
    features: Tensor, target: Tensor, *, equal_classes: bool = False, validate: bool = True
) -> Tensor:
    r"""Mean over the features of their variance within the classes.

    With the mean :math:`\mu_{cj}` of feature :math:`j = 1 \dots F` over the images of class
    :math:`c` in the batch,

    .. math::

        V_W = \frac{1}{F} \sum_{j=1}^{F} \frac{1}{N} \sum_{i=1}^{N}
            \left(f_{ij} - \mu_{y_i j}\right)^2 .

    All images count alike. With ``equal_classes`` all classes of the batch do: then it is
    class-wise VR, :math:`\frac{1}{C F} \sum_{c, j} v_{cj}`. A class that is missing counts
    nothing, and one with a single image has no variance.

    Unchanged by shift, rotation and class shift. Zero where all images of a class have the same
    features, above all in a batch without two images of any class.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of features.
        target: A label for each image, ``(N,)`` or ``(N, 1)``, of any real type: labels are
            compared, nothing else.
        equal_classes: Whether classes count alike, not images.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite, or the result overflows.
        NotATensorError: If one of them is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes, fewer than
            two samples or no feature, or ``target`` does not fit it.

    Source:
        Choi and Rhee (AAAI 2019), "Utilizing Class Information for Deep Network Representation
        Shaping", for the form with ``equal_classes``.

    Example:
        >>> features = torch.tensor([[0.0], [2.0], [7.0], [7.0]])
        >>> within_class_variance(features, torch.tensor([0, 0, 1, 1]))  # 1 and 0
        tensor(0.5000)
    """
    flat = _flat(features)
    within, _, share = _class_parts(flat, target, validate)
    if equal_classes:  # 1 / (images of the class), in all 1 for a class
        value = (share * within.square().mean(1)).sum() / share.sum()
    else:
        value = within.square().mean()
    return _checked(value, validate, features=features)


def relative_within_class_variance(
    features: Tensor, target: Tensor, *, validate: bool = True
) -> Tensor:
    r"""The variance within the classes over that between them.

    .. math::

        \frac{\operatorname{tr} \Sigma_W}{\operatorname{sg}(\operatorname{tr} \Sigma_B)}

    with :func:`within_class_variance` for the numerator, over the features added up, and
    :math:`\operatorname{tr} \Sigma_B` the same of the class means, each counted as often as it
    has images. :math:`\operatorname{sg}` stops the gradient: otherwise moving the classes apart,
    which one class alone can do, would lower it.

    Unchanged by rescaling, shift and rotation; its gradient is not by rescaling. Zero where all
    images of a class have the same features. Where class means agree up to rounding (a batch of
    one class) there is nothing to compare with: zero too, without a gradient.

    Args:
        features: As for :func:`within_class_variance`.
        target: As for :func:`within_class_variance`.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor, from 0; float32 for float16 and bfloat16 features, else of their type. By
        chance alone, :math:`C` classes of the same distribution give about
        :math:`(N - C) / (C - 1)`.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite, or the result overflows.
        NotATensorError: If one of them is not a tensor.
        ValueError: As for :func:`within_class_variance`.

    Source:
        The trace ratio of discriminant analysis, with its denominator held fixed.

    Example:
        >>> features = torch.tensor([[0.0], [2.0], [5.0], [7.0]])
        >>> relative_within_class_variance(features, torch.tensor([0, 0, 1, 1]))  # 1 over 2.5²
        tensor(0.1600)
    """
    flat = _flat(features)
    within, between, _ = _class_parts(flat, target, validate)
    inner, outer = within.square().mean(), between.detach().square().mean()
    # Not `>`: what is not finite must stay so.
    too_small = outer <= torch.finfo(flat.dtype).eps * inner.detach()
    value = torch.where(too_small, 0.0, inner) / torch.where(too_small, 1.0, outer)
    return _checked(value, validate, features=features)


def head_weighted_variance(
    features: Tensor, head_weight: Tensor, *, validate: bool = True
) -> Tensor:
    r"""Variance of what each feature contributes to a logit: a sum of these, mean over the logits.

    With the weights :math:`\theta_{cj}` of the head and the variance :math:`v_j` of feature
    :math:`j = 1 \dots F` over the batch,

    .. math::

        \frac{1}{C} \sum_{c=1}^{C} \sum_{j=1}^{F} \theta_{cj}^2\, v_j .

    It is the variance of the logits without the covariances between features. The gradient
    goes to the head as well: with a detached head it would be a weighted variance penalty,
    which rescaling escapes.

    Unchanged by rescaling, also of single features, and by shift; not by rotation. Zero where
    each feature is constant over the batch or ignored by the head.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of ``F`` features, in the order in which the
            head takes them (that of ``flatten(1)``).
        head_weight: Floating-point ``(C, F)``, the ``weight`` of the linear layer that makes
            the logits; ``(1, F)`` for one logit.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor, in squared logits; float32 for float16 and bfloat16 features, else of
        their type.

    Raises:
        NonFiniteFeaturesError: If a feature or weight is NaN or infinite, or the result
            overflows.
        NotATensorError: If one of them is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes, fewer than
            two samples or no feature, or ``head_weight`` does not fit it.

    Source:
        Derived in this project's book, as what dropout that replaces a feature by its mean
        adds to second order for one logit, up to a factor, where all images are equally doubtful;
        Wager, Wang and Liang (NeurIPS 2013), "Dropout Training as Adaptive Regularization", for
        dropout itself.

    Example:
        >>> features = torch.tensor([[0.0, 5.0], [2.0, 5.0]])  # variances of 1 and 0
        >>> head_weighted_variance(features, torch.tensor([[3.0, 100.0]]))
        tensor(9.)
    """
    flat = _flat(features)
    value = (centred(flat).square().mean(0) * _strengths(flat, head_weight)).sum()
    return _checked(value, validate, features=features, head_weight=head_weight)


def head_weighted_within_class_variance(
    features: Tensor, target: Tensor, head_weight: Tensor, *, validate: bool = True
) -> Tensor:
    r"""Variance within the classes of what each feature contributes to a logit.

    As :func:`head_weighted_variance`, with the variance within the classes for that over the
    batch:

    .. math::

        \frac{1}{C} \sum_{c=1}^{C} \sum_{j=1}^{F} \theta_{cj}^2\,
            \frac{1}{N} \sum_{i=1}^{N} \left(f_{ij} - \mu_{y_i j}\right)^2 .

    Unchanged by rescaling, also of single features, by shift and by class shift; not by rotation.
    Zero where each feature is constant within the classes or ignored by the head.

    Args:
        features: As for :func:`head_weighted_variance`.
        target: As for :func:`within_class_variance`.
        head_weight: As for :func:`head_weighted_variance`.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor, in squared logits; float32 for float16 and bfloat16 features, else of
        their type.

    Raises:
        NonFiniteFeaturesError: If a feature or weight is NaN or infinite, or the result
            overflows.
        NotATensorError: If one of them is not a tensor.
        ValueError: As for :func:`head_weighted_variance` and :func:`within_class_variance`.

    Source:
        This project's book.

    Example:
        >>> features = torch.tensor([[0.0], [2.0], [7.0], [7.0]])
        >>> target = torch.tensor([0, 0, 1, 1])
        >>> head_weighted_within_class_variance(features, target, torch.tensor([[4.0]]))  # 16 / 2
        tensor(8.)
    """
    flat = _flat(features)
    within, _, _ = _class_parts(flat, target, validate)
    value = (within.square().mean(0) * _strengths(flat, head_weight)).sum()
    return _checked(value, validate, features=features, head_weight=head_weight)


def excess_variance(
    features: Tensor, threshold: float | Tensor = 1.0, *, validate: bool = True
) -> Tensor:
    r"""Mean over the features of what their variances are above a threshold.

    .. math::

        \frac{1}{F} \sum_{j=1}^{F} \max\left(0, v_j - \tau\right) .

    Only features that vary by more than :math:`\tau` pay, with the gradient that
    :func:`varreg.variance.feature_variance` gives them. The threshold can be a fixed number, or
    follow the network: :class:`varreg.weights.RunningQuantile`.

    Unchanged by shift only. Zero where no feature varies by more than :math:`\tau`; at
    :math:`\tau = 0` it is the variance penalty.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of features.
        threshold: :math:`\tau \ge 0`, in squared units of the features: a number, or a tensor
            that holds one, which gets no gradient.
        validate: Check that ``threshold`` is not negative and the result finite, which waits
            for the device. A ``threshold`` that is a number, shapes and types are always checked.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite, or the result overflows.
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes, fewer than
            two samples or no feature, or ``threshold`` is negative, not finite or not one value.

    Source:
        The adaptive thresholds that Athukorala (2025) names as future work.

    Example:
        >>> excess_variance(torch.tensor([[0.0, 5.0], [2.0, 5.5]]), 0.25)  # 1 - 0.25, and 0
        tensor(0.3750)
    """
    flat = _flat(features)
    if isinstance(threshold, Tensor):
        if threshold.numel() != 1:
            raise ValueError(
                f"threshold has shape {tuple(threshold.shape)}; it must hold one value"
            )
        threshold = threshold.detach().reshape(()).to(flat)
        looked_at = threshold.item() if validate and shows_values() else 0.0
    else:
        looked_at = threshold
    check_range("threshold", looked_at)
    value = (centred(flat).square().mean(0) - threshold).relu().mean()
    return _checked(value, validate, features=features)


def feature_l2(features: Tensor, *, validate: bool = True) -> Tensor:
    r"""Mean square of the features, also called activation regularization.

    .. math::

        \frac{1}{N F} \sum_{i=1}^{N} \sum_{j=1}^{F} f_{ij}^2
            = V + \frac{1}{F} \sum_{j=1}^{F} \bar f_j^2 .

    It is :func:`varreg.variance.feature_variance`, except that the means pay too.

    Unchanged by rotation only. Zero where all features are.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite, or the result overflows.
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes, fewer than
            two samples or no feature.

    Source:
        Merity, McCann and Socher (2017), "Revisiting Activation Regularization for Language
        RNNs"; their weight is 2.

    Example:
        >>> feature_l2(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))  # (0 + 1 + 4 + 1) / 4
        tensor(1.5000)
    """
    value = _flat(features).square().mean()
    return _checked(value, validate, features=features)


def logit_l2(logits: Tensor, *, validate: bool = True) -> Tensor:
    r"""Mean square of the logits: spectral decoupling, the logit penalty.

    .. math::

        \frac{1}{N C} \sum_{i=1}^{N} \sum_{c=1}^{C} z_{ic}^2 .

    The paper has :math:`\frac{\lambda}{2} \lVert z_i \rVert^2` for an image: that is this with a
    weight of :math:`\lambda C / 2`.

    Unchanged by rescaling, shift and rotation; not by a constant added to all logits of an
    image, which changes no probability of a softmax. Zero where all logits are.

    Args:
        logits: Floating-point tensor, ``(N,)`` or ``(N, C)``, with at least two samples.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 logits, else of their type.

    Raises:
        NonFiniteFeaturesError: If a logit is NaN or infinite, or the result overflows.
        NotATensorError: If ``logits`` is not a tensor.
        ValueError: If ``logits`` is not floating point or of another shape.

    Source:
        Pezeshki et al. (NeurIPS 2021), "Gradient Starvation: A Learning Proclivity in Neural
        Networks"; in this form, with a weight of 0.1, in DomainBed.

    Example:
        >>> logit_l2(torch.tensor([[1.0, -1.0], [3.0, 1.0]]))  # (1 + 1 + 9 + 1) / 4
        tensor(3.)
    """
    value = _flat_logits(logits).square().mean()
    return _checked(value, validate, logits=logits)


def logit_variance(logits: Tensor, *, validate: bool = True) -> Tensor:
    r"""Mean over the logits of their variance over the batch.

    .. math::

        \frac{1}{C} \sum_{c=1}^{C} \frac{1}{N} \sum_{i=1}^{N} \left(z_{ic} - \bar z_c\right)^2 .

    It is :func:`varreg.variance.feature_variance` of the logits.

    Unchanged by rescaling, shift and rotation, and by a constant added to a logit in all images.
    Zero where all images have the same logits.

    Args:
        logits: Floating-point tensor, ``(N,)`` or ``(N, C)``, with at least two samples.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 logits, else of their type.

    Raises:
        NonFiniteFeaturesError: If a logit is NaN or infinite, or the result overflows.
        NotATensorError: If ``logits`` is not a tensor.
        ValueError: If ``logits`` is not floating point or of another shape.

    Source:
        Ahuja et al. (NeurIPS 2021), "Invariance Principle Meets Information Bottleneck for
        Out-of-Distribution Generalization", which derives its penalty for logits.

    Example:
        >>> logit_variance(torch.tensor([[1.0, -1.0], [3.0, -1.0]]))  # variances 1 and 0
        tensor(0.5000)
    """
    value = feature_variance(_flat_logits(logits), validate=False)
    return _checked(value, validate, logits=logits)


def view_variance(features: Tensor, views: int = 2, *, validate: bool = True) -> Tensor:
    r"""Variance of the features over several views of one image, mean over features and images.

    With view :math:`a = 1 \dots A` of image :math:`i`, for :math:`M` images,

    .. math::

        \frac{1}{M F} \sum_{i=1}^{M} \sum_{j=1}^{F} \frac{1}{A} \sum_{a=1}^{A}
            \left(f_{aij} - \bar f_{ij}\right)^2 .

    For two views it is a quarter of their mean squared difference. The variance over the batch is
    this plus that of the means :math:`\bar f_{ij}` over the images: the second part, which holds
    the signal, is free.

    Unchanged by shift, rotation and class shift, and by whatever else is added to all views of
    an image. Zero where the views of an image have the same features.

    Args:
        features: Floating-point tensor ``(A * M, ...)``, one view after the other: all images
            in their first view, then all in the second, in the same order, as
            ``torch.cat([model(view) for view in views])`` makes them.
        views: :math:`A`, 2 or more.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite.
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If ``features`` is not floating point, has fewer than two axes or no feature,
            or does not hold as many samples in each of ``views`` views.

    Source:
        This project's book. The term that pulls views together is older, as the invariance
        term of VICReg (Bardes, Ponce and LeCun, ICLR 2022), among others.

    Example:
        >>> first, second = torch.tensor([[0.0], [5.0]]), torch.tensor([[2.0], [5.0]])
        >>> view_variance(torch.cat([first, second]))  # variances of 1 and 0
        tensor(0.5000)
    """
    value = _over_views("features", _flat(features), views)
    return _checked(value, validate, features=features)


def logit_view_variance(logits: Tensor, views: int = 2, *, validate: bool = True) -> Tensor:
    r"""Variance of the logits over several views of one image, mean over logits and images.

    :func:`view_variance` of the logits :math:`z_{aic}` in place of the features.

    Unchanged by rescaling, shift, rotation and class shift, and by whatever else is added to all
    views of an image. Zero where the views of an image have the same logits.

    Args:
        logits: Floating-point tensor, ``(A * M,)`` or ``(A * M, C)``, one view after the other.
        views: :math:`A`, 2 or more.
        validate: Check that the result is finite, which waits for the device.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 logits, else of their type.

    Raises:
        NonFiniteFeaturesError: If a logit is NaN or infinite.
        NotATensorError: If ``logits`` is not a tensor.
        ValueError: If ``logits`` is not floating point or of another shape, or does not hold as
            many samples in each of ``views`` views.

    Source:
        As for :func:`view_variance`.

    Example:
        >>> logit_view_variance(torch.tensor([0.0, 5.0, 2.0, 5.0]))  # 0 and 2, 5 and 5
        tensor(0.5000)
    """
    value = _over_views("logits", _flat_logits(logits), views)
    return _checked(value, validate, logits=logits)


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

    Unchanged by shift only. Zero where all features deviate by the target or more.

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
    check_range("target_deviation", target_deviation, ends="()")
    check_range("epsilon", epsilon, ends="()")
    deviation = (flat.var(dim=0, correction=1) + epsilon).sqrt()
    value = (target_deviation - deviation).relu().mean()
    return _checked(value, validate, features=features)


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

    Unchanged by shift only. Zero where no two features covary, above all for a single one.

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
    rest = centred(flat)
    variance = rest.square().mean(0)
    # Autocast would multiply the matrices in half precision.
    with torch.autocast(flat.device.type, enabled=False):
        product = rest.T @ rest if count <= samples else rest @ rest.T
    value = ((product / samples).square().sum() - variance.square().sum()) / 2
    return _checked(value, validate, features=features)


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

    Unchanged by shift only (by rescaling too, if :math:`\beta` becomes :math:`s^2 \beta`). Never
    quite zero: equal variances :math:`s^2` leave :math:`(\beta / (s^2 + \beta))^2`.

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
        raise (SmallBatchError if sample_size is None or size >= 2 else ValueError)(
            f"features hold {len(flat)} samples and sample_size is {sample_size}; two disjoint "
            "subsets of sample_size samples, two or more each, must fit into the batch (drop a "
            "small batch or merge it with another one, or give the criterion small_batch='skip')"
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
        check_range("beta", beta, ends="()")
    first = flat[:size].var(dim=0, correction=1)
    second = flat[size : 2 * size].var(dim=0, correction=1)
    value = (1 - first / (second + beta)).square().mean()
    return _checked(value, validate, features=features)


def center_loss(
    features: Tensor, target: Tensor, centers: Tensor | None = None, *, validate: bool = True
) -> Tensor:
    r"""Half the mean squared distance of the samples from the centres of their classes.

    For sample :math:`i = 1 \dots N` with features :math:`f_i` and class :math:`y_i`,

    .. math::

        \frac{1}{2 N} \sum_{i=1}^{N} \lVert f_i - c_{y_i} \rVert_2^2 .

    The paper sums over the batch: this is its value over :math:`N`, so that a weight does not
    depend on the batch size. Over the features it is a sum. Without centres of the caller they
    are the class means of the batch: then it is :math:`F / 2` times
    :func:`within_class_variance`.

    Unchanged by shift, rotation and class shift at the class means of the batch, or where the
    centres move with the features; by none of them for fixed centres. Zero where every sample
    lies at the centre of its class.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of ``F`` features.
        target: Integer class codes 0 to K - 1, ``(N,)`` or ``(N, 1)``; without ``centers`` as
            for :func:`within_class_variance`.
        centers: Floating-point tensor ``(K, F)``, the caller's. A parameter is learned with the
            network by the gradient of this loss; for the paper's rule, move a buffer towards
            the mean of each class after the step. By default the class means of the batch.
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
        >>> features, target = torch.tensor([[0.0, 5.0], [2.0, 5.0]]), torch.tensor([1, 1])
        >>> center_loss(features, target)  # both are 1 from their mean
        tensor(0.5000)
        >>> center_loss(features, target, torch.zeros(2, 2))  # (25 + 29) / 2 / 2
        tensor(13.5000)
    """
    flat = _flat(features)
    if centers is None:
        within, _, _ = _class_parts(flat, target, validate)
        return _checked(within.square().sum(1).mean() / 2, validate, features=features)
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
    return _checked(value, validate, features=features, centers=centers)


def _class_parts(flat: Tensor, target: Tensor, validate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What each sample is apart from its class, and its class from the batch, ``(N, F)`` each.

    The last is one over the images of its class, ``(N,)``. The number of classes is asked
    nowhere: a class is known by its first sample, so that all has a shape that is known before.
    """
    check_tensors(target=target)
    count = len(flat)
    if tuple(target.shape) not in ((count,), (count, 1)) or target.is_complex():
        raise ValueError(
            f"target has shape {tuple(target.shape)} of {target.dtype}; for {count} samples it "
            f"must hold one real label each, ({count},) or ({count}, 1)"
        )
    labels = target.flatten()
    if validate and shows_values() and labels.is_floating_point() and labels.isnan().any():
        raise ValueError("target holds labels that are NaN; leave out images without a label")
    same = labels[:, None] == labels
    first, share = same.int().argmax(1), 1 / same.sum(1).to(flat.dtype)

    def of_class(rows: Tensor) -> Tensor:
        sums = torch.zeros_like(rows).index_add(0, first, rows)
        return sums.index_select(0, first) * share[:, None]

    rest = centred(flat)
    between = of_class(rest)
    within = rest - between
    rounding = of_class(within)  # a mean is rounded to digits of its own size
    return within - rounding, between + rounding, share


def _strengths(flat: Tensor, head_weight: Tensor) -> Tensor:
    """Mean over the logits of the squared weights of each feature, ``(F,)``."""
    check_tensors(head_weight=head_weight)
    if (
        not head_weight.is_floating_point()
        or head_weight.ndim != 2
        or head_weight.shape[0] == 0
        or head_weight.shape[1] != flat.shape[1]
    ):
        raise ValueError(
            f"head_weight has shape {tuple(head_weight.shape)} of {head_weight.dtype}; for "
            f"{flat.shape[1]} features it must be floating point, (C, {flat.shape[1]}): the "
            "weight of the linear layer that takes just these features"
        )
    return head_weight.to(flat.dtype).square().mean(0)


def _over_views(name: str, flat: Tensor, views: int) -> Tensor:
    check_integer("views", views, 2)
    if len(flat) % views:
        raise ValueError(
            f"{name} hold {len(flat)} samples, which is not a multiple of views={views}: all "
            "images must come in their first view, then all in the next one, and so on"
        )
    return feature_variance(flat.reshape(views, -1), validate=False)


def _flat_logits(logits: Tensor) -> Tensor:
    check_tensors(logits=logits)
    malformed = logits.ndim not in (1, 2) or logits.numel() == 0 or not logits.is_floating_point()
    if malformed or len(logits) < 2:
        raise (ValueError if malformed else SmallBatchError)(
            f"logits have shape {tuple(logits.shape)} of {logits.dtype}; they must be floating "
            f"point, (N,) or (N, C), with two samples or more ({ADVICE})"
        )
    return _flat(logits.reshape(len(logits), -1))


def _flat(features: Tensor) -> Tensor:
    check_features(features)
    flat = features.flatten(1)
    # A sum of thousands of half-precision squares loses most of its digits.
    return flat.float() if flat.dtype in HALF else flat


def _checked(value: Tensor, validate: bool, **inputs: Tensor) -> Tensor:
    if validate:
        check_finite(value, inputs)
    return value
