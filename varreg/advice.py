"""Whether the penalty is worth a try on a model and its data, before any training.

A few batches pass through the model; nothing of it is changed. What is measured meets what the
recorded studies found (:mod:`varreg.evidence`), and the answer may be "don't".
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from varreg.checks import Task, check_flag, check_integer, check_task
from varreg.evidence import (
    EVIDENCE,
    HEAD_WEIGHT,
    LONGER,
    NEGLIGIBLE,
    NORMALIZED,
    PAPER,
    STRENGTH,
    Evidence,
)
from varreg.features import FeatureTap, logits_of
from varreg.loss import cross_entropy
from varreg.variance import centred, feature_variance
from varreg.weights import gradient_ratio

Answer = Literal["try it", "unclear", "don't"]

# The studies say nothing of data sets that are so many times smaller or larger than theirs.
FAR = 4
# Fewer images in a batch estimate a variance poorly.
FEW = 16
# Seconds after which no further batch is looked at.
PATIENCE = 30.0

# Operations of one input between batch normalization and the features: those that keep a variance
# up to a factor, and those that act on each value alone.
_KEEPS = (
    "Mul", "NativeDropout", "View", "UnsafeView", "Reshape", "ReshapeAlias", "Squeeze", "Unsqueeze",
    "Clone", "Alias", "Transpose", "Permute", "ToCopy",
)  # fmt: skip
_EACH = (
    "Relu", "LeakyRelu", "PreluKernel", "Elu", "Gelu", "Silu", "Mish", "Softplus", "Sigmoid",
    "LogSigmoid", "Tanh", "Hardswish", "Hardsigmoid", "Hardtanh",
)  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """What :func:`recommend` found; printed, it is a report.

    Attributes:
        answer: ``"try it"``, ``"unclear"`` or ``"don't"``.
        reasons: Why, a sentence each, the decisive ones first.
        layer: Name of the layer whose input are the features.
        features: How many there are.
        images: Training images, or ``None`` where nobody knows.
        batches: How many were measured.
        mean_variance: Of the features: the penalty, averaged over the batches.
        median_variance: Of the features, each averaged over the batches.
        dead: Share of the features that are the same for every image seen.
        ratio: How many times as hard the cross-entropy pulls at the features as the penalty does:
            the median over the batches of :func:`varreg.weights.gradient_ratio`, or ``None``
            where the penalty pulls at nothing.
        rho: Share of that force that the studies suggest for the penalty.
        normalization: Name of the batch normalization right before the features, or ``None``.
        task: As given.
    """

    answer: Answer
    reasons: tuple[str, ...]
    layer: str
    features: int
    images: int | None
    batches: int
    mean_variance: float
    median_variance: float
    dead: float
    ratio: float | None
    rho: float
    normalization: str | None
    task: Task

    @property
    def weight(self) -> float | None:
        """The fixed weight that has this share of the force now, before the model learns."""
        return None if self.ratio is None else self.rho * self.ratio

    def __str__(self) -> str:
        known = "unknown number of" if self.images is None else f"{self.images:,}"
        lines = [
            ("Seen", f"{self.batches} batches; {known} training images"),
            ("Features", f"what enters layer {self.layer!r}: {self.features:,} of each image"),
            (
                "Variance",
                f"mean {self.mean_variance:.3g}, median {self.median_variance:.3g} over a batch; "
                f"{self.dead:.1%} of the features are the same for every image",
            ),
        ]
        if self.ratio is not None:
            pull = f"the cross-entropy pulls {self.ratio:.3g} times as hard as the penalty"
            lines.append(("Pull", f"{pull} at a weight of 1"))
        lines.append(("Answer", self.answer))
        lines += [("" if place else "Why", reason) for place, reason in enumerate(self.reasons)]
        if self.weight is not None and self.answer != "don't":
            weight = f"GradientRatio(rho={self.rho:g})"
            lines += [
                ("How", f"PenalizedLoss({self.task!r}, feature_variance, {weight})"),
                ("", f"FeatureTap(model, {self.layer!r})"),
                ("", f"at this moment that is a weight of {self.weight:.3g}; it follows the model"),
            ]
        return "\n".join(f"{name:9} {text}" for name, text in lines)


def recommend(
    model: nn.Module,
    loader: Iterable[Any],
    task: Task,
    *,
    layer: str | None = None,
    images: int | None = None,
    augmented: bool = False,
    batches: int = 8,
    step: Callable[[nn.Module, Any], tuple[Tensor, Tensor]] | None = None,
) -> Advice:
    """Look at a few training batches, and say whether the penalty is worth a try, and how.

    The model is looked at in training mode. Its weights, buffers, modes and gradients, the random
    numbers of PyTorch and a generator of the loader are afterwards what they were before.

    Args:
        model: The network, as it is before the training, on its device.
        loader: Its training batches, each ``(images, labels, ...)``, or a dictionary with
            ``"labels"`` or ``"label"``, whose other tensors the model takes: one as it is,
            several by their names.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        layer: Name of the layer whose input are the features; by default as for
            :class:`varreg.features.FeatureTap`.
        images: How many images it trains on; by default what the loader says.
        augmented: Whether the training images are augmented.
        batches: How many to look at, at most, and for half a minute.
        step: For batches or models of another form: called as ``step(model, batch)``, it returns
            logits and labels as a criterion takes them.

    Raises:
        ValueError: If a parameter is outside its range, the loader is empty or gives something
            else, or it is in doubt which layer the features enter.

    Example:
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> loader = [(torch.randn(32, 4), torch.randint(0, 2, (32,))) for _ in range(16)]
        >>> advice = recommend(model, loader, "binary", images=512)
        >>> advice.answer, advice.layer, advice.features
        ('try it', '2', 8)
    """
    check_task(task)
    check_integer("batches", batches, 1)
    check_flag("augmented", augmented)
    if layer is not None and not isinstance(layer, str):
        raise ValueError(f"layer is {layer!r}; it must be the name of one layer, or None")
    if images is not None:
        check_integer("images", images, 1)
    seen = _look(model, loader, task, layer, batches, step or _step)
    if images is None:
        images = _count(loader, seen)
    size, drops = getattr(loader, "batch_size", None), getattr(loader, "drop_last", False)
    if images is not None and size is not None and not drops and images % size == 1:
        seen.sizes.append(1)  # the last batch of an epoch
    return _advise(seen, images, augmented, task)


@dataclass
class _Seen:
    """What the batches showed."""

    sizes: list[int] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    variances: list[Tensor] = field(default_factory=list)  # of each feature
    layer: str = ""
    features: int = 0
    dead: float = 0.0
    frozen: bool = False
    normalization: str | None = None
    pinned: bool = False
    normalizes: bool = False  # by the batch, anywhere
    finite: bool = True
    dense: bool = False
    all: bool = False


def _look(
    model: nn.Module,
    loader: Iterable[Any],
    task: Task,
    layer: str | None,
    batches: int,
    step: Callable[[nn.Module, Any], tuple[Tensor, Tensor]],
) -> _Seen:
    seen, start = _Seen(), time.monotonic()
    lows, highs = [], []
    with (
        _unchanged(model, loader),
        FeatureTap(model, layer) as tap,
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        model.train()
        seen.normalizes = any(_normalizes(module) for module in model.modules())
        source = iter(loader)
        for batch in source:
            logits, target = step(model, batch)
            features = tap.take()
            seen.sizes.append(len(features))
            seen.layer, seen.features = str(tap.layer), features[0].numel()
            seen.frozen = not features.requires_grad
            seen.dense = logits.ndim > 2
            flat = features.detach().flatten(1).double()
            seen.finite = seen.finite and bool(flat.isfinite().all())
            lows.append(flat.amin(0))
            highs.append(flat.amax(0))
            if len(features) > 1:
                seen.variances.append(centred(flat).square().mean(0))
                if not seen.frozen and seen.finite:
                    seen.normalization, seen.pinned = _normalization(model, features)
                    penalty = feature_variance(features, validate=False)
                    loss = cross_entropy(logits, target, task)
                    ratio = gradient_ratio(loss, penalty, features).item()
                    if math.isfinite(ratio):
                        seen.ratios.append(ratio)
            if len(seen.sizes) == batches or time.monotonic() - start > PATIENCE:
                break
        seen.all = next(source, None) is None
    if not seen.sizes:
        raise ValueError("the loader gave no batch; give one that holds training images")
    same = torch.eq(torch.stack(lows).amin(0), torch.stack(highs).amax(0))
    seen.dead = same.double().mean().item()
    return seen


def _step(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """Logits and labels of a batch ``(images, labels, ...)``, or of a dictionary with both."""
    if isinstance(batch, Mapping):  # as of Hugging Face and MONAI
        label = next((name for name in ("labels", "label") if name in batch), "")
        rest = {name: part for name, part in batch.items() if name != label}
        inputs = {name: part for name, part in rest.items() if isinstance(part, Tensor)}
        target = batch.get(label)
    else:
        pair = batch[:2] if isinstance(batch, (tuple, list)) else ()
        inputs = {"images": pair[0]} if len(pair) == 2 and isinstance(pair[0], Tensor) else {}
        target = pair[1] if len(pair) == 2 else None
    if not inputs or not isinstance(target, Tensor):
        raise ValueError(
            f"the loader gives a {type(batch).__name__}; it must give (images, labels) as tensors, "
            "or a dictionary with 'labels' or 'label'. For any other form give step= "
            "in Python, a function of model and batch that returns logits and labels"
        )
    device = next((weight.device for weight in model.parameters()), target.device)
    moved = {name: part.to(device) for name, part in inputs.items()}
    output = model(*moved.values()) if len(moved) == 1 else model(**moved)
    logits = logits_of(output)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model returns a {type(output).__name__} without logits; give step=, a function "
            "of model and batch that returns logits and labels"
        )
    return logits, target.to(device)


@contextmanager
def _unchanged(model: nn.Module, loader: Iterable[Any]) -> Iterator[None]:
    """Put back what a pass in training mode changes: buffers, modes and random numbers."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
    modes = {module: module.training for module in model.modules()}
    # A module may change a buffer, or put another in its place.
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    own = (getattr(of, "generator", None) for of in (loader, getattr(loader, "sampler", None)))
    generators = {one: one.get_state() for one in own if isinstance(one, torch.Generator)}
    cuda = {weight.device.index for weight in model.parameters() if weight.is_cuda}
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    module._buffers[name] = buffer.copy_(before)
            for generator, state in generators.items():
                generator.set_state(state)


