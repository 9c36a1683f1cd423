"""One batch out of those of several processes, so that a statistic sees all of it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from varreg.checks import check_integer, check_tensors, in_backward

__all__ = ["gather"]


def gather(tensor: Tensor, views: int = 1) -> Tensor:
    r"""Put together along the first axis what the processes hold, in the order of their ranks.

    What is computed of the result is that of the whole batch, the same in every process:
    ``within_class_variance(gather(features), gather(target))``. The criteria do this themselves
    with ``sync=True``.

    The gradient is made for ``DistributedDataParallel``, which *averages* the gradients of
    :math:`R` processes. Each computes the same penalty :math:`P` but can reach its own samples
    only, so it hands back its part of :math:`\partial P / \partial f`, times :math:`R`: the
    average is then the gradient of :math:`P` itself. What every process holds alike, such as the
    weights of the head, gets the same gradient in all, and the average is that. Numbers of
    samples may differ between processes.

    It costs one collective for the tensor, padded to the largest of the processes, and a small
    one for the shapes, which waits for the device; the backward pass exchanges nothing. Each
    process then holds the features of all and computes the penalty of them. ``torch.compile``
    breaks the graph here.

    Every process of the default group must call it equally often, as for synchronized batch
    normalization: not where one process works alone, nor on a last batch that others lack (the
    ``Join`` of PyTorch does not help). Where no process group is initialized, or one of a single
    process, it returns what it is given.

    Args:
        tensor: ``(N, ...)``; all but ``N`` is alike in all processes.
        views: How many parts of ``N / views`` samples it holds one after the other, such as
            the views of :func:`varreg.penalties.view_variance`: the first parts of all processes
            come first, then the second ones, and so on.

    Returns:
        ``(sum of all N, ...)``, of the same type.

    Raises:
        NotATensorError: If ``tensor`` is not a tensor.
        ValueError: In all processes, if the tensors differ in type, in an axis after the first or
            in whether they need a gradient, or ``views`` does not divide a ``N``. Where activation
            checkpointing computes a step again, under ``torch.func``, and in a backward pass with
            ``create_graph=True``.

    Example:
        >>> gather(torch.tensor([1.0, 2.0]))  # there is one process
        tensor([1., 2.])
    """
    check_tensors(tensor=tensor)
    check_integer("views", views, 1)
    if not spread():
        return tensor
    if in_backward():
        raise ValueError(
            "what the processes hold is gathered while activation checkpointing computes a step "
            "again, where no other process may be waiting: call the criterion outside the "
            "checkpoint, or use sync=False"
        )
    if torch._C._are_functorch_transforms_active():
        raise ValueError(
            "what the processes hold is gathered under torch.func, which transforms one process "
            "alone: use sync=False, or gather before the transform"
        )
    sizes = _sizes(tensor, views)
    parts = _Gather.apply(tensor, sizes)
    if views == 1:
        return parts
    split = [part.chunk(views) for part in parts.split(sizes)]
    return torch.cat([part[view] for view in range(views) for part in split])


def spread() -> bool:
    """Whether there is more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def of_first_process(generator: torch.Generator | None) -> torch.Generator | None:
    """The generator of process 0, so that all draw the same: elsewhere a copy of it.

    Each process moves its own generator on by a draw all the same.
    """
    if not spread():
        return generator
    own = torch.default_generator if generator is None else generator
    first = [own.get_state()]
    dist.broadcast_object_list(first, 0)
    if dist.get_rank() == 0:
        return generator
    torch.randint(1, (), generator=own, device=own.device)
    copy = torch.Generator(own.device)
    copy.set_state(first[0])
    return copy


def _sizes(tensor: Tensor, views: int) -> list[int]:
    """How many samples each process holds; refused in all of them where the tensors do not fit."""
    needs_gradient = tensor.requires_grad and torch.is_grad_enabled()
    own = (tuple(tensor.shape), str(tensor.dtype), needs_gradient)
    found = [own] * dist.get_world_size()
    with torch.cuda.device_of(tensor):  # which is where NCCL looks for the tensors of objects
        dist.all_gather_object(found, own)
    held = ", ".join(
        f"{shape} of {dtype}{' that needs a gradient' if needs else ''} in process {rank}"
        for rank, (shape, dtype, needs) in enumerate(found)
    )
    if len({(shape[1:], *rest) for shape, *rest in found}) > 1 or not all(s for s, *_ in found):
        raise ValueError(
            f"the processes hold {held}; to be one batch they must have the same axes after the "
            "first, the same type, and all need a gradient or none: use the same network, the "
            "same autocast and the same frozen layers in every process"
        )
    sizes = [shape[0] for shape, *_ in found]
    if any(size % views for size in sizes):
        raise ValueError(
            f"the processes hold {held}, which are not all multiples of views={views}: every "
            "process must hold all views of its images"
        )
    return sizes


class _Gather(torch.autograd.Function):
    """Forward, everybody's samples; backward, the gradient of one's own, times the processes."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor, sizes: list[int]) -> Tensor:
        rank = dist.get_rank()
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        ctx.processes = len(sizes)
        # Of one size, as Gloo needs it; as bytes, since it does not know every type.
        sent = torch.zeros((max(sizes), *own.shape[1:]), dtype=own.dtype, device=own.device)
        sent[: len(own)] = own
        received = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather([part.view(torch.uint8) for part in received], sent.view(torch.uint8))
        return torch.cat([part[:size] for part, size in zip(received, sizes, strict=True)])

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise ValueError(
                "a second derivative through what sync=True gathers is not known to one process "
                "alone: leave out create_graph=True, or use sync=False"
            )
        return ctx.processes * gradient[ctx.own], None
