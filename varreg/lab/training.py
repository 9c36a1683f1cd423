"""The training engine: data that lives on the device, one plain loop, early stopping."""

from __future__ import annotations

import dataclasses
import math
import numbers
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from varreg.checks import (
    NonFiniteFeaturesError,
    Task,
    check_choice,
    check_integer,
    check_range,
    check_target,
    check_tensors,
)
from varreg.features import FeatureTap
from varreg.lab.augment import zoom_and_shift
from varreg.lab.datasets.core import as_stored
from varreg.lab.metrics import accuracy, auroc, classification_metrics
from varreg.lab.steps import Averaging, Step, descend
from varreg.loss import LossParts, PenalizedLoss, VariancePenalizedLoss
from varreg.variance import feature_variance

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from varreg.lab.datasets import Dataset, Subset

__all__ = [
    "Criterion",
    "Fit",
    "Monitor",
    "NonFiniteLossError",
    "Normalize",
    "Optimizer",
    "Precision",
    "Scaling",
    "Settings",
    "as_device",
    "batches",
    "default_device",
    "evaluate",
    "fit",
    "predict",
    "typed",
]

Criterion = VariancePenalizedLoss | PenalizedLoss
Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]
Monitor = Literal["cross_entropy", "total"]
Normalize = Literal["standard", "unit"]
Optimizer = Literal["adam", "adamw", "sgd"]
Precision = Literal["float32", "bfloat16"]

# Images at a time where no gradients are kept. A CPU is fastest while a layer's activations are in
# its caches; a GPU with as many as it has memory for.
EVALUATED_AT_ONCE = {"cpu": 256, "cuda": 8192}


