"""The criterion: a classification loss plus a weighted penalty, with named parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varreg.checks import (
    HALF,
    Task,
    check_finite,
    check_generator,
    check_integer,
    check_lambda,
    check_number,
    check_penalty,
    check_probabilities,
    check_target,
    check_task,
    check_tensors,
    check_weight,
)
from varreg.variance import feature_variance

__all__ = [
    "PUBLISHED",
    "LossParts",
    "PenalizedLoss",
    "PenalizedParts",
    "VariancePenalizedLoss",
    "smoothed_cross_entropy",
    "split_features",
]

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
            the classification loss is. Compare models and stop early on this part.
        penalty: Scalar, before its weight.
    """

    total: Tensor
    cross_entropy: Tensor
    penalty: Tensor


class LossParts(NamedTuple):
    """What :class:`VariancePenalizedLoss` returns.

    Attributes:
        total: Scalar, ``lambda_ * cross_entropy + variance_weight * feature_variance``.
        cross_entropy: Scalar, mean over the batch in nats, *not* scaled by ``lambda_``.
            Compare models and stop early on this part.
        feature_variance: Scalar, the penalty before its weight.
    """

    total: Tensor
    cross_entropy: Tensor
    feature_variance: Tensor


class PenalizedLoss(nn.Module):
    r"""A classification loss plus any penalty, with a fixed weight or one that sets itself.

    .. math::

        L = \lambda \cdot \mathrm{loss} + w \cdot P

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        penalty: One of :mod:`varreg.penalties`, or a function of your own. Its parameters are
            given to it by their names: ``features``, ``logits``, ``target``, ``head_weight``, and
            ``validate``; any others need defaults. A module follows :meth:`train` and :meth:`eval`.
        weight: :math:`w \ge 0`, or a module such as :class:`varreg.weights.GradientRatio`, called
            as ``weight(cross_entropy, penalty, features)``.
        lambda_: :math:`\lambda > 0`, scale of the classification loss.
        classification: Called as ``classification(logits, target)``; the cross-entropy by default.
            In eval mode the cross-entropy counts, whatever this is.
        validate: Check values (finite losses, labels within the classes) as well as shapes,
            which waits for the device once a step.

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
        task: Task,
        penalty: Callable[..., Tensor],
        weight: float | nn.Module,
        lambda_: float = 1.0,
        *,
        classification: Callable[[Tensor, Tensor], Tensor] | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        check_task(task)
        self._takes, self._checks = _parameters(penalty)
        if not isinstance(weight, nn.Module):
            check_weight("weight", weight)
            weight = float(weight)
        check_lambda(lambda_)
        self.task = task
        self.penalty = penalty
        self.weight = weight
        self.lambda_ = float(lambda_)
        self.classification = classification
        self.validate = validate

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
                multi-label: ``(N, L)``. Before any sigmoid or softmax.
            target: Binary: 0 and 1, ``(N,)`` or ``(N, 1)``, integer or float; multi-class:
                integers 0 to K - 1, ``(N,)`` or ``(N, 1)``, or the probabilities of the classes,
                float ``(N, K)``; multi-label: 0 and 1, ``(N, L)``.
            features: ``(N, ...)``, what the head makes the logits of.
            head_weight: ``(n_outputs, F)``, the ``weight`` of the linear layer that does, for a
                penalty that asks for it.

        Returns:
            The total and its parts.

        Raises:
            NonFiniteFeaturesError: If the penalty is NaN or infinite.
            NotATensorError: If one of them is not a tensor.
            ValueError: If shapes do not fit each other, labels are outside the classes, the
                features need no gradient where the logits do and the penalty looks at them, or
                the penalty asks for ``head_weight`` and there is none.
        """
        _check_batch(logits, target, features)
        cross_entropy = self.cross_entropy(logits, target)
        loss = cross_entropy
        if self.classification is not None and self.training:
            loss = self.classification(logits, target)
        sets_itself = isinstance(self.weight, nn.Module)
        penalized = sets_itself or self.weight > 0
        given = {
            "features": features,
            "logits": logits,
            "target": target,
            "head_weight": head_weight,
        }
        given = {name: given[name] for name in self._takes}
        if "head_weight" in given:
            check_tensors(head_weight=head_weight)
        if not penalized:
            given = {name: value.detach() for name, value in given.items()}
        elif "features" in given or sets_itself:
            _check_gradient(logits, features, "weight")
        checks = {"validate": self.validate} if self._checks else {}
        penalty = self.penalty(**given, **checks)
        if self.validate and not checks:
            check_finite(penalty, **{name: given[name] for name in given if name != "target"})
        total = loss if self.lambda_ == 1 else self.lambda_ * loss
        if sets_itself:
            total = total + self.weight(cross_entropy, penalty, features) * penalty
        elif penalized:
            total = torch.add(total, penalty, alpha=self.weight)
        return PenalizedParts(total, cross_entropy, penalty)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the batch in nats, not scaled by ``lambda_``.

        Args:
            logits: As for :meth:`forward`.
            target: As for :meth:`forward`.

        Raises:
            NotATensorError: If one of them is not a tensor.
            ValueError: If shapes do not fit each other or labels are outside the classes.
        """
        return cross_entropy(logits, target, self.task, validate=self.validate)

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        shown = [repr(self.task)]
        if not isinstance(self.penalty, nn.Module):
            shown.append(getattr(self.penalty, "__name__", repr(self.penalty)))
        if not isinstance(self.weight, nn.Module):
            shown.append(f"weight={self.weight}")
        return ", ".join([*shown, f"lambda_={self.lambda_}"])


class VariancePenalizedLoss(nn.Module):
    r"""Cross-entropy plus a penalty on the variance of the features over the batch.

    .. math::

        L = \lambda \cdot \mathrm{CE} + w \cdot V

    with :math:`V` from :func:`varreg.variance.feature_variance`. What the paper trains with is
    :data:`PUBLISHED`. In eval mode all features are used, so that a validation loss has no noise
    of its own. With ``DistributedDataParallel`` the batch is that of each process.

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        variance_weight: :math:`w \ge 0`. At 0 the total is exactly
            ``lambda_ * cross_entropy``.
        feature_sampling_ratio: Share of the features drawn at every training step, in (0, 1].
        lambda_: :math:`\lambda > 0`, scale of the cross-entropy.
        generator: Source of the draws; the global one of PyTorch by default.
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

    def __init__(
        self,
        task: Task,
        variance_weight: float = 0.1,
        feature_sampling_ratio: float = 1.0,
        lambda_: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        check_task(task)
        check_penalty(variance_weight, feature_sampling_ratio, lambda_)
        check_generator(generator)
        self.task = task
        self.variance_weight = float(variance_weight)
        self.feature_sampling_ratio = float(feature_sampling_ratio)
        self.lambda_ = float(lambda_)
        self.generator = generator
        self.validate = validate

    def forward(self, logits: Tensor, target: Tensor, features: Tensor) -> LossParts:
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
            ValueError: If shapes do not fit each other, labels are outside the classes, or the
                features need no gradient where the logits do and the weight is positive: the
                penalty would change nothing.
        """
        check_penalty(self.variance_weight, self.feature_sampling_ratio, self.lambda_)
        _check_batch(logits, target, features)
        cross_entropy = self.cross_entropy(logits, target)
        ratio = self.feature_sampling_ratio if self.training else 1.0
        # With a weight of 0 it is reported only: no gradient, and exactly the cross-entropy.
        penalized = self.variance_weight > 0
        if penalized:
            _check_gradient(logits, features, "variance_weight")
        variance = feature_variance(
            features if penalized else features.detach(),
            ratio,
            generator=self.generator,
            validate=self.validate,
        )
        total = cross_entropy if self.lambda_ == 1 else self.lambda_ * cross_entropy
        if penalized:
            total = torch.add(total, variance, alpha=self.variance_weight)
        return LossParts(total, cross_entropy, variance)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Only the classification loss, see :meth:`PenalizedLoss.cross_entropy`."""
        return cross_entropy(logits, target, self.task, validate=self.validate)

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        return (
            f"{self.task!r}, variance_weight={self.variance_weight}, "
            f"feature_sampling_ratio={self.feature_sampling_ratio}, lambda_={self.lambda_}"
        )


def cross_entropy(logits: Tensor, target: Tensor, task: Task, *, validate: bool = True) -> Tensor:
    """Mean cross-entropy of a batch in nats; multi-label: over all labels.

    Args:
        logits: As for :meth:`PenalizedLoss.forward`; half precision is computed in float32.
        target: As for :meth:`PenalizedLoss.forward`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        validate: Check the labels as well as shapes, which waits for the device.

    Raises:
        NotATensorError: If one of them is not a tensor.
        ValueError: If shapes do not fit each other or labels are outside the classes.

    Example:
        >>> cross_entropy(torch.zeros(2, 3), torch.tensor([0, 2]), "multiclass").exp()
        tensor(3.)
    """
    check_tensors(logits=logits, target=target)
    shared = task == "multiclass" and target.is_floating_point() and target.shape == logits.shape
    if shared:
        check_probabilities(target, values=validate)
        target = target.to(torch.promote_types(logits.dtype, torch.float32))
    else:
        check_target(logits, target, task, values=validate)
    if logits.dtype in HALF:
        logits = logits.float()
    if shared:
        return F.cross_entropy(logits, target)
    if task == "multiclass":
        return F.cross_entropy(logits, target.flatten().long())
    target = target.to(logits.dtype).view_as(logits)
    return F.binary_cross_entropy_with_logits(logits, target)


def smoothed_cross_entropy(logits: Tensor, target: Tensor, task: Task, smoothing: float) -> Tensor:
    r"""Cross-entropy against labels that are moved towards equal probabilities.

    The true class has :math:`1 - \epsilon + \epsilon / K` and the others :math:`\epsilon / K`; for
    binary and multi-label tasks each label is one of :math:`K = 2` classes.

    Args:
        logits: As for :meth:`PenalizedLoss.forward`.
        target: As for :meth:`PenalizedLoss.forward`.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        smoothing: :math:`\epsilon`, in [0, 1].

    Raises:
        ValueError: If ``smoothing`` is outside its range.

    Source:
        Szegedy, Vanhoucke, Ioffe, Shlens and Wojna (CVPR 2016), "Rethinking the Inception
        Architecture for Computer Vision".

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> smoothed_cross_entropy(logits, target, "multiclass", 0.2)  # 0.1269 + 0.1 x 2
        tensor(0.3269)
    """
    check_number("smoothing", smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing is {smoothing}; it must lie in [0, 1]")
    if task == "multiclass":
        labels = target if target.is_floating_point() else target.flatten().long()
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    target = torch.lerp(target.to(logits.dtype), torch.full((), 0.5).to(logits), smoothing)
    return F.binary_cross_entropy_with_logits(logits, target.view_as(logits))


def _parameters(penalty: Callable[..., Tensor]) -> tuple[tuple[str, ...], bool]:
    """Which of what the criterion has a penalty asks for, and whether it checks values itself."""
    known = ("features", "logits", "target", "head_weight")
    call = penalty.forward if isinstance(penalty, nn.Module) else penalty
    if not callable(call):
        raise ValueError(f"penalty is {penalty!r}; give a function of {', '.join(known)}")
    asked = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(call).parameters.items()
    }
    checks = asked.pop("validate", None) is not None
    unknown = [name for name, needed in asked.items() if needed and name not in known]
    takes = tuple(name for name in known if name in asked)
    if unknown or not takes:
        raise ValueError(
            f"the penalty asks for {', '.join(unknown or asked) or 'nothing'}; it is given "
            f"{', '.join(known)} by these names: bind others with functools.partial"
        )
    return takes, checks


def _check_batch(logits: Tensor, target: Tensor, features: Tensor) -> None:
    check_tensors(logits=logits, target=target, features=features)
    if logits.shape[:1] != features.shape[:1]:
        raise ValueError(
            f"logits hold {tuple(logits.shape)} and features {tuple(features.shape)}; "
            "the first axis of both must be the same batch"
        )


def _check_gradient(logits: Tensor, features: Tensor, weight: str) -> None:
    """Refuse features that a penalty could not change, where the logits can be."""
    if logits.requires_grad and not features.requires_grad and torch.is_grad_enabled():
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
