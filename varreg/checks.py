"""Refusals that say what was given, what is allowed and what to do; shared by the method."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

Task = Literal["binary", "multiclass", "multilabel"]

HALF = (torch.float16, torch.bfloat16)

ADVICE = (
    "a batch of one has no variance: drop it or merge it with another batch, or give the "
    "criterion small_batch='skip'"
)


class NonFiniteFeaturesError(ValueError):
    """Raised when features hold a NaN or an infinity."""


class SmallBatchError(ValueError):
    """Raised for a batch with too few samples for a penalty, above all the last one of an epoch."""


class NotATensorError(TypeError, ValueError):
    """Raised where something else is given for a tensor."""


def in_backward() -> bool:
    """Whether a backward pass runs: activation checkpointing computes again what it left out."""
    return torch._C._current_graph_task_id() != -1


def shows_values() -> bool:
    """Whether tensors have values to look at, as under ``torch.compile`` and ``torch.func`` not."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def check_task(task: object) -> None:
    """Refuse what is no task.

    Raises:
        ValueError: With what was given and what is allowed.
    """
    if task not in get_args(Task):
        raise ValueError(
            f"task is {task!r}; allowed are {', '.join(get_args(Task))}, and None with a "
            "classification loss of your own for labels that are none of these"
        )


def check_penalty(variance_weight: float, sampling_ratio: float, lambda_: float) -> None:
    """Refuse parameters of the penalty that are outside their ranges.

    Raises:
        ValueError: If one is no number, ``variance_weight`` is negative, ``lambda_`` is not
            positive, either is not finite, or ``sampling_ratio`` is outside (0, 1].
    """
    check_range("variance_weight", variance_weight)
    check_range("lambda_", lambda_, ends="()")
    check_range("sampling ratio", sampling_ratio, 1, ends="(]")


def check_range(name: str, value: float, most: float = math.inf, *, ends: str = "[)") -> float:
    """Refuse what is no real number from 0 to another, which are in the range or not.

    Args:
        name: Of the parameter.
        value: What was given.
        most: Upper end of the range.
        ends: Square brackets for ends that are in it, round ones for others.

    Returns:
        The value as a float.

    Raises:
        ValueError: With the name, what was given and what is allowed.

    Example:
        >>> check_range("share", 1, 1, ends="()")
        Traceback (most recent call last):
        ValueError: share is 1; it must lie in (0, 1)
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be a number")
    above = value >= 0 if ends[0] == "[" else value > 0
    if not (above and (value <= most if ends[1] == "]" else value < most)):
        allowed = f"lie in {ends[0]}0, {most:g}{ends[1]}"
        if most == math.inf:
            allowed = f"be finite and {'at least' if ends[0] == '[' else 'greater than'} 0"
        raise ValueError(f"{name} is {value}; it must {allowed}")
    return float(value)


def check_target(
    logits: Tensor, target: Tensor, task: Task, *, values: bool = True, soft: bool = False
) -> None:
    """Refuse logits and labels that do not belong together.

    Args:
        logits: As a criterion takes them.
        target: As a criterion takes them.
        task: What the labels are.
        values: Whether to look at the labels, which waits for the device.
        soft: Whether a float between 0 and 1 is a label, too.

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
                f"0 to {shape[1] - 1}, or be the ignore_index of the criterion"
            )
    elif soft and target.is_floating_point():
        if not ((target >= 0) & (target <= 1)).all():
            raise ValueError(
                f"{task} labels go from {target.min().item():.3g} to {target.max().item():.3g}; "
                "every label must be 0 or 1, or as a probability between them"
            )
    elif not _all_0_or_1(target):
        raise ValueError(
            f"{task} labels go from {target.min().item():.3g} to {target.max().item():.3g}; "
            "every label must be 0 or 1"
        )