class NonFiniteLossError(ValueError):
    """Raised when the loss becomes NaN or infinite; says where and of what it was made."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a training beside model, data and loss.

    Attributes:
        epochs: Largest number of passes over the training split.
        batch_size: Samples a step, 2 or more.
        optimizer: ``"adam"``, ``"adamw"`` (decoupled weight decay) or ``"sgd"`` (no momentum).
        learning_rate: Constant over the training.
        weight_decay: As the optimizer defines it.
        adam_epsilon: Adam's epsilon: 1e-8 in PyTorch, 1e-7 in Keras.
        patience: Stop after this many epochs without a lower monitored loss; ``None``: never.
        monitor: What early stopping and the choice of weights watch: ``"cross_entropy"``,
            unscaled, which compares across penalties; ``"total"`` is what Keras watches in the
            released notebooks.
        augment: Zoom and shift the training images by up to 10 %, see
            :func:`varreg.lab.augment.zoom_and_shift`.
        normalize: ``"standard"`` or ``"unit"`` (divide by 255), see :class:`Scaling`.
        precision: ``"float32"``, or ``"bfloat16"``, which computes model and loss under
            ``torch.autocast``; weights, their updates and what enters the loss as logits stay
            float32. :func:`predict` is always in float32.
        seed: Order of the samples and augmentation.

    Raises:
        ValueError: If a value is of the wrong type or outside its range.

    Example:
        >>> Settings(epochs=1, batch_size=1)
        Traceback (most recent call last):
        ValueError: batch_size is 1; a variance over the batch needs 2 or more
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    adam_epsilon: float = 1e-8
    patience: int | None = None
    monitor: str = "cross_entropy"
    augment: bool = False
    normalize: str = "standard"
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            # 1, 1.0 and NumPy's 1 are one run, so they need one key.
            value = typed(field.name, getattr(self, field.name), cast("str", field.type))
            object.__setattr__(self, field.name, value)
        check_integer("epochs", self.epochs, 1)
        if self.batch_size < 2:
            raise ValueError(
                f"batch_size is {self.batch_size}; a variance over the batch needs 2 or more"
            )
        check_range("learning_rate", self.learning_rate, ends="()")
        check_range("weight_decay", self.weight_decay)
        check_range("adam_epsilon", self.adam_epsilon, ends="()")
        if self.patience is not None and self.patience < 1:
            raise ValueError(
                f"patience is {self.patience}; it must be 1 or more, or None for no stopping"
            )
        check_integer("seed", self.seed, 0, 2**32 - 1)
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_choice("monitor", self.monitor, get_args(Monitor))
        check_choice("normalize", self.normalize, get_args(Normalize))
        check_choice("precision", self.precision, get_args(Precision))

    @classmethod
    def of(cls, settings: Settings | None, fields: Mapping[str, Any]) -> Settings:
        """These settings, or those with these fields.

        Raises:
            ValueError: If both are given, or neither.
        """
        if (settings is None) == (not fields):
            raise ValueError(
                f"settings are {settings!r} and {dict(fields)!r} stand beside them; give Settings, "
                "or their fields by name, such as epochs=10"
            )
        return cls(**fields) if settings is None else settings


@dataclass(frozen=True)
class Scaling:
    """Turns uint8 images into the floating-point batch that a model sees.

    Attributes:
        mean: Per channel, subtracted after the division by 255.
        std: Per channel, divided by last.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Tensor, normalize: Normalize = "standard") -> Self:
        """Find the scaling of a training set.

        Args:
            images: uint8 ``(N, C, ...)``.
            normalize: ``"standard"`` for mean 0 and deviation 1 in every channel,
                ``"unit"`` for plain division by 255, as the paper does.

        Raises:
            ValueError: If the images are not uint8 or ``normalize`` is unknown.

        Example:
            >>> Scaling.of(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
            Scaling(mean=(0.5,), std=(0.5,))
        """
        _check_images(images)
        check_choice("normalize", normalize, get_args(Normalize))
        channels = images.shape[1]
        if normalize == "unit":
            return cls((0.0,) * channels, (1.0,) * channels)
        # Exact, from how often each value occurs; a block at a time: the set may be larger than
        # memory.
        stored = as_stored(images)
        occurs = torch.zeros(stored.shape[-1], 256, dtype=torch.float64)
        for block in stored.split(1024):
            for channel, counts in enumerate(occurs):
                counts += torch.bincount(block[..., channel].flatten(), minlength=256).cpu()
        value = torch.arange(256, dtype=torch.float64)
        total, square = occurs @ value, occurs @ value.square()
        count = stored[..., 0].numel()
        mean = total / count
        std = (square / count - mean.square()).clamp_min(0).sqrt()
        std[std == 0] = 255.0  # A constant channel carries nothing; do not divide by 0.
        repeated = channels // len(mean)
        return cls(*(tuple((each / 255).tolist()) * repeated for each in (mean, std)))

    def __call__(self, images: Tensor) -> Tensor:
        """Scale a uint8 batch ``(N, C, ...)`` to float32, channels last.

        Raises:
            NotATensorError: If ``images`` is not a tensor.
            ValueError: If it is not uint8 or has other channels.
        """
        _check_images(images)
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"images have {images.shape[1]} channels; this scaling is for {len(self.mean)}"
            )
        last = images.movedim(1, -1)
        scaled = torch.empty(last.shape, device=images.device).copy_(last)
        factor, offset = self._rows(images.shape[-1], images.device)
        scaled.flatten(-2).mul_(factor).sub_(offset)
        # One channel lies the same way in memory, but by its strides kernels are chosen.
        return scaled.movedim(-1, 1) if images.shape[1] > 1 else scaled.view(images.shape)

    @lru_cache(maxsize=8)  # noqa: B019 - keeps a few numbers alive, no images
    def _rows(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """What a row of pixels is multiplied by and what is subtracted from it, channels last.

        A whole row at a time is several times as fast as the few channels of a pixel.
        """
        with torch.inference_mode(False):  # it outlives the mode of the first call
            std = torch.tensor(self.std)
            rows = 1 / (255 * std), torch.tensor(self.mean) / std
            factor, offset = (row.repeat(width).to(device) for row in rows)
            return factor, offset


def _check_images(images: Tensor) -> None:
    """Refuse what is no batch of images as they are stored.

    Raises:
        NotATensorError: If it is not a tensor.
        ValueError: If it is not uint8, ``(N, C, ...)``.
    """
    check_tensors(images=images)
    if images.dtype != torch.uint8:
        raise ValueError(
            f"images are {images.dtype}; they must be uint8, 0 to 255, until they are scaled on "
            "the device"
        )
    if images.ndim < 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; they must be (N, C, ...)")


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` returns.

    Attributes:
        history: One dictionary an epoch: ``epoch`` (from 1) and, for ``train`` and ``val``,
            ``total``, ``cross_entropy`` (unscaled), ``feature_variance``, ``accuracy`` and
            ``auroc``. The training figures are those of the epoch's own steps, as a progress
            bar shows them; the validation figures are of the weights at its end.
        best_epoch: The epoch whose weights the model holds now.
        scaling: How images were scaled; :func:`predict` needs it.
        seconds: Wall-clock time of the training.
    """

    history: list[dict[str, float]]
    best_epoch: int
    scaling: Scaling
    seconds: float


# What is saved with them is loaded by torch.load as it is by default.
torch.serialization.add_safe_globals([Scaling, Fit])


def default_device() -> torch.device:
    """The CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_device(device: torch.device | str | None) -> torch.device:
    """The device of that name, the default for ``None``.

    Raises:
        ValueError: If this machine has no such device.
    """
    if device is None:
        return default_device()
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"device is {str(device)!r}, which cannot be used here "
            f"({str(error).splitlines()[0]}); use 'cpu', or name none for the default, "
            f"{default_device()}"
        ) from error


def fit(
    model: nn.Module,
    dataset: Dataset,
    criterion: Criterion,
    settings: Settings | None = None,
    *,
    transform: Transform | None = None,
    step: Step = descend,
    averaging: float = 0.0,
    compile: bool = False,
    tap: FeatureTap[Tensor] | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
    log_dir: str | Path | None = None,
    on_epoch: Callable[[int, nn.Module], None] | None = None,
    **fields: object,
) -> Fit:
    """Train a model in place and leave it with its best weights.

    The best weights are those of the epoch with the lowest monitored validation loss. The
    images go to the device once, as uint8; a set that would fill more than half of the free
    memory of a GPU stays on the host and goes there batch by batch. Batches are drawn without
    replacement from ``seed``, the same for every method, so that runs with one seed can be
    paired; a last batch of one sample joins the batch before it.

    Args:
        model: Maps ``(N, C, ...)`` to logits ``(N, n_outputs)``.
        dataset: Its training split is learnt, its validation split monitored.
        criterion: The loss; with ``variance_weight=0`` plain cross-entropy. Where the features
            are the images themselves, as in a linear model, the penalty is a constant. A loss that
            is not finite ends the training at its step with ``validate=True``, which waits for the
            device at every step, else at the end of its epoch. The error names the step in
            either case.
        settings: Everything else that decides the training. Initial weights are the caller's,
            the draw of features the criterion's.
        transform: Called as ``transform(images, labels, generator)`` with each scaled training
            batch; returns images, labels ``(n,)`` to count by, and the target of the loss.
        step: How the weights change at each step, see :mod:`varreg.lab.steps`.
        averaging: Decay of an exponential moving average of the weights, in [0, 1): what is
            validated, and kept, are then the averaged weights. At 0 the weights themselves.
        compile: Compile the model with ``torch.compile``, which needs a compiler on this machine
            and up to a minute before the first step. It pays on a GPU.
        tap: Where the features are; by default what enters the linear layer that makes the logits.
        device: Default: CUDA if there is one.
        progress: Show a progress bar over epochs on a terminal.
        log_dir: Folder for TensorBoard event files; needs the extra ``tensorboard``.
        on_epoch: Called as ``on_epoch(epoch, model)`` before the first epoch (as epoch 0) and at
            the end of each, with the model in eval mode; it must not change the model.
        **fields: Those of :class:`Settings`, in place of ``settings``.

    Returns:
        The history and the best epoch, see :class:`Fit`.

    Raises:
        NonFiniteLossError: If the loss becomes NaN or infinite, with epoch, step and parts.
        ValueError: If a parameter is outside its range or the task of the criterion is not
            that of the data set.

    Example:
        >>> from varreg.lab import datasets, models
        >>> data = datasets.load("phantom")
        >>> _ = torch.manual_seed(0)
        >>> model = models.build("small_cnn", in_channels=1, size=28, n_outputs=1)
        >>> result = fit(model, data, VariancePenalizedLoss("binary"), epochs=1)
        >>> result.best_epoch, sorted(result.history[0])[0]
        (1, 'epoch')
    """
    settings = Settings.of(settings, fields)
    check_data(dataset, criterion)
    device = as_device(device)
    scaling = Scaling.of(dataset.train.images, cast("Normalize", settings.normalize))
    train, val = Source(dataset.train, device), Source(dataset.val, device)
    model.to(device)
    if dataset.spatial_dims == 2:
        # No overload of Module.to has its memory format.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimize = build_optimizer(model, settings)
    order, jitter = streams(settings.seed)
    averaged = Averaging(model, averaging) if averaging else None
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    history: list[dict[str, float]] = []
    watch, best_state = Watch(settings.patience), {}

    def passed(batch: Tensor, target: Tensor, place: str) -> tuple[LossParts, Tensor]:
        """The loss of a batch and its logits, with the weights as they are."""
        with autocast:
            logits = forward(batch).float()
            features = tapped.take()
            if torch.is_grad_enabled():
                features = _with_gradient(features, batch)
            makes_logits = model.get_submodule(tapped.layers[0])
            head = makes_logits.weight if isinstance(makes_logits, nn.Linear) else None
            return _loss(criterion, logits, target, features, head, place), logits

    with (
        nullcontext() if log_dir is None else _tensorboard(log_dir) as log,
        FeatureTap(model) if tap is None else nullcontext(tap) as tapped,
    ):
        if tap is None and compile:  # its layer shows in a pass, and changes what is compiled
            with torch.inference_mode():
                model.eval()(scaling(dataset.train.images[:2].to(device)))
                tapped.take()
        # Compiled with the hook of the tap. Not into CUDA graphs: they write each step over the one
        # before it, whose logits are still to be counted.
        forward = torch.compile(model) if compile else model
        start = time.perf_counter()
        if on_epoch is not None:
            on_epoch(0, model.eval())
        # Nothing to show where nobody looks: `disable=None` is silent off a terminal.
        for epoch in tqdm(
            range(1, settings.epochs + 1), unit="epoch", disable=None if progress else True
        ):
            model.train()
            criterion.train()
            seen = Seen(criterion, len(train))
            drawn = batches(len(train), settings.batch_size, order, train.home)
            for number, chosen in enumerate(drawn, 1):
                images, labels = train.take(chosen)
                batch, target = scaling(images), labels
                if settings.augment:
                    batch = zoom_and_shift(batch, generator=jitter)
                if transform is not None:
                    batch, labels, target = transform(batch, labels, jitter)
                place = f"epoch {epoch}, step {number}"
                parts, logits = step(partial(passed, batch, target, place), optimize)
                if averaged is not None:
                    averaged.update()
                seen.add(parts, logits, labels)
            if failure := seen.failure(f"epoch {epoch}, step {{step}}"):
                raise failure
            row = {"epoch": epoch, **seen.summary("train_")}
            model.eval()
            with nullcontext() if averaged is None else averaged.shown():
                place = f"the end of epoch {epoch}, on the validation split"
                row |= _validate(passed, val, criterion, scaling, settings.batch_size, place)
                history.append(row)
                if on_epoch is not None:
                    on_epoch(epoch, model)
                if log is not None:
                    for name, value in row.items():
                        log.add_scalar(name.replace("_", "/", 1), value, epoch)
                if watch.note(epoch, row[f"val_{settings.monitor}"]):
                    best_state = {key: value.clone() for key, value in model.state_dict().items()}
            if watch.stopped:
                break
    model.load_state_dict(best_state)
    model.eval()
    return Fit(history, watch.best_epoch, scaling, time.perf_counter() - start)


def predict(
    model: nn.Module,
    images: Tensor,
    scaling: Scaling,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Logits of uint8 images ``(N, C, ...)``, on the CPU, in their order.

    Args:
        model: As trained by :func:`fit`.
        images: uint8, on any device.
        scaling: From the :class:`Fit`.
        batch_size: Images at a time; changes nothing but memory and speed, and the last digit of
            a float32. Default: as many as a GPU has memory for, on a CPU what its caches hold.
        device: Default: where the model is.

    Raises:
        NotATensorError: If ``images`` is not a tensor.
        ValueError: If the images are not uint8 or have other channels than the scaling, or
            ``batch_size`` is not 1 or more, or if ``scaling`` is none.
    """
    if not callable(scaling):
        raise ValueError(
            f"scaling is a {type(scaling).__name__}; it must be a Scaling, as a Fit has it"
        )
    if device is None:
        device = next(model.parameters(), torch.empty(0)).device
    device = torch.device(device)
    model.eval()
    return in_blocks(lambda block: model(scaling(block)), images, device, batch_size)


def evaluate(
    model: nn.Module,
    subset: Subset,
    scaling: Scaling,
    task: Task,
    *,
    batch_size: int | None = None,
) -> dict[str, float | list[float]]:
    """Metrics of a model on one split, see :func:`varreg.lab.metrics.classification_metrics`."""
    logits = predict(model, subset.images, scaling, batch_size=batch_size)
    return classification_metrics(logits, subset.labels, task)


def in_blocks(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    device: torch.device,
    batch_size: int | None = None,
) -> Tensor:
    """Apply a function to all images, block by block, without gradients.

    Args:
        forward: Takes uint8 images ``(n, C, ...)`` on the device, gives ``(n, ...)``.
        images: uint8 ``(N, C, ...)``, on any device.
        device: Where to compute.
        batch_size: Images at a time. Default: 256; on a CUDA device 8192, and half as many
            whenever its memory does not suffice.

    Returns:
        ``(N, ...)``, on the CPU.

    Raises:
        NotATensorError: If ``images`` is not a tensor.
        ValueError: If the images are not uint8 or ``batch_size`` is not 1 or more.
    """
    _check_images(images)
    if batch_size is not None:
        check_integer("batch_size", batch_size, 1)
    size = batch_size or EVALUATED_AT_ONCE.get(device.type, EVALUATED_AT_ONCE["cpu"])
    stored, channels = as_stored(images), images.shape[1]
    results = Rows(len(images))
    with torch.inference_mode():
        while True:  # once for no image as well: what comes back has the shape of a result
            block = stored[results.filled : results.filled + size]
            try:
                results.add(forward(_shown(block.to(device), channels)).cpu())
            except torch.cuda.OutOfMemoryError:
                if batch_size is not None or size == 1:
                    raise
                size //= 2
            if results.filled == len(images):
                return results.rows


def batches(
    count: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Indices of one epoch's batches; a last batch of one joins the batch before it.

    Args:
        count: Samples, 2 or more: a variance over one sample is none.
        batch_size: Samples a batch, 2 or more.
        generator: Shuffles the samples; without it they keep their order.
        device: Where the indices are needed; all of an epoch go there at once.

    Example:
        >>> [len(batch) for batch in batches(9, 4)]
        [4, 5]
    """
    shuffled = generator is not None
    indices = torch.randperm(count, generator=generator) if shuffled else torch.arange(count)
    parts = list(indices.to(device).split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


class Source:
    """A split that batches are taken from: kept on the device if that has the memory for it.

    Args:
        subset: Images and labels.
        device: Where the batches are needed.

    Attributes:
        home: Where the split is kept, and where the indices of a batch must be.
    """

    def __init__(self, subset: Subset, device: torch.device) -> None:
        stored = as_stored(subset.images)
        has_room = device.type != "cuda" or stored.device == device
        if not has_room:  # half of the free memory is for the network
            has_room = stored.nbytes <= torch.cuda.mem_get_info(device)[0] / 2
        self.home = device if has_room else stored.device
        self._stored, self._channels = stored.to(self.home), subset.images.shape[1]
        self._labels, self._device = subset.labels.to(self.home), device

    def __len__(self) -> int:
        return len(self._labels)

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Images, uint8 ``(n, C, ...)``, and labels of the samples ``(n,)``, on the device."""
        images, labels = self._rows(self._stored, chosen), self._rows(self._labels, chosen)
        return _shown(images, self._channels), labels

    def _rows(self, whole: Tensor, chosen: Tensor) -> Tensor:
        if self.home == self._device:
            return whole.index_select(0, chosen)
        # From pinned memory the copy runs while the GPU is busy with the step before.
        shape = (len(chosen), *whole.shape[1:])
        rows = torch.empty(shape, dtype=whole.dtype, pin_memory=True)
        torch.index_select(whole, 0, chosen, out=rows)
        return rows.to(self._device, non_blocking=True)


def _shown(stored: Tensor, channels: int) -> Tensor:
    """A view of stored images as ``(N, C, ...)``."""
    images = stored.movedim(-1, 1)
    return images.expand(-1, channels, *images.shape[2:])


@dataclass
class Watch:
    """Early stopping: which epoch was the best, and whether to go on.

    Attributes:
        patience: Epochs without a lower value before it stops; ``None``: never.
        best: Lowest value so far.
        best_epoch: Its epoch; 0 before the first.
        stopped: Whether the patience has run out.
    """

    patience: int | None
    best: float = math.inf
    best_epoch: int = 0
    stopped: bool = False

    def note(self, epoch: int, value: float) -> bool:
        """Take the value of an epoch; tell whether it is the best so far."""
        if value < self.best:
            self.best, self.best_epoch = value, epoch
            return True
        self.stopped = self.patience is not None and epoch - self.best_epoch >= self.patience
        return False


def streams(seed: int) -> tuple[torch.Generator, torch.Generator]:
    """Where the order of the samples and the augmentation come from.

    Two streams: with and without augmentation the samples come in the same order.
    """
    return torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 2**32)


class Rows:
    """Tensors put one below the other into one that is made beforehand, and may stay part empty.

    A list of them would do, but what is kept of every batch then lies between the large
    activations of the batches, and the system's allocator cannot use the space of those again:
    the memory of a training would grow with the number of its images.

    Args:
        count: Rows in all.

    Attributes:
        filled: How many of its rows are there.
    """

    def __init__(self, count: int) -> None:
        self.count, self.filled, self._space = count, 0, torch.empty(0)

    @property
    def rows(self) -> Tensor:
        """What is there."""
        return self._space[: self.filled]

    def add(self, rows: Tensor) -> None:
        """Put these below what is there."""
        if not self.filled:
            self._space = rows.new_empty(self.count, *rows.shape[1:])
        self._space[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)


class Seen:
    """The metrics of an epoch, gathered batch by batch; each sample counts once.

    All that is added may have an axis of members, behind that of the samples; then
    :meth:`of_members` gives what each of them has seen.
    """

    def __init__(self, criterion: Criterion, count: int) -> None:
        self.criterion, self.ends = criterion, [0]
        self.logits, self.labels, self.parts = Rows(count), Rows(count), Rows(count)

    def add(self, parts: LossParts, logits: Tensor, labels: Tensor) -> None:
        self.ends.append(self.ends[-1] + len(labels))
        values = torch.stack(parts, -1).detach()
        self.parts.add(values.expand(len(labels), *values.shape))
        self.logits.add(logits.detach())
        self.labels.add(labels)

    def of_members(self) -> Iterator[Seen]:
        whole = [rows.rows.cpu() for rows in (self.logits, self.labels, self.parts)]
        for member in range(whole[0].shape[1]):
            own = Seen(self.criterion, self.ends[-1])
            own.ends = self.ends
            for rows, values in zip((own.logits, own.labels, own.parts), whole, strict=True):
                rows.add(values[:, member])
            yield own

    def failure(self, place: str) -> NonFiniteLossError | None:
        """What is wrong with an epoch whose loss became NaN or infinite; waits for the device."""
        broken = ~torch.isfinite(self.parts.rows).all(1).cpu()
        if not broken.any():
            return None
        row = int(broken.nonzero()[0])
        place = place.format(step=bisect_right(self.ends, row))
        total, cross_entropy, variance = self.parts.rows[row].tolist()
        return not_finite(self.criterion, total, cross_entropy, variance, place)

    def summary(self, prefix: str) -> dict[str, float]:
        means = self.parts.rows.cpu().double().mean(0)
        row = dict(zip(LossParts._fields, means.tolist(), strict=True))
        logits, labels = self.logits.rows.cpu(), self.labels.rows.cpu()
        # An infinite logit may have a finite loss.
        known = bool(logits.isfinite().all())
        task = cast("Task", self.criterion.task)  # check_data refuses a criterion without one
        row["accuracy"] = accuracy(logits, labels, task) if known else math.nan
        row["auroc"] = auroc(logits, labels, task) if known else math.nan
        return {prefix + name: value for name, value in row.items()}


def _validate(
    passed: Callable[[Tensor, Tensor, str], tuple[LossParts, Tensor]],
    source: Source,
    criterion: Criterion,
    scaling: Scaling,
    batch_size: int,
    place: str,
) -> dict[str, float]:
    criterion.eval()
    seen = Seen(criterion, len(source))
    # Batches as large as in training, not as fit in memory: the feature variance is that within a
    # batch, and depends on its size.
    with torch.inference_mode():
        for chosen in batches(len(source), batch_size, device=source.home):
            images, labels = source.take(chosen)
            seen.add(*passed(scaling(images), labels, place), labels)
    if failure := seen.failure(place):
        raise failure
    return seen.summary("val_")


def _with_gradient(features: Tensor, batch: Tensor) -> Tensor:
    """Let a model without a layer before the features be trained: its features are the images.

    A penalty on them is a constant of the data, which the criterion would refuse to minimize.
    """
    is_input = features.untyped_storage().data_ptr() == batch.untyped_storage().data_ptr()
    return features.detach().requires_grad_() if is_input else features


def _loss(
    criterion: Criterion,
    logits: Tensor,
    target: Tensor,
    features: Tensor,
    head_weight: Tensor | None,
    place: str,
) -> LossParts:
    """The loss of a batch; where values are checked, finite or an error that says where."""
    try:
        if isinstance(criterion, VariancePenalizedLoss):
            parts: LossParts = criterion(logits, target, features)
        else:
            total, cross_entropy, _ = criterion(logits, target, features, head_weight)
            variance = feature_variance(features.detach(), validate=False)
            parts = LossParts(total, cross_entropy, variance)
    except NonFiniteFeaturesError as error:
        what = "feature variance" if isinstance(criterion, VariancePenalizedLoss) else "penalty"
        raise NonFiniteLossError(f"the {what} is not finite at {place}: {error}") from error
    if criterion.validate and not torch.isfinite(parts.total):
        values = (parts.total.item(), parts.cross_entropy.item(), parts.feature_variance.item())
        raise not_finite(criterion, *values, place)
    return parts


def not_finite(
    criterion: Criterion, total: float, cross_entropy: float, variance: float, place: str
) -> NonFiniteLossError:
    """The error that says where a loss broke and what it was made of."""
    made_of = f"cross-entropy {cross_entropy:.6g} x lambda {criterion.lambda_}, "
    if isinstance(criterion, VariancePenalizedLoss):
        made_of += f"feature variance {variance:.6g} x weight {criterion.variance_weight}"
    else:
        made_of += f"feature variance {variance:.6g}, with {criterion}"
    return NonFiniteLossError(
        f"the loss is {total} at {place}: {made_of}; lower the learning rate or the weight"
    )


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer of these settings, whose step is one fused kernel."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, weight_decay=decay, fused=True)
    make = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    epsilon = settings.adam_epsilon
    return make(model.parameters(), lr=rate, eps=epsilon, weight_decay=decay, fused=True)


def _tensorboard(log_dir: str | Path) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"log_dir={str(log_dir)!r} needs TensorBoard: pip install 'varreg[tensorboard]', "
            "or leave log_dir out"
        ) from error
    return SummaryWriter(log_dir=str(log_dir))


def check_data(dataset: Dataset, criterion: Criterion) -> None:
    """Refuse data that a model cannot be trained on with this criterion.

    Raises:
        ValueError: If the criterion is for another task, or a split is too small or has a label
            that is no class.
    """
    if criterion.task != dataset.task:
        raise ValueError(
            f"the criterion is for a {criterion.task} task and {dataset.name} is {dataset.task}; "
            f"build it with task={dataset.task!r}"
        )
    for name, subset in (("training", dataset.train), ("validation", dataset.val)):
        if len(subset) < 2:
            raise ValueError(
                f"the {name} split of {dataset.name} holds {len(subset)} samples; a variance over "
                "the batch needs 2 or more"
            )
        # Once: no step has to wait for the device to look at its labels.
        logits = torch.empty(()).expand(len(subset), dataset.n_outputs)
        check_target(logits, subset.labels, dataset.task)


def typed(name: str, value: object, kind: str) -> object:
    """A setting in the type of its field; NumPy's numbers are numbers, and True is none.

    Raises:
        ValueError: With the name, what was given and what is wanted.

    Example:
        >>> typed("epochs", 2.0, "int"), typed("patience", None, "int | None")
        (2, None)
    """
    if value is None and kind.endswith(" | None"):
        return None
    real = value if isinstance(value, numbers.Real) and not isinstance(value, bool) else None
    kinds = {
        "int": (int, real is not None and float(real).is_integer(), "a whole number"),
        "float": (float, real is not None, "a number"),
        "bool": (bool, isinstance(value, (bool, np.bool_)), "True or False"),
        "str": (str, isinstance(value, str), "a text"),
    }
    if (plain := kind.removesuffix(" | None")) not in kinds:
        return value
    convert, fits, wanted = kinds[plain]
    if not fits:
        or_none = ", or None" if kind.endswith(" | None") else ""
        raise ValueError(f"{name} is {value!r}; give {wanted}{or_none}")
    return convert(value)