def _normalizes(module: nn.Module) -> bool:
    """Whether it normalizes by the batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training


def _normalization(model: nn.Module, features: Tensor) -> tuple[str | None, bool]:
    """The batch normalization right before the features, and whether it fixes their variance.

    Sought in the graph that made them. A pool or a mean in between mixes what was normalized, and
    leaves the variance between images free.
    """
    node, fixed = features.grad_fn, True
    while node is not None:
        if "BatchNorm" in node.name():
            if not getattr(node, "_saved_training", True):
                return None, False  # it normalizes by what it remembers, not by the batch
            name, scale = _named(model, node)
            return name, fixed and (scale is None or not scale.requires_grad)
        inputs = [before for before, _ in node.next_functions if before is not None]
        if len(inputs) != 1 or not node.name().startswith((*_KEEPS, *_EACH)):
            return None, False
        fixed = fixed and node.name().startswith(_KEEPS)
        node = inputs[0]
    return None, False


def _named(model: nn.Module, node: Any) -> tuple[str, Tensor | None]:
    """The layer that a batch normalization in the graph is of, and its scales."""
    attributes = {"running_mean": "_saved_running_mean", "weight": "_saved_weight"}
    for name, module in model.named_modules():
        for own, saved in attributes.items():
            mine, kept = getattr(module, own, None), getattr(node, saved, None)
            if not isinstance(mine, Tensor) or not isinstance(kept, Tensor):
                continue
            if mine.data_ptr() == kept.data_ptr():
                return name, getattr(module, "weight", None)
    return "without a name", getattr(node, "_saved_weight", None)


def _count(loader: Iterable[Any], seen: _Seen) -> int | None:
    """Training images: those that are sampled from, of the data set, or all that were seen."""
    for source in (
        getattr(getattr(loader, "sampler", None), "indices", None),
        getattr(loader, "dataset", None),
    ):
        if source is not None and hasattr(source, "__len__"):
            return len(source)
    return sum(seen.sizes) if seen.all else None


def _advise(seen: _Seen, images: int | None, augmented: bool, task: Task) -> Advice:
    answer, reasons = _by_evidence(images, augmented)
    hindrances = []  # which no evidence outweighs
    if not seen.finite:
        hindrances.append(
            "The features hold values that are NaN or infinite. Look for the layer that makes them."
        )
    if seen.frozen:
        hindrances.append(
            "The features need no gradient: nothing that makes them learns, since it is frozen or "
            "there is nothing, and the penalty would change nothing. Train some of the layers "
            "before them, tap a later layer, or leave it."
        )
    if not seen.variances:
        hindrances.append(
            "Every batch holds one image, and one image has no variance. Train on larger batches."
        )
    elif seen.finite and not seen.frozen and not seen.ratios:
        hindrances.append(
            "The features are the same for every image, and the penalty pulls at nothing. Look "
            "for the layer that makes them so."
        )
    if seen.pinned:
        hindrances.append(
            f"Batch normalization ({seen.normalization!r}) without scales that learn makes the "
            "features: their variance over a batch cannot change. Tap features before it."
        )
    doubts = []
    if seen.normalization is not None:
        doubts.append(
            f"Batch normalization ({seen.normalization!r}) stands right before the features and "
            "sets their variance by its scales, which what follows can undo: tap features that "
            "nothing has just normalized, or weigh by the head."
        )
    if seen.normalizes:
        doubts += [
            f"In {one.name}, on BreastMNIST, the penalty changed test cross-entropy by "
            f"{one.self_setting}, "
            f"and as head_weighted_variance at a weight of {HEAD_WEIGHT:g} by {one.head_weighted}."
            for one in NORMALIZED
        ]
    if seen.dense:
        doubts.append("Nothing was measured with labels for each pixel.")
    if doubts:
        answer = "don't" if answer == "don't" else "unclear"
        reasons = doubts + reasons
    if hindrances:
        answer, reasons = "don't", hindrances
    if seen.ratios and not any(seen.ratios):
        reasons.append(
            "The cross-entropy does not pull at the features yet, as where the head begins at "
            "zero: the weight begins at 0, too, and follows."
        )
    if seen.variances:
        if min(seen.sizes) == 1:
            reasons.append("A last batch of one is refused: drop_last=True, or small_batch='skip'.")
        if max(seen.sizes) < FEW:
            reasons.append(f"Batches of {max(seen.sizes)} estimate a variance poorly.")
    each = torch.stack(seen.variances).mean(0) if seen.variances else torch.tensor(math.nan)
    return Advice(
        answer=answer,
        reasons=tuple(reasons),
        layer=seen.layer,
        features=seen.features,
        images=images,
        batches=len(seen.variances),
        mean_variance=each.mean().item(),
        median_variance=each.median().item(),
        dead=seen.dead,
        ratio=statistics.median(seen.ratios) if seen.ratios else None,
        rho=STRENGTH,
        normalization=seen.normalization,
        task=task,
    )


def _by_evidence(images: int | None, augmented: bool) -> tuple[Answer, list[str]]:
    """The answer of the studies, and why: of each data set what was nearest in its size."""
    if images is None:
        return "unclear", [
            "How many images it trains on decides much, and the loader does not say: give images=."
        ]

    def away(one: Evidence) -> float:
        return abs(math.log(one.images / images))

    by_data: dict[str, Evidence] = {}
    for one in sorted(EVIDENCE, key=away):
        if one.beside is not None or not augmented:
            by_data.setdefault(one.data, one)
    measured = list(by_data.values())
    near = [one for one in measured if away(one) <= math.log(FAR)]
    reasons = []
    if not near:
        where = " on top of augmentation" if augmented else ""
        reasons.append(
            f"Nothing was measured{where} with about {images:,} images; the nearest follows."
        )
    shown = near or measured[:1]
    if augmented:
        reasons += [
            f"{_on(one)} it changed test cross-entropy by {one.beside} beside augmentation."
            for one in shown
        ]
        helps = [one.beside.mean <= -NEGLIGIBLE for one in shown if one.beside is not None]
    else:
        reasons += [
            f"{_on(one)} the penalty changed test cross-entropy by {one.cross_entropy} and AUROC "
            f"by {one.auroc}; augmentation changed cross-entropy by {one.augmentation}, feature L2 "
            f"(varreg.penalties.feature_l2) by {one.feature_l2}."
            for one in shown
        ]
        helps = [one.cross_entropy.high < 0 for one in shown]
        more = [one for one in shown if one.augmentation.mean < one.cross_entropy.mean]
        if more:
            data = " and ".join(one.data for one in more)
            reasons.append(f"Augment, too: on {data} augmentation did more than the penalty.")
    reasons.append(
        "Those were a small network and 28 pixels. In another one it can do harm, as in "
        f"{PAPER.name}: {PAPER.self_setting}; and with four times as many epochs less was certain "
        f"on BreastMNIST: {LONGER}. Compare on your validation images, with no penalty among the "
        "candidates."
    )
    if not near or any(helps) != all(helps):
        return "unclear", reasons
    return "try it" if all(helps) else "don't", reasons


def _on(one: Evidence) -> str:
    return f"On {one.images:,} training images of {one.data}"