def check_probabilities(target: Tensor, *, values: bool = True) -> None:
    """Refuse labels that are no probabilities of classes.

    Args:
        target: ``(N, K)``.
        values: Whether to look at the values, which waits for the device.

    Raises:
        ValueError: If there are fewer than two classes or, with ``values``, a probability is
            negative or those of a sample do not add up to 1.
    """
    if target.ndim != 2 or target.shape[1] < 2:
        raise ValueError(f"target has shape {tuple(target.shape)}; probabilities are (N, K)")
    if not values or not shows_values() or len(target) == 0:
        return
    sums = target.double().sum(1)
    if not ((sums - 1).abs() <= 1e-3).all() or target.min() < 0:
        raise ValueError(
            f"target goes from {target.min().item():.3g} to {target.max().item():.3g} and its rows "
            f"add up to {sums.min().item():.3g} to {sums.max().item():.3g}; give integer class "
            "codes, or for each sample probabilities that add up to 1"
        )


def check_finite(penalty: Tensor, inputs: Mapping[str, Tensor], samples: int | None = None) -> None:
    """Refuse a penalty that is NaN or infinite, and say which of its inputs made it so.

    Waits for the device; inside ``torch.compile`` and ``torch.func`` nothing is checked.

    Args:
        penalty: Scalar.
        inputs: What it was computed from, by name.
        samples: How many these are, for a penalty that does not say itself how many it needs.

    Raises:
        NonFiniteFeaturesError: With how many values are not finite, or what overflows.
        SmallBatchError: If it is NaN for one sample, whose values are finite.
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
    if penalty.isnan() and samples == 1:
        raise SmallBatchError(f"the penalty of one sample is NaN ({ADVICE})")
    largest = max(tensor.abs().max().item() for tensor in inputs.values())
    if penalty.isnan() and largest < torch.finfo(penalty.dtype).max ** 0.125:  # far from overflow
        raise NonFiniteFeaturesError(
            f"the penalty of {' and '.join(inputs)} is NaN though they are finite; look for what "
            "it divides by, or takes the root of"
        )
    raise NonFiniteFeaturesError(
        f"the penalty of {' and '.join(inputs)} up to {largest:.3g} overflows {penalty.dtype}; "
        "scale the features down"
    )


def _all_0_or_1(target: Tensor) -> bool:
    if target.is_floating_point():
        return bool(((target == 0) | (target == 1)).all())
    low, high = target.aminmax()  # one pass instead of four
    return low.item() >= 0 and high.item() <= 1


def check_features(features: Tensor, least: int = 2) -> None:
    """Refuse what is no batch of features.

    Args:
        features: What was given.
        least: Samples that there must be.

    Raises:
        NotATensorError: If ``features`` is not a tensor.
        SmallBatchError: If it holds fewer samples than that.
        ValueError: If it is not floating point, or is not ``(N, ...)`` with one sample or more
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
    malformed = features.ndim < 2 or features.numel() == 0
    if malformed or features.shape[0] < least:
        raise (ValueError if malformed else SmallBatchError)(
            f"features have shape {tuple(features.shape)}; expected (N, ...) with two samples "
            "or more and one feature or more" + ("" if malformed else f" ({ADVICE})")
        )


def check_tensors(**given: object) -> None:
    """Refuse what is no tensor.

    Raises:
        NotATensorError: With the name, and what was given.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise NotATensorError(f"{name} is a {type(value).__name__}; it must be a torch.Tensor")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        ValueError: With the name, and what was given.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be True or False")


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse what is none of a few values.

    Raises:
        ValueError: With the name, what was given and what is allowed.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(str, allowed))}")


def check_integer(
    name: str, value: object, least: float = -math.inf, most: float = math.inf
) -> None:
    """Refuse what is no integer, or outside its range.

    Raises:
        ValueError: With the name, what was given and what is allowed.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be an integer")
    if not least <= int(value) <= most:
        allowed = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{name} is {value}; it must be {allowed}")


def check_generator(generator: torch.Generator | None) -> None:
    """Refuse what is no source of draws.

    Raises:
        ValueError: With what was given, and how to make one.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator is {generator!r}; it must be a torch.Generator, such as "
            "torch.Generator().manual_seed(0), or None"
        )
