"""The classification loss that carries the variance penalty."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varreg.checks import (
    HALF,
    Task,
    check_generator,
    check_integer,
    check_penalty,
    check_target,
    check_tensors,
)
from varreg.variance import feature_variance

__all__ = ["LossParts", "VariancePenalizedLoss", "split_features"]

KERAS_EPSILON = (
    1e-7  # Keras clips probabilities to [1e-7, 1 - 1e-7] before it takes their logarithm.
)


class LossParts(NamedTuple):
    """What the criterion returns: the value to minimize, and what it is made of.

    Attributes:
        total: Scalar, ``lambda_ * cross_entropy + variance_weight * feature_variance``.
        cross_entropy: Scalar, mean over the batch in nats, *not* scaled by ``lambda_``.
            Compare models and stop early on this part.
        feature_variance: Scalar, the penalty before its weight.
    """

    total: Tensor
    cross_entropy: Tensor
    feature_variance: Tensor


class VariancePenalizedLoss(nn.Module):
    r"""Cross-entropy plus a penalty on the variance of the features over the batch.

    .. math::

        L = \lambda \cdot \mathrm{CE} + w \cdot V

    with :math:`V` from :func:`varreg.variance.feature_variance`. The defaults are the published
    setting. In eval mode all features are used, so that a validation loss has no noise of its own.
    With ``DistributedDataParallel`` the batch is that of each process.

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
        >>> criterion = VariancePenalizedLoss("binary", feature_sampling_ratio=1.0)
        >>> logits, target = torch.zeros(2), torch.tensor([0, 1])
        >>> parts = criterion(logits, target, torch.tensor([[0.0], [2.0]]))
        >>> print(f"{parts.total:.4f} = 0.5 x {parts.cross_entropy:.4f} + 0.01 x 1")
        0.3566 = 0.5 x 0.6931 + 0.01 x 1
    """

    def __init__(
        self,
        task: Task,
        variance_weight: float = 0.01,
        feature_sampling_ratio: float = 0.2,
        lambda_: float = 0.5,
        *,
        generator: torch.Generator | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        if task not in get_args(Task):
            raise ValueError(f"task is {task!r}; allowed are {', '.join(get_args(Task))}")
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
            logits: Binary: ``(N,)`` or ``(N, 1)``; multi-class: ``(N, K)``;
                multi-label: ``(N, L)``. Before any sigmoid or softmax.
            target: Binary: 0 and 1, ``(N,)`` or ``(N, 1)``, integer or float; multi-class:
                integers 0 to K - 1, ``(N,)`` or ``(N, 1)``; multi-label: 0 and 1, ``(N, L)``.
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
        check_tensors(logits=logits, target=target, features=features)
        if logits.shape[:1] != features.shape[:1]:
            raise ValueError(
                f"logits hold {tuple(logits.shape)} and features {tuple(features.shape)}; "
                "the first axis of both must be the same batch"
            )
        cross_entropy = self.cross_entropy(logits, target)
        ratio = self.feature_sampling_ratio if self.training else 1.0
        # With a weight of 0 it is reported only: no gradient, and exactly the cross-entropy.
        penalized = self.variance_weight > 0
        if (
            penalized
            and logits.requires_grad
            and not features.requires_grad
            and torch.is_grad_enabled()
        ):
            raise ValueError(
                "features need no gradient and logits do, so that the penalty would change "
                "nothing: do not detach the features, call checkpoint with use_reentrant=False "
                "or put the loss into what is checkpointed, and where the layers before the "
                "features are frozen set variance_weight=0"
            )
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
        """Only the classification loss, mean over the batch in nats, not scaled by ``lambda_``.

        Args:
            logits: As for :meth:`forward`.
            target: As for :meth:`forward`.

        Raises:
            NotATensorError: If one of them is not a tensor.
            ValueError: If shapes do not fit each other or labels are outside the classes.
        """
        check_target(logits, target, self.task, values=self.validate)
        if logits.dtype in HALF:
            logits = logits.float()
        if self.task == "multiclass":
            return F.cross_entropy(logits, target.flatten().long())
        target = target.to(logits.dtype).view_as(logits)
        return F.binary_cross_entropy_with_logits(logits, target)

    def extra_repr(self) -> str:
        """Show the parameters when the module is printed."""
        return (
            f"{self.task!r}, variance_weight={self.variance_weight}, "
            f"feature_sampling_ratio={self.feature_sampling_ratio}, lambda_={self.lambda_}"
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
