"""What people would otherwise write, to be timed beside the package."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

__all__ = ["one_pass_variance", "torch_variance"]


def torch_variance(
    features: Tensor, sampling_ratio: float, generator: torch.Generator | None = None
) -> Tensor:
    """The same by ``torch.var`` on a gathered share, or on the features where all are drawn.

    Args:
        features: Floating-point tensor ``(N, ...)``.
        sampling_ratio: Share of the features drawn, in (0, 1]; rounded down.
        generator: Source of the draw; the global one of PyTorch by default.

    Returns:
        Scalar tensor of the type of the features.

    Example:
        >>> torch_variance(torch.tensor([[0.0, 5.0], [2.0, 5.0]]), 1.0)  # variances 1 and 0
        tensor(0.5000)
    """
    flat = features.flatten(1)
    if sampling_ratio < 1:
        count = flat.shape[1]
        device = flat.device if generator is None else generator.device
        indices = torch.randperm(count, generator=generator, device=device)
        flat = flat[:, indices[: int(sampling_ratio * count)].to(flat.device)]
    return flat.var(dim=0, correction=0).mean()


def one_pass_variance(features: Tensor) -> Tensor:
    """All features by the kernel of version 0.2.0: one pass, whatever the means are.

    It is what the package had before its kernel kept digits where means are large against
    deviations, so it shows what that costs.

    Args:
        features: Floating-point tensor ``(N, F)`` on a CPU or a GPU.

    Returns:
        Scalar tensor of the type of the features.

    Example:
        >>> one_pass_variance(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))  # variances 1 and 0
        tensor(0.5000)
    """
    return _OnePass.apply(features.flatten(1))


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, flat: Tensor) -> Tensor:
        mean, variances = torch.batch_norm_update_stats(flat, None, None, 0.0)
        ctx.save_for_backward(flat, mean)
        return variances.mean()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        flat, mean = ctx.saved_tensors
        scale = gradient * (-2 / flat.numel())
        return torch.addcmul(scale * mean, flat, scale, value=-1)
