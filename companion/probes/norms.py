"""How large features and head are, epoch by epoch, with and without the penalty.

Features times c and a head times 1/c give the same predictions and c squared the penalty. So a
penalty can fall because the features shrink, or because they vary less for their size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion.probes import Measured
from companion.studies import every
from companion.studies.grid import DATASETS, MODELS
from varreg.features import FeatureTap
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import load_data, train_run
from varreg.lab.specs import RunSpec
from varreg.lab.statistics import mean_interval
from varreg.lab.training import Scaling

#: One unit a run: both networks, four weights, five seeds.
SETTINGS = every(seed=range(5), model=MODELS, variance_weight=(0.0, 0.01, 1.0, 100.0))


def measure(model: str, variance_weight: float, seed: int, **where: str | Path | None) -> Measured:
    """Train on PneumoniaMNIST and look at the validation images after every epoch.

    Args:
        model: Name of the network.
        variance_weight: Of the penalty, with all features and lambda 1.
        seed: Of the run.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

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
    data = load_data(spec, where.get("root"))
    scaling = Scaling.of(data.train.images, spec.normalize)
    details: list[dict[str, object]] = []

    def look(epoch: int, network: nn.Module) -> None:
        found, logits = sizes(network, scaling(data.val.images))
        metrics = classification_metrics(logits, data.val.labels, data.task)
        details.append(
            {"epoch": epoch, **found}
            | {f"val_{name}": metrics[name] for name in ("cross_entropy", "accuracy")}
        )

    train_run(spec, **where, on_epoch=look)
    return Measured(data, {"dataset": spec.dataset, "size": spec.size}, details)


@torch.inference_mode()
def sizes(network: nn.Module, images: Tensor) -> tuple[dict[str, float], Tensor]:
    """How large the features, the head and the logits of a network in eval mode are.

    Args:
        network: With a linear layer that makes the logits.
        images: A batch as it takes them, on any device.

    Returns:
        ``feature_rms``, ``feature_variance``, ``relative_variance``, ``head_norm`` and
        ``logit_rms``, see :func:`measure`; and the logits, on the CPU.
    """
    with FeatureTap(network) as tap:
        logits = network(images.to(next(network.parameters()).device))
        features = tap.take().double()
        head = network.get_submodule(tap.layer).weight
    variance = features.var(dim=0, correction=0).mean().item()
    square = features.square().mean().item()
    found = {
        "feature_rms": square**0.5,
        "feature_variance": variance,
        # Features that are all zero neither vary nor have a size.
        "relative_variance": variance / square if square else 0.0,
        "head_norm": head.norm().item(),
        "logit_rms": logits.square().mean().sqrt().item(),
    }
    return found, logits.cpu()


def variance_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Part the effect of the penalty on the feature variance into scale and shape.

    The variance is the mean square of the features times the relative variance. So the factor by
    which a penalty changes it, against the same seed without one, is a factor of scale (which the
    head can undo) times a factor of shape (which it cannot).

    Args:
        rows: Details of the probe ``norms``; the last epoch counts.

    Returns:
        Columns ``model, variance_weight`` and, as :class:`~varreg.lab.statistics.Interval` of the
        natural logarithm over seeds, ``variance``, ``scale``, ``shape`` and ``head`` (the squared
        norm of the head's weights).
    """
    columns = ["model", "variance_weight", "variance", "scale", "shape", "head"]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    last = rows[rows["epoch"] == rows["epoch"].max()]
    # Features that have collapsed to one value have no logarithm: their run is left out.
    last = last[last["feature_variance"] > 0]
    logs = last[["model", "variance_weight", "seed"]].assign(
        variance=np.log(last["feature_variance"]),
        scale=np.log(last["feature_variance"] / last["relative_variance"]),
        shape=np.log(last["relative_variance"]),
        head=2 * np.log(last["head_norm"]),
    )
    found = []
    for (model, weight), group in logs.groupby(["model", "variance_weight"]):
        free = logs[(logs["model"] == model) & (logs["variance_weight"] == 0)]
        change = (
            group.set_index("seed")[columns[2:]] - free.set_index("seed")[columns[2:]]
        ).dropna()
        if weight > 0 and len(change):
            found.append(
                {"model": model, "variance_weight": weight}
                | {name: mean_interval(change[name]) for name in columns[2:]}
            )
    return pd.DataFrame(found, columns=columns)
