"""Many seeds at once: networks of one architecture, trained side by side as one.

A small network leaves a GPU waiting for its next kernel. K of them, each with its own weights,
order of samples and augmentation, share the kernels, so that a step launches about as many as one
network does. A CPU has no such idle time: there one after the other is as fast or faster.

Axis 1 of every tensor holds the members one after another: images are ``(N, K * C, H, W)``,
features ``(N, K * F)``. Poolings and activations take that as it is; convolutions and linear layers
are replaced by ones with K sets of weights. ``torch.vmap`` would do the same, but takes two to
three times as long to launch a step, measured on a CPU with images of 4 px.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from varreg.checks import check_target
from varreg.features import FeatureTap
from varreg.lab.augment import zoom_and_shift
from varreg.lab.training import (
    Fit,
    NonFiniteLossError,
    Normalize,
    Scaling,
    Seen,
    Settings,
    Source,
    Watch,
    as_device,
    batches,
    build_optimizer,
    check_data,
    in_blocks,
    streams,
)
from varreg.loss import LossParts, VariancePenalizedLoss
from varreg.variance import draw_features

if TYPE_CHECKING:
    from varreg.lab.datasets import Dataset

# What needs no weights and treats every channel alike, so that it may see all members at once.
CHANNELWISE = (nn.AvgPool2d, nn.Flatten, nn.Identity, nn.MaxPool2d, nn.ReLU)


def can_ensemble(model: nn.Module) -> bool:
    """Whether networks like this one can train side by side.

    All layers must be convolutions in two dimensions, linear layers, poolings, ReLU and Flatten.
    Networks with batch norm or dropout train one after the other.

    Example:
        >>> from varreg.lab.models import build
        >>> can_ensemble(build("small_cnn", in_channels=1, size=28, n_outputs=1))
        True
        >>> can_ensemble(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)))
        False
    """
    return not _unknown_layers(model)


def fit_ensemble(
    models: Sequence[nn.Module],
    dataset: Dataset,
    criteria: Sequence[VariancePenalizedLoss],
    settings: Settings | None = None,
    *,
    seeds: Sequence[int],
    device: torch.device | str | None = None,
    progress: bool = False,
    **fields: object,
) -> list[Fit | NonFiniteLossError]:
    """Train models of one architecture at once, each as :func:`varreg.lab.training.fit` would.

    Every member has its own order of samples, draw of features, augmentation, early stopping and
    best weights, all from its own seed: it ends, up to the rounding of float32, where training it
    alone would have ended, whoever trains beside it. One that is done leaves the others.

    Args:
        models: One a member, of the same architecture, see :func:`can_ensemble`. Each is left
            in eval mode with its best weights; one that failed keeps the weights it came with.
        dataset: As for :func:`varreg.lab.training.fit`.
        criteria: One a member, alike but for their generators.
        settings: As for :func:`varreg.lab.training.fit`, in float32; each member has a seed of
            its own in place of theirs.
        seeds: One a member.
        device: Default: CUDA if there is one.
        progress: Show a progress bar over epochs on a terminal.
        **fields: Those of :class:`varreg.lab.training.Settings`, in place of ``settings``.

    Returns:
        One result a member, in their order. The seconds of each are its equal share of the
        whole. In place of the result of a member whose loss became NaN or infinite stands the
        error, which names its seed; the others are not touched by it.

    Raises:
        ValueError: If a setting is outside its range, or models, criteria and seeds do not
            belong together.

    Example:
        >>> from varreg.lab import datasets, models
        >>> data = datasets.load("phantom", size=16)
        >>> build = models.build
        >>> pair = [build("small_cnn", in_channels=1, size=16, n_outputs=1) for _ in range(2)]
        >>> criterion = VariancePenalizedLoss("binary", 0.01, 1.0)
        >>> fits = fit_ensemble(pair, data, [criterion] * 2, seeds=[0, 1], epochs=1, device="cpu")
        >>> [fit.best_epoch for fit in fits]
        [1, 1]
    """
    criterion = _common(models, criteria, seeds)
    settings = Settings.of(settings, fields)
    if settings.precision != "float32":
        raise ValueError(
            f"members train in float32 only, and precision is {settings.precision!r}; train them "
            "one after the other with varreg.lab.training.fit"
        )
    check_data(dataset, criterion)
    start = time.perf_counter()
    device = as_device(device)
    scaling = Scaling.of(dataset.train.images, cast("Normalize", settings.normalize))
    stack = _stacked(models).to(device)
    example = scaling(dataset.train.images[:2].to(device))
    _check_stack(stack, models, example, dataset)
    train, val = Source(dataset.train, device), Source(dataset.val, device)
    members = [
        _Member(place, seed, own.generator, Watch(settings.patience))
        for place, (seed, own) in enumerate(zip(seeds, criteria, strict=True))
    ]
    optimize = build_optimizer(stack, settings)
    best = {name: value.detach().clone() for name, value in stack.named_parameters()}
    running = members
    with FeatureTap(models[0]) as tap, torch.inference_mode():
        models[0].eval()(example)
        tap.take()
        layer = tap.layer  # that makes the logits
    with FeatureTap(stack, layer) as tap:
        epochs = range(1, settings.epochs + 1)
        for epoch in tqdm(epochs, unit="epoch", disable=None if progress else True):
            trained = _train(stack, tap, optimize, running, train, criterion, scaling, settings)
            size = settings.batch_size
            validated = _validate(stack, tap, len(running), val, criterion, scaling, size)
            seen = zip(running, trained.of_members(), validated.of_members(), strict=True)
            for member, first, second in seen:
                member.note(epoch, first, second, settings.monitor)
            improved = [at for at, own in enumerate(running) if own.watch.best_epoch == epoch]
            places = [running[at].place for at in improved]
            for name, parameter in stack.named_parameters():
                best[name][places] = parameter.detach()[improved]
            staying = [at for at, member in enumerate(running) if member.running]
            if len(staying) < len(running):
                running = [running[at] for at in staying]
                if not running:
                    break
                _keep(stack, optimize, torch.tensor(staying, device=device))
    seconds = (time.perf_counter() - start) / len(members)
    for model, member in zip(models, members, strict=True):
        model.to(device)
        if member.failure is None:
            model.load_state_dict({name: value[member.place] for name, value in best.items()})
        model.eval()
    return [
        member.failure or Fit(member.history, member.watch.best_epoch, scaling, seconds)
        for member in members
    ]


def predict_ensemble(
    models: Sequence[nn.Module],
    images: Tensor,
    scaling: Scaling,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Logits of models of one architecture, as :func:`varreg.lab.training.predict` gives them.

    Args:
        models: As trained by :func:`fit_ensemble`.
        images: uint8 ``(N, C, H, W)``, on any device.
        scaling: From the :class:`varreg.lab.training.Fit`, the same for all of them.
        batch_size: Images at a time, as for :func:`varreg.lab.training.predict`.
        device: Default: where the first model is.

    Returns:
        ``(K, N, n_outputs)``, on the CPU.

    Raises:
        ValueError: If the models are not of one architecture or cannot be stacked.
    """
    device = next(models[0].parameters()).device if device is None else torch.device(device)
    stack = _stacked(models).to(device).eval()

    def forward(block: Tensor) -> Tensor:
        logits: Tensor = stack(scaling(block).repeat(1, len(models), 1, 1))
        return logits

    logits = in_blocks(forward, images, device, batch_size)
    apart: Tensor = logits.unflatten(1, (len(models), -1)).transpose(0, 1)
    return apart


