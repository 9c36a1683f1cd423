"""The variance penalty and the classification loss that carries it."""

from __future__ import annotations

import math
import numbers
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

__all__ = [
    "LossParts",
    "NonFiniteFeaturesError",
    "NotATensorError",
    "Task",
    "VariancePenalizedLoss",
    "check_features",
    "draw_features",
    "feature_variance",
    "split_features",
]

Task = Literal["binary", "multiclass", "multilabel"]

HALF = (torch.float16, torch.bfloat16)

KERAS_EPSILON = (
    1e-7  # Keras clips probabilities to [1e-7, 1 - 1e-7] before it takes their logarithm.
)


# Up to this ratio of means to deviations (roots of mean squares), and for as many rows at a time,
# a plain sum in float32 leaves five digits of the gradient and six of the variance.
LARGE_MEAN = 32.0
ROWS = 256


class NonFiniteFeaturesError(ValueError):
    """Raised when features hold a NaN or an infinity."""


class NotATensorError(TypeError, ValueError):
    """Raised where something else is given for a tensor."""


class LossParts(NamedTuple):
    """What the criterion returns: the value to minimize, and what it is made of.

    Attributes:
        total: Scalar, ``lambda_ * cross_entropy + variance_weight * feature_variance``.
        cross_entropy: Scalar, mean over the batch in nats, *not* scaled by ``lambda_``.
            Compare models and stop early on this part.
        feature_variance: Scalar, the penalty before its weight.
    """

    total: Tensor
    cross_entropy: Tensor
    feature_variance: Tensor


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
    values are not checked. With ``DistributedDataParallel`` the batch is that of each process: the
    mean over the processes leaves out how far the means of their batches lie apart.

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
        ValueError: If ``features`` is not float16, bfloat16, float32 or float64, has fewer than
            two axes, fewer than two samples or no feature, if ``sampling_ratio`` is outside
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
    _check_ratio(sampling_ratio)
    _check_generator(generator)
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
    variance = _Variance.apply(flat, weights)
    if validate:
        check_finite(variance, features=features)
    return variance


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
    _check_generator(generator)
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
    def forward(ctx: FunctionCtx, flat: Tensor, weights: Tensor | None) -> Tensor:
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
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        flat, shift, mean, weights = ctx.saved_tensors
        scale = gradient * (-2 / (flat.numel() if weights is None else flat.shape[0]))
        if weights is not None:
            scale = scale * weights
        if torch.is_grad_enabled():  # this pass is to be differentiated in its turn
            return -scale * _centred(flat.to(mean.dtype)), None
        rest = flat if shift is None else flat - shift
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
    return forward_ad.unpack_dual(features).tangent is not None


