"""The criterion: a classification loss plus a weighted penalty, with named parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varreg.checks import (
    HALF,
    NotATensorError,
    SmallBatchError,
    Task,
    check_choice,
    check_finite,
    check_flag,
    check_generator,
    check_integer,
    check_probabilities,
    check_range,
    check_target,
    check_task,
    check_tensors,
)
from varreg.distributed import gather, of_first_process
from varreg.variance import feature_variance, per_channel
from varreg.weights import GradientRatio

#: The setting that the paper trains with: ``VariancePenalizedLoss(task, **PUBLISHED)``.
PUBLISHED: Mapping[str, float] = MappingProxyType(
    {"variance_weight": 0.01, "feature_sampling_ratio": 0.2, "lambda_": 0.5}
)

KERAS_EPSILON = (
    1e-7  # Keras clips probabilities to [1e-7, 1 - 1e-7] before it takes their logarithm.
)


class PenalizedParts(NamedTuple):
    """What :class:`PenalizedLoss` returns: the value to minimize, and what it is made of.

    Attributes:
        total: Scalar, ``lambda_ * classification loss + weight * penalty``.
        cross_entropy: Scalar, mean over the batch in nats, *not* scaled by ``lambda_``, whatever
            the classification loss is. Compare models and stop early on this part. Without a task
            there is no cross-entropy: then it is the classification loss itself.
        penalty: Scalar, before its weight.
    """

    total: Tensor
    cross_entropy: Tensor
    penalty: Tensor


class LossParts(NamedTuple):
    """What :class:`VariancePenalizedLoss` returns.

    Attributes:
        total: Scalar, ``lambda_ * classification loss + variance_weight * feature_variance``.
        cross_entropy: As that of :class:`PenalizedParts`.
        feature_variance: Scalar, the penalty before its weight.
    """

    total: Tensor
    cross_entropy: Tensor
    feature_variance: Tensor


class PenalizedLoss(nn.Module):
    r"""A classification loss plus any penalty, with a fixed weight or one that sets itself.

    .. math::

        L = \lambda \cdot \mathrm{loss} + w \cdot P

    **Several processes.** With ``DistributedDataParallel`` the penalty is by default that of each
    process's batch: in expectation the variance is :math:`(1 - 1/m) / (1 - 1/N)` of that of all
    :math:`N` samples, where each process holds :math:`m` of them. With ``sync`` penalty and weight
    are those of all samples, exactly, in value and gradient, also where processes hold different
    numbers of them; see :func:`varreg.distributed.gather` for what that costs. The cross-entropy
    stays the mean over the samples of each process, and averaging lets the processes count alike,
    as it always does: it is that of all samples where they hold equally many. A penalty that
    draws must draw the same in every process. Call the criterion equally often in all of them.
    What is not learned from is not synchronized: after :meth:`eval`, and under
    ``torch.no_grad()``, each process has the penalty of its own batch, so that one can validate
    alone. Where no process group is initialized there is one process.

    **A part of a batch.** With gradient accumulation the batch is each part: of :math:`N` samples
    in parts of :math:`m` the variance, and its gradient, is in expectation
    :math:`(1 - 1/m) / (1 - 1/N)` of that of the whole.

        >>> features = torch.randn(32, 99_999, generator=torch.Generator().manual_seed(0))
        >>> parts = torch.stack([feature_variance(part) for part in features.split(8)])
        >>> print(f"{parts.mean() / feature_variance(features):.3f}; {(1 - 1/8) / (1 - 1/32):.3f}")
        0.903; 0.903

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``: what the labels are; or ``None``
            where they are something else, and ``classification`` alone reads them.
        penalty: One of :mod:`varreg.penalties`, or a function of your own. Its parameters are
            given to it by their names: ``features``, ``logits``, ``target``, ``head_weight``, and
            ``validate``; any others need defaults. A module follows :meth:`train` and :meth:`eval`.
            One with a parameter ``views`` gets the views of all processes in order.
        weight: :math:`w \ge 0`, or a module such as :class:`varreg.weights.GradientRatio`, called
            as ``weight(cross_entropy, penalty, features)``.
        lambda_: :math:`\lambda > 0`, scale of the classification loss.
        classification: Called as ``classification(logits, target)`` for a scalar: a loss of
            :mod:`torch.nn` with class weights or label smoothing, focal loss, any other. The
            cross-entropy by default. In eval mode the cross-entropy counts, whatever this is,
            unless there is no task.
        ignore_index: Label of what the cross-entropy leaves out; by default that of
            ``classification``, if it has an attribute of this name. If nothing is left, it is 0,
            where the losses of :mod:`torch.nn` are NaN. A penalty that reads the labels takes it,
            and each probability between 0 and 1, for one more class.
        small_batch: What becomes of a batch with too few samples for the penalty, above all a last
            batch of one: ``"raise"`` refuses it, ``"skip"`` trains on it without, where the penalty
            is a 0 that has a gradient of 0. With ``sync`` the batch is that of all processes. A
            class with one sample in it does not make a batch small: it has no variance.
        sync: Compute the penalty of the batches of all processes. Its ``GradientRatio`` is set to
            do the same.
        validate: Check values (a finite penalty, labels within the classes) as well as shapes,
            which waits for the device once a step. Logits that are not finite are not looked
            for: in half precision a ``GradScaler`` leaves such steps out.

    Raises:
        ValueError: If a parameter is outside its range, or the penalty asks for something else.

    Example:
        >>> from varreg.penalties import feature_l2
        >>> criterion = PenalizedLoss("binary", feature_l2, weight=0.1)
        >>> features = torch.tensor([[0.0], [2.0]])
        >>> parts = criterion(torch.zeros(2), torch.tensor([0, 1]), features)
        >>> print(f"{parts.total:.4f} = {parts.cross_entropy:.4f} + 0.1 x {parts.penalty:.0f}")
        0.8931 = 0.6931 + 0.1 x 2
    """

    def __init__(
        self,
        task: Task | None,
        penalty: Callable[..., Tensor],
        weight: float | nn.Module,
        lambda_: float = 1.0,
        *,
        classification: Callable[[Tensor, Tensor], Tensor] | None = None,
        ignore_index: int | None = None,
        small_batch: Literal["raise", "skip"] = "raise",
        sync: bool = False,
        validate: bool = True,
    ) -> None:
        super().__init__()
        if classification is not None and not callable(classification):
            raise ValueError(
                f"classification is {classification!r}; it must be a function of logits and "
                "target, such as torch.nn.CrossEntropyLoss(label_smoothing=0.1), or None"
            )
        if task is not None or classification is None:
            check_task(task)
        self._takes, self._checks, self._views = _parameters(penalty)
        if not isinstance(weight, nn.Module):
            weight = check_range("weight", weight)
        lambda_ = check_range("lambda_", lambda_, ends="()")
        if ignore_index is None:
            ignore_index = getattr(classification, "ignore_index", None)
        if ignore_index is not None:
            check_integer("ignore_index", ignore_index)
        check_choice("small_batch", small_batch, ("raise", "skip"))
        check_flag("sync", sync)
        self.task = task
        self.penalty = penalty
        self.weight = weight
        self.lambda_ = lambda_
        self.classification = classification
        self.ignore_index = ignore_index
        self.small_batch = small_batch
        self.sync = sync
        self.validate = validate
        for module in self.modules():
            if sync and isinstance(module, GradientRatio):
                module.sync = True

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        features: Tensor,
        head_weight: Tensor | None = None,
    ) -> PenalizedParts:
        """Compute the loss of one batch.

        Args:
            logits: Binary: ``(N,)`` or ``(N, 1)``; multi-class: ``(N, K)``;
                multi-label: ``(N, L)``. Before any sigmoid or softmax. Dense outputs have axes for
                place behind these, ``(N, K, H, W)``; binary ones may leave out the 1.
            target: Binary: 0 and 1, ``(N,)`` or ``(N, 1)``, or a float between them, the
                probability of 1; multi-class: integers 0 to K - 1, ``(N,)`` or ``(N, 1)``, or the
                probabilities of the classes, float ``(N, K)``; multi-label: as binary, ``(N, L)``.
                With axes for place where the logits have them; every pixel counts alike then.
            features: ``(N, ...)``, what the head makes the logits of. See
                :func:`varreg.variance.per_channel` for maps of which each channel is a feature.
            head_weight: ``(n_outputs, F)``, the ``weight`` of the linear layer that does, for a
                penalty that asks for it.

        Returns:
            The total and its parts.

        Raises:
            NonFiniteFeaturesError: If the penalty is NaN or infinite.
            NotATensorError: If one of them is not a tensor.
            SmallBatchError: If there are too few samples for the penalty.
            ValueError: If shapes do not fit each other, labels are outside the classes, the
                features need no gradient where the logits do and the penalty looks at them, or
                the penalty asks for ``head_weight`` and there is none.
        """
        check_tensors(logits=logits, target=target, features=features)
        if "head_weight" in self._takes:
            check_tensors(head_weight=head_weight)
        batch: dict[str, Any] = {
            "features": features,
            "logits": logits,
            "target": target,
            "head_weight": head_weight,
        }
        given: dict[str, Tensor] = {name: batch[name] for name in self._takes}
        if self._learns_together():  # first: what is refused below keeps no other process waiting
            given |= {
                name: gather(value, self._views)
                for name, value in given.items()
                if name != "head_weight"
            }
        _check_batch(logits, features)
        cross_entropy = self.cross_entropy(logits, target)
        loss = cross_entropy
        if self.classification is not None and self.task is not None and self.training:
            loss = self._classification(logits, target)
        weight = self.weight
        penalized = isinstance(weight, nn.Module) or weight > 0
        # With a weight of 0 it is reported only: no gradient, and exactly the classification loss.
        if not penalized:
            given = {name: value.detach() for name, value in given.items()}
        penalty = self._penalty(given)
        if penalized:
            _check_gradient(logits, features, penalty, self._weight_name)
        total = loss if self.lambda_ == 1 else self.lambda_ * loss
        if isinstance(weight, nn.Module):
            total = total + weight(cross_entropy, penalty, features) * penalty
        elif penalized:
            total = torch.add(total, penalty, alpha=weight)
        return PenalizedParts(total, cross_entropy, penalty)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the batch in nats, not scaled by ``lambda_``.

        Without a task it is the classification loss.

        Args:
            logits: As for :meth:`forward`.
            target: As for :meth:`forward`.

        Raises:
            NotATensorError: If one of them is not a tensor.
            ValueError: If shapes do not fit each other or labels are outside the classes.
        """
        if self.task is None:
            return self._classification(logits, target)
        settings: dict[str, Any] = {"ignore_index": self.ignore_index, "validate": self.validate}
        try:
            return cross_entropy(logits, target, self.task, **settings)
        except ValueError as error:
            if self.classification is None or isinstance(error, NotATensorError):
                raise
            raise ValueError(
                f"{error}. Labels to leave out are given as ignore_index; where labels are none "
                f"of a {self.task} task give task=None, and classification alone reads them"
            ) from error

    _weight_name = "weight"

    def _learns_together(self) -> bool:
        """Whether other processes take part: one may validate while no other does."""
        return self.sync and self.training and torch.is_grad_enabled()

    def _classification(self, logits: Tensor, target: Tensor) -> Tensor:
        assert self.classification is not None  # or there would be a task
        loss = self.classification(logits, target)
        check_tensors(**{"what classification returns": loss})
        if loss.ndim > 0:
            raise ValueError(
                f"classification returns a tensor of shape {tuple(loss.shape)}; it must return a "
                "scalar: take the mean over the batch, as losses with reduction='mean' do"
            )
        return loss

    def _penalty(self, given: dict[str, Tensor]) -> Tensor:
        try:
            penalty = self.penalty(**given, **self._settings())
            if self.validate and not self._checks:
                inputs = {name: given[name] for name in given if name != "target"}
                batch = next((name for name in given if name != "head_weight"), None)
                check_finite(penalty, inputs, len(given[batch]) if batch else None)
        except SmallBatchError:
            if self.small_batch == "raise":
                raise
            # Of no sample: 0 with a gradient of 0, whatever their values are.
            nothing = torch.cat([value[:0].flatten() for value in given.values()])
            return nothing.sum(dtype=torch.promote_types(nothing.dtype, torch.float32))
        return penalty

    def _settings(self) -> dict[str, object]:
        """What the penalty is given beside the batch."""
        return {"validate": self.validate} if self._checks else {}

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        shown = [repr(self.task)]
        if not isinstance(self.penalty, nn.Module):
            shown.append(getattr(self.penalty, "__name__", repr(self.penalty)))
        if not isinstance(self.weight, nn.Module):
            shown.append(f"weight={self.weight}")
        return ", ".join([*shown, f"lambda_={self.lambda_}", *self._options()])

    def _options(self) -> Iterator[str]:
        """What differs from the defaults, for :meth:`extra_repr`."""
        for name, default in {"ignore_index": None, "small_batch": "raise", "sync": False}.items():
            if getattr(self, name) != default:
                yield f"{name}={getattr(self, name)!r}"
        if self.classification is not None and not isinstance(self.classification, nn.Module):
            name = getattr(self.classification, "__name__", repr(self.classification))
            yield f"classification={name}"


