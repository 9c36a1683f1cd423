"""The methods that runs compare: one entry each.

A method is what is done against overfitting. Its entry says what it changes of a training, what
the ``strength`` of a run means to it, and how tables and figures name and show it. To add one,
write its function where its kind lives (a penalty in :mod:`varreg.penalties`, a classification
loss in :mod:`varreg.loss`, a batch transform in :mod:`varreg.lab.augment`, a step in
:mod:`varreg.lab.steps`) and an entry here; tables and figures follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from varreg import penalties, weights
from varreg.checks import Task
from varreg.lab.augment import mixup, two_views
from varreg.lab.models import with_dropout
from varreg.lab.steps import Step, descend, sharpness_aware
from varreg.lab.training import Criterion, Transform
from varreg.loss import PenalizedLoss, smoothed_cross_entropy
from varreg.variance import feature_variance

if TYPE_CHECKING:
    from varreg.lab.datasets import Dataset

#: Okabe and Ito's colour-blind safe palette, by what a method changes.
GREY, RED, GREEN, BLUE = "#565656", "#D55E00", "#009E73", "#0072B2"
PINK, ORANGE, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a method changes of a training; by default nothing.

    Attributes:
        penalty: What :class:`varreg.loss.PenalizedLoss` takes.
        weight: Of the penalty, as it takes it.
        classification: In place of the cross-entropy, as it takes it.
        model: Makes another network of the one with its initial weights.
        transform: Of each training batch, see :func:`varreg.lab.training.fit`.
        step: How the weights change, see :mod:`varreg.lab.steps`.
        averaging: Decay of the average of the weights, see :func:`varreg.lab.training.fit`.
        settings: Fields of :class:`varreg.lab.training.Settings` with other values.
    """

    penalty: Callable[..., Tensor] | None = None
    weight: float | nn.Module = 0.0
    classification: Callable[[Tensor, Tensor], Tensor] | None = None
    model: Callable[[nn.Module], nn.Module] | None = None
    transform: Transform | None = None
    step: Step = descend
    averaging: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_loss(self) -> bool:
        """Whether the loss is another than cross-entropy and the variance penalty."""
        return self.penalty is not None or self.classification is not None

    def criterion(self, task: Task) -> Criterion:
        """The loss, which looks at no values: they would have to be waited for."""
        return PenalizedLoss(
            task,
            self.penalty or feature_variance,
            self.weight,
            classification=self.classification,
            validate=False,
        )