def shows_values() -> bool:
    """Whether tensors have values to look at, as under ``torch.compile`` and ``torch.func`` not."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


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
    return _centred(flat.to(torch.promote_types(flat.dtype, torch.float32))).square().mean()


def _centred(wide: Tensor) -> Tensor:
    """Deviations from the means, without the rounding of means that are large against them."""
    rough = wide - wide.mean(0)
    rough = rough - rough[:1]  # nothing is left of what is constant
    return rough - rough.mean(0)


def in_backward() -> bool:
    """Whether a backward pass runs: activation checkpointing computes again what it left out."""
    return torch._C._current_graph_task_id() != -1


def _in_order_of_memory(features: Tensor) -> Tensor:
    """Features with the axes behind the first sorted so that flattening them copies nothing.

    Convolutions in ``channels_last`` make features whose channels change fastest.
    """
    inner = sorted(range(1, features.ndim), key=lambda axis: -features.stride(axis))
    return features.permute(0, *inner)


class VariancePenalizedLoss(nn.Module):
    r"""Cross-entropy plus a penalty on the variance of the features over the batch.

    .. math::

        L = \lambda \cdot \mathrm{CE} + w \cdot V

    with :math:`V` from :func:`feature_variance`. The defaults are the published setting.
    In eval mode all features are used, so that a validation loss has no noise of its own.
    With ``DistributedDataParallel`` the batch is that of each process.

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        variance_weight: :math:`w \ge 0`. At 0 the total is exactly
            ``lambda_ * cross_entropy``.
        feature_sampling_ratio: Share of the features drawn at every training step, in (0, 1].
        lambda_: :math:`\lambda > 0`, scale of the cross-entropy.
        generator: Source of the draws; the global one of PyTorch by default.
        validate: Check values (finite features, labels within the classes) as well as
            shapes. The check waits for the device once a step. Without it
            :func:`varreg.lab.training.fit` looks at the losses once an epoch.

    Raises:
        ValueError: If a parameter is outside its range.

    Source:
        Athukorala (2025), "Addressing Overfitting in Medical Image Classification through
        Variance Penalization".

    Example:
        >>> criterion = VariancePenalizedLoss("binary", feature_sampling_ratio=1.0)
        >>> logits, target = torch.zeros(2), torch.tensor([0, 1])
        >>> parts = criterion(logits, target, torch.tensor([[0.0], [2.0]]))
        >>> print(f"{parts.total:.4f} = 0.5 x {parts.cross_entropy:.4f} + 0.01 x 1")
        0.3566 = 0.5 x 0.6931 + 0.01 x 1
    """

    def __init__(
        self,
        task: Task,
        variance_weight: float = 0.01,
        feature_sampling_ratio: float = 0.2,
        lambda_: float = 0.5,
        *,
        generator: torch.Generator | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        if task not in get_args(Task):
            raise ValueError(f"task is {task!r}; allowed are {', '.join(get_args(Task))}")
        check_penalty(variance_weight, feature_sampling_ratio, lambda_)
        _check_generator(generator)
        self.task = task
        self.variance_weight = float(variance_weight)
        self.feature_sampling_ratio = float(feature_sampling_ratio)
        self.lambda_ = float(lambda_)
        self.generator = generator
        self.validate = validate

    def forward(self, logits: Tensor, target: Tensor, features: Tensor) -> LossParts:
        """Compute the loss of one batch.

        Args:
            logits: Binary: ``(N,)`` or ``(N, 1)``; multi-class: ``(N, K)``;
                multi-label: ``(N, L)``. Before any sigmoid or softmax.
            target: Binary: 0 and 1, ``(N,)`` or ``(N, 1)``, integer or float; multi-class:
                integers 0 to K - 1, ``(N,)`` or ``(N, 1)``; multi-label: 0 and 1, ``(N, L)``.
            features: ``(N, ...)``, see :func:`feature_variance`.

        Returns:
            The total and its parts, see :class:`LossParts`.

        Raises:
            NonFiniteFeaturesError: If a feature is NaN or infinite.
            NotATensorError: If one of them is not a tensor.
            ValueError: If shapes do not fit each other, labels are outside the classes, or the
                features need no gradient where the logits do and the weight is positive: the
                penalty would change nothing.
        """
        check_penalty(self.variance_weight, self.feature_sampling_ratio, self.lambda_)
        check_tensors(logits=logits, target=target, features=features)
        if logits.shape[:1] != features.shape[:1]:
            raise ValueError(
                f"logits hold {tuple(logits.shape)} and features {tuple(features.shape)}; "
                "the first axis of both must be the same batch"
            )
        cross_entropy = self.cross_entropy(logits, target)
        ratio = self.feature_sampling_ratio if self.training else 1.0
        # With a weight of 0 it is reported only: no gradient, and exactly the cross-entropy.
        penalized = self.variance_weight > 0
        if (
            penalized
            and logits.requires_grad
            and not features.requires_grad
            and torch.is_grad_enabled()
        ):
            raise ValueError(
                "features need no gradient and logits do, so that the penalty would change "
                "nothing: do not detach the features, call checkpoint with use_reentrant=False "
                "or put the loss into what is checkpointed, and where the layers before the "
                "features are frozen set variance_weight=0"
            )
        variance = feature_variance(
            features if penalized else features.detach(),
            ratio,
            generator=self.generator,
            validate=self.validate,
        )
        total = cross_entropy if self.lambda_ == 1 else self.lambda_ * cross_entropy
        if penalized:
            total = torch.add(total, variance, alpha=self.variance_weight)
        return LossParts(total, cross_entropy, variance)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Only the classification loss, mean over the batch in nats, not scaled by ``lambda_``.

        Args:
            logits: As for :meth:`forward`.
            target: As for :meth:`forward`.

        Raises:
            NotATensorError: If one of them is not a tensor.
            ValueError: If shapes do not fit each other or labels are outside the classes.
        """
        check_target(logits, target, self.task, values=self.validate)
        if logits.dtype in HALF:
            logits = logits.float()
        if self.task == "multiclass":
            return F.cross_entropy(logits, target.flatten().long())
        target = target.to(logits.dtype).view_as(logits)
        return F.binary_cross_entropy_with_logits(logits, target)

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        return (
            f"{self.task!r}, variance_weight={self.variance_weight}, "
            f"feature_sampling_ratio={self.feature_sampling_ratio}, lambda_={self.lambda_}"
        )