class VariancePenalizedLoss(PenalizedLoss):
    r"""Cross-entropy plus a penalty on the variance of the features over the batch.

    .. math::

        L = \lambda \cdot \mathrm{CE} + w \cdot V

    with :math:`V` from :func:`varreg.variance.feature_variance`. What the paper trains with is
    :data:`PUBLISHED`. In eval mode all features are used, so that a validation loss has no noise
    of its own. :class:`PenalizedLoss` says what the batch is with several processes and with
    gradient accumulation; with ``sync`` all draw what the first process draws.

    Args:
        task: As for :class:`PenalizedLoss`.
        variance_weight: :math:`w \ge 0`. At 0 the total is exactly
            ``lambda_ * cross_entropy``. The default was chosen on validation images of four
            data sets, and lowered test cross-entropy and raised AUROC on three, in a small network
            (the book's page *Should I use it?*). It belongs to its network: in another one choose
            it anew, or ask :func:`varreg.advice.recommend`.
        feature_sampling_ratio: Share of the features drawn at every training step, in (0, 1].
        lambda_: :math:`\lambda > 0`, scale of the cross-entropy.
        generator: Source of the draws; the global one of PyTorch by default.
        classification: As for :class:`PenalizedLoss`.
        ignore_index: As for :class:`PenalizedLoss`.
        small_batch: As for :class:`PenalizedLoss`.
        sync: As for :class:`PenalizedLoss`.
        validate: Check values (finite features, labels within the classes) as well as
            shapes. The check waits for the device once a step. Without it
            :func:`varreg.lab.training.fit` looks at the losses once an epoch.

    Raises:
        ValueError: If a parameter is outside its range.

    Source:
        Athukorala (2025), "Addressing Overfitting in Medical Image Classification through
        Variance Penalization".

    Example:
        >>> criterion = VariancePenalizedLoss("binary", variance_weight=0.01, lambda_=0.5)
        >>> logits, target = torch.zeros(2), torch.tensor([0, 1])
        >>> parts = criterion(logits, target, torch.tensor([[0.0], [2.0]]))
        >>> print(f"{parts.total:.4f} = 0.5 x {parts.cross_entropy:.4f} + 0.01 x 1")
        0.3566 = 0.5 x 0.6931 + 0.01 x 1
    """

    _weight_name = "variance_weight"

    def __init__(
        self,
        task: Task | None,
        variance_weight: float = 2.5,
        feature_sampling_ratio: float = 1.0,
        lambda_: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        classification: Callable[[Tensor, Tensor], Tensor] | None = None,
        ignore_index: int | None = None,
        small_batch: Literal["raise", "skip"] = "raise",
        sync: bool = False,
        validate: bool = True,
    ) -> None:
        if isinstance(variance_weight, nn.Module):
            raise ValueError(
                f"variance_weight is {variance_weight}; it must be a number: a weight that sets "
                "itself goes into PenalizedLoss(task, feature_variance, weight)"
            )
        check_range("variance_weight", variance_weight)
        super().__init__(
            task,
            feature_variance,
            variance_weight,
            lambda_,
            classification=classification,
            ignore_index=ignore_index,
            small_batch=small_batch,
            sync=sync,
            validate=validate,
        )
        ratio = check_range("sampling ratio", feature_sampling_ratio, 1, ends="(]")
        check_generator(generator)
        self.feature_sampling_ratio = ratio
        self.generator = generator

    @property
    def variance_weight(self) -> float:
        """:math:`w`."""
        return cast(float, self.weight)

    @variance_weight.setter
    def variance_weight(self, weight: float) -> None:
        self.weight = weight

    def forward(  # type: ignore[override]  # without head_weight
        self, logits: Tensor, target: Tensor, features: Tensor
    ) -> LossParts:
        """Compute the loss of one batch.

        Args:
            logits: As for :meth:`PenalizedLoss.forward`.
            target: As for :meth:`PenalizedLoss.forward`.
            features: ``(N, ...)``, see :func:`varreg.variance.feature_variance`.

        Returns:
            The total and its parts, see :class:`LossParts`.

        Raises:
            NonFiniteFeaturesError: If a feature is NaN or infinite.
            NotATensorError: If one of them is not a tensor.
            SmallBatchError: If there is one sample only.
            ValueError: If shapes do not fit each other, labels are outside the classes, or the
                features need no gradient where the logits do and the weight is positive: the
                penalty would change nothing.
        """
        check_range("variance_weight", self.variance_weight)
        check_range("lambda_", self.lambda_, ends="()")
        return LossParts(*super().forward(logits, target, features))

    def _settings(self) -> dict[str, object]:
        ratio = self.feature_sampling_ratio if self.training else 1.0
        check_range("sampling ratio", ratio, 1, ends="(]")
        generator = self.generator
        if ratio < 1 and self._learns_together():
            generator = of_first_process(generator)
        return super()._settings() | {"sampling_ratio": ratio, "generator": generator}

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        shown = f"{self.task!r}, variance_weight={self.variance_weight}, "
        shown += f"feature_sampling_ratio={self.feature_sampling_ratio}, lambda_={self.lambda_}"
        return ", ".join([shown, *self._options()])


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    task: Task,
    *,
    ignore_index: int | None = None,
    validate: bool = True,
) -> Tensor:
    """Mean cross-entropy of a batch in nats; multi-label: over all labels, dense: over all pixels.

    Args:
        logits: As for :meth:`PenalizedLoss.forward`; half precision is computed in float32.
        target: As for :meth:`PenalizedLoss.forward`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        ignore_index: Label of what is left out of the mean; if nothing is left, that is 0.
        validate: Check the labels as well as shapes, which waits for the device.

    Raises:
        NotATensorError: If one of them is not a tensor.
        ValueError: If shapes do not fit each other or labels are outside the classes.

    Example:
        >>> cross_entropy(torch.zeros(2, 3), torch.tensor([0, 2]), "multiclass").exp()
        tensor(3.)
        >>> labels = torch.tensor([[0.0, 1.0], [1.0, -1.0]])  # one is not known
        >>> cross_entropy(torch.zeros(2, 2), labels, "multilabel", ignore_index=-1).exp()
        tensor(2.)
    """
    check_task(task)
    check_tensors(logits=logits, target=target)
    if ignore_index is not None:
        check_integer("ignore_index", ignore_index)
    logits, target = _rows(logits, target, task)
    shared = _shared(logits, target, task)
    if shared:
        check_probabilities(target, values=validate)
        target = target.to(torch.promote_types(logits.dtype, torch.float32))
        ignore_index = None
    else:
        if ignore_index is not None:
            # As a long: in a smaller type, -1 would be another label.
            kept = (target if target.is_floating_point() else target.long()) != ignore_index
            target = target.masked_fill(~kept, 0)
        check_target(logits, target, task, values=validate, soft=True)
    if logits.dtype in HALF:
        logits = logits.float()
    reduction = "mean" if ignore_index is None else "none"
    if shared:
        loss = F.cross_entropy(logits, target)
    elif task == "multiclass":
        loss = F.cross_entropy(logits, target.flatten().long(), reduction=reduction)
    else:
        target = target.to(logits.dtype).view_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction=reduction)
    if ignore_index is None:
        return loss
    return torch.where(kept.view_as(loss), loss, 0.0).sum() / kept.sum().clamp(min=1)


