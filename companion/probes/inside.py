"""What training leaves inside a network, method by method, and how alike its seeds are.

All measures but the sizes over the training are of the test images and the best epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from companion.probes import Measured
from companion.probes.norms import sizes
from companion.studies import every, few_images
from companion.studies.rivals_tuning import DATASETS
from varreg.features import FeatureTap
from varreg.lab import representations
from varreg.lab.datasets import Dataset
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import Trained, load_data, train_run
from varreg.lab.specs import RunSpec
from varreg.lab.training import Scaling
from varreg.loss import PUBLISHED

SEEDS = range(10)
LOOKS = 10
"""How often sizes are recorded over a training, besides before it."""
LEADING = 10
"""How many eigenvalues are recorded."""

ARMS: dict[str, dict[str, object]] = {
    "none": few_images.ARMS["none"],
    "published": {"method": "penalized", **PUBLISHED},
    **{name: few_images.ARMS[name] for name in ("fixed", "self_setting", "head_weighted")},
    "within_class": {"method": "within_class", "strength": 2.5},
    **{name: few_images.ARMS[name] for name in ("feature_l2", "dropout", "augmented")},
}
"""At the strengths that validation chose on BreastMNIST."""

#: One unit a method, with all of its seeds.
SETTINGS = every(dataset=("breastmnist",), method=ARMS)


def measure(dataset: str, method: str, **where: str | Path | None) -> Measured:
    """Train a method with every seed and look inside.

    Args:
        dataset: Of the comparison, with two classes.
        method: One of :data:`ARMS`.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        As :func:`explore`.
    """
    data = load_data(spec_of(dataset, method, 0), where.get("root"))
    return Measured(data, {}, explore(data, dataset, method, where.get("device")))


def spec_of(dataset: str, method: str, seed: int) -> RunSpec:
    """The run of a method and a seed, as in the comparison."""
    return RunSpec(study="inside", seed=seed, **DATASETS[dataset] | ARMS[method])


def explore(
    data: Dataset,
    dataset: str,
    method: str,
    device: str | None = None,
    more: Callable[[Trained], dict[str, float]] = lambda run: {},
) -> list[dict[str, object]]:
    """Train a method with every seed and look inside.

    Args:
        data: What is trained on.
        dataset: Whose settings the training has.
        method: One of :data:`ARMS`.
        device: As of :func:`varreg.lab.runs.train_run`.
        more: What else to measure of each trained network.

    Returns:
        Rows of three kinds. ``epochs``: the sizes of :func:`companion.probes.norms.sizes`, of the
        validation images after so many ``epochs``. ``seed``: measures of the features, see
        :func:`of_features`, the norm of the head and test metrics. ``pair``, of two seeds: ``cka``
        of their features, see :func:`varreg.lab.representations.linear_cka`, and the share of test
        images on which they ``disagree``.
    """
    details: list[dict[str, object]] = []
    images, labels, found = data.test.images, data.test.labels, []
    for seed in SEEDS:
        run = _train(data, spec_of(dataset, method, seed), device, details)
        features, logits, head = _looked_at(run, images)
        metrics = classification_metrics(logits, labels, data.task)
        details.append(
            {"kind": "seed", "seed": seed, "best_epoch": run.fit.best_epoch, "head_norm": head}
            | of_features(features, labels.numpy())
            | {f"test_{name}": metrics[name] for name in ("cross_entropy", "accuracy", "auroc")}
            | more(run)
        )
        found.append((seed, features, logits.flatten() > 0))
    for (seed, one, said), (other, another, also_said) in combinations(found, 2):
        details.append(
            {
                "kind": "pair",
                "seed": seed,
                "other_seed": other,
                "cka": representations.linear_cka(one, another),
                "disagree": (said != also_said).double().mean().item(),
            }
        )
    return details


def _train(
    data: Dataset, spec: RunSpec, device: str | None, details: list[dict[str, object]]
) -> Trained:
    seen = Scaling.of(data.train.images, spec.normalize)(data.val.images)

    def look(epoch: int, network: nn.Module) -> None:
        if epoch % (spec.epochs // LOOKS) == 0:
            row = {"kind": "epochs", "seed": spec.seed, "epochs": epoch}
            details.append(row | sizes(network, seen)[0])

    return train_run(spec, data=data, device=device, on_epoch=look)


@torch.inference_mode()
def _looked_at(run: Trained, images: Tensor) -> tuple[np.ndarray, Tensor, float]:
    """Features and logits of images, on the CPU, and the norm of the head."""
    where = next(run.model.parameters()).device
    with FeatureTap(run.model) as tap:
        logits = run.model(run.fit.scaling(images.to(where)))
        features = tap.take().flatten(1).double().cpu().numpy()
        head = run.model.get_submodule(tap.layer).weight.norm().item()
    return features, logits.cpu(), head


def of_features(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Measures of the features of one network.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)``.

    Returns:
        ``feature_rms``; ``within`` and ``between``, the parts of the mean variance;
        ``between_share``, of the variance; ``effective_rank``; ``dead``, the share of features;
        and ``share_1`` to ``share_10``, of the variance in the leading directions. Shares are 0
        where nothing varies.
    """
    within, between = representations.variance_parts(features, labels)
    eigenvalues = representations.spectrum(features)
    shares = np.zeros(LEADING)
    leading = eigenvalues[:LEADING] / (eigenvalues.sum() or 1)
    shares[: len(leading)] = leading
    return {
        "feature_rms": float(np.sqrt((features**2).mean())),
        "within": within,
        "between": between,
        "between_share": between / ((within + between) or 1),
        "effective_rank": representations.effective_rank(eigenvalues),
        "dead": representations.dead_share(features),
        **{f"share_{place}": float(share) for place, share in enumerate(shares, 1)},
    }