def split_features(
    concatenated: Tensor,
    n_outputs: int,
    *,
    activation: Literal["sigmoid", "softmax"] | None = None,
) -> tuple[Tensor, Tensor]:
    """Split the paper's one tensor ``[features | predictions]`` into logits and features.

    The released loss takes the features concatenated with the predictions. This turns such
    a tensor into the first and third argument of :class:`VariancePenalizedLoss`.

    Args:
        concatenated: ``(N, F + n_outputs)``, features first.
        n_outputs: Number of predictions at the end of every row: 1 for binary tasks.
        activation: What the predictions went through: ``"sigmoid"`` or ``"softmax"``
            probabilities are turned back into logits (clipped to 1e-7 from 0 and 1, as
            Keras does); ``None`` for logits.

    Returns:
        Logits ``(N, n_outputs)``, in float32 where they come from probabilities in half
        precision, and features ``(N, F)``.

    Raises:
        NotATensorError: If ``concatenated`` is not a tensor.
        ValueError: If the tensor is not floating point, not two-dimensional or holds no feature,
            if ``n_outputs`` is no integer, if ``activation`` is unknown, or if "probabilities"
            lie outside [0, 1].

    Example:
        >>> both = torch.tensor([[1.0, 2.0, 0.5], [3.0, 4.0, 0.5]])
        >>> logits, features = split_features(both, 1, activation="sigmoid")
        >>> logits.flatten().tolist(), features.tolist()
        ([0.0, 0.0], [[1.0, 2.0], [3.0, 4.0]])
    """
    check_tensors(concatenated=concatenated)
    check_integer("n_outputs", n_outputs)
    if not concatenated.is_floating_point():
        raise ValueError(f"concatenated is {concatenated.dtype}; it must be floating point")
    if concatenated.ndim != 2 or not 1 <= n_outputs < concatenated.shape[1]:
        raise ValueError(
            f"concatenated has shape {tuple(concatenated.shape)} with n_outputs={n_outputs}; "
            "expected (N, F + n_outputs) with at least one feature and one output"
        )
    features, predictions = concatenated[:, :-n_outputs], concatenated[:, -n_outputs:]
    if activation is None:
        return predictions, features
    if activation not in ("sigmoid", "softmax"):
        raise ValueError(f"activation is {activation!r}; allowed are None, 'sigmoid', 'softmax'")
    if not ((predictions >= 0) & (predictions <= 1)).all():
        raise ValueError(
            f"the last {n_outputs} columns go from {predictions.min().item():.3g} to "
            f"{predictions.max().item():.3g}; probabilities lie in [0, 1]. "
            "Pass activation=None for logits"
        )
    if predictions.dtype in HALF:  # which round 1 - 1e-7 to 1
        predictions = predictions.float()
    clipped = predictions.clamp(KERAS_EPSILON, 1 - KERAS_EPSILON)
    return (clipped.logit() if activation == "sigmoid" else clipped.log()), features


def check_penalty(variance_weight: float, sampling_ratio: float, lambda_: float) -> None:
    """Refuse parameters of the penalty that are outside their ranges.

    Raises:
        ValueError: If one is no number, ``variance_weight`` is negative, ``lambda_`` is not
            positive, either is not finite, or ``sampling_ratio`` is outside (0, 1].
    """
    check_number("variance_weight", variance_weight)
    check_number("lambda_", lambda_)
    if not 0 <= variance_weight < float("inf"):
        raise ValueError(f"variance_weight is {variance_weight}; it must be finite and at least 0")
    if not 0 < lambda_ < float("inf"):
        raise ValueError(f"lambda_ is {lambda_}; it must be finite and greater than 0")
    _check_ratio(sampling_ratio)


