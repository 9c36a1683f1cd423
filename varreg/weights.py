r"""Weights of a penalty that set themselves while a network learns.

A fixed weight must be searched for over decades: it depends on the number and the scale of the
features. Each module here gives the weight :math:`w` of one training step instead, as a scalar
without a gradient, from what the step has computed anyway:

    >>> weight = GradientRatio(rho=0.027)
    >>> features = torch.tensor([[0.0], [2.0]], requires_grad=True)
    >>> cross_entropy, penalty = features.square().mean(), features.var(dim=0).mean()
    >>> total = cross_entropy + weight(cross_entropy, penalty, features) * penalty
    >>> total.backward()

All are called alike. They change in training mode only, once a step; in eval mode, and where no
gradients are recorded, they give the weight as it stands (also in what re-entrant activation
checkpointing reports of a step, whose gradient has the weight of that step). Under ``torch.func``
they must be in eval mode; ``torch.compile`` breaks the graph at a ``GradientRatio``. What they have
seen is in their ``state_dict``, which moves with the network and resumes with it. With
``DistributedDataParallel`` each process has a weight of its own batch, unless the criterion that
calls it has ``sync=True``: then all have the weight of the whole batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from varreg.checks import (
    check_features,
    check_flag,
    check_integer,
    check_range,
    check_tensors,
    in_backward,
)
from varreg.distributed import gather
from varreg.variance import centred


def gradient_ratio(
    cross_entropy: Tensor, penalty: Tensor, features: Tensor, *, sync: bool = False
) -> Tensor:
    r"""How much stronger the cross-entropy pulls at the features than the penalty does.

    .. math::

        r = \frac{\lVert \partial \mathrm{CE} / \partial f \rVert}
                 {\lVert \partial P / \partial f \rVert}

    with Euclidean norms over the whole batch. Both gradients are those of one backward pass
    through what lies between the features and the losses: the head, and nothing of the network
    before. They are taken of the losses times :math:`N \sqrt{F}`, which cancels, so that the
    gradients of features in half precision keep their digits.

    Args:
        cross_entropy: Scalar that depends on ``features``.
        penalty: Scalar that depends on ``features``, before any weight.
        features: Floating-point tensor ``(N, ...)`` that both were computed from, and that
            needs a gradient.
        sync: Whether the batch is that of all processes, with a penalty of all of it, see
            :func:`varreg.distributed.gather`; every process must call this then.

    Returns:
        Scalar tensor without a gradient, float32, or float64 for such features. 0 where the
        cross-entropy has no gradient; NaN where the penalty has none, as for constant features,
        or where one of them is not finite.

    Raises:
        NotATensorError: If one of them is not a tensor.
        ValueError: If a loss is no scalar, or does not depend on the features.

    Example:
        >>> features = torch.tensor([[3.0], [5.0]], requires_grad=True)
        >>> gradient_ratio(4 * features.sum(), features.sum(), features)
        tensor(4.)
    """
    check_flag("sync", sync)
    check_features(features, least=1)
    norms = []
    scale = features.shape[0] * math.sqrt(features[0].numel())
    for name, loss in {"cross_entropy": cross_entropy, "penalty": penalty}.items():
        check_tensors(**{name: loss})
        if loss.numel() != 1:
            raise ValueError(f"{name} has shape {tuple(loss.shape)}; it must be a scalar")
        gradient = None
        if loss.requires_grad and features.requires_grad:
            seed = torch.full_like(loss, scale)
            (gradient,) = torch.autograd.grad(
                loss, features, seed, retain_graph=True, allow_unused=True
            )
        if gradient is None:
            raise ValueError(
                f"{name} does not depend on the features: compute it from these features, do not "
                "detach them, and where the layers before them are frozen use a fixed weight"
            )
        wide = torch.promote_types(gradient.dtype, torch.float32)
        norms.append(torch.linalg.vector_norm(gradient.detach(), dtype=wide))
    if sync:  # the part of this process; in float64, where no square underflows
        of_each = gather((torch.stack(norms).double() / scale).unsqueeze(0))
        norms = torch.linalg.vector_norm(of_each, dim=0).to(norms[0].dtype)
    ratio = norms[0] / norms[1]
    return torch.where(ratio.isfinite(), ratio, torch.nan)


class _Learning(nn.Module):
    """A module that changes once a training step."""

    learned_forward = False

    def learns(self) -> bool:
        """Whether this is a step that it has not seen.

        Activation checkpointing runs a step again in the backward pass. Only the re-entrant kind
        has run it without gradients before, where nothing was learned.
        """
        if not self.training or not torch.is_grad_enabled():
            return False
        if torch._C._are_functorch_transforms_active():
            raise ValueError(
                f"a {type(self).__name__} learns from each step, which a function that torch.func "
                "transforms may not; call eval() on it, which gives the weight as it stands"
            )
        again = not torch.compiler.is_compiling() and in_backward()
        if not again:
            self.learned_forward = True
        return not (again and self.learned_forward)


class _Averaging(_Learning):
    """One that averages over its steps."""

    average: Tensor
    share: Tensor

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = check_range("smoothing", smoothing, 1)
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("share", torch.zeros(()))

    def _smooth(self, value: Tensor) -> None:
        """Take a value into the average, unless it is not finite; no device is waited for."""
        old = torch.where(value.isfinite(), self.smoothing, 1.0)
        self.average.copy_(old * self.average + (1 - old) * value.nan_to_num(0.0, 0.0, 0.0))
        self.share.copy_(old * self.share + (1 - old))

    def _averaged(self, empty: Tensor | float) -> Tensor:
        return torch.where(self.share > 0, self.average / self.share, empty)


class GradientRatio(_Averaging):
    r"""The weight at which the penalty pulls at the features with a set share of the force.

    .. math::

        w = \rho \cdot \frac{\lVert \partial \mathrm{CE} / \partial f \rVert}
                            {\lVert \partial P / \partial f \rVert}

    with the ratio of :func:`gradient_ratio` smoothed over steps, :math:`\bar r \leftarrow
    \beta \bar r + (1 - \beta) r`, and divided by :math:`1 - \beta^t` after :math:`t` steps, so
    that it is an average from the first step on. A step whose ratio is NaN is left out.

    :math:`\rho` has no unit. It means the same whatever the number of features and their scale,
    the size of the batch, and whether the penalty is a sum or a mean: multiplying the penalty
    divides the weight. It is relative to the cross-entropy as it is, not times ``lambda_``.

    Esser, Rombach and Ommer (CVPR 2021), "Taming Transformers for High-Resolution Image Synthesis",
    weight an adversarial term by the same ratio, at the weights of a layer and not smoothed.

    Args:
        rho: :math:`\rho \ge 0`; by default what :func:`varreg.advice.recommend` suggests.
        smoothing: :math:`\beta` in [0, 1); at 0 each step has its own ratio.
        sync: As for :func:`gradient_ratio`. ``PenalizedLoss(..., sync=True)`` sets it.

    Raises:
        ValueError: If a parameter is outside its range.

    Example:
        >>> weight = GradientRatio(rho=0.5, smoothing=0.9)
        >>> features = torch.tensor([[3.0], [5.0]], requires_grad=True)
        >>> weight(4 * features.sum(), features.sum(), features)  # half of 4 / 1
        tensor(2.)
    """

    def __init__(self, rho: float = 0.027, smoothing: float = 0.9, *, sync: bool = False) -> None:
        super().__init__(smoothing)
        check_flag("sync", sync)
        self.sync = sync
        self.rho = check_range("rho", rho)

    def forward(self, cross_entropy: Tensor, penalty: Tensor, features: Tensor) -> Tensor:
        """Give the weight of this step, ``()``; 0 until a step has had a ratio.

        Args:
            cross_entropy: As for :func:`gradient_ratio`.
            penalty: As for :func:`gradient_ratio`.
            features: As for :func:`gradient_ratio`.

        Raises:
            ValueError: As :func:`gradient_ratio`, in training mode.
        """
        if self.learns():
            self._smooth(gradient_ratio(cross_entropy, penalty, features, sync=self.sync))
        return self.rho * self._averaged(0.0)

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        synced = ", sync=True" if self.sync else ""
        return f"rho={self.rho}, smoothing={self.smoothing}{synced}"


class TargetWeight(_Learning):
    r"""A weight for as long as the penalty is above a share of what it was at the start.

    .. math::

        w = \frac{\omega}{P_0} \ \text{ where } P > t P_0 , \qquad 0 \ \text{ elsewhere,}

    with :math:`P_0`, the penalty of the first step in which it is positive. Its gradient is that
    of :math:`\omega \max(0, P / P_0 - t)`: :math:`t` says how far the statistic is to fall, and
    :math:`\omega`, in nats, how much this may cost.

    A target in place of a weight is the idea of Rezende and Viola (2018), "Taming VAEs", where the
    weight grows until the target is met; here it is on or off.

    Args:
        weight: :math:`\omega \ge 0`.
        target: :math:`t \ge 0`; at 1 the penalty must not grow, at 0 there is no target.

    Raises:
        ValueError: If a parameter is outside its range.

    Example:
        >>> weight, features = TargetWeight(weight=1.0, target=0.5), torch.zeros(2, 1)
        >>> [weight(torch.tensor(0.7), torch.tensor(p), features).item() for p in (4.0, 3.0, 2.0)]
        [0.25, 0.25, 0.0]
    """

    start: Tensor

    def __init__(self, weight: float = 1.0, target: float = 0.5) -> None:
        super().__init__()
        self.weight, self.target = check_range("weight", weight), check_range("target", target)
        self.register_buffer("start", torch.zeros(()))

    def forward(self, cross_entropy: Tensor, penalty: Tensor, features: Tensor) -> Tensor:
        """Give the weight of this step, ``()``; 0 until the penalty has been positive.

        Args:
            cross_entropy: Not looked at.
            penalty: Scalar, before any weight.
            features: Not looked at.

        Raises:
            NotATensorError: If ``penalty`` is not a tensor.
        """
        check_tensors(penalty=penalty)
        now = penalty.detach().reshape(())
        if self.learns():
            first = (self.start == 0) & (now > 0) & now.isfinite()
            self.start.copy_(torch.where(first, now, self.start))
        above = (self.start > 0) & (now > self.target * self.start)
        return torch.where(above, self.weight / self.start, 0.0)

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        return f"weight={self.weight}, target={self.target}"


class WarmUp(_Learning):
    r"""Another weight, off for the first steps and then faded in.

    The weight of step :math:`t = 0, 1, \dots` is multiplied by 0 for the first ``off`` steps,
    then by :math:`1/n, 2/n, \dots, 1` over the next :math:`n` = ``ramp`` steps, and by 1 from
    there on. A weight that sets itself looks at the steps that are off, too.

    Args:
        weight: The weight itself: a number, or a module of this kind.
        off: Steps without the penalty.
        ramp: Steps over which it is faded in; 0 and 1 both switch it on at once.

    Raises:
        ValueError: If a parameter is outside its range.

    Source:
        IB-ERM in DomainBed is off for 500 steps by default and then switched on.

    Example:
        >>> weight, loss = WarmUp(10.0, off=1, ramp=2), torch.tensor(0.7)
        >>> [weight(loss, loss, torch.zeros(2, 1)).item() for _ in range(4)]
        [0.0, 5.0, 10.0, 10.0]
    """

    step: Tensor

    def __init__(self, weight: float | nn.Module, off: int = 0, ramp: int = 0) -> None:
        super().__init__()
        self.weight = weight if isinstance(weight, nn.Module) else check_range("weight", weight)
        check_integer("off", off, 0)
        check_integer("ramp", ramp, 0)
        self.off, self.ramp = off, ramp
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, cross_entropy: Tensor, penalty: Tensor, features: Tensor) -> Tensor:
        """Give the weight of this step, ``()``.

        Args:
            cross_entropy: What ``weight`` takes.
            penalty: What ``weight`` takes.
            features: What ``weight`` takes.

        Raises:
            ValueError: As ``weight`` does.
        """
        full = self.weight
        if isinstance(full, nn.Module):
            full = full(cross_entropy, penalty, features)
        learns = self.learns()
        begun = self.step - self.off + (1 if learns else 0)  # steps since, with this one
        if learns:
            self.step.add_(1)
        return (begun / max(1, self.ramp)).clamp(0, 1) * full

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        shown = "" if isinstance(self.weight, nn.Module) else f"weight={self.weight}, "
        return f"{shown}off={self.off}, ramp={self.ramp}"


class RunningQuantile(_Averaging):
    r"""A threshold for :func:`varreg.penalties.excess_variance` that follows the network.

    The quantile of the variances of the features over the batch, smoothed over steps as by
    :class:`GradientRatio`. At 0.9 a tenth of the features pays.

    Args:
        quantile: From 0 to 1.
        smoothing: :math:`\beta` in [0, 1); at 0 each step has its own quantile.

    Raises:
        ValueError: If a parameter is outside its range.

    Example:
        >>> threshold = RunningQuantile(0.5)
        >>> threshold(torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]]))  # of 1, 4 and 16
        tensor(4.)
    """

    def __init__(self, quantile: float = 0.5, smoothing: float = 0.9) -> None:
        super().__init__(smoothing)
        self.quantile = check_range("quantile", quantile, 1, ends="[]")

    def forward(self, features: Tensor) -> Tensor:
        """Give the threshold of this step, ``()``, without a gradient.

        Args:
            features: As for :func:`varreg.variance.feature_variance`. A batch that is not finite is
                left out.

        Returns:
            The threshold, in squared units of the features. In eval mode, and where no gradients
            are recorded, as it stands; before the first step that of this batch.

        Raises:
            NotATensorError: If ``features`` is not a tensor.
            ValueError: If it is none that :func:`varreg.variance.feature_variance` takes.
        """
        check_features(features)
        flat = features.detach().flatten(1)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        now = torch.quantile(centred(flat).square().mean(0), self.quantile)
        if self.learns():
            self._smooth(now)
        return self._averaged(now)

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        return f"quantile={self.quantile}, smoothing={self.smoothing}"