def _nothing(strength: float, data: Dataset) -> Changes:
    return Changes()


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the tables.

    In a formula ``f_k`` is a feature, ``z_c`` a logit and ``theta`` the weights of the head;
    ``v_k`` is the variance of a feature over the batch, ``w_k`` its part within the classes and
    ``V`` the mean of ``v_k``; ``s`` is the strength. Features are multiplied (``scale``), moved
    (``shift``) or turned (``rotation``), and the head makes up for it; or those of each class are
    moved on their own (``class``), and the head stays. Ratios of norms are averaged over steps and,
    like what stands below a variance within the classes, have no gradient; running centers are
    asked once they have followed.

    Attributes:
        title: In tables and figures.
        strength: What the ``strength`` of a run is; empty if the method has none.
        formula: What is added to the cross-entropy, or done instead, in the notation above.
        unchanged: By which of the changes ``scale``, ``shift``, ``rotation`` and ``class``
            what is added to the cross-entropy stays the same; empty where nothing is.
        default: The strength to start with, or the ``variance_weight``: of those that
            ``rivals_tuning`` tried, the one with the lowest mean validation cross-entropy over the
            data sets (the small network, no augmentation), and the paper's own for its setting;
            0 if the method has none.
        changes: Made from the strength and the data.
        color: In figures.
        source: Who proposed it (or a part of it, which is named), and when; empty for what is
            everybody's or this project's own.
        weighted: Whether the ``variance_weight`` of a run must be positive; it is 0 elsewhere.
        augments: Whether images are zoomed and shifted without being asked to.
        reference: The method that it is compared with.
    """

    title: str
    strength: str = ""
    formula: str = ""
    unchanged: str = ""
    default: float = 0.0
    changes: Callable[[float, Dataset], Changes] = _nothing
    color: str = GREY
    source: str = ""
    weighted: bool = False
    augments: bool = False
    reference: str = "baseline"

    @property
    def is_plain(self) -> bool:
        """Whether it is all in the settings of a run: the variance penalty, augmentation, none."""
        return self.changes is _nothing


def _penalty(
    title: str,
    function: Callable[..., Tensor],
    color: str,
    source: str = "",
    *,
    formula: str,
    unchanged: str,
    default: float,
    weight: Callable[[float], float | nn.Module] = float,
    strength: str = "weight",
) -> Method:
    return Method(
        title=title,
        strength=strength,
        formula=formula,
        unchanged=unchanged,
        default=default,
        changes=lambda value, data: Changes(penalty=function, weight=weight(value)),
        color=color,
        source=source,
    )


class _ViewVariance(nn.Module):
    """Variance over two views of an image; validation has one, over which nothing varies."""

    def __init__(self, of_logits: bool) -> None:
        super().__init__()
        self.of_logits = of_logits

    def forward(self, features: Tensor, logits: Tensor, views: int = 2) -> Tensor:
        if not self.training:
            return features.new_zeros(())
        if self.of_logits:
            return penalties.logit_view_variance(logits, views, validate=False)
        return penalties.view_variance(features, views, validate=False)


def _over_views(
    title: str, *, of_logits: bool, formula: str, unchanged: str, default: float
) -> Method:
    return Method(
        title=title,
        strength="weight",
        formula=formula,
        unchanged=unchanged,
        default=default,
        changes=lambda value, data: Changes(
            transform=two_views, penalty=_ViewVariance(of_logits), weight=value
        ),
        color=SKY,
        reference="two_views",
    )


class _AboveQuantile(nn.Module):
    """Only the features above a running quantile of the variances pay."""

    def __init__(self, quantile: float) -> None:
        super().__init__()
        self.threshold = weights.RunningQuantile(quantile)

    def forward(self, features: Tensor) -> Tensor:
        return penalties.excess_variance(features, self.threshold(features), validate=False)


class _RunningCenters(nn.Module):
    """Center loss with the running means of the classes for centers, moved by half at each step."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.centers: Tensor | None = None

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        flat, labels = features.flatten(1), target.flatten().long()
        if self.centers is None:
            self.centers = flat.new_zeros(self.n_classes, flat.shape[1]).detach()
        loss = penalties.center_loss(flat, labels, self.centers, validate=False)
        if self.training:
            with torch.no_grad():
                rest = self.centers[labels] - flat
                count = torch.bincount(labels, minlength=self.n_classes).unsqueeze(1)
                moved = torch.zeros_like(self.centers).index_add_(0, labels, rest)
                self.centers = self.centers - 0.5 * moved / (1 + count)
        return loss


def _head_l2(head_weight: Tensor) -> Tensor:
    """Half the squared norm of the head, as a weight decay of the head alone adds."""
    return head_weight.square().sum() / 2