def check_target(logits: Tensor, target: Tensor, task: Task, *, values: bool = True) -> None:
    """Refuse logits and labels that do not belong together.

    Raises:
        NotATensorError: If one of them is not a tensor.
        ValueError: If a shape or type does not fit the task or, with ``values``, a label is
            outside the classes.
    """
    check_tensors(logits=logits, target=target)
    if not logits.is_floating_point():
        raise ValueError(f"logits are {logits.dtype}; they must be floating point")
    if target.is_complex():
        raise ValueError(f"target is {target.dtype}; it must hold integers or floats")
    shape, n = tuple(logits.shape), logits.shape[0] if logits.ndim else 0

    def given() -> str:
        return f"{task} task with logits {shape} and target {tuple(target.shape)} of {target.dtype}"

    if task == "binary":
        if shape not in ((n,), (n, 1)) or tuple(target.shape) not in ((n,), (n, 1)):
            raise ValueError(f"{given()}; both must be (N,) or (N, 1)")
    elif task == "multiclass":
        if logits.ndim != 2 or shape[1] < 2 or tuple(target.shape) not in ((n,), (n, 1)):
            raise ValueError(
                f"{given()}; logits must be (N, K) with K of 2 or more and target (N,) or (N, 1)"
            )
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise ValueError(f"{given()}; target must hold integer class codes")
    elif logits.ndim != 2 or target.shape != logits.shape:
        raise ValueError(f"{given()}; both must be (N, L)")
    if not values or not shows_values() or n == 0:
        return
    if task == "multiclass":
        low, high = (int(end) for end in target.aminmax())
        if low < 0 or high >= shape[1]:
            raise ValueError(
                f"labels go from {low} to {high}; with {shape[1]} logits they must lie in "
                f"0 to {shape[1] - 1}"
            )
    elif not _all_0_or_1(target):
        raise ValueError(
            f"{task} labels go from {target.min().item():.3g} to {target.max().item():.3g}; "
            "every label must be 0 or 1"
        )


def check_finite(penalty: Tensor, **inputs: Tensor) -> None:
    """Refuse a penalty that is NaN or infinite, and say which of its inputs made it so.

    Waits for the device; inside ``torch.compile`` and ``torch.func`` nothing is checked.

    Raises:
        NonFiniteFeaturesError: With how many values are not finite, or what overflows.
    """
    if not shows_values() or math.isfinite(penalty.item()):
        return
    for name, tensor in inputs.items():
        finite = torch.isfinite(tensor)
        if not finite.all():
            raise NonFiniteFeaturesError(
                f"{name} hold {int((~finite).sum())} values that are NaN or infinite "
                f"of {tensor.numel()}; find the layer that makes them, or lower the learning rate"
            )
    largest = max(tensor.abs().max().item() for tensor in inputs.values())
    raise NonFiniteFeaturesError(
        f"the penalty of {' and '.join(inputs)} up to {largest:.3g} overflows {penalty.dtype}; "
        "scale the features down"
    )


def _all_0_or_1(target: Tensor) -> bool:
    if target.is_floating_point():
        return bool(((target == 0) | (target == 1)).all())
    low, high = target.aminmax()  # one pass instead of four
    return low.item() >= 0 and high.item() <= 1


def check_features(features: Tensor) -> None:
    """Refuse what is no batch of features.

    Raises:
        NotATensorError: If ``features`` is not a tensor.
        ValueError: If it is not floating point, or is not ``(N, ...)`` with two samples or more
            and one feature or more.
    """
    check_tensors(features=features)
    if features.dtype not in (*HALF, torch.float32, torch.float64):
        raise ValueError(
            f"features are {features.dtype}; they must be floating point: float16, bfloat16, "
            "float32 or float64"
        )
    if features.layout != torch.strided:
        raise ValueError(f"features are {features.layout}; they must be dense: call to_dense()")
    if features.ndim < 2 or features.shape[0] < 2 or features.numel() == 0:
        raise ValueError(
            f"features have shape {tuple(features.shape)}; expected (N, ...) with two samples "
            "or more and one feature or more (a batch of one has no variance: drop it or merge "
            "it with another batch)"
        )


def check_tensors(**given: object) -> None:
    """Refuse what is no tensor.

    Raises:
        NotATensorError: With the name, and what was given.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise NotATensorError(f"{name} is a {type(value).__name__}; it must be a torch.Tensor")


def check_number(name: str, value: object) -> None:
    """Refuse what is no real number; those of NumPy are.

    Raises:
        ValueError: With the name, and what was given.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be a number")


def check_integer(
    name: str, value: object, least: float = -math.inf, most: float = math.inf
) -> None:
    """Refuse what is no integer, or outside its range.

    Raises:
        ValueError: With the name, what was given and what is allowed.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be an integer")
    if not least <= value <= most:
        allowed = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{name} is {value}; it must be {allowed}")


def _check_ratio(sampling_ratio: float) -> None:
    check_number("sampling ratio", sampling_ratio)
    if not 0 < sampling_ratio <= 1:
        raise ValueError(f"sampling ratio is {sampling_ratio}; it must lie in (0, 1]")


def _check_generator(generator: torch.Generator | None) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator is {generator!r}; it must be a torch.Generator, such as "
            "torch.Generator().manual_seed(0), or None"
        )
