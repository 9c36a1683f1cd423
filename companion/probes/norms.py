"""How large features and head are, epoch by epoch, with and without the penalty.

Features times c and a head times 1/c give the same predictions and c squared the penalty. So a
penalty can fall because the features shrink, or because they vary less for their size.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from companion.probes import Measured
from companion.studies.grid import DATASETS, MODELS
from varreg.features import FeatureTap
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import RunSpec, load_data, train_run
from varreg.lab.training import Scaling

__all__ = ["measure", "settings"]

WEIGHTS = (0.0, 0.01, 1.0, 100.0)


def settings() -> list[dict[str, object]]:
    """One unit a run: both networks, four weights, five seeds."""
    return [
        {"model": model, "variance_weight": weight, "seed": seed}
        for seed in range(5)
        for model in MODELS
        for weight in WEIGHTS
    ]


def measure(
    model: str,
    variance_weight: float,
    seed: int,
    *,
    root: str | Path | None = None,
    device: str | None = None,
) -> Measured:
    """Train on PneumoniaMNIST and look at the validation images after every epoch.

    Args:
        model: Name of the network.
        variance_weight: Of the penalty, with all features and lambda 1.
        seed: Of the run.
        root: Folder of the data.
        device: Default: CUDA if there is one.

    Returns:
        A row an epoch, from 0 (initial weights): ``feature_rms``, ``feature_variance``,
        ``relative_variance`` (variance over mean square, which no factor changes), ``head_norm``
        (Frobenius), ``logit_rms``, ``val_cross_entropy``, ``val_accuracy``.
    """
    spec = RunSpec(
        study="norms",
        method="penalized" if variance_weight else "baseline",
        model=model,
        seed=seed,
        variance_weight=variance_weight,
        **DATASETS["pneumoniamnist"],
    )
    data = load_data(spec, root)
    scaling = Scaling.of(data.train.images, spec.normalize)
    details: list[dict[str, object]] = []

    @torch.inference_mode()
    def look(epoch: int, network: nn.Module) -> None:
        where = next(network.parameters()).device
        with FeatureTap(network) as tap:
            logits = network(scaling(data.val.images.to(where)))
            features = tap.take().double()
            head = network.get_submodule(tap.layer).weight
        variance = features.var(dim=0, correction=0).mean().item()
        square = features.square().mean().item()
        metrics = classification_metrics(logits.cpu(), data.val.labels, data.task)
        details.append(
            {
                "epoch": epoch,
                "feature_rms": square**0.5,
                "feature_variance": variance,
                # Features that are all zero neither vary nor have a size.
                "relative_variance": variance / square if square else 0.0,
                "head_norm": head.norm().item(),
                "logit_rms": logits.square().mean().sqrt().item(),
                "val_cross_entropy": metrics["cross_entropy"],
                "val_accuracy": metrics["accuracy"],
            }
        )

    train_run(spec, root=root, device=device, on_epoch=look)
    return Measured(data, {"dataset": spec.dataset, "size": spec.size}, details)