# ---------------------------------------------------------------- the stack


class _Conv2d(nn.Module):
    """A convolution with weights of its own for every member, as one batched matrix product.

    Grouped convolutions are the usual way, but are known to be slow on GPUs for few channels a
    group (PyTorch issues 70954 and 73764). A matrix product also keeps all digits of float32
    there, where convolutions may use TensorFloat-32.
    """

    def __init__(self, members: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.weight = cast("nn.Parameter", _parameter(members, "weight"))
        self.bias = _parameter(members, "bias")
        self.layer = {name: getattr(members[0], name) for name in _CONV_OPTIONS}

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, K * C, H, W)`` to ``(N, K * C_out, H_out, W_out)``."""
        members, n = len(self.weight), len(images)
        kernel, stride = self.layer["kernel_size"], self.layer["stride"]
        padding, dilation = self.layer["padding"], self.layer["dilation"]
        size = [
            (edge + 2 * pad - gap * (k - 1) - 1) // step + 1
            for edge, k, step, pad, gap in zip(
                images.shape[2:], kernel, stride, padding, dilation, strict=True
            )
        ]
        if math.prod(kernel) == 1 and math.prod(stride) == 1 and not any(padding):
            columns = images
        else:
            # All images as the channels of one: PyTorch launches a kernel an image otherwise.
            whole = images.reshape(1, -1, *images.shape[2:])
            columns = F.unfold(whole, kernel, dilation, padding, stride)
        weight = self.weight.flatten(2)
        columns = columns.reshape(n, members, weight.shape[2], math.prod(size))
        result = weight @ columns
        if self.bias is not None:
            result = result + self.bias.unsqueeze(2)
        return result.reshape(n, -1, *size)


class _Linear(nn.Module):
    """A linear layer with weights of its own for every member."""

    def __init__(self, members: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = cast("nn.Parameter", _parameter(members, "weight"))
        self.bias = _parameter(members, "bias")

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, K * F)`` to ``(N, K * F_out)``."""
        features = features.unflatten(1, (len(self.weight), -1)).transpose(0, 1)
        result = features @ self.weight.transpose(1, 2)
        if self.bias is not None:
            result = result + self.bias.unsqueeze(1)
        return result.transpose(0, 1).flatten(1)