#: Every method, in the order of tables and figures.
METHODS: dict[str, Method] = {
    "baseline": Method(title="baseline"),
    "penalized": Method(
        title="penalized, as published",
        source="Athukorala (2025)",
        color=RED,
        weighted=True,
        formula="s V of drawn features; CE times lambda",
        unchanged="shift",
        default=0.01,
    ),
    "tuned": Method(
        title="penalized, best weight above 0",
        source="Choi and Rhee (2019)",
        color=GREEN,
        weighted=True,
        formula="s V",
        unchanged="shift rotation",
        default=2.5,
    ),
    "augmented": Method(
        title="augmented",
        color=BLUE,
        source="Athukorala (2025)",
        augments=True,
        formula="images zoomed and shifted",
    ),
    # ------------------------------------------------------------ the penalty's variants
    "self_setting": _penalty(
        "penalty, weight sets itself",
        feature_variance,
        GREEN,
        "weight: Esser et al. (2021)",
        weight=weights.GradientRatio,
        strength="rho",
        formula="s V ‖∂CE/∂f‖ / ‖∂V/∂f‖",
        unchanged="scale shift rotation",
        default=0.027,
    ),
    "warmed_up": _penalty(
        "penalty, weight sets itself, off for 20 steps",
        feature_variance,
        GREEN,
        "weight: Esser et al. (2021)",
        weight=lambda rho: weights.WarmUp(weights.GradientRatio(rho), off=20, ramp=20),
        strength="rho",
        formula="s V ‖∂CE/∂f‖ / ‖∂V/∂f‖ faded in over steps 20 to 39",
        unchanged="scale shift rotation",
        default=0.027,
    ),
    "target": _penalty(
        "penalty, down to half of its start",
        feature_variance,
        GREEN,
        "target: Rezende and Viola (2018)",
        weight=lambda omega: weights.TargetWeight(omega, target=0.5),
        strength="omega, nats",
        formula="s V / V₀, where V > V₀ / 2",
        unchanged="scale shift rotation",
        default=0.016,
    ),
    "within_class": _penalty(
        "variance within the classes",
        penalties.within_class_variance,
        GREEN,
        "Wen et al. (2016)",  # with the means of the batch for centers
        formula="s mean_k w_k",
        unchanged="shift rotation class",
        default=2.5,
    ),
    "relative_within": _penalty(
        "variance within over between the classes",
        penalties.relative_within_class_variance,
        GREEN,
        formula="s Σ_k w_k / Σ_k (v_k - w_k)",
        unchanged="scale shift rotation",
        default=0.0003,
    ),
    "excess": Method(
        title="variance above a running median",
        strength="weight",
        changes=lambda value, data: Changes(penalty=_AboveQuantile(0.5), weight=value),
        color=GREEN,
        source="wish: Athukorala (2025)",
        formula="s mean_k max(0, v_k - median)",
        unchanged="shift",
        default=2.5,
    ),
    "head_weighted": _penalty(
        "variance weighted by the head",
        penalties.head_weighted_variance,
        RED,
        formula="s mean_c Σ_k θ_ck² v_k",
        unchanged="scale shift",
        default=0.08,
    ),
    "head_weighted_within": _penalty(
        "variance within the classes, weighted by the head",
        penalties.head_weighted_within_class_variance,
        RED,
        formula="s mean_c Σ_k θ_ck² w_k",
        unchanged="scale shift class",
        default=0.08,
    ),
    "head_weighted_self": _penalty(
        "variance weighted by the head, weight sets itself",
        penalties.head_weighted_variance,
        RED,
        "weight: Esser et al. (2021)",
        weight=weights.GradientRatio,
        strength="rho",
        formula="s P ‖∂CE/∂f‖ / ‖∂P/∂f‖, P = mean_c Σ_k θ_ck² v_k",
        unchanged="scale shift",
        default=0.009,
    ),
    # ------------------------------------------------------------ rivals on the features
    "feature_l2": _penalty(
        "feature L2",
        penalties.feature_l2,
        ORANGE,
        "Merity et al. (2017)",
        formula="s mean_k ⟨f_k²⟩",
        unchanged="rotation",
        default=0.5,
    ),
    "decov": _penalty(
        "DeCov",
        penalties.decov,
        ORANGE,
        "Cogswell et al. (2016)",
        formula="s/2 Σ_k≠l cov(f_k, f_l)²",
        unchanged="shift",
        default=0.000625,
    ),
    "variance_constancy": _penalty(
        "variance constancy",
        penalties.variance_constancy,
        ORANGE,
        "Littwin and Wolf (2018)",
        formula="s mean_k (1 - v_k of one half / (v_k of the other + 1))²",
        unchanged="shift",
        default=0.01,
    ),
    "vicreg": _penalty(
        "VICReg's variance term",
        penalties.vicreg_variance,
        ORANGE,
        "Bardes et al. (2022)",
        formula="s mean_k max(0, 1 - √(v_k + 0.0001))",
        unchanged="shift",
        default=0.01,
    ),
    "center_loss": Method(
        title="center loss",
        strength="weight",
        changes=lambda value, data: Changes(
            penalty=_RunningCenters(max(2, data.n_outputs)), weight=value
        ),
        color=ORANGE,
        source="Wen et al. (2016)",
        formula="s/2 ⟨‖f - running mean of its class‖²⟩",
        unchanged="shift rotation class",
        default=0.0025,
    ),
    # ------------------------------------------------------------ on the logits and the loss
    "logit_l2": _penalty(
        "logit L2",
        penalties.logit_l2,
        PINK,
        "Pezeshki et al. (2021)",
        formula="s mean_c ⟨z_c²⟩",
        unchanged="scale shift rotation",
        default=0.003,
    ),
    "logit_variance": _penalty(
        "logit variance",
        penalties.logit_variance,
        PINK,
        "Ahuja et al. (2021)",
        formula="s mean_c var(z_c)",
        unchanged="scale shift rotation",
        default=0.003,
    ),
    "label_smoothing": Method(
        title="label smoothing",
        strength="smoothing",
        changes=lambda value, data: Changes(
            classification=partial(
                smoothed_cross_entropy, task=data.task, smoothing=value, validate=False
            )
        ),
        color=PINK,
        source="Szegedy et al. (2016)",
        formula="labels (1 - s) y + s / C",
        unchanged="scale shift rotation",
        default=0.0125,
    ),
    # ------------------------------------------------------------ over views of one image
    "two_views": Method(
        title="two views",
        changes=lambda value, data: Changes(transform=two_views),
        color=SKY,
        reference="augmented",
        formula="half of the images, each augmented twice",
    ),
    "view_variance": _over_views(
        "feature variance over two views",
        of_logits=False,
        formula="s V over two views of an image",
        unchanged="shift rotation class",
        default=2.5,
    ),
    "logit_view_variance": _over_views(
        "logit variance over two views",
        of_logits=True,
        formula="s mean_c var(z_c) over two views",
        unchanged="scale shift rotation class",
        default=0.27,
    ),
    # ------------------------------------------------------------ data, network, optimizer
    "dropout": Method(
        title="dropout on the features",
        strength="share",
        changes=lambda value, data: Changes(model=partial(with_dropout, share=value)),
        color=BLACK,
        source="Srivastava et al. (2014)",
        formula="a share s of the f_k is 0, the rest times 1 / (1 - s)",
        default=0.35,
    ),
    "weight_decay": Method(
        title="weight decay",
        strength="decay",
        changes=lambda value, data: Changes(settings={"optimizer": "adamw", "weight_decay": value}),
        color=BLACK,
        source="Loshchilov and Hutter (2019)",
        formula="all weights times 1 - s rate, each step",
        default=0.27,
    ),
    "head_decay": _penalty(
        "L2 of the head",
        _head_l2,
        BLACK,
        formula="s/2 ‖θ‖²",
        unchanged="shift rotation class",
        default=0.004,
    ),
    "learning_rate": Method(
        title="another learning rate",
        strength="rate",
        changes=lambda value, data: Changes(settings={"learning_rate": value}),
        color=BLACK,
        formula="Adam's rate is s",
        default=0.005,
    ),
    "mixup": Method(
        title="mixup",
        strength="alpha",
        changes=lambda value, data: Changes(
            transform=partial(
                mixup, alpha=value, n_classes=data.n_outputs if data.task == "multiclass" else None
            )
        ),
        color=BLACK,
        source="Zhang et al. (2018)",
        formula="a x_i + (1 - a) x_j, a ~ Beta(s, s)",
        default=0.1,
    ),
    "sharpness_aware": Method(
        title="sharpness-aware steps",
        strength="radius",
        changes=lambda value, data: Changes(step=partial(sharpness_aware, radius=value)),
        color=BLACK,
        source="Foret et al. (2021)",
        formula="the gradient at θ + s g / ‖g‖",
        default=0.01,
    ),
    "averaged_weights": Method(
        title="averaged weights",
        strength="decay",
        changes=lambda value, data: Changes(averaging=value),
        color=BLACK,
        source="Izmailov et al. (2018)",
        formula="the running mean θ̄ ← s θ̄ + (1 - s) θ is kept",
        default=0.9,
    ),
}
