"""The variance of features over a batch: its formula and its kernel."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from varreg.checks import (
    HALF,
    check_features,
    check_finite,
    check_generator,
    check_integer,
    check_range,
    check_tensors,
    in_backward,
)

__all__ = ["draw_features", "feature_variance", "per_channel"]

# Up to this ratio of means to deviations (roots of mean squares), and for as many rows at a time,
# a plain sum in float32 leaves five digits of the gradient and six of the variance.
LARGE_MEAN = 32.0
ROWS = 256


def feature_variance(
    features: Tensor,
    sampling_ratio: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    validate: bool = True,
) -> Tensor:
    r"""Mean over the features of their population variance over the batch.

    For features :math:`f_{ij}`, sample :math:`i = 1 \dots N` and feature :math:`j \in S`,

    .. math::

        V = \frac{1}{|S|} \sum_{j \in S} \frac{1}{N} \sum_{i=1}^{N}
            \left(f_{ij} - \bar f_j\right)^2 .

    :math:`S` is a comb of equally spaced features, see :func:`draw_features`. Its place is drawn
    anew at every call, so that every feature is as likely as any other and the expectation of
    :math:`V` over :math:`S` is its value over all features. Nothing is gathered: the draw is a
    view of weights for the variances. Beyond the features themselves only their means are kept
    for the backward pass. Value and gradient are good to five digits of float32 at least,
    whatever the batch size and the means: where these are large against the deviations, and on
    a GPU, the features are copied once on the way, shifted by their means.

    It works under ``torch.compile``, ``torch.func`` and forward-mode differentiation, where
    values are not checked.

    The batch is what is given. Where that is a part of a batch, with ``DistributedDataParallel``
    or gradient accumulation, the mean over the parts leaves out how far their means lie apart: of
    :math:`N` samples that are split at random into parts of :math:`m`, value and gradient are in
    expectation :math:`(1 - 1/m) / (1 - 1/N)` of those of the whole. Give it
    :func:`varreg.distributed.gather` of the features, or the criterion ``sync=True``, for the
    batch of all processes; accumulation has no such way, since a part is gone before the next
    one comes: divide the weight by that factor. See :func:`per_channel` for maps of a convolution.

    Args:
        features: Floating-point tensor ``(N, ...)`` with at least two samples. Everything
            after the first axis is one flat list of features, in the order of memory.
        sampling_ratio: Share of the features in ``S``, in (0, 1]. At least one is drawn.
        generator: Source of the draw; the global one of PyTorch by default, which is the only
            one that ``torch.compile`` draws from without a graph break, and the only one that
            activation checkpointing rewinds. One on the CPU never waits for a GPU.
        validate: Check that the result is finite. The check waits for the device: turn
            it off in a tight loop on a GPU. Shapes and types are always checked.

    Returns:
        Scalar tensor; float32 for float16 and bfloat16 features, else of their type.

    Raises:
        NonFiniteFeaturesError: If a feature is NaN or infinite.
        NotATensorError: If ``features`` is not a tensor.
        SmallBatchError: If there is one sample only.
        ValueError: If ``features`` is not float16, bfloat16, float32 or float64, has fewer than
            two axes, no sample or no feature, if ``sampling_ratio`` is outside
            (0, 1], or if ``generator`` cannot be used: it is none, ``torch.compile`` must not
            break the graph, or activation checkpointing computes its draw again.

    Source:
        Athukorala (2025), "Addressing Overfitting in Medical Image Classification through
        Variance Penalization".

    Example:
        >>> features = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
        >>> feature_variance(features)  # variances 1 and 0
        tensor(0.5000)
    """
    check_features(features)
    check_range("sampling ratio", sampling_ratio, 1, ends="(]")
    check_generator(generator)
    # Asked here, not in a function: after a graph break that would be compiled by itself.
    compiling = torch.compiler.is_compiling()
    transformed = torch._C._are_functorch_transforms_active() or _has_tangent(features)
    if compiling or transformed:
        return _plain_variance(features.flatten(1), sampling_ratio, generator)
    flat = features if features.ndim == 2 else _in_order_of_memory(features).flatten(1)
    count = flat.shape[1]
    sampled = _sampled(sampling_ratio, count)
    weights = None
    if sampled < count:
        dtype = torch.promote_types(flat.dtype, torch.float32)
        weights = _turned_comb(count, sampled, generator, dtype, flat.device)
    variance: Tensor = _Variance.apply(flat, weights)  # type: ignore[no-untyped-call]
    if validate:
        check_finite(variance, {"features": features})
    return variance


def per_channel(features: Tensor) -> Tensor:
    """Make each channel a feature, and each pixel a sample.

    The maps of a convolution have two readings. As they are, each element of ``(C, H, W)`` is a
    feature with a variance over the ``N`` images. Through this function each of ``C`` channels is
    one, with a variance over all pixels of all images: how an image varies within itself counts
    too. For a network that labels pixels the second is the one whose samples have labels.

    Args:
        features: ``(N, C, ...)``, with any axes for place.

    Returns:
        ``(N * places, C)``; the places of the first image come first.

    Raises:
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If it has fewer than two axes.

    Example:
        >>> maps = torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]]])  # two images, one channel
        >>> feature_variance(maps), feature_variance(per_channel(maps))
        (tensor(0.), tensor(1.))
    """
    check_tensors(features=features)
    if features.ndim < 2:
        raise ValueError(
            f"features have shape {tuple(features.shape)}; expected (N, C, ...) with an axis for "
            "the channels"
        )
    return features.movedim(1, -1).flatten(0, -2)


def draw_features(
    count: int,
    sampled: int,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw equally spaced features from a random start: their weights in the mean.

    The features form a circle, and a comb of ``sampled`` teeth, evenly spread, is turned by a
    uniformly drawn number of places: each feature is drawn with probability ``sampled / count``.
    Statisticians call this systematic sampling.

    Args:
        count: Features in all.
        sampled: Features to draw, 1 to ``count``.
        generator: Source of the draw; the global one of PyTorch by default.
        dtype: Of the result.
        device: Of the result.

    Returns:
        ``1 / sampled`` for every feature that was drawn and 0 for the others, ``(count,)``.

    Raises:
        ValueError: If ``sampled`` is not 1 to ``count``, or ``generator`` is none.

    Example:
        >>> draw_features(6, 2, torch.Generator().manual_seed(1)).tolist()
        [0.0, 0.5, 0.0, 0.0, 0.5, 0.0]
    """
    check_integer("count", count, 1)
    check_integer("sampled", sampled, 1, count)
    check_generator(generator)
    # A copy: the comb below is everyone's.
    return _turned_comb(count, sampled, generator, dtype, torch.device(device)).clone()