_CONV_OPTIONS = ("kernel_size", "stride", "padding", "dilation")
_STACKED = {nn.Conv2d: _Conv2d, nn.Linear: _Linear}


def _parameter(members: Sequence[nn.Module], name: str) -> nn.Parameter | None:
    values = [getattr(member, name) for member in members]
    if values[0] is None:
        return None
    return nn.Parameter(torch.stack([value.detach() for value in values]))


def _stacked(models: Sequence[nn.Module]) -> nn.Module:
    """One module that is all of the models; the names of its parameters are those of a model."""
    if unknown := _unknown_layers(models[0]):
        raise ValueError(
            f"{type(models[0]).__name__} cannot train beside others, because of "
            f"{', '.join(unknown)}; train its seeds one after the other with "
            "varreg.lab.training.fit"
        )
    shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in models]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("the models have parameters of different names or shapes; give one kind")
    stack = copy.deepcopy(models[0])
    for name, layer in models[0].named_modules():
        if type(layer) in _STACKED:
            members = [model.get_submodule(name) for model in models]
            stack.set_submodule(name, _STACKED[type(layer)](members))
    return stack


def _unknown_layers(model: nn.Module) -> list[str]:
    """What a stack could not take as it is, named and described."""
    unknown = []
    for name, layer in model.named_modules():
        kind = type(layer)
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        holds_others = next(layer.children(), None) is not None
        known = (
            layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
            if kind is nn.Conv2d
            else kind is nn.Linear or kind in CHANNELWISE or (holds_others and not own)
        )
        if not known:
            unknown.append(f"{name or 'the model'} ({kind.__name__})")
    return unknown


