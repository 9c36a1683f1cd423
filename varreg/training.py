"""The training engine: data that lives on the device, one plain loop, early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from varreg.augment import zoom_and_shift
from varreg.features import FeatureTap
from varreg.loss import LossParts, NonFiniteFeaturesError, Task, VariancePenalizedLoss
from varreg.metrics import accuracy, auroc, classification_metrics

if TYPE_CHECKING:
    from varreg.datasets import Dataset, Subset

__all__ = [
    "Fit",
    "Monitor",
    "NonFiniteLossError",
    "Normalize",
    "Optimizer",
    "Scaling",
    "as_device",
    "batches",
    "default_device",
    "evaluate",
    "fit",
    "predict",
]

Monitor = Literal["cross_entropy", "total"]
Normalize = Literal["standard", "unit"]
Optimizer = Literal["adam", "adamw", "sgd"]


class NonFiniteLossError(ValueError):
    """Raised when the loss becomes NaN or infinite; says where and of what it was made."""


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
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}; they must be uint8 until on the device")
        if normalize not in get_args(Normalize):
            raise ValueError(
                f"normalize is {normalize!r}; allowed are {', '.join(get_args(Normalize))}"
            )
        channels = images.shape[1]
        if normalize == "unit":
            return cls((0.0,) * channels, (1.0,) * channels)
        # Exact sums of integers, a block at a time: the set may be larger than memory.
        total = torch.zeros(channels, dtype=torch.float64)
        square = torch.zeros(channels, dtype=torch.float64)
        for block in images.split(1024):
            flat = block.transpose(0, 1).reshape(channels, -1).double()
            total += flat.sum(1).cpu()
            square += flat.square().sum(1).cpu()
        count = images.numel() / channels
        mean = total / count
        std = (square / count - mean.square()).clamp_min(0).sqrt()
        std[std == 0] = 255.0  # A constant channel carries nothing; do not divide by 0.
        return cls(tuple((mean / 255).tolist()), tuple((std / 255).tolist()))

    def __call__(self, images: Tensor) -> Tensor:
        """Scale a uint8 batch ``(N, C, ...)`` to float32, channels last."""
        shape = (1, -1) + (1,) * (images.ndim - 2)
        std = torch.tensor(self.std, device=images.device)
        factor = (1 / (255 * std)).view(shape)
        offset = (torch.tensor(self.mean, device=images.device) / std).view(shape)
        memory_format = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
        scaled = images.contiguous(memory_format=memory_format).float()
        return scaled.mul_(factor).sub_(offset)


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
    criterion: VariancePenalizedLoss,
    *,
    epochs: int,
    batch_size: int = 128,
    optimizer: Optimizer = "adam",
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    adam_epsilon: float = 1e-8,
    patience: int | None = None,
    monitor: Monitor = "cross_entropy",
    augment: bool = False,
    normalize: Normalize = "standard",
    tap: FeatureTap | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    log_dir: str | Path | None = None,
    on_epoch: Callable[[int, nn.Module], None] | None = None,
) -> Fit:
    """Train a model in place and leave it with its best weights.

    The best weights are those of the epoch with the lowest monitored validation loss. The
    training images go to the device once, as uint8. Batches are drawn without replacement
    from ``seed``, the same for every method, so that runs with one seed can be paired; a last
    batch of one sample joins the batch before it.

    Args:
        model: Maps ``(N, C, ...)`` to logits ``(N, n_outputs)``.
        dataset: Its training split is learnt, its validation split monitored.
        criterion: The loss; with ``variance_weight=0`` plain cross-entropy.
        epochs: Largest number of passes over the training split.
        batch_size: Samples a step, 2 or more.
        optimizer: ``"adam"``, ``"adamw"`` (decoupled weight decay) or ``"sgd"`` (no momentum).
        learning_rate: Constant over the training.
        weight_decay: As the optimizer defines it.
        adam_epsilon: Adam's epsilon: 1e-8 in PyTorch, 1e-7 in Keras.
        patience: Stop after this many epochs without a lower monitored loss; ``None``: never.
        monitor: ``"cross_entropy"``, unscaled, which compares across penalties; ``"total"``
            is what Keras watches in the released notebooks.
        augment: Zoom and shift the training images by up to 10 %, see
            :func:`varreg.augment.zoom_and_shift`.
        normalize: How images are scaled, see :class:`Scaling`.
        tap: Where the features are; by default what enters the last linear layer.
        seed: Order of the samples and augmentation. Initial weights are the caller's, the
            draw of features the criterion's.
        device: Default: CUDA if there is one.
        progress: Show a progress bar over epochs on a terminal.
        log_dir: Folder for TensorBoard event files; needs the extra ``tensorboard``.
        on_epoch: Called as ``on_epoch(epoch, model)`` before the first epoch (as epoch 0) and at
            the end of each, with the model in eval mode; it must not change the model.

    Returns:
        The history and the best epoch, see :class:`Fit`.

    Raises:
        NonFiniteLossError: If the loss becomes NaN or infinite, with epoch, step and parts.
        ValueError: If a parameter is outside its range or the task of the criterion is not
            that of the data set.

    Example:
        >>> from varreg import datasets, models
        >>> data = datasets.load("phantom")
        >>> _ = torch.manual_seed(0)
        >>> model = models.build("small_cnn", in_channels=1, size=28, n_outputs=1)
        >>> result = fit(model, data, VariancePenalizedLoss("binary"), epochs=1)
        >>> result.best_epoch, sorted(result.history[0])[0]
        (1, 'epoch')
    """
    _check_settings(
        dataset, criterion, epochs, batch_size, optimizer, learning_rate, patience, monitor
    )
    device = as_device(device)
    scaling = Scaling.of(dataset.train.images, normalize)
    images, labels = dataset.train.images.to(device), dataset.train.labels.to(device)
    model.to(device)
    if dataset.spatial_dims == 2:
        model.to(memory_format=torch.channels_last)
    optimize = _optimizer(model, optimizer, learning_rate, weight_decay, adam_epsilon)
    # Two streams: with and without augmentation the samples come in the same order.
    order = torch.Generator().manual_seed(seed)
    jitter = torch.Generator().manual_seed(seed + 2**32)
    log = _tensorboard(log_dir)
    own_tap = tap is None
    tap = FeatureTap(model) if own_tap else tap
    history: list[dict[str, float]] = []
    best, best_epoch, best_state = math.inf, 0, {}
    start = time.perf_counter()
    try:
        if on_epoch is not None:
            on_epoch(0, model.eval())
        # Nothing to show where nobody looks: `disable=None` is silent off a terminal.
        for epoch in tqdm(range(1, epochs + 1), unit="epoch", disable=None if progress else True):
            model.train()
            criterion.train()
            seen = _Running(criterion.task)
            for step, chosen in enumerate(batches(len(labels), batch_size, order), 1):
                chosen = chosen.to(device)
                batch = scaling(images.index_select(0, chosen))
                if augment:
                    batch = zoom_and_shift(batch, generator=jitter)
                logits = model(batch)
                place = f"epoch {epoch}, step {step}"
                parts = _finite_loss(criterion, logits, labels[chosen], tap.take(), place)
                optimize.zero_grad(set_to_none=True)
                parts.total.backward()
                optimize.step()
                seen.add(parts, logits, labels[chosen])
            row = {"epoch": epoch, **seen.summary("train_")}
            place = f"the end of epoch {epoch}, on the validation split"
            row |= _validate(model, dataset.val, criterion, tap, scaling, batch_size, device, place)
            history.append(row)
            if on_epoch is not None:
                on_epoch(epoch, model)
            if log is not None:
                for name, value in row.items():
                    log.add_scalar(name.replace("_", "/", 1), value, epoch)
            current = row[f"val_{monitor}"]
            if current < best:
                best, best_epoch = current, epoch
                best_state = {key: value.clone() for key, value in model.state_dict().items()}
            elif patience is not None and epoch - best_epoch >= patience:
                break
    finally:
        if own_tap:
            tap.remove()
        if log is not None:
            log.close()
    model.load_state_dict(best_state)
    model.eval()
    return Fit(history, best_epoch, scaling, time.perf_counter() - start)


def predict(
    model: nn.Module,
    images: Tensor,
    scaling: Scaling,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Tensor:
    """Logits of uint8 images ``(N, C, ...)``, on the CPU, in their order.

    Args:
        model: As trained by :func:`fit`.
        images: uint8, on any device.
        scaling: From the :class:`Fit`.
        batch_size: Images at a time; changes nothing but memory and speed.
        device: Default: where the model is.
    """
    device = device if device is not None else next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        return torch.cat(
            [model(scaling(block.to(device))).cpu() for block in images.split(batch_size)]
        )


def evaluate(
    model: nn.Module, subset: Subset, scaling: Scaling, task: Task, *, batch_size: int = 256
) -> dict[str, float | list]:
    """Metrics of a model on one split, see :func:`varreg.metrics.classification_metrics`."""
    logits = predict(model, subset.images, scaling, batch_size=batch_size)
    return classification_metrics(logits, subset.labels, task)


def batches(
    count: int, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Indices of one epoch's batches; a last batch of one joins the batch before it.

    Args:
        count: Samples, 2 or more: a variance over one sample is none.
        batch_size: Samples a batch, 2 or more.
        generator: Shuffles the samples; without it they keep their order.

    Example:
        >>> [len(batch) for batch in batches(9, 4)]
        [4, 5]
    """
    shuffled = generator is not None
    indices = torch.randperm(count, generator=generator) if shuffled else torch.arange(count)
    parts = list(indices.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


class _Running:
    """The metrics of an epoch, gathered batch by batch; each sample counts once."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.parts: list[Tensor] = []
        self.sizes: list[int] = []
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []

    def add(self, parts: LossParts, logits: Tensor, labels: Tensor) -> None:
        self.parts.append(torch.stack(parts).detach())
        self.sizes.append(len(labels))
        self.logits.append(logits.detach())
        self.labels.append(labels)

    def summary(self, prefix: str) -> dict[str, float]:
        weights = torch.tensor(self.sizes, dtype=torch.float64) / sum(self.sizes)
        means = weights @ torch.stack(self.parts).double().cpu()
        row = dict(zip(LossParts._fields, means.tolist(), strict=True))
        logits, labels = torch.cat(self.logits).cpu(), torch.cat(self.labels).cpu()
        row["accuracy"] = accuracy(logits, labels, self.task)
        row["auroc"] = auroc(logits, labels, self.task)
        return {prefix + name: value for name, value in row.items()}


def _validate(
    model: nn.Module,
    subset: Subset,
    criterion: VariancePenalizedLoss,
    tap: FeatureTap,
    scaling: Scaling,
    batch_size: int,
    device: torch.device,
    place: str,
) -> dict[str, float]:
    model.eval()
    criterion.eval()
    seen = _Running(criterion.task)
    with torch.inference_mode():
        for chosen in batches(len(subset), batch_size):
            logits = model(scaling(subset.images.index_select(0, chosen).to(device)))
            labels = subset.labels[chosen].to(device)
            parts = _finite_loss(criterion, logits, labels, tap.take(), place)
            seen.add(parts, logits, labels)
    return seen.summary("val_")


def _finite_loss(
    criterion: VariancePenalizedLoss, logits: Tensor, labels: Tensor, features: Tensor, place: str
) -> LossParts:
    """The loss of a batch, or an error that says where it broke and what it was made of."""
    try:
        parts = criterion(logits, labels, features)
    except NonFiniteFeaturesError as error:
        raise NonFiniteLossError(
            f"the feature variance is not finite at {place}: {error}"
        ) from error
    if not torch.isfinite(parts.total):
        raise NonFiniteLossError(
            f"the loss is {parts.total.item()} at {place}: cross-entropy "
            f"{parts.cross_entropy.item():.6g} x lambda {criterion.lambda_}, feature variance "
            f"{parts.feature_variance.item():.6g} x weight {criterion.variance_weight}; lower "
            "the learning rate or the weight"
        )
    return parts


def _optimizer(
    model: nn.Module, name: str, learning_rate: float, weight_decay: float, adam_epsilon: float
) -> torch.optim.Optimizer:
    common = {"lr": learning_rate, "weight_decay": weight_decay, "fused": True}
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), **common)
    make = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return make(model.parameters(), eps=adam_epsilon, **common)


def _tensorboard(log_dir: str | Path | None) -> object | None:
    if log_dir is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"log_dir={str(log_dir)!r} needs TensorBoard: pip install 'varreg[tensorboard]', "
            "or leave log_dir out"
        ) from error
    return SummaryWriter(log_dir=str(log_dir))


def _check_settings(
    dataset: Dataset,
    criterion: VariancePenalizedLoss,
    epochs: int,
    batch_size: int,
    optimizer: str,
    learning_rate: float,
    patience: int | None,
    monitor: str,
) -> None:
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
    check_training(epochs, batch_size, optimizer, learning_rate, patience, monitor)


def check_training(
    epochs: int,
    batch_size: int,
    optimizer: str,
    learning_rate: float,
    patience: int | None,
    monitor: str,
) -> None:
    """Refuse settings of the training that are outside their ranges.

    Raises:
        ValueError: With what was given and what is allowed.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; it must be 1 or more")
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; a variance over the batch needs 2 or more")
    if optimizer not in get_args(Optimizer):
        raise ValueError(
            f"optimizer is {optimizer!r}; allowed are {', '.join(get_args(Optimizer))}"
        )
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}; it must be finite and positive")
    if patience is not None and patience < 1:
        raise ValueError(f"patience is {patience}; it must be 1 or more, or None for no stopping")
    if monitor not in get_args(Monitor):
        raise ValueError(f"monitor is {monitor!r}; allowed are {', '.join(get_args(Monitor))}")