def _sampled(sampling_ratio: float, count: int) -> int:
    return max(1, round(float(sampling_ratio) * count))


def _turned_comb(
    count: int,
    sampled: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The weights of :func:`draw_features`: a view of a comb that is made once."""
    turned = int(_draw_start(count, generator))
    return _two_turns(count, sampled, dtype, device).narrow(0, count - turned, count)


def _draw_start(count: int, generator: torch.Generator | None) -> Tensor:
    """Where the comb begins, ``()``.

    Raises:
        ValueError: If a given generator is asked again for what activation checkpointing
            computes once more: it has moved on, and the gradient would be of another draw.
    """
    if generator is not None and in_backward():
        raise ValueError(
            "features are drawn from a generator of their own in a step that activation "
            "checkpointing computes again, which rewinds the global generator only: leave "
            "generator out, draw all features, or call the criterion outside the checkpoint"
        )
    where = "cpu" if generator is None else generator.device
    return torch.randint(count, (), generator=generator, device=where)


@lru_cache(maxsize=4)
def _two_turns(count: int, sampled: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The weights of a comb, twice round the circle, so that a view of it is the comb turned."""
    with torch.inference_mode(False):  # it outlives the mode of the first call
        once = torch.zeros(count, dtype=dtype, device=device)
        once[_teeth(count, sampled, device)] = 1 / sampled
        return once.repeat(2)


def _teeth(count: int, sampled: int, device: torch.device) -> Tensor:
    return torch.arange(sampled, device=device) * count // sampled


class _Variance(torch.autograd.Function):
    """Mean variance of the features: one kernel forward, one expression backward.

    With weights ``w_j`` that sum to 1 the gradient is ``2 w_j (f_ij - mean_j) / N``, so that the
    means, and the view of the weights, are all that need be kept.

    Means that are large against the deviations leave few digits for these. Features are then
    shifted by their rounded means first, and everything is computed of what is left.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, weights: Tensor | None) -> Tensor:
        shift, (mean, variances) = None, _statistics(flat)
        value = _weighted(variances, weights)
        on_cpu = flat.device.type == "cpu"
        for _ in range(2 if on_cpu else 1):  # again where the rounding of a mean is left over
            # A GPU would have to be waited for to look at the numbers: it shifts at any rate.
            if on_cpu and _has_digits(mean, value, weights):
                break
            shift = mean if shift is None else shift + mean
            mean, variances = _statistics(flat - shift)
            value = _weighted(variances, weights)
        ctx.save_for_backward(flat, shift, mean, weights)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        flat, shift, mean, weights = ctx.saved_tensors
        scale = gradient * (-2 / (flat.numel() if weights is None else flat.shape[0]))
        if weights is not None:
            scale = scale * weights
        if torch.is_grad_enabled():  # this pass is to be differentiated in its turn
            return -scale * centred(flat.to(mean.dtype)), None
        rest = flat if shift is None else flat - shift
        out: Tensor | None
        if flat.dtype != mean.dtype:
            out = torch.empty_like(flat)
        else:
            out = None if shift is None else rest
        return torch.addcmul(scale * mean, rest, scale, value=-1, out=out), None


def _weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else values.dot(weights)


def _has_digits(mean: Tensor, value: Tensor, weights: Tensor | None) -> bool:
    """Whether the means are so small against the deviations that no digits are lost to them."""
    if weights is None:
        power = mean.dot(mean).item() / len(mean)
    else:
        power = mean.square().dot(weights).item()
    return power <= LARGE_MEAN**2 * value.item() < math.inf


def _statistics(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each column; float32 for half precision.

    Batch normalization needs the same two, and PyTorch has a kernel for it that reads the rows as
    they lie in memory. Its ``var`` goes down one column after the other, which takes a CPU many
    times as long. On a CPU the kernel adds one row after the other, which loses digits over many:
    so many rows are taken as fewer, longer ones, and their columns put together.
    """
    if flat.device.type not in ("cpu", "cuda"):
        wide = flat.to(torch.promote_types(flat.dtype, torch.float32))
        variances, mean = torch.var_mean(wide, 0, correction=0)
        return mean, variances
    count, width = flat.shape
    if flat.device.type == "cpu" and count > ROWS:
        parts = -(-count // ROWS)
        whole = count - count % parts
        means, within = _statistics(flat[:whole].reshape(-1, parts * width))
        mean, between = _statistics(means.view(parts, width))
        variances = within.view(parts, width).mean(0) + between
        if whole < count:
            share = (count - whole) / count
            last_mean, last_variances = _statistics(flat[whole:])
            apart = last_mean - mean
            mean = mean + share * apart
            variances = torch.lerp(variances, last_variances, share)
            variances = variances + share * (1 - share) * apart.square()
        return mean, variances
    if flat.dtype in HALF:
        # The statistics come in the type of the running ones, which stay 0 here.
        running = torch.zeros(width, device=flat.device)
        return torch.batch_norm_update_stats(flat, running, running, 0.0)
    return torch.batch_norm_update_stats(flat, None, None, 0.0)


def _has_tangent(features: Tensor) -> bool:
    dual = forward_ad.unpack_dual(features)  # type: ignore[no-untyped-call]
    return dual.tangent is not None


def _plain_variance(
    flat: Tensor, sampling_ratio: float, generator: torch.Generator | None
) -> Tensor:
    """The same in parts that PyTorch transforms, and that ``torch.compile`` fuses into kernels."""
    count = flat.shape[1]
    sampled = _sampled(sampling_ratio, count)
    if sampled < count:
        if not torch.compiler.is_compiling():
            start = _draw_start(count, generator).to(flat.device)
        elif generator is None:
            start = torch.randint(count, (), device=flat.device)
        else:
            raise ValueError(
                "torch.compile knows no generator but the global one of PyTorch: leave generator "
                "out, draw all features, or compile without fullgraph=True"
            )
        flat = flat.index_select(1, (start + _teeth(count, sampled, flat.device)) % count)
    return centred(flat.to(torch.promote_types(flat.dtype, torch.float32))).square().mean()


def centred(wide: Tensor) -> Tensor:
    """Deviations from the means, without the rounding of means that are large against them."""
    rough = wide - wide.mean(0)
    rough = rough - rough[:1]  # nothing is left of what is constant
    return rough - rough.mean(0)


def _in_order_of_memory(features: Tensor) -> Tensor:
    """Features with the axes behind the first sorted so that flattening them copies nothing.

    Convolutions in ``channels_last`` make features whose channels change fastest.
    """
    strides = features.stride()
    inner = sorted(range(1, features.ndim), key=lambda axis: -strides[axis])
    return features.permute(0, *inner)