def _check_stack(
    stack: nn.Module, models: Sequence[nn.Module], images: Tensor, dataset: Dataset
) -> None:
    """Refuse a model whose own code mixes channels, and labels that it has no outputs for."""
    with torch.inference_mode():
        alone = torch.cat([model.to(images.device).eval()(images) for model in models], 1)
        beside = stack.eval()(images.repeat(1, len(models), 1, 1))
    alone, beside = (torch.nan_to_num(each, 0, 0, 0) for each in (alone, beside))
    # A wrong layout is wrong by the size of the logits themselves, whatever TensorFloat-32 loses.
    if beside.shape != alone.shape or (beside - alone).abs().max() > 0.01 * alone.abs().max():
        raise ValueError(
            f"{type(models[0]).__name__} gives other logits beside others than alone: its forward "
            "mixes channels outside its layers; train its seeds one after the other"
        )
    for subset in (dataset.train, dataset.val):
        logits = torch.empty(len(subset), alone.shape[1] // len(models))
        check_target(logits, subset.labels, dataset.task)


def _keep(stack: nn.Module, optimize: torch.optim.Optimizer, staying: Tensor) -> None:
    """Let go of all members but these, with what the optimizer knows of them."""
    for parameter in stack.parameters():
        state, whole = optimize.state[parameter], parameter.shape
        state |= {name: value[staying] for name, value in state.items() if value.shape == whole}
        parameter.grad = None
        parameter.data = parameter.data[staying]


# ---------------------------------------------------------------- the members


@dataclasses.dataclass(eq=False)
class _Member:
    """What one model has of its own beside its weights."""

    place: int
    seed: int
    drawing: torch.Generator | None
    watch: Watch
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    failure: NonFiniteLossError | None = None

    def __post_init__(self) -> None:
        self.order, self.jitter = streams(self.seed)

    @property
    def running(self) -> bool:
        """Whether it trains on after the last epoch."""
        return self.failure is None and not self.watch.stopped

    def note(self, epoch: int, trained: Seen, validated: Seen, monitor: str) -> None:
        """Take the metrics of an epoch, or what is wrong with them."""
        own = f"of seed {self.seed}"
        self.failure = trained.failure(f"epoch {epoch}, step {{step}}, {own}") or validated.failure(
            f"the end of epoch {epoch}, on the validation split, {own}"
        )
        if self.failure is None:
            row = {"epoch": epoch, **trained.summary("train_"), **validated.summary("val_")}
            self.history.append(row)
            self.watch.note(epoch, row[f"val_{monitor}"])


def _common(
    models: Sequence[nn.Module],
    criteria: Sequence[VariancePenalizedLoss],
    seeds: Sequence[int],
) -> VariancePenalizedLoss:
    """The criterion that all members share but for its generator."""
    if not models or not len(models) == len(criteria) == len(seeds):
        raise ValueError(
            f"{len(models)} models, {len(criteria)} criteria and {len(seeds)} seeds; give one of "
            "each a member, and one member or more"
        )
    if len({id(model) for model in models}) < len(models):
        raise ValueError("a model stands in the list twice; every member needs one of its own")
    first = criteria[0]
    for criterion in criteria:
        if repr(criterion) != repr(first):
            raise ValueError(f"the criteria differ: {first} and {criterion}; use one setting")
    if any(criterion.classification is not None for criterion in criteria):
        raise ValueError(
            "a criterion has a classification loss of its own; members of an ensemble train on the "
            "cross-entropy: leave classification out, or train each member by itself with fit"
        )
    own = {id(criterion.generator) for criterion in criteria if criterion.generator is not None}
    if first.feature_sampling_ratio < 1 and len(own) < len(criteria):
        raise ValueError(
            "features are drawn from a generator that members share; give every criterion "
            "a generator of its own"
        )
    return first


# ---------------------------------------------------------------- an epoch


def _train(
    stack: nn.Module,
    tap: FeatureTap[Tensor],
    optimize: torch.optim.Optimizer,
    members: Sequence[_Member],
    source: Source,
    criterion: VariancePenalizedLoss,
    scaling: Scaling,
    settings: Settings,
) -> Seen:
    """One pass over the training split; nothing in it waits for the device."""
    stack.train()
    seen = Seen(criterion, len(source))
    orders = [list(batches(len(source), settings.batch_size, member.order)) for member in members]
    sizes = [len(chosen) for chosen in orders[0]]
    order = torch.stack([torch.cat(parts) for parts in orders]).to(source.home)
    for chosen in order.split(sizes, 1):
        images, labels = source.take(chosen.flatten())
        batch = scaling(images)
        if settings.augment:
            batch = zoom_and_shift(batch, generator=[member.jitter for member in members])
        batch = batch.unflatten(0, chosen.shape).transpose(0, 1).flatten(1, 2)
        labels = labels.unflatten(0, chosen.shape).transpose(0, 1)
        logits = stack(batch).unflatten(1, (len(members), -1))
        features = tap.take().unflatten(1, (len(members), -1))
        features = _drawn(members, criterion, features)
        parts = _loss(criterion, logits, labels, features)
        optimize.zero_grad(set_to_none=True)
        # A member's loss depends on its own weights alone, so the sum has the gradients of all.
        parts.total.sum().backward()
        optimize.step()
        seen.add(parts, logits, labels)
    return seen


def _validate(
    stack: nn.Module,
    tap: FeatureTap[Tensor],
    members: int,
    source: Source,
    criterion: VariancePenalizedLoss,
    scaling: Scaling,
    batch_size: int,
) -> Seen:
    stack.eval()
    seen = Seen(criterion, len(source))
    with torch.inference_mode():
        for chosen in batches(len(source), batch_size, device=source.home):
            images, labels = source.take(chosen)
            logits = stack(scaling(images).repeat(1, members, 1, 1)).unflatten(1, (members, -1))
            features = tap.take().unflatten(1, (members, -1))
            labels = labels.unsqueeze(1).expand(-1, members, *labels.shape[1:])
            seen.add(_loss(criterion, logits, labels, features), logits, labels)
    return seen


def _drawn(
    members: Sequence[_Member], criterion: VariancePenalizedLoss, features: Tensor
) -> Tensor:
    """The features ``(N, K, F)`` that each member draws at a step."""
    count = features.shape[2]
    sampled = max(1, round(criterion.feature_sampling_ratio * count))
    if sampled == count:
        return features
    draws = [draw_features(count, sampled, member.drawing) for member in members]
    places = torch.stack([draw.nonzero().flatten() for draw in draws]).to(features.device)
    return features.gather(2, places.expand(len(features), -1, -1))


def _loss(
    criterion: VariancePenalizedLoss, logits: Tensor, labels: Tensor, features: Tensor
) -> LossParts:
    """The criterion of every member, ``(K,)`` each, of all features that are given.

    Args:
        criterion: Says how.
        logits: ``(N, K, n_outputs)``.
        labels: ``(N, K)``, or ``(N, K, L)`` for multi-label tasks.
        features: ``(N, K, F)``.
    """
    every = VariancePenalizedLoss(
        criterion.task, criterion.variance_weight, lambda_=criterion.lambda_, validate=False
    )
    parts: LossParts = torch.vmap(every, in_dims=1)(logits, labels, features)
    return parts