def _shared(logits: Tensor, target: Tensor, task: Task) -> bool:
    """Whether the labels are probabilities of several classes."""
    return task == "multiclass" and target.is_floating_point() and target.shape == logits.shape


def _rows(logits: Tensor, target: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Each pixel of dense outputs as a sample, with the axes that there are without pixels."""
    if logits.ndim < 3:
        return logits, target
    if task != "binary" and target.shape == logits.shape:
        return per_channel(logits), per_channel(target)
    binary = task == "binary"
    of_logits = logits.shape if binary else logits.shape[:1] + logits.shape[2:]
    # An axis of one for the channel of the labels moves no pixel.
    places, given = (
        [size for size in shape[1:] if size != 1] for shape in (of_logits, target.shape)
    )
    if task == "multilabel" or places != given or logits.shape[:1] != target.shape[:1]:
        allowed = {
            "binary": "both must be (N, ...) or (N, 1, ...)",
            "multiclass": "logits must be (N, K, ...) and target (N, ...) or (N, 1, ...)",
            "multilabel": "both must be (N, L, ...)",
        }[task]
        raise ValueError(
            f"{task} task with dense logits {tuple(logits.shape)} and target "
            f"{tuple(target.shape)}; {allowed}, with the same places"
        )
    return (logits.flatten() if binary else per_channel(logits)), target.flatten()


def smoothed_cross_entropy(
    logits: Tensor, target: Tensor, task: Task, smoothing: float, *, validate: bool = True
) -> Tensor:
    r"""Cross-entropy against labels that are moved towards equal probabilities.

    The true class has :math:`1 - \epsilon + \epsilon / K` and the others :math:`\epsilon / K`; for
    binary and multi-label tasks each label is one of :math:`K = 2` classes.

    Args:
        logits: As for :meth:`PenalizedLoss.forward`.
        target: As for :meth:`PenalizedLoss.forward`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        smoothing: :math:`\epsilon`, in [0, 1].
        validate: As for :func:`cross_entropy`.

    Raises:
        NotATensorError: If one of them is not a tensor.
        ValueError: If ``smoothing`` is outside its range, shapes do not fit each other or labels
            are outside the classes.

    Source:
        Szegedy, Vanhoucke, Ioffe, Shlens and Wojna (CVPR 2016), "Rethinking the Inception
        Architecture for Computer Vision".

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> smoothed_cross_entropy(logits, target, "multiclass", 0.2)  # 0.1269 + 0.1 x 2
        tensor(0.3269)
    """
    check_range("smoothing", smoothing, 1, ends="[]")
    check_task(task)
    check_tensors(logits=logits, target=target)
    logits, target = _rows(logits, target, task)
    if _shared(logits, target, task):
        check_probabilities(target, values=validate)
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    check_target(logits, target, task, values=validate, soft=True)
    if task == "multiclass":
        labels = target.flatten().long()
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    target = torch.lerp(target.to(logits.dtype), torch.full((), 0.5).to(logits), smoothing)
    return F.binary_cross_entropy_with_logits(logits, target.view_as(logits))


def _parameters(penalty: Callable[..., Tensor]) -> tuple[tuple[str, ...], bool, int]:
    """What of the criterion a penalty asks for, whether it checks values itself, its views."""
    known = ("features", "logits", "target", "head_weight")
    call = penalty.forward if isinstance(penalty, nn.Module) else penalty
    if not callable(call):
        raise ValueError(f"penalty is {penalty!r}; give a function of {', '.join(known)}")
    asked = dict(inspect.signature(call).parameters)
    checks = asked.pop("validate", None) is not None
    needed = [name for name, parameter in asked.items() if parameter.default is parameter.empty]
    unknown = [name for name in needed if name not in known]
    takes = tuple(name for name in known if name in asked)
    if unknown or not takes:
        raise ValueError(
            f"the penalty asks for {', '.join(unknown or asked) or 'nothing'}; it is given "
            f"{', '.join(known)} by these names: bind others with functools.partial"
        )
    return takes, checks, asked["views"].default if "views" in asked else 1


def _check_batch(logits: Tensor, features: Tensor) -> None:
    if logits.shape[:1] != features.shape[:1]:
        raise ValueError(
            f"logits hold {tuple(logits.shape)} and features {tuple(features.shape)}; "
            "the first axis of both must be the same batch (with per_channel(features) give "
            "per_channel(logits) and target.flatten())"
        )
    if len(features) == 0:
        raise ValueError(
            f"features have shape {tuple(features.shape)}: the batch holds no sample, and its mean "
            "loss is not a number; leave it out, in all processes where there are several"
        )


def _check_gradient(logits: Tensor, features: Tensor, penalty: Tensor, weight: str) -> None:
    """Refuse features that the penalty could not change, where the logits can be changed."""
    inert = not features.requires_grad and not penalty.requires_grad
    if inert and logits.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "features need no gradient and logits do, so that the penalty would change "
            "nothing: do not detach the features, call checkpoint with use_reentrant=False "
            "or put the loss into what is checkpointed, and where the layers before the "
            f"features are frozen set {weight}=0"
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
