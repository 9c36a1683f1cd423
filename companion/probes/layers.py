"""Which layer should pay? The penalty on the first features, on the last, and on both.

BreastMNIST and the small network, at the strengths of ``few_images``. The weight that sets itself
has the same share of the force of the cross-entropy at each layer; the fixed one is the same
number at each.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from torch import Tensor, nn

from companion.probes import Measured, answers
from companion.studies import every
from companion.studies.few_images import ARMS, settings
from varreg import FeatureTap, PenalizedLoss, feature_variance
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import Trained, initial_model, load_data, settings_of
from varreg.lab.training import fit
from varreg.loss import PenalizedParts
from varreg.weights import GradientRatio

#: Where the features of a layer of the small network enter the next one.
ENTERS = {"first": "features.3", "last": "head"}
WEIGHTS = ("fixed", "self_setting")
METRICS = ("cross_entropy", "auroc", "accuracy")
#: One unit a run: without a penalty, and either weight at the first, the last and both layers.
SETTINGS = [
    unit
    for seed in range(10)
    for unit in (
        {"weight": "none", "layers": "none", "seed": seed},
        *every(weight=WEIGHTS, layers=("first", "last", "both"), seed=[seed]),
    )
]


class BothLayers(PenalizedLoss):
    """The criterion with its penalty on the last features, and once more on others.

    Args:
        task: As for :class:`varreg.PenalizedLoss`.
        weight: As for it, at the last features.
        other: Tap on the others.
        other_weight: At those.
    """

    def __init__(
        self,
        task: str,
        weight: float | nn.Module,
        other: FeatureTap[Tensor],
        other_weight: float | nn.Module,
    ) -> None:
        super().__init__(task, feature_variance, weight, validate=False)
        self.other = other
        self.other_weight = other_weight

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        features: Tensor,
        head_weight: Tensor | None = None,
    ) -> PenalizedParts:
        """The loss of the batch that the model saw last."""
        parts = super().forward(logits, target, features, head_weight)
        features, weight = self.other.take(), self.other_weight
        penalty = feature_variance(features, validate=False)
        if isinstance(weight, nn.Module):
            weight = weight(parts.cross_entropy, penalty, features)
        return parts._replace(total=parts.total + weight * penalty)


def measure(weight: str, layers: str, seed: int, **where: str | Path | None) -> Measured:
    """Train one network.

    Args:
        weight: ``"none"``, ``"fixed"`` or ``"self_setting"``.
        layers: ``"none"``, ``"first"``, ``"last"`` or ``"both"``: which features pay.
        seed: Of the run.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        Test ``cross_entropy``, ``auroc`` and ``accuracy``, and a row for each ``layer`` with the
        variance of its features over the validation images.
    """
    spec = settings("layers", "breastmnist", weight, seed)
    data = load_data(spec, where.get("root"))
    model = initial_model(spec, data)

    def strength() -> float | nn.Module:
        value = ARMS[weight].get("strength", ARMS[weight].get("variance_weight", 0.0))
        return GradientRatio(value) if weight == "self_setting" else value

    both = layers == "both"
    tap = FeatureTap(model, ENTERS["last" if layers in ("none", "both") else layers])
    with tap, FeatureTap(model, ENTERS["first"]) if both else nullcontext() as other:
        if both:
            criterion = BothLayers(data.task, strength(), other, strength())
        else:
            criterion = PenalizedLoss(data.task, feature_variance, strength(), validate=False)
        trained = fit(
            model,
            data,
            criterion,
            settings_of(spec, spec.changes(data)),
            tap=tap,
            device=where.get("device"),
        )
    run = Trained(model, data, trained)
    with FeatureTap(model, list(ENTERS.values())) as each:
        answers(run, "val")
        details = [
            {"layer": layer, "variance": feature_variance(features.double()).item()}
            for layer, features in zip(ENTERS, each.take().values(), strict=True)
        ]
    found = classification_metrics(*answers(run, "test"), data.task)
    return Measured(data, {"size": 28, **{name: found[name] for name in METRICS}}, details)
