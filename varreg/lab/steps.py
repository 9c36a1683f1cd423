"""How the weights of a network change at a step of its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from varreg.loss import LossParts

#: A forward pass of the batch with the weights as they are: the loss and the logits.
Passed = Callable[[], tuple[LossParts, Tensor]]
Step = Callable[[Passed, torch.optim.Optimizer], tuple[LossParts, Tensor]]


def descend(passed: Passed, optimizer: torch.optim.Optimizer) -> tuple[LossParts, Tensor]:
    """One forward pass, one backward pass, one step of the optimizer.

    Args:
        passed: The forward pass.
        optimizer: Of the weights.

    Returns:
        The loss and the logits of the forward pass.
    """
    found = _with_gradient(passed, optimizer)
    optimizer.step()
    return found


def _with_gradient(passed: Passed, optimizer: torch.optim.Optimizer) -> tuple[LossParts, Tensor]:
    parts, logits = passed()
    optimizer.zero_grad(set_to_none=True)
    parts.total.backward()
    return parts, logits


def sharpness_aware(
    passed: Passed, optimizer: torch.optim.Optimizer, radius: float = 0.05
) -> tuple[LossParts, Tensor]:
    r"""A step along the gradient at the worst place nearby (SAM).

    The gradient is taken at :math:`\theta + \rho\, g / \lVert g \rVert`, where :math:`g` is that
    at the weights :math:`\theta` themselves; two passes a step.

    Args:
        passed: The forward pass.
        optimizer: Of the weights.
        radius: :math:`\rho`, Euclidean, over all weights.

    Returns:
        The loss and the logits at the weights themselves.

    Source:
        Foret, Kleiner, Mobahi and Neyshabur (ICLR 2021), "Sharpness-Aware Minimization for
        Efficiently Improving Generalization".
    """
    found = _with_gradient(passed, optimizer)
    weights = [w for group in optimizer.param_groups for w in group["params"] if w.grad is not None]
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights])
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.add_(weight.grad * (radius / (norm + 1e-12)))
    _with_gradient(passed, optimizer)
    with torch.no_grad():
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
    optimizer.step()
    return found


class Averaging:
    """An exponential moving average of the weights of a model, from its first step on.

    Args:
        model: What is trained.
        decay: In (0, 1): the share of the average that a step leaves as it was.

    Raises:
        ValueError: If ``decay`` is outside its range.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = Averaging(model, 0.75)
        >>> for value in (0.0, 8.0):
        ...     _ = nn.init.constant_(model.weight, value)
        ...     average.update()
        >>> with average.shown():
        ...     model.weight.item()
        2.0
        >>> model.weight.item()
        8.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"averaging is {decay}; it must lie in (0, 1), or be 0 for none")
        self._model = model
        averages = get_ema_multi_avg_fn(decay)
        self._averaged = AveragedModel(model, multi_avg_fn=averages, use_buffers=True)

    def update(self) -> None:
        """Take the weights of this step into the average."""
        self._averaged.update_parameters(self._model)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the averaged weights meanwhile."""
        own = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._averaged.module.state_dict())
        try:
            yield
        finally:
            self._model.load_state_dict(own)
